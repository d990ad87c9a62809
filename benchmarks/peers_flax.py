"""The same networks from Flax's own layers: inside `stock()`, gm_jax's layers hand their work to Flax's.

Names, parameters and initial values stay what they are, so that both compute the same function of the same arrays.
What has no counterpart in gm_jax.layers (dense layers, optimisers) is Flax's and Optax's own anyway; noise
is drawn for each example in both.
"""

import contextlib
import math
import sys
from collections.abc import Iterator
from unittest.mock import patch

import flax.linen as nn
import jax

from gm_jax.layers import conv, norm, pool
from gm_jax.layers.conv import as_pads, as_pair, dilated


def own_padding(padding: conv.Padding) -> conv.Padding:
    """Padding as `nn.Conv` takes it: a name, or pairs."""
    return padding if isinstance(padding, str) else as_pads(padding)


class Conv(conv.Conv):
    """`nn.Conv` with the fields of ours."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = nn.Conv(
            self.features,
            as_pair(self.kernel_size),
            as_pair(self.strides),
            own_padding(self.padding),
            kernel_dilation=as_pair(self.kernel_dilation),
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
        )
        nn.share_scope(self, layer)  # its parameters are ours
        return layer(x)


class ConvTranspose(conv.ConvTranspose):
    """`nn.ConvTranspose` with the fields of ours."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, dilation, padding = as_pair(self.kernel_size), as_pair(self.kernel_dilation), self.padding
        if not isinstance(padding, str):  # ours pads as PyTorch does, Flax the image with zeros between its pixels
            edges = zip(dilated(size, dilation), as_pads(padding), strict=True)
            padding = tuple((extent - 1 - low, extent - 1 - high) for extent, (low, high) in edges)
        layer = nn.ConvTranspose(
            self.features,
            size,
            as_pair(self.strides),
            padding,
            kernel_dilation=dilation,
            use_bias=self.use_bias,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
        )
        nn.share_scope(self, layer)
        return layer(x)


class GroupNorm(norm.GroupNorm):
    """`nn.GroupNorm` with the fields of ours."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        groups = math.gcd(self.groups, max(x.shape[-1] // 4, 1))
        layer = nn.GroupNorm(groups, epsilon=self.epsilon, dtype=self.dtype)
        nn.share_scope(self, layer)
        return layer(x)


class BatchNorm(norm.BatchNorm):
    """`nn.BatchNorm` with the fields of ours."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = nn.BatchNorm(
            use_running_average=not self.train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            use_scale=self.use_scale,
            scale_init=self.scale_init,
            axis_name=self.axis_name if self.train else None,
        )
        nn.share_scope(self, layer)
        return layer(x)


def max_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """`nn.max_pool` with the arguments of ours."""
    return nn.max_pool(x, (size, size), (size, size))


LAYERS = (
    (conv.Conv, Conv),
    (conv.ConvTranspose, ConvTranspose),
    (norm.GroupNorm, GroupNorm),
    (norm.BatchNorm, BatchNorm),
)
FUNCTIONS = ((pool.max_pool, max_pool), (pool.fused_max_pool, max_pool))


@contextlib.contextmanager
def stock() -> Iterator[None]:
    """Trace with Flax's own layers. Only functions first traced inside are changed: JAX remembers earlier traces."""
    with contextlib.ExitStack() as patches, conv.native_rules():
        for ours, theirs in LAYERS:
            patches.enter_context(patch.object(ours, "__call__", theirs.__call__))
        for ours, theirs in FUNCTIONS:
            # A function is known by name in every module that imports it.
            for module in [m for name, m in sys.modules.items() if name.startswith("gm_jax.")]:
                if getattr(module, ours.__name__, None) is ours:
                    patches.enter_context(patch.object(module, ours.__name__, theirs))
        yield
