"""Residual networks: ResNet-50 and its kin (He et al. 2016), and ResNet-9, made to train fast."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.layers.conv import Conv
from gm_jax.layers.norm import batch_norm
from gm_jax.layers.pool import global_max_pool, max_pool, overlapping_max_pool
from gm_jax.layers.stream import sum_once

convolution = functools.partial(Conv, use_bias=False, kernel_init=nn.initializers.he_normal())


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a skip; the last batch norm starts at zero, so the block as the identity."""

    features: int  # of the 3x3 convolution; four times as many leave the block
    stride: int = 1  # of the 3x3 convolution
    axis_name: str | None = None
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(convolution, dtype=self.dtype)
        norm = functools.partial(batch_norm, train, self.axis_name, self.dtype)
        outputs = 4 * self.features
        x = sum_once(x)
        h = nn.relu(norm(name="norm1")(conv(self.features, 1, name="conv1")(x)))
        h = nn.relu(norm(name="norm2")(conv(self.features, 3, strides=self.stride, name="conv2")(h)))
        h = norm(name="norm3", scale_init=nn.initializers.zeros)(conv(outputs, 1, name="conv3")(h))
        if x.shape[-1] != outputs or self.stride != 1:
            x = norm(name="skip_norm")(conv(outputs, 1, strides=self.stride, name="skip")(x))
        return nn.relu(x + h)


class ResNet(nn.Module):
    """ResNet of bottleneck blocks, with the stem for small images: 3x3, stride 1, no pooling.

    The defaults are ResNet-50: 23,520,842 parameters for ten classes, 23,528,522 with the stem for ImageNet.
    """

    classes: int
    stages: Sequence[int] = (3, 4, 6, 3)  # blocks of each stage; each but the first halves the grid
    width: int = 64  # features of the first stage; each further one has twice as many
    imagenet_stem: bool = False  # 7x7, stride 2, and max-pooling of stride 2: a quarter of the grid is left
    axis_name: str | None = None  # the device axis over which batch statistics are taken
    dtype: str | None = None  # of the computation; parameters are float32

    smallest = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, keys: jax.Array | None = None) -> jax.Array:
        """Map x [B, H, W, C] to logits [B, classes] float32."""
        kernel, stride = (7, 2) if self.imagenet_stem else (3, 1)
        x = convolution(self.width, kernel, strides=stride, padding=kernel // 2, dtype=self.dtype, name="stem")(x)
        x = nn.relu(batch_norm(train, self.axis_name, self.dtype, name="stem_norm")(x))
        x = overlapping_max_pool(x) if self.imagenet_stem else x
        for stage, blocks in enumerate(self.stages):
            for i in range(blocks):
                stride = 2 if stage and i == 0 else 1
                name = f"stage{stage}_{i}"
                x = Bottleneck(self.width * 2**stage, stride, self.axis_name, self.dtype, name=name)(x, train)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(jnp.mean(x, (1, 2))).astype(jnp.float32)


class ResNet9(nn.Module):
    """The network of Page's "How to train your ResNet" (2018): four wide layers, two of them with a residual.

    The defaults have 6.6M parameters and reach 94 % on CIFAR-10 in 24 epochs.
    """

    classes: int
    widths: Sequence[int] = (64, 128, 256, 512)  # channels of each layer; each but the first halves the grid
    residual: Sequence[int] = (1, 3)  # layers followed by two more convolutions beside a skip
    scale: float = 0.125  # of the logits
    axis_name: str | None = None  # the device axis over which batch statistics are taken
    dtype: str | None = None  # of the computation; parameters are float32

    @property
    def smallest(self) -> int:
        """The smallest image side that leaves a pixel after the last layer."""
        return 2 ** (len(self.widths) - 1)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, keys: jax.Array | None = None) -> jax.Array:
        """Map x [B, H, W, C] to logits [B, classes] float32."""

        def layer(x, features, name, pool=False):
            x = convolution(features, 3, dtype=self.dtype, name=name)(x)
            x = max_pool(x) if pool else x
            return nn.relu(batch_norm(train, self.axis_name, self.dtype, name=f"{name}_norm")(x))

        for i, features in enumerate(self.widths):
            x = layer(x, features, f"layer{i}" if i else "stem", pool=i > 0)
            if i in self.residual:
                x = x + layer(layer(x, features, f"residual{i}_0"), features, f"residual{i}_1")
        x = nn.Dense(self.classes, use_bias=False, dtype=self.dtype, name="head")(global_max_pool(x))
        return x.astype(jnp.float32) * self.scale
