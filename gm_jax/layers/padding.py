"""Padding that zeros would not do for."""

import jax
import jax.numpy as jnp


def reflect(x: jax.Array, size: int) -> jax.Array:
    """Mirror images [B, H, W, C] at their outermost pixels, which are not repeated, by `size` pixels on every side.

    They must be larger than `size`.
    """
    return jnp.pad(x, ((0, 0), (size, size), (size, size), (0, 0)), mode="reflect")
