"""StyleGAN (Karras et al. 2019) and its discriminator, both for any of the resolutions that they grow through.

Block i works on a grid of 4 * 2^i pixels. A network is told which blocks see or show an image, `shown`, and a `level`:
at level i the image is block i's alone, between i and i + 1 it is a mixture of two blocks' images, which is how a new
block fades in (Karras et al. 2018, figure 2). In training one or two blocks are shown, and none beyond them computed;
`shown` may also be all blocks, so that one program serves every level.
"""

import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.layers.equalised import EqualisedConv, EqualisedDense
from gm_jax.layers.norm import instance_norm
from gm_jax.layers.resample import blur, double, halve

EPSILON = 1e-8  # in all norms
GROUP = 4  # images of a batch over which their standard deviation is taken
SLOPE = 0.2  # of the leaky ReLU below 0


def blocks_of(image_shape: Sequence[int], channels: Sequence[int]) -> int:
    """Return how many blocks make images of this shape.

    Raises:
        UserError: they are not square with a power of two of pixels, or `channels` says nothing of some block.
    """
    height, width = image_shape[:2]
    blocks = height.bit_length() - 2
    if height != width or blocks < 1 or height != 2 << blocks:
        raise UserError(
            f"StyleGAN doubles its grid from 4x4 pixels on, and images of {height}x{width} are not reached so: set "
            "dataset.image_size to 8, 16, 32, 64, ..."
        )
    if len(channels) < blocks:
        raise UserError(
            f"model.channels={tuple(channels)} has {len(channels)} numbers, but images of {height}x{width} need "
            f"{blocks}: for grids of {', '.join(str(4 << i) for i in range(blocks))} pixels"
        )
    return blocks


def pixel_norm(x: jax.Array) -> jax.Array:
    """Scale vectors [..., D] to a mean square of 1."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPSILON)


def batch_deviation(x: jax.Array) -> jax.Array:
    """Append to x [B, H, W, C] a map of the mean standard deviation within GROUP neighbours of the batch, B = n GROUP.

    Groups are of neighbours, so that they do not depend on how many devices share the batch. A smaller batch is one
    group.
    """
    size = min(GROUP, len(x))
    groups = x.reshape(-1, size, *x.shape[1:])
    groups = groups - jnp.mean(groups, axis=1, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(groups), axis=1) + EPSILON)
    deviation = jnp.repeat(jnp.mean(deviation, axis=(1, 2, 3)), size)
    return jnp.concatenate([x, jnp.broadcast_to(deviation[:, None, None, None], (*x.shape[:3], 1))], axis=-1)


def activate(x: jax.Array) -> jax.Array:
    """Return the leaky ReLU of x."""
    return nn.leaky_relu(x, SLOPE)


def layers_noise(keys: jax.Array, blocks: int) -> list[tuple[jax.Array, jax.Array]]:
    """Return the noise [B, H, W, 1] of both layers of each block; more blocks leave that of the first ones as it is.

    One draw for all of them is compiled in a quarter of the time of one for each.
    """
    pixels = [4 << i for i in range(blocks) for _ in range(2)]
    flat = random.normal(keys, (sum(side * side for side in pixels),))
    borders = list(itertools.accumulate(side * side for side in pixels))[:-1]
    maps = [
        part.reshape(-1, side, side, 1) for part, side in zip(jnp.split(flat, borders, axis=1), pixels, strict=True)
    ]
    return list(zip(maps[::2], maps[1::2], strict=True))


class Mapping(nn.Module):
    """Latents z [B, D] to styles' w [B, D]."""

    layers: int = 8
    rate: float = 0.01  # its learning rate, in that of all else

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        x = pixel_norm(z)
        for i in range(self.layers):
            x = activate(EqualisedDense(z.shape[-1], rate=self.rate, name=f"dense{i}")(x))
        return x


class Style(nn.Module):
    """What follows a convolution: noise, bias, activation, instance norm, and the scale and shift that w asks for."""

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array, noise: jax.Array) -> jax.Array:
        """Map x [B, H, W, C], w [B, D] and noise [B, H, W, 1] to [B, H, W, C]."""
        channels = x.shape[-1:]
        x = x + noise * self.param("noise", nn.initializers.zeros, channels)
        x = instance_norm(activate(x + self.param("bias", nn.initializers.zeros, channels)), EPSILON)
        scale, shift = jnp.split(EqualisedDense(2 * x.shape[-1], gain=1.0, name="affine")(w)[:, None, None], 2, axis=-1)
        return x * (scale + 1.0) + shift


class Synthesis(nn.Module):
    """Styles to images."""

    channels: Sequence[int]  # of each block's maps
    colours: int = 3

    @nn.compact
    def __call__(self, w: jax.Array, keys: jax.Array, level: jax.Array, shown: Sequence[int]) -> jax.Array:
        """Map w [B, layers, D], two layers a block, to images [B, H, W, colours], about in [-1, 1].

        `keys` [B] are for the noise. The images have the resolution of the last block in `shown`.
        """
        constant = self.param("constant", nn.initializers.ones, (1, 4, 4, self.channels[0]))
        x, image = jnp.broadcast_to(constant, (len(w), *constant.shape[1:])), 0.0
        noise = layers_noise(keys, max(shown) + 1)
        for i in range(max(shown) + 1):
            side, channels = 4 << i, self.channels[i]
            first, second = noise[i]
            if i:
                x = blur(EqualisedConv(channels, resize="up", use_bias=False, name=f"up{side}")(x))
            x = Style(name=f"style{side}_0")(x, w[:, 2 * i], first)
            x = EqualisedConv(channels, use_bias=False, name=f"conv{side}")(x)
            x = Style(name=f"style{side}_1")(x, w[:, 2 * i + 1], second)
            if i > min(shown):
                image = double(image)
            if i in shown:
                share = jnp.clip(1.0 - jnp.abs(level - i), 0.0, 1.0)
                image = image + share * EqualisedConv(self.colours, 1, gain=1.0, name=f"to_image{side}")(x)
        return image


class Discriminator(nn.Module):
    """Images to logits."""

    channels: Sequence[int]  # of each block's maps

    @nn.compact
    def __call__(self, image: jax.Array, level: jax.Array, shown: Sequence[int]) -> jax.Array:
        """Map images [B, H, W, C] of the resolution of the last block in `shown` to logits [B]."""
        x = None
        for i in reversed(range(max(shown) + 1)):
            side = 4 << i
            if i in shown:
                seen = activate(EqualisedConv(self.channels[i], 1, name=f"from_image{side}")(image))
                x = seen if x is None else x + jnp.clip(i + 1.0 - level, 0.0, 1.0) * (seen - x)
                image = halve(image)
            if i:
                x = activate(EqualisedConv(self.channels[i], name=f"conv{side}")(x))
                x = activate(EqualisedConv(self.channels[i - 1], resize="down", name=f"down{side}")(blur(x)))
        x = activate(EqualisedConv(self.channels[0], name="conv4")(batch_deviation(x)))
        x = activate(EqualisedDense(self.channels[0], name="hidden")(x.reshape(len(x), -1)))
        return EqualisedDense(1, gain=1.0, name="head")(x)[:, 0]
