"""The variational autoencoder's network: a Gaussian posterior out of the encoder, pixels out of the decoder."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.models.coders import make_coders

FIRST_SCALE = 0.1  # where a learned standard deviation of pixels starts; most images end near it


class VAE(nn.Module):
    """Encoder and decoder; with `learned_scale`, also the logarithm of the pixels' standard deviation, one for all."""

    encoder: nn.Module
    decoder: nn.Module
    learned_scale: bool = False

    def setup(self):
        if self.learned_scale:
            self.log_scale = self.param("log_scale", nn.initializers.constant(math.log(FIRST_SCALE)), ())

    def encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Map x [B, H, W, C] in [0, 1] to mean and log-variance of q(z|x), each [B, D]."""
        return tuple(jnp.split(self.encoder(x), 2, axis=-1))

    def decode(self, z: jax.Array) -> jax.Array:
        """Map latents [..., D] to the logits of pixels [..., H, W, C]."""
        logits = self.decoder(z.reshape(-1, z.shape[-1]))
        return logits.reshape(*z.shape[:-1], *logits.shape[1:])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [B, H, W, C] to the logits of its reconstruction from the posterior mean."""
        return self.decode(self.encode(x)[0])


def make_vae(
    name: str, image_shape: Sequence[int], latent_dim: int, learned_scale: bool = False, **keywords: Any
) -> VAE:
    """Build a VAE with `latent_dim` latents from the networks called `name`.

    Raises:
        UserError: no such networks, or keywords or images that do not fit them.
    """
    return VAE(*make_coders(name, image_shape, 2 * latent_dim, latent_dim, **keywords), learned_scale)
