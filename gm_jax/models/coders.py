"""Encoders from images to vectors and decoders back: what autoencoders and VAEs are made of.

An encoder maps x [B, H, W, C] in [0, 1] to [B, outputs]; a decoder maps latents [B, D] to the logits of pixels
[B, H, W, C], whose sigmoid is the image.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from gm_jax.errors import UserError, nearest
from gm_jax.layers.conv import Conv, ConvTranspose
from gm_jax.models.keywords import accepted, check_keywords


class ConvEncoder(nn.Module):
    """3x3 convolutions of stride 2 with ReLU, perhaps a hidden dense layer, and a dense one."""

    outputs: int
    features: Sequence[int] = (32, 64)  # channels of each convolution; each halves the grid
    dense: int = 0  # units of the hidden dense layer; 0: none

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, features in enumerate(self.features):
            x = nn.relu(Conv(features, 3, strides=2, name=f"conv{i}")(x))
        x = x.reshape(len(x), -1)
        if self.dense:
            x = nn.relu(nn.Dense(self.dense, name="dense")(x))
        return nn.Dense(self.outputs, name="head")(x)


class ConvDecoder(nn.Module):
    """The mirror of `ConvEncoder`: a dense layer, transposed 3x3 convolutions of stride 2, and one of stride 1."""

    image_shape: Sequence[int]
    features: Sequence[int] = (32, 64)  # as the encoder's; here the last comes first

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        height, width, channels = self.image_shape
        shrunk = 2 ** len(self.features)
        grid = (height // shrunk, width // shrunk, self.features[-1])
        x = nn.relu(nn.Dense(math.prod(grid), name="dense")(z)).reshape(len(z), *grid)
        for i, features in enumerate(reversed(self.features)):
            x = nn.relu(ConvTranspose(features, 3, strides=2, name=f"conv{i}")(x))
        return ConvTranspose(channels, 3, name="head")(x)


class MLPEncoder(nn.Module):
    """Dense layers with (leaky) ReLU over the pixels."""

    outputs: int
    hidden: Sequence[int] = (512, 512)  # units of the hidden layers
    slope: float = 0.0  # of the leaky ReLU below zero

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(len(x), -1)
        for i, units in enumerate(self.hidden):
            x = nn.leaky_relu(nn.Dense(units, name=f"dense{i}")(x), self.slope)
        return nn.Dense(self.outputs, name="head")(x)


class MLPDecoder(nn.Module):
    """The mirror of `MLPEncoder`."""

    image_shape: Sequence[int]
    hidden: Sequence[int] = (512, 512)  # as the encoder's; here the last comes first
    slope: float = 0.0  # of the leaky ReLU below zero

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        for i, units in enumerate(reversed(self.hidden)):
            z = nn.leaky_relu(nn.Dense(units, name=f"dense{i}")(z), self.slope)
        return nn.Dense(math.prod(self.image_shape), name="head")(z).reshape(-1, *self.image_shape)


class ResidualBlocks(nn.Module):
    """Residual dense blocks of one width with layer norm before each, which start as the identity."""

    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        for i in range(self.blocks):
            h = nn.silu(nn.Dense(width, name=f"in{i}")(nn.LayerNorm(name=f"norm{i}")(x)))
            x = x + nn.Dense(width, kernel_init=nn.initializers.zeros, name=f"out{i}")(h)
        return nn.silu(nn.LayerNorm(name="last_norm")(x))


class ResidualEncoder(nn.Module):
    """Residual dense blocks over the pixels: on small, centred images the best bound for the operations."""

    outputs: int
    width: int = 512
    blocks: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(self.width, name="enter")(x.reshape(len(x), -1))
        return nn.Dense(self.outputs, name="head")(ResidualBlocks(self.blocks, name="blocks")(x))


class ResidualDecoder(nn.Module):
    """The mirror of `ResidualEncoder`."""

    image_shape: Sequence[int]
    width: int = 512
    blocks: int = 2

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        x = ResidualBlocks(self.blocks, name="blocks")(nn.Dense(self.width, name="enter")(z))
        return nn.Dense(math.prod(self.image_shape), name="head")(x).reshape(-1, *self.image_shape)


CODERS = {
    "conv": (ConvEncoder, ConvDecoder),
    "mlp": (MLPEncoder, MLPDecoder),
    "residual": (ResidualEncoder, ResidualDecoder),
}


def make_coders(
    name: str, image_shape: Sequence[int], outputs: int, latent_dim: int, /, **keywords: Any
) -> tuple[nn.Module, nn.Module]:
    """Build the encoder, with so many outputs, and the decoder called `name` for images (height, width, channels).

    Raises:
        UserError: no such networks, a keyword they do not know, no latents, or images that convolutions cannot halve.
    """
    if name not in CODERS:
        raise UserError(f"model.name={name!r} is not one of {', '.join(CODERS)}{nearest(name, CODERS)}")
    check_keywords(name, keywords, accepted(CODERS[name], given=("outputs", "image_shape")))
    if latent_dim < 1:
        raise UserError(f"model.latent_dim={latent_dim} must be at least 1")
    if name == "conv" and not keywords.get("features", ConvEncoder.features):
        raise UserError("model conv needs model.features of one convolution at least")
    height, width, _ = image_shape
    factor = 2 ** len(keywords.get("features", ConvEncoder.features)) if name == "conv" else 1
    if height % factor or width % factor:
        raise UserError(
            f"model conv halves images until they must divide by {factor}, and {height}x{width} pixels do not: set "
            "dataset.image_size or use fewer model.features"
        )
    encoder, decoder = (
        module(size, **{key: value for key, value in keywords.items() if key in accepted((module,), ())})
        for module, size in zip(CODERS[name], (outputs, tuple(image_shape)), strict=True)
    )
    return encoder, decoder
