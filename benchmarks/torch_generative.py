"""The encoders, decoders, generators and discriminators of gm_jax/models in plain PyTorch, with the same names.

Inputs are latents [B, D], or images NCHW in channels-last memory. Where a stride of 2 leaves an odd row and column of
padding, these networks put them where PyTorch's arguments do (`padding`, `output_padding`), which is the side opposite
to JAX's "SAME": the other side costs a copy. Networks that are `turned` therefore compute the image, turned by 180
degrees, that JAX's compute of a turned image; `peers_torch.copy_weights` turns the weights.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.torch_networks import flat, one_hot


def conv(inputs: int, outputs: int, kernel: int, stride: int, bias: bool = True) -> nn.Conv2d:
    """A convolution that divides the grid by the stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - stride + 1) // 2, bias=bias)


def conv_transpose(inputs: int, outputs: int, kernel: int, stride: int, bias: bool = True) -> nn.ConvTranspose2d:
    """A transposed convolution that multiplies the grid by the stride."""
    overlap = kernel - stride
    return nn.ConvTranspose2d(
        inputs, outputs, kernel, stride, padding=(overlap + 1) // 2, output_padding=overlap % 2, bias=bias
    )


def reading(grid: tuple[int, int, int], layer: nn.Module) -> nn.Module:
    """Note that the inputs of a layer are those of a grid (height, width, channels), whose weights turn with it."""
    layer.grid, layer.grid_axis = grid, 0
    return layer


def painting(grid: tuple[int, int, int], layer: nn.Module) -> nn.Module:
    """Note that the outputs of a layer are those of a grid (height, width, channels)."""
    layer.grid, layer.grid_axis = grid, -1
    return layer


def unflat(x: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """[B, H W C] -> [B, C, H, W] in channels-last memory, which moves nothing."""
    return x.view(-1, *grid).permute(0, 3, 1, 2)


class ConvEncoder(nn.Module):
    """3x3 convolutions of stride 2 with ReLU, perhaps a hidden dense layer, and a dense one."""

    turned = True

    def __init__(self, shape, outputs, features=(32, 64), dense=0):
        super().__init__()
        self.depth, (height, width, channels) = len(features), shape
        for i, each in enumerate(features):
            self.add_module(f"conv{i}", conv(channels, each, 3, 2))
            height, width, channels = height // 2, width // 2, each
        grid = (height, width, channels)
        if dense:
            self.dense = reading(grid, nn.Linear(math.prod(grid), dense))
            self.head = nn.Linear(dense, outputs)
        else:
            self.dense = None
            self.head = reading(grid, nn.Linear(math.prod(grid), outputs))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.depth):
            x = F.relu(getattr(self, f"conv{i}")(x), inplace=True)
        x = flat(x)
        if self.dense is not None:
            x = F.relu(self.dense(x), inplace=True)
        return self.head(x)


class ConvDecoder(nn.Module):
    """A dense layer, transposed 3x3 convolutions of stride 2, and one of stride 1."""

    turned = True

    def __init__(self, shape, latents, features=(32, 64)):
        super().__init__()
        self.depth, shrunk, channels = len(features), 2 ** len(features), features[-1]
        self.grid = (shape[0] // shrunk, shape[1] // shrunk, channels)
        self.dense = painting(self.grid, nn.Linear(latents, math.prod(self.grid)))
        for i, each in enumerate(reversed(features)):
            self.add_module(f"conv{i}", conv_transpose(channels, each, 3, 2))
            channels = each
        self.head = conv_transpose(channels, shape[2], 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = unflat(F.relu(self.dense(z), inplace=True), self.grid)
        for i in range(self.depth):
            x = F.relu(getattr(self, f"conv{i}")(x), inplace=True)
        return self.head(x)


class MLPEncoder(nn.Module):
    """Dense layers with (leaky) ReLU over the pixels."""

    def __init__(self, shape, outputs, hidden=(512, 512), slope=0.0):
        super().__init__()
        self.depth, self.slope, inputs = len(hidden), slope, math.prod(shape)
        for i, units in enumerate(hidden):
            self.add_module(f"dense{i}", nn.Linear(inputs, units))
            inputs = units
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = flat(x)
        for i in range(self.depth):
            x = F.leaky_relu(getattr(self, f"dense{i}")(x), self.slope, inplace=True)
        return self.head(x)


class MLPDecoder(nn.Module):
    """The mirror of `MLPEncoder`."""

    def __init__(self, shape, latents, hidden=(512, 512), slope=0.0):
        super().__init__()
        self.shape, self.depth, self.slope, inputs = shape, len(hidden), slope, latents
        for i, units in enumerate(reversed(hidden)):
            self.add_module(f"dense{i}", nn.Linear(inputs, units))
            inputs = units
        self.head = nn.Linear(inputs, math.prod(shape))

    def forward(self, z: Tensor) -> Tensor:
        for i in range(self.depth):
            z = F.leaky_relu(getattr(self, f"dense{i}")(z), self.slope, inplace=True)
        return unflat(self.head(z), self.shape)


class ResidualBlocks(nn.Module):
    """Residual dense blocks of one width with layer norm before each."""

    def __init__(self, width, blocks):
        super().__init__()
        self.blocks = blocks
        for i in range(blocks):
            self.add_module(f"norm{i}", nn.LayerNorm(width, eps=1e-6))
            self.add_module(f"in{i}", nn.Linear(width, width))
            self.add_module(f"out{i}", nn.Linear(width, width))
        self.last_norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.blocks):
            h = F.silu(getattr(self, f"in{i}")(getattr(self, f"norm{i}")(x)))
            x = x + getattr(self, f"out{i}")(h)
        return F.silu(self.last_norm(x))


class ResidualEncoder(nn.Module):
    """Residual dense blocks over the pixels."""

    def __init__(self, shape, outputs, width=512, blocks=2):
        super().__init__()
        self.enter = nn.Linear(math.prod(shape), width)
        self.blocks = ResidualBlocks(width, blocks)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.enter(flat(x))))


class ResidualDecoder(nn.Module):
    """The mirror of `ResidualEncoder`."""

    def __init__(self, shape, latents, width=512, blocks=2):
        super().__init__()
        self.shape = shape
        self.enter = nn.Linear(latents, width)
        self.blocks = ResidualBlocks(width, blocks)
        self.head = nn.Linear(width, math.prod(shape))

    def forward(self, z: Tensor) -> Tensor:
        return unflat(self.head(self.blocks(self.enter(z))), self.shape)


class VAENetwork(nn.Module):
    """An encoder and a decoder, called one by one, and perhaps the logarithm of the pixels' standard deviation."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, learned_scale: bool):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        if learned_scale:
            self.log_scale = nn.Parameter(torch.tensor(math.log(0.1)))

    def compile(self, *arguments, **keywords) -> None:
        """Compile what is called: both halves."""
        self.encoder.compile(*arguments, **keywords)
        self.decoder.compile(*arguments, **keywords)


def conv_coders(shape, latents, features=(32, 64), dense=0) -> tuple[nn.Module, nn.Module]:
    """The encoder and the decoder called "conv"."""
    return ConvEncoder(shape, 2 * latents, features, dense), ConvDecoder(shape, latents, features)


def residual_coders(shape, latents, width=512, blocks=2) -> tuple[nn.Module, nn.Module]:
    """The encoder and the decoder called "residual"."""
    return ResidualEncoder(shape, 2 * latents, width, blocks), ResidualDecoder(shape, latents, width, blocks)


def mlp_coders(shape, latents, hidden=(512, 512), slope=0.0) -> tuple[nn.Module, nn.Module]:
    """The encoder and the decoder called "mlp"."""
    return MLPEncoder(shape, 2 * latents, hidden, slope), MLPDecoder(shape, latents, hidden, slope)


CODERS = {"conv": conv_coders, "mlp": mlp_coders, "residual": residual_coders}  # by config.model.name


def joined(z: Tensor, label: Tensor | None, classes: int) -> Tensor:
    """Vectors and, if there are classes, the label, one-hot."""
    return torch.cat([z, one_hot(label, classes, z)], 1) if classes else z


class Generator(nn.Module):
    """DCGAN's generator: transposed convolutions with batch norm."""

    turned = True

    def __init__(
        self,
        shape,
        latents,
        width=64,
        multipliers=(8, 4, 2, 1),
        strides=(2, 2, 2, 2),
        kernels=(4, 4, 4, 4),
        dense=False,
        hidden=0,
        slope=0.0,
        classes=0,
    ):
        super().__init__()
        self.depth, self.dense, self.slope, self.classes = len(multipliers), dense, slope, classes
        latents += classes
        self.hidden = nn.Linear(latents, hidden, bias=False) if hidden else nn.Identity()
        self.hidden_norm = nn.BatchNorm1d(hidden) if hidden else None
        latents = hidden or latents
        channels, factor = [width * m for m in multipliers], math.prod(strides)
        self.grid = (shape[0] // factor, shape[1] // factor, channels[0])
        if dense:
            self.stem = painting(self.grid, nn.Linear(latents, math.prod(self.grid), bias=False))
            self.stem_norm = painting(self.grid, nn.BatchNorm1d(math.prod(self.grid)))
        else:
            self.stem = nn.ConvTranspose2d(latents, channels[0], self.grid[:2], bias=False)
            self.stem_norm = nn.BatchNorm2d(channels[0])
        outputs = [*channels[1:], shape[2]]
        for i in range(self.depth):
            self.add_module(f"conv{i}", conv_transpose(channels[i], outputs[i], kernels[i], strides[i], bias=False))
            if i < self.depth - 1:
                self.add_module(f"norm{i}", nn.BatchNorm2d(outputs[i]))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        z = joined(z, label, self.classes)
        if self.hidden_norm:
            z = F.leaky_relu(self.hidden_norm(self.hidden(z)), self.slope, inplace=True)
        x = self.stem_norm(self.stem(z if self.dense else z[:, :, None, None]))
        x = F.leaky_relu(x, self.slope, inplace=True)
        x = unflat(x, self.grid) if self.dense else x
        for i in range(self.depth):
            x = getattr(self, f"conv{i}")(x)
            if i < self.depth - 1:
                x = F.leaky_relu(getattr(self, f"norm{i}")(x), self.slope, inplace=True)
        return torch.tanh(x)


class SpectralNorm(nn.Module):
    """Runs a layer with its kernel, as a matrix [out, in], divided by its largest singular value.

    Miyato et al. (2018), algorithm 1: v = W^T u / |W^T u|, u = W v / |W v|, sigma = u^T W v; a training call keeps u.
    """

    def __init__(self, outputs: int):
        super().__init__()
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))

    def forward(self, layer: nn.Module, x: Tensor) -> Tensor:
        matrix = layer.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(matrix.T @ self.u, dim=0)
            u = F.normalize(matrix @ v, dim=0)
            if self.training:
                self.u.copy_(u)
        return torch.func.functional_call(layer, {"weight": layer.weight / (u @ matrix @ v)}, x)


class Discriminator(nn.Module):
    """DCGAN's discriminator: convolutions down to one number.

    Labels are seen as one-hot maps beside the image, or projected on the last features (Miyato & Koyama 2018).
    """

    turned = True

    def __init__(
        self,
        shape,
        width=64,
        multipliers=(1, 2, 4, 8),
        strides=(2, 2, 2, 2),
        kernels=(4, 4, 4, 4),
        dense=False,
        hidden=0,
        batch_norm=True,
        dropout=0.0,
        bias=True,
        slope=0.2,
        spectral_norm=False,
        classes=0,
        projection=False,
    ):
        super().__init__()
        self.depth, self.dense, self.slope = len(multipliers), dense, slope
        self.classes, self.projection = classes, projection
        rows, columns, channels = shape
        channels += 0 if projection else classes
        for i, (multiplier, stride, kernel) in enumerate(zip(multipliers, strides, kernels, strict=True)):
            norm, outputs = batch_norm and i > 0, width * multiplier
            self.add_module(f"conv{i}", conv(channels, outputs, kernel, stride, bias and not norm))
            self.add_module(f"norm{i}", nn.BatchNorm2d(outputs) if norm else nn.Identity())
            rows, columns, channels = rows // stride, columns // stride, outputs
        self.dropout = nn.Dropout(dropout)
        grid = (rows, columns, channels)
        self.hidden = reading(grid, nn.Linear(math.prod(grid), hidden, bias and not batch_norm)) if hidden else None
        self.norm_hidden = nn.BatchNorm1d(hidden) if hidden and batch_norm else nn.Identity()
        if hidden:
            self.head = nn.Linear(hidden, 1, bias)
        elif dense:
            self.head = reading(grid, nn.Linear(math.prod(grid), 1, bias))
        else:
            self.head = nn.Conv2d(channels, 1, grid[:2], bias=bias)
        self.label = nn.Linear(classes, hidden or channels, bias=False) if classes and projection else None
        self.spectral_norm = spectral_norm
        if spectral_norm:
            layers = [(n, m) for n, m in self.named_children() if isinstance(m, (nn.Conv2d, nn.Linear))]
            for name, layer in layers:
                self.add_module(f"{name}_spectral", SpectralNorm(len(layer.weight)))

    def layer(self, name: str, x: Tensor) -> Tensor:
        """Run a layer, perhaps with spectral norm."""
        layer = getattr(self, name)
        return getattr(self, f"{name}_spectral")(layer, x) if self.spectral_norm else layer(x)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        classes = one_hot(label, self.classes, x) if self.classes else None
        if self.classes and not self.projection:
            x = torch.cat([x, classes[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)
        for i in range(self.depth):
            x = getattr(self, f"norm{i}")(self.layer(f"conv{i}", x))
            x = self.dropout(F.leaky_relu(x, self.slope, inplace=True))
        if self.hidden:
            x = self.norm_hidden(self.layer("hidden", flat(x)))
            x = self.dropout(F.leaky_relu(x, self.slope, inplace=True))
        logits = self.layer("head", flat(x) if self.dense and not self.hidden else x).flatten()
        if self.projection:
            logits = logits + (self.layer("label", classes) * (x if self.hidden else x.sum((2, 3)))).sum(1)
        return logits


class DenseGenerator(nn.Module):
    """Dense layers with leaky ReLU, batch norm after all but the first and the last."""

    def __init__(self, shape, latents, hidden=(128, 256, 512, 1024), slope=0.2, classes=0):
        super().__init__()
        self.shape, self.depth, self.slope, self.classes = shape, len(hidden), slope, classes
        inputs = latents + classes
        for i, units in enumerate(hidden):
            self.add_module(f"dense{i}", nn.Linear(inputs, units, bias=i == 0))
            self.add_module(f"norm{i}", nn.BatchNorm1d(units) if i else nn.Identity())
            inputs = units
        self.head = nn.Linear(inputs, math.prod(shape))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        z = joined(z, label, self.classes)
        for i in range(self.depth):
            z = getattr(self, f"norm{i}")(getattr(self, f"dense{i}")(z))
            z = F.leaky_relu(z, self.slope, inplace=True)
        return unflat(torch.tanh(self.head(z)), self.shape)


class DenseDiscriminator(nn.Module):
    """Dense layers with leaky ReLU over the pixels and, one-hot, the label."""

    def __init__(self, shape, hidden=(512, 256), dropout=0.0, slope=0.2, classes=0):
        super().__init__()
        self.depth, self.slope, self.classes = len(hidden), slope, classes
        inputs = math.prod(shape) + classes
        for i, units in enumerate(hidden):
            self.add_module(f"dense{i}", nn.Linear(inputs, units))
            inputs = units
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(inputs, 1)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        x = joined(flat(x), label, self.classes)
        for i in range(self.depth):
            x = self.dropout(F.leaky_relu(getattr(self, f"dense{i}")(x), self.slope, inplace=True))
        return self.head(x).flatten()


GANS = {"dcgan": (Generator, Discriminator), "dense": (DenseGenerator, DenseDiscriminator)}  # by config.model.name
