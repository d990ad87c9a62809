"""Convolutional generators and discriminators after DCGAN (Radford et al. 2016): strides, no pooling.

Transposed convolutions make the grids of a generator, from the coarsest to the image; convolutions with strides make
those of a discriminator, down to one number. With the defaults they are the paper's networks for 64x64 images. Kernels
start as N(0, 0.02^2), scales of batch norm as N(1, 0.02^2). In a discriminator whose layers are not normalised, such
kernels would shrink the signal, to a third in a layer, and it would hardly learn at first: there they start as in He et
al. (2015).
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.layers.conv import Conv, ConvTranspose
from gm_jax.layers.dropout import Dropout
from gm_jax.layers.norm import batch_norm
from gm_jax.layers.spectral_norm import SpectralNorm

SPREAD = nn.initializers.normal(0.02)
HE = nn.initializers.he_normal()


def around_one(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Numbers of N(1, 0.02^2)."""
    return 1.0 + SPREAD(key, shape, dtype)


class Generator(nn.Module):
    """Latents to images in [-1, 1], with batch norm after every layer but the last."""

    image_shape: Sequence[int]
    classes: int = 0  # if not 0, it sees a label, one-hot, joined to the latent
    width: int = 64
    multipliers: Sequence[int] = (8, 4, 2, 1)  # channels of each grid, in widths, the coarsest first
    strides: Sequence[int] = (2, 2, 2, 2)  # of the transposed convolution that leaves each grid; the last makes images
    kernels: Sequence[int] = (4, 4, 4, 4)  # their sizes
    dense: bool = False  # the first grid comes from a dense layer whose units are normalised one by one
    hidden: int = 0  # units of a dense layer before that (InfoGAN: Chen et al. 2016, table 1); 0: none
    slope: float = 0.0  # of the (leaky) ReLU below 0
    axis_name: str | None = None  # the device axis over which batch statistics are taken

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Map latents z [B, D] and labels int32 [B] to images [B, H, W, C]."""
        grid = grid_size("generator", self.image_shape, self.multipliers, self.strides, self.kernels)
        channels = [self.width * m for m in self.multipliers]

        def normalised(x: jax.Array, name: str) -> jax.Array:
            x = batch_norm(train, self.axis_name, scale_init=around_one, name=name)(x)
            return nn.leaky_relu(x, self.slope)

        if self.classes:
            z = jnp.concatenate([z, jax.nn.one_hot(label, self.classes)], axis=-1)
        if self.hidden:
            z = normalised(nn.Dense(self.hidden, use_bias=False, kernel_init=SPREAD, name="hidden")(z), "hidden_norm")
        if self.dense:
            x = nn.Dense(math.prod(grid) * channels[0], use_bias=False, kernel_init=SPREAD, name="stem")(z)
            x = normalised(x, "stem_norm").reshape(-1, *grid, channels[0])
        else:  # the latent as an image of one pixel
            stem = ConvTranspose(channels[0], grid, padding="VALID", use_bias=False, kernel_init=SPREAD, name="stem")
            x = normalised(stem(z[:, None, None]), "stem_norm")
        layers = zip([*channels[1:], self.image_shape[2]], self.kernels, self.strides, strict=True)
        for i, (features, kernel, stride) in enumerate(layers):
            x = ConvTranspose(features, kernel, stride, use_bias=False, kernel_init=SPREAD, name=f"conv{i}")(x)
            if i < len(channels) - 1:
                x = normalised(x, f"norm{i}")
        return jnp.tanh(x)


class Discriminator(nn.Module):
    """Images in [-1, 1] to logits, with leaky ReLU after every layer but the last; elsewhere called a critic, too."""

    classes: int = 0  # if not 0, it sees a label
    projection: bool = False  # of the label onto the last features (Miyato & Koyama 2018); else one-hot maps are joined
    width: int = 64
    multipliers: Sequence[int] = (1, 2, 4, 8)  # channels of each convolution, in widths
    strides: Sequence[int] = (2, 2, 2, 2)
    kernels: Sequence[int] = (4, 4, 4, 4)  # their sizes
    dense: bool = False  # the logit comes from a dense layer; else from a convolution as large as the grid: the same
    hidden: int = 0  # units of a dense layer before that, which sees the image as a whole (as InfoGAN's); 0: none
    batch_norm: bool = True  # after every layer but the first and the last
    spectral_norm: bool = False  # of every layer
    dropout: float = 0.0  # after every activation
    bias: bool = True  # in layers without batch norm
    slope: float = 0.2  # of the leaky ReLU below 0
    axis_name: str | None = None  # the device axis over which batch statistics are taken

    @nn.compact
    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, train: bool = False, keys: jax.Array | None = None
    ) -> jax.Array:
        """Map x [B, H, W, C] and labels int32 [B] to logits [B]; dropout acts if it is given keys [B]."""
        initial = SPREAD if self.batch_norm or self.spectral_norm else HE
        grid = grid_size("discriminator", x.shape[1:], self.multipliers, self.strides, self.kernels)

        def apply(layer: nn.Module, x: jax.Array) -> jax.Array:
            return SpectralNorm(layer, name=f"{layer.name}_spectral")(x, train) if self.spectral_norm else layer(x)

        one_hot = jax.nn.one_hot(label, self.classes) if self.classes else None
        if self.classes and not self.projection:
            maps = jnp.broadcast_to(one_hot[:, None, None], (*x.shape[:3], self.classes))
            x = jnp.concatenate([x, maps], axis=-1)

        def activate(x: jax.Array, norm: bool, name: str) -> jax.Array:
            if norm:
                x = batch_norm(train, self.axis_name, scale_init=around_one, name=f"norm{name}")(x)
            return Dropout(self.dropout, name=f"dropout{name}")(nn.leaky_relu(x, self.slope), keys)

        for i, (multiplier, kernel, stride) in enumerate(
            zip(self.multipliers, self.kernels, self.strides, strict=True)
        ):
            norm = self.batch_norm and i > 0
            bias = self.bias and not norm
            layer = Conv(self.width * multiplier, kernel, stride, use_bias=bias, kernel_init=initial, name=f"conv{i}")
            x = activate(apply(layer, x), norm, f"{i}")
        if self.hidden:
            bias = self.bias and not self.batch_norm
            layer = nn.Dense(self.hidden, use_bias=bias, kernel_init=initial, name="hidden")
            x = activate(apply(layer, x.reshape(len(x), -1)), self.batch_norm, "_hidden")
        if self.dense or self.hidden:
            head = nn.Dense(1, use_bias=self.bias, kernel_init=initial, name="head")
            logits = apply(head, x.reshape(len(x), -1))[:, 0]
        else:
            head = Conv(1, grid, padding="VALID", use_bias=self.bias, kernel_init=initial, name="head")
            logits = apply(head, x)[:, 0, 0, 0]
        if self.classes and self.projection:
            direction = apply(nn.Dense(x.shape[-1], use_bias=False, kernel_init=initial, name="label"), one_hot)
            features = x if self.hidden else jnp.sum(x, axis=(1, 2))
            logits = logits + jnp.sum(direction * features, axis=-1)
        return logits


def grid_size(
    network: str,
    image_shape: Sequence[int],
    multipliers: Sequence[int],
    strides: Sequence[int],
    kernels: Sequence[int],
) -> tuple[int, int]:
    """Return height and width of the coarsest grid.

    Raises:
        UserError: the layers are not described alike, or the strides do not divide the image.
    """
    if not len(multipliers) == len(strides) == len(kernels) > 0:
        raise UserError(
            f"model.{network} has {len(multipliers)} multipliers, {len(strides)} strides and {len(kernels)} kernels: "
            "give as many of each as there are layers"
        )
    height, width = image_shape[:2]
    factor = math.prod(strides)
    if height % factor or width % factor:
        raise UserError(
            f"model.{network} halves or doubles images by strides of {factor} in all, and {height}x{width} pixels do "
            "not divide by that: set dataset.image_size, or other strides"
        )
    return height // factor, width // factor
