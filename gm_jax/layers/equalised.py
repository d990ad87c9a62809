"""Layers with equalised learning rates (Karras et al. 2018, section 4.1): weights ~ N(0, 1), scaled when used.

Adam moves every weight by about as much, whatever its size; so all layers learn at one speed.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.layers.conv import conv, conv_transpose

GAIN = math.sqrt(2.0)  # of He et al. 2015, for layers before a (leaky) ReLU


class EqualisedDense(nn.Module):
    """x [B, in] -> [B, features]; `rate` is its learning rate in those of other layers."""

    features: int
    gain: float = GAIN
    rate: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        # Larger weights, used as if they were smaller: then their steps are, too.
        kernel = self.param("kernel", nn.initializers.normal(1.0 / self.rate), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return x @ (kernel * (self.gain * self.rate / math.sqrt(x.shape[-1]))) + bias * self.rate


class EqualisedConv(nn.Module):
    """x [B, H, W, in] -> [B, H', W', features].

    `resize` "up" doubles the image first, by repeating pixels, and "down" takes means of 2x2 pixels afterwards, each in
    one convolution of 4x4 pixels with stride 2 that computes the same with less than half the products.
    """

    features: int
    size: int = 3
    gain: float = GAIN
    resize: str = ""
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        kernel = kernel * (self.gain / math.sqrt(math.prod(shape[:3])))
        if self.resize == "up":
            x = conv_transpose(x, doubled(kernel), strides=2, padding=1)
        elif self.resize == "down":
            x = conv(x, doubled(kernel) / 4.0, strides=2, padding=1)
        else:
            x = conv(x, kernel)
        return x + self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else x


def doubled(kernel: jax.Array) -> jax.Array:
    """Return the kernel [kh + 1, kw + 1, in, out] that sums a kernel's products over 2x2 neighbouring places."""
    padded = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    return padded[1:, 1:] + padded[1:, :-1] + padded[:-1, 1:] + padded[:-1, :-1]
