"""The networks of gm_jax.models.stylegan in PyTorch, with the same names. Images are NCHW in channels-last memory.

Blurs are depthwise convolutions, which PyTorch has fast, and resizing is joined with the convolution beside it, as in
the authors' code for large images.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.torch_networks import flat
from gm_jax.models.stylegan import EPSILON, GROUP, SLOPE

GAIN = math.sqrt(2.0)


class EqualisedLinear(nn.Linear):
    """A dense layer whose weights ~ N(0, 1) are scaled when used; `rate` is its learning rate in those of others."""

    def __init__(self, inputs: int, outputs: int, gain: float = GAIN, rate: float = 1.0):
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight, std=1.0 / rate)
        nn.init.zeros_(self.bias)
        self.scale, self.rate = gain * rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualisedConv(nn.Conv2d):
    """A convolution likewise; "down" takes means of 2x2 pixels after it."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, gain: float = GAIN, down=False, bias: bool = True):
        super().__init__(inputs, outputs, size, padding=size // 2, bias=bias)
        nn.init.normal_(self.weight)
        if bias:
            nn.init.zeros_(self.bias)
        self.scale, self.down = gain / math.sqrt(inputs * size**2), down

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if self.down:  # the means of 2x2 neighbouring weights, in steps of 2 pixels
            return F.conv2d(x, F.avg_pool2d(weight, 2, 1, 1), self.bias, stride=2, padding=1)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class EqualisedUp(nn.ConvTranspose2d):
    """A 3x3 convolution likewise, of the image doubled by repeating its pixels."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, bias=False)
        nn.init.normal_(self.weight)
        self.scale = GAIN / math.sqrt(inputs * 9)

    def forward(self, x: Tensor) -> Tensor:
        weight = F.avg_pool2d(self.weight * (4.0 * self.scale), 2, 1, 1)  # the sums of 2x2 neighbouring weights
        return F.conv_transpose2d(x, weight, stride=2, padding=1)


class Blur(nn.Module):
    """Each channel convolved with [1, 2, 1] / 4 along both axes."""

    def __init__(self, channels: int):
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("filter", (line[:, None] * line).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filter, padding=1, groups=len(self.filter))


def double(x: Tensor) -> Tensor:
    """Repeat each pixel 2x2 times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def halve(x: Tensor) -> Tensor:
    """Return the means of 2x2 pixels."""
    return F.avg_pool2d(x, 2)


def activate(x: Tensor) -> Tensor:
    """Return the leaky ReLU of what is used nowhere else."""
    return F.leaky_relu(x, SLOPE, inplace=True)


def batch_deviation(x: Tensor) -> Tensor:
    """Append a map of the mean standard deviation within groups of neighbours in the batch."""
    size = min(GROUP, len(x))
    variance = x.unflatten(0, (-1, size)).var(1, correction=0)
    deviation = torch.sqrt(variance + EPSILON).mean((1, 2, 3)).repeat_interleave(size)
    return torch.cat([x, deviation[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


class Mapping(nn.Module):
    """Latents z [B, D] to styles' w [B, D]."""

    def __init__(self, width: int, layers: int = 8, rate: float = 0.01):
        super().__init__()
        self.layers = layers
        for i in range(layers):
            self.add_module(f"dense{i}", EqualisedLinear(width, width, rate=rate))

    def forward(self, z: Tensor) -> Tensor:
        x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + EPSILON)
        for i in range(self.layers):
            x = activate(getattr(self, f"dense{i}")(x))
        return x


class Style(nn.Module):
    """Noise, bias, activation, instance norm, and the scale and shift that w asks for."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.noise = nn.Parameter(torch.zeros(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))
        self.affine = EqualisedLinear(width, 2 * channels, gain=1.0)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        x = activate(torch.addcmul(x + self.bias, noise, self.noise))
        x = x - x.mean((2, 3), keepdim=True)  # not F.instance_norm, which copies channels-last memory
        scale, shift = self.affine(w)[:, :, None, None].chunk(2, 1)
        factor = torch.rsqrt(x.square().mean((2, 3), keepdim=True) + EPSILON) * (scale + 1.0)
        return torch.addcmul(shift, x, factor)


class Synthesis(nn.Module):
    """Styles w [B, layers, D], two layers a block, to images; `every_block` are those that show one at some time."""

    def __init__(self, colours: int, channels, width: int, every_block):
        super().__init__()
        self.constant = nn.Parameter(torch.ones(1, channels[0], 4, 4))
        for i in range(max(every_block) + 1):
            side = 4 << i
            if i:
                self.add_module(f"up{side}", EqualisedUp(channels[i - 1], channels[i]))
                self.add_module(f"blur{side}", Blur(channels[i]))
            self.add_module(f"style{side}_0", Style(channels[i], width))
            self.add_module(f"conv{side}", EqualisedConv(channels[i], channels[i], bias=False))
            self.add_module(f"style{side}_1", Style(channels[i], width))
            if i in every_block:
                self.add_module(f"to_image{side}", EqualisedConv(channels[i], colours, 1, gain=1.0))

    def forward(self, w: Tensor, level: float, shown) -> Tensor:
        x = self.constant.expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        image, sides = 0.0, [4 << i for i in range(max(shown) + 1)]
        pixels = [side * side for side in sides for _ in range(2)]
        noises = torch.randn(len(w), sum(pixels), device=w.device).split(pixels, dim=1)
        for i, side in enumerate(sides):
            if i:
                x = getattr(self, f"blur{side}")(getattr(self, f"up{side}")(x))
            first, second = (noise.view(-1, 1, side, side) for noise in noises[2 * i : 2 * i + 2])
            x = getattr(self, f"style{side}_0")(x, w[:, 2 * i], first)
            x = getattr(self, f"style{side}_1")(getattr(self, f"conv{side}")(x), w[:, 2 * i + 1], second)
            if i > min(shown):
                image = double(image)
            if i in shown:
                image = image + max(0.0, 1.0 - abs(level - i)) * getattr(self, f"to_image{side}")(x)
        return image


class Generator(nn.Module):
    """Mapping and synthesis, called one by one."""

    def __init__(self, mapping: Mapping, synthesis: Synthesis):
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis

    def compile(self, *arguments, **keywords) -> None:
        """Compile what is called: both halves."""
        self.mapping.compile(*arguments, **keywords)
        self.synthesis.compile(*arguments, **keywords)


class Discriminator(nn.Module):
    """Images to logits."""

    def __init__(self, colours: int, channels, every_block):
        super().__init__()
        for i in range(max(every_block) + 1):
            side = 4 << i
            if i in every_block:
                self.add_module(f"from_image{side}", EqualisedConv(colours, channels[i], 1))
            if i:
                self.add_module(f"conv{side}", EqualisedConv(channels[i], channels[i]))
                self.add_module(f"blur{side}", Blur(channels[i]))
                self.add_module(f"down{side}", EqualisedConv(channels[i], channels[i - 1], down=True))
        self.conv4 = EqualisedConv(channels[0] + 1, channels[0])
        self.hidden = EqualisedLinear(16 * channels[0], channels[0])
        self.head = EqualisedLinear(channels[0], 1, gain=1.0)

    def forward(self, image: Tensor, level: float, shown) -> Tensor:
        x = None
        for i in reversed(range(max(shown) + 1)):
            side = 4 << i
            if i in shown:
                seen = activate(getattr(self, f"from_image{side}")(image))
                x = seen if x is None else torch.lerp(x, seen, min(max(i + 1.0 - level, 0.0), 1.0))
                image = halve(image)
            if i:
                x = getattr(self, f"blur{side}")(activate(getattr(self, f"conv{side}")(x)))
                x = activate(getattr(self, f"down{side}")(x))
        x = activate(self.conv4(batch_deviation(x)))
        return self.head(activate(self.hidden(flat(x))))[:, 0]
