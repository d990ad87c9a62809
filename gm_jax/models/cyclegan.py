"""The networks of CycleGAN (Zhu et al. 2017): a residual generator of images from images, and a PatchGAN."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.layers.conv import Conv, ConvTranspose
from gm_jax.layers.norm import instance_norm

KERNELS = nn.initializers.normal(0.02)


def reflect(x: jax.Array, pixels: int) -> jax.Array:
    """Surround images [B, H, W, C] by so many pixels, mirrored at the borders, which are not repeated."""
    return jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")


class ResidualGenerator(nn.Module):
    """Translate images [B, H, W, C] in [-1, 1] into others of the same shape: down twice, residual blocks, up twice.

    Johnson et al. (2016) as the authors of CycleGAN have it: c7s1-64, d128, d256, blocks of R256, u128, u64, c7s1-3,
    with instance norm and ReLU, reflection padding but where strides are, biases everywhere. Height and width must be
    divisible by 4 and at least 8. With 9 blocks and three channels 11,378,179 parameters, with 6 it has 7,837,699.
    """

    channels: int = 3
    width: int = 64
    blocks: int = 9

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = partial(Conv, padding="VALID", kernel_init=KERNELS)
        up = partial(ConvTranspose, kernel_size=(3, 3), strides=2, padding=((1, 0), (1, 0)), kernel_init=KERNELS)

        def act(h):
            return nn.relu(instance_norm(h))

        h = act(conv(self.width, (7, 7), name="enter")(reflect(x, 3)))
        for i in (1, 2):
            h = act(conv(self.width << i, (3, 3), strides=2, padding=1, name=f"down{i}")(h))
        for i in range(self.blocks):
            r = act(conv(h.shape[-1], (3, 3), name=f"block{i}_1")(reflect(h, 1)))
            h = h + instance_norm(conv(h.shape[-1], (3, 3), name=f"block{i}_2")(reflect(r, 1)))
        for i in (1, 0):
            h = act(up(self.width << i, name=f"up{i}")(h))
        return jnp.tanh(conv(self.channels, (7, 7), name="leave")(reflect(h, 3)))


class PatchGAN(nn.Module):
    """Say of overlapping patches of images [B, H, W, C] whether they are real: logits [B, H', W'].

    C64-C128-C256-C512 of Isola et al. (2017) with 4x4 kernels, instance norm but in the first, leaky ReLU 0.2: `layers`
    = 3 sees 70x70 pixels and has 2,764,737 parameters for three channels; each layer fewer halves what it sees.
    """

    width: int = 64
    layers: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = partial(Conv, kernel_size=(4, 4), padding=1, kernel_init=KERNELS)
        h = nn.leaky_relu(conv(self.width, strides=2, name="enter")(x), 0.2)
        for i in range(1, self.layers):
            h = conv(self.width * min(2**i, 8), strides=2, name=f"down{i}")(h)
            h = nn.leaky_relu(instance_norm(h), 0.2)
        h = conv(self.width * min(2**self.layers, 8), name="wide")(h)
        h = nn.leaky_relu(instance_norm(h), 0.2)
        return conv(1, name="leave")(h)[..., 0]
