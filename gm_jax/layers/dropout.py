"""Dropout whose mask is a function of (key, example), whatever the number of devices."""

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax import random


class Dropout(nn.Module):
    """Set a share `rate` of the values to zero and scale up the others (Srivastava et al. 2014)."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        """Map x [B, ...]; `keys` [B] has one key per example, None switches dropout off."""
        if keys is None or self.rate == 0.0:
            return x
        # Layers draw different masks from the same keys: their place in the network is folded in.
        keys = random.fold_in(keys, zlib.crc32("/".join(self.path).encode()) & 0x7FFFFFFF)
        kept = random.uniform(keys, x.shape[1:]) >= self.rate
        return jnp.where(kept, x / (1.0 - self.rate), 0.0).astype(x.dtype)
