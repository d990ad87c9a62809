"""The generator of CycleGAN (Zhu et al. 2017, appendix 7.2), and how a config becomes a pair of networks.

A convolution of 7x7, two that halve the grid, residual blocks, two that double it again, and one of 7x7 to the image.
Every convolution but the last is followed by instance norm without parameters. Kernels start as N(0, 0.02^2).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.layers.conv import Conv, ConvTranspose
from gm_jax.layers.norm import instance_norm
from gm_jax.layers.padding import reflect
from gm_jax.models.keywords import accepted, check_keywords
from gm_jax.models.patchgan import PatchGAN

SPREAD = nn.initializers.normal(0.02)


class ResNetGenerator(nn.Module):
    """Images to images of the same size and channels, both in [-1, 1]."""

    width: int = 64
    halvings: int = 2  # of the grid on which the residual blocks work
    blocks: int = 9

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [B, H, W, C] to [B, H, W, C]; height and width must divide by 2^halvings (`smallest` has more)."""
        channels = x.shape[-1]

        def convolve(x: jax.Array, features: int, size: int, name: str) -> jax.Array:
            layer = Conv(features, size, padding="VALID", kernel_init=SPREAD, name=name)
            return layer(reflect(x, size // 2))

        def activate(x: jax.Array) -> jax.Array:
            return nn.relu(instance_norm(x))

        x = activate(convolve(x, self.width, 7, "stem"))
        for i in range(self.halvings):
            down = Conv(2 * x.shape[-1], 3, 2, padding=1, kernel_init=SPREAD, name=f"down{i}")
            x = activate(down(x))
        for i in range(self.blocks):
            y = activate(convolve(x, x.shape[-1], 3, f"block{i}_conv0"))
            x = x + instance_norm(convolve(y, x.shape[-1], 3, f"block{i}_conv1"))
        for i in range(self.halvings):
            # PyTorch's padding of 1 and output_padding of 1.
            up = ConvTranspose(x.shape[-1] // 2, 3, 2, padding=((1, 0), (1, 0)), kernel_init=SPREAD, name=f"up{i}")
            x = activate(up(x))
        return jnp.tanh(convolve(x, channels, 7, "head"))

    def smallest(self) -> int:
        """Return the least number of pixels of a side: two for the coarsest grid, four for the padding of the stem."""
        return max(2 * 2**self.halvings, 4)


def make_translation(
    image_shape: Sequence[int], generator: Mapping[str, Any], discriminator: Mapping[str, Any]
) -> tuple[ResNetGenerator, PatchGAN]:
    """Build the generator and the discriminator of one direction, each with its keywords.

    Without `blocks` a generator has as many as published: 6 below 256 pixels, 9 from there on.

    Raises:
        UserError: a keyword they do not know, or images that the networks cannot take.
    """
    check_keywords("cyclegan", generator, accepted([ResNetGenerator], ()), group="generator.")
    check_keywords("cyclegan", discriminator, accepted([PatchGAN], ()), group="discriminator.")
    height, width = image_shape[:2]
    blocks = 6 if min(height, width) < 256 else 9
    translator, judge = ResNetGenerator(**{"blocks": blocks, **generator}), PatchGAN(**discriminator)
    factor, smallest = 2**translator.halvings, translator.smallest()
    if height % factor or width % factor or min(height, width) < smallest:
        raise UserError(
            f"model.generator halves images {translator.halvings} times, and {height}x{width} pixels do not divide by "
            f"{factor} or are fewer than {smallest}: set dataset.image_size, or other model.generator.halvings"
        )
    if min(height, width) >> judge.halvings < 3:  # two convolutions of 4x4 without a stride follow
        raise UserError(
            f"model.discriminator halves images {judge.halvings} times, and {height}x{width} pixels are too few for "
            "that: set dataset.image_size, or fewer model.discriminator.halvings"
        )
    return translator, judge
