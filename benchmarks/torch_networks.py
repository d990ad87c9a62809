"""The networks of gm_jax/models in plain PyTorch, with the same names, so that weights can be copied by name.

Inputs are NCHW in channels-last memory. Strided convolutions pad as JAX's "SAME" does.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def shrink(inputs: int, outputs: int, bias: bool = True) -> nn.Module:
    """A 3x3 convolution with stride 2 and "SAME" padding, which for even sizes is one row and column at the end."""
    return Padded(inputs, outputs, 3, stride=2, bias=bias)


class Padded(nn.Conv2d):
    """A convolution that sees zeros after the last row and column."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


def flat(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H W C]; in channels-last memory that moves nothing."""
    return x.permute(0, 2, 3, 1).flatten(1)


def one_hot(label: Tensor, classes: int, like: Tensor) -> Tensor:
    """[B] -> [B, classes] in the type of another tensor."""
    return F.one_hot(label.long(), classes).to(like.dtype)


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of at least 4 channels, at most 32 groups."""
    return nn.GroupNorm(math.gcd(32, max(channels // 4, 1)), channels)


def batch_norm(channels: int, scale: bool = True) -> nn.BatchNorm2d:
    """Batch norm whose scale may stay 1."""
    norm = nn.BatchNorm2d(channels)
    norm.weight.requires_grad_(scale)
    return norm


class MLP(nn.Module):
    """Dense layers with ReLU."""

    def __init__(self, shape, classes, hidden=(64, 32), batch_norm=False, dropout=0.0):
        super().__init__()
        self.depth, units = len(hidden), math.prod(shape)
        for i, outputs in enumerate(hidden):
            self.add_module(f"dense{i}" if i else "stem", nn.Linear(units, outputs, bias=not batch_norm))
            self.add_module(f"norm{i}", nn.BatchNorm1d(outputs) if batch_norm else nn.Identity())
            units = outputs
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = flat(x)
        for i in range(self.depth):
            x = getattr(self, f"dense{i}" if i else "stem")(x)
            x = self.dropout(F.relu(getattr(self, f"norm{i}")(x)))
        return self.head(x)


class CNN(nn.Module):
    """3x3 convolutions and max-pooling, two dense layers."""

    def __init__(self, shape, classes, features=(32, 64, 64), dense=64, dropout=0.0):
        super().__init__()
        self.depth, (height, width, channels) = len(features), shape
        for i, outputs in enumerate(features):
            self.add_module(f"conv{i}" if i else "stem", nn.Conv2d(channels, outputs, 3))
            height, width = (n // 2 - 2 if i else n - 2 for n in (height, width))
            channels = outputs
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(height * width * channels, dense)
        self.head = nn.Linear(dense, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.depth):
            x = F.max_pool2d(x, 2) if i else x
            x = F.relu(getattr(self, f"conv{i}" if i else "stem")(x))
        x = F.relu(self.dense(self.dropout(flat(x))))
        return self.head(self.dropout(x))


class LeNet(nn.Module):
    """5x5 convolutions and max-pooling, two dense layers."""

    def __init__(self, shape, classes, features=(32, 64), dense=128, dropout=0.5):
        super().__init__()
        self.depth, (height, width, channels) = len(features), shape
        for i, outputs in enumerate(features):
            self.add_module(f"conv{i}" if i else "stem", nn.Conv2d(channels, outputs, 5, padding=2))
            height, width, channels = height // 2, width // 2, outputs
        self.dense = nn.Linear(height * width * channels, dense)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dense, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.depth):
            x = F.relu(F.max_pool2d(getattr(self, f"conv{i}" if i else "stem")(x), 2))
        return self.head(self.dropout(F.relu(self.dense(flat(x)))))


class SpeedNet(nn.Module):
    """Blocks of convolutions with batch norm and GELU."""

    def __init__(self, shape, classes, widths=(64, 256, 256), depth=2, scale=1 / 9):
        super().__init__()
        self.blocks, self.depth, self.scale = len(widths), depth, scale
        patch = 4 * shape[2]
        self.stem = nn.Conv2d(shape[2], patch, 2, bias=False)
        self.stem_norm = batch_norm(patch, scale=False)
        channels = 2 * patch
        for block, width in enumerate(widths):
            for i in range(depth):
                self.add_module(f"block{block}_{i}", nn.Conv2d(channels, width, 3, padding=1, bias=False))
                self.add_module(f"block{block}_{i}_norm", batch_norm(width, scale=False))
                channels = width
        self.head = nn.Linear(channels, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x))
        x = F.gelu(torch.cat([x, -x], 1), approximate="tanh")
        for block in range(self.blocks):
            for i in range(self.depth):
                x = getattr(self, f"block{block}_{i}")(x)
                x = x if i else F.max_pool2d(x, 2)
                x = F.gelu(getattr(self, f"block{block}_{i}_norm")(x), approximate="tanh")
        return self.head(x.amax((2, 3))) * self.scale


class AlexNet(nn.Module):
    """Five convolutions and a dense layer."""

    def __init__(self, shape, classes, features=(64, 192, 384, 256, 256), stem_stride=2, batch_norm=False, dropout=0.5):
        super().__init__()
        self.depth, (height, width, channels) = len(features), shape
        for i, outputs in enumerate(features):
            strided = i == 0 and stem_stride == 2
            conv = shrink(channels, outputs, not batch_norm) if strided else same(channels, outputs, not batch_norm)
            self.add_module(f"conv{i}" if i else "stem", conv)
            self.add_module(f"norm{i}", nn.BatchNorm2d(outputs) if batch_norm else nn.Identity())
            channels = outputs
            height, width = (n // (2 if strided else 1) // (2 if self.pools(i) else 1) for n in (height, width))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(height * width * channels, classes)

    def pools(self, i: int) -> bool:
        """Whether max-pooling follows convolution i."""
        return i in (0, 1, self.depth - 1)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.depth):
            x = getattr(self, f"conv{i}" if i else "stem")(x)
            x = F.max_pool2d(x, 2) if self.pools(i) else x
            x = F.relu(getattr(self, f"norm{i}")(x))
        return self.head(self.dropout(flat(x)))


def same(inputs: int, outputs: int, bias: bool = True) -> nn.Conv2d:
    """A 3x3 convolution that keeps the grid."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a skip."""

    def __init__(self, inputs, features, stride):
        super().__init__()
        outputs = 4 * features
        self.conv1 = nn.Conv2d(inputs, features, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(features)
        self.conv2 = shrink(features, features, False) if stride == 2 else same(features, features, False)
        self.norm2 = nn.BatchNorm2d(features)
        self.conv3 = nn.Conv2d(features, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.has_skip = inputs != outputs or stride != 1
        if self.has_skip:
            self.skip = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.skip_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        h = F.relu(self.norm2(self.conv2(h)))
        h = self.norm3(self.conv3(h))
        return F.relu(h + (self.skip_norm(self.skip(x)) if self.has_skip else x))


class ResNet(nn.Module):
    """Stages of bottleneck blocks: ResNet-50."""

    def __init__(self, shape, classes, stages=(3, 4, 6, 3), width=64, imagenet_stem=False):
        super().__init__()
        self.stem = nn.Conv2d(shape[2], width, 7, 2, 3, bias=False) if imagenet_stem else same(shape[2], width, False)
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet_stem else nn.Identity()
        self.stem_norm = nn.BatchNorm2d(width)
        self.blocks, channels = [], width
        for stage, blocks in enumerate(stages):
            for i in range(blocks):
                self.blocks.append(f"stage{stage}_{i}")
                features = width * 2**stage
                self.add_module(self.blocks[-1], Bottleneck(channels, features, 2 if stage and i == 0 else 1))
                channels = 4 * features
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem_norm(self.stem(x))))
        for name in self.blocks:
            x = getattr(self, name)(x)
        return self.head(x.mean((2, 3)))


class ResNet9(nn.Module):
    """Page's residual network."""

    def __init__(self, shape, classes, widths=(64, 128, 256, 512), residual=(1, 3), scale=0.125):
        super().__init__()
        self.depth, self.residual, self.scale, channels = len(widths), residual, scale, shape[2]
        for i, features in enumerate(widths):
            self.add(channels, features, f"layer{i}" if i else "stem")
            if i in residual:
                self.add(features, features, f"residual{i}_0")
                self.add(features, features, f"residual{i}_1")
            channels = features
        self.head = nn.Linear(channels, classes, bias=False)

    def add(self, inputs: int, outputs: int, name: str) -> None:
        """Add a convolution and its norm."""
        self.add_module(name, same(inputs, outputs, False))
        self.add_module(f"{name}_norm", nn.BatchNorm2d(outputs))

    def layer(self, x: Tensor, name: str, pool: bool = False) -> Tensor:
        x = getattr(self, name)(x)
        x = F.max_pool2d(x, 2) if pool else x
        return F.relu(getattr(self, f"{name}_norm")(x))

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.depth):
            x = self.layer(x, f"layer{i}" if i else "stem", pool=i > 0)
            if i in self.residual:
                x = x + self.layer(self.layer(x, f"residual{i}_0"), f"residual{i}_1")
        return self.head(x.amax((2, 3))) * self.scale


CLASSIFIERS = {
    "mlp": MLP,
    "cnn": CNN,
    "lenet": LeNet,
    "speednet": SpeedNet,
    "alexnet": AlexNet,
    "resnet": ResNet,
    "resnet9": ResNet9,
}


class ResidualBlock(nn.Module):
    """Two convolutions around an added time embedding, beside a skip."""

    def __init__(self, inputs, features, time, dropout):
        super().__init__()
        self.norm1 = group_norm(inputs)
        self.conv1 = same(inputs, features)
        self.time = nn.Linear(time, features)
        self.norm2 = group_norm(features)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = same(features, features)
        self.skip = nn.Conv2d(inputs, features, 1) if inputs != features else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(time)[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.skip(x) + h


class SelfAttention(nn.Module):
    """Residual self-attention over the positions of a feature map."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        qkv = self.qkv(tokens).reshape(batch, height * width, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, tokens, channels / heads]
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        out = self.out(mixed.reshape(batch, height, width, channels))
        return x + out.permute(0, 3, 1, 2)


class DenseMiddle(nn.Module):
    """Residual fully-connected blocks over the whole grid of `positions`."""

    def __init__(self, channels, positions, time, width, blocks=2):
        super().__init__()
        narrow = max(channels // 2, 1)
        self.blocks, inputs = blocks, narrow * positions
        self.norm = group_norm(channels)
        self.narrow = nn.Linear(channels, narrow)
        self.enter, self.time = nn.Linear(inputs, width), nn.Linear(time, width)
        for i in range(blocks):
            self.add_module(f"norm{i}", nn.LayerNorm(width, eps=1e-6))
            self.add_module(f"in{i}", nn.Linear(width, width))
            self.add_module(f"time{i}", nn.Linear(time, width))
            self.add_module(f"out{i}", nn.Linear(width, width))
        self.last_norm = nn.LayerNorm(width, eps=1e-6)
        self.leave = nn.Linear(width, inputs)
        self.widen = nn.Linear(narrow, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        narrow = self.narrow(F.silu(self.norm(x)).permute(0, 2, 3, 1))
        h = self.enter(narrow.flatten(1)) + self.time(time)
        for i in range(self.blocks):
            r = getattr(self, f"in{i}")(getattr(self, f"norm{i}")(h))
            h = h + getattr(self, f"out{i}")(F.silu(r + getattr(self, f"time{i}")(time)))
        h = self.leave(F.silu(self.last_norm(h)))
        return x + self.widen(h.view(narrow.shape)).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """The U-Net for square images; colours fold into channels in another order than in gm_jax.

    With `classes` it sees labels in 0 ... classes, where `classes` means "any", through a product with one-hot vectors.
    """

    def __init__(
        self, shape, width, multipliers, blocks, attention, heads, dropout, space_to_depth, dense=0, classes=0
    ):
        super().__init__()
        self.width, self.fold, self.classes = width, space_to_depth, classes
        self.time1, self.time2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, 4 * width)
        self.label = nn.Linear(classes + 1, 4 * width, bias=False) if classes else None
        self.settings = (attention, heads, dropout)
        size, pixels = shape[0] // space_to_depth, shape[2] * space_to_depth**2
        self.enter = same(pixels, width)
        channels, skips, top = width, [width], len(multipliers) - 1
        self.down, self.up = [], []  # names, in the order of the forward pass
        for level, multiplier in enumerate(multipliers):
            for block in range(blocks):
                self.down.append(self.add(f"down{level}_{block}", channels, width * multiplier, size))
                channels = width * multiplier
                skips.append(channels)
            if level < top:
                self.down.append(f"shrink{level}")
                self.add_module(self.down[-1], shrink(channels, channels))
                size = size // 2
                skips.append(channels)
        self.dense = dense
        if dense:
            self.middle_attention = SelfAttention(channels, heads)
            self.middle_dense = DenseMiddle(channels, size**2, 4 * width, dense)
        else:
            self.add("middle_0", channels, channels, size, attend=True)
            self.add("middle_1", channels, channels, size, attend=False)
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for block in range(blocks + 1):
                self.up.append(self.add(f"up{level}_{block}", channels + skips.pop(), width * multiplier, size))
                channels = width * multiplier
            if level:
                self.up.append(f"grow{level}")
                self.add_module(self.up[-1], same(channels, channels))
                size = size * 2
        self.norm = group_norm(channels)
        self.leave = same(channels, pixels)

    def add(self, name: str, inputs: int, outputs: int, size: int, attend: bool | None = None) -> str:
        """Add a residual block and, where the grid size asks for it (or `attend` does), self-attention."""
        attention, heads, dropout = self.settings
        self.add_module(name, ResidualBlock(inputs, outputs, 4 * self.width, dropout))
        attend = size in attention if attend is None else attend
        self.add_module(f"{name}_attention", SelfAttention(outputs, heads) if attend else nn.Identity())
        return name

    def block(self, name: str, h: Tensor, time: Tensor) -> Tensor:
        return getattr(self, f"{name}_attention")(getattr(self, name)(h, time))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        time = self.time2(F.silu(self.time1(sinusoidal(t, self.width))))
        if self.classes:
            any_class = torch.full((len(x),), self.classes, device=x.device)
            time = time + self.label(one_hot(any_class if label is None else label, self.classes + 1, time))
        time = F.silu(time)
        h = self.enter(F.pixel_unshuffle(x, self.fold))
        skips = [h]
        for name in self.down:
            h = getattr(self, name)(h) if name.startswith("shrink") else self.block(name, h, time)
            skips.append(h)
        if self.dense:
            h = self.middle_dense(self.middle_attention(h), time)
        else:
            h = self.block("middle_1", self.block("middle_0", h, time), time)
        for name in self.up:
            if name.startswith("grow"):
                h = getattr(self, name)(F.interpolate(h, scale_factor=2, mode="nearest"))
            else:
                h = self.block(name, torch.cat([h, skips.pop()], 1), time)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(h))), self.fold)


def sinusoidal(t: Tensor, features: int, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of t [B] at geometrically spaced frequencies: [B, features]."""
    half = features // 2
    frequencies = torch.exp(-math.log(max_period) / max(half - 1, 1) * torch.arange(half, device=t.device))
    angles = t[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)
