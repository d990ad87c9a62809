"""Embedding of the diffusion step."""

import jax
import jax.numpy as jnp


def sinusoidal(t: jax.Array, features: int, max_period: float = 10_000.0) -> jax.Array:
    """Return sines and cosines of t [B] at geometrically spaced frequencies, [B, features] (Vaswani et al. 2017; DDPM).

    The first half holds sines, the second cosines; frequencies go from 1 to 1 / max_period. t is in steps, 0 ... T.
    """
    half = features // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / max(half - 1, 1))
    angles = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
