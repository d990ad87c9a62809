"""How far images are from their reconstructions."""

import jax
import jax.numpy as jnp


def mean_squared_error(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the mean of (x - y)^2 over the pixels of each image: [B, H, W, C] -> [B]."""
    return jnp.mean((x - y) ** 2, axis=(1, 2, 3))


def peak_signal_to_noise(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the peak signal-to-noise ratio in decibels of each image, pixels in [0, 1]: [B, H, W, C] -> [B].

    Equal images are given 100 dB, not infinity.
    """
    return -10.0 * jnp.log10(jnp.maximum(mean_squared_error(x, y), 1e-10))
