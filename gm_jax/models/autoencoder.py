"""Autoencoders: an encoder, a code, a decoder."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from gm_jax.errors import UserError, nearest
from gm_jax.models.coders import make_coders

ACTIVATIONS = {"linear": lambda code: code, "relu": nn.relu, "sigmoid": nn.sigmoid}


class Autoencoder(nn.Module):
    """Images in [0, 1] -> code -> images; the activation is that of the code."""

    encoder: nn.Module
    decoder: nn.Module
    activation: str = "linear"

    def encode(self, x: jax.Array) -> jax.Array:
        """Map x [B, H, W, C] in [0, 1] to codes [B, D]."""
        return ACTIVATIONS[self.activation](self.encoder(x))

    def decode(self, code: jax.Array) -> jax.Array:
        """Map codes [B, D] to the logits of pixels [B, H, W, C]."""
        return self.decoder(code)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map x [B, H, W, C] to its reconstruction in [0, 1] and its code [B, D]."""
        code = self.encode(x)
        return nn.sigmoid(self.decode(code)), code


def make_autoencoder(
    name: str, image_shape: Sequence[int], latent_dim: int, activation: str = "linear", **keywords: Any
) -> Autoencoder:
    """Build an autoencoder from the networks called `name`, with a code of `latent_dim` units.

    Raises:
        UserError: no such networks or activation, or keywords or images that do not fit them.
    """
    if activation not in ACTIVATIONS:
        near = nearest(activation, ACTIVATIONS)
        raise UserError(f"model.activation={activation!r} is not one of {', '.join(ACTIVATIONS)}{near}")
    return Autoencoder(*make_coders(name, image_shape, latent_dim, latent_dim, **keywords), activation)
