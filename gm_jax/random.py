"""Noise that is a function of (key, example), never of how a batch is spread over devices.

One key per example is made by folding the example's global position into the step's key; every draw is then vectorised
over those keys. Splitting the positions over any number of devices gives the same numbers.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def example_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """Return one key per example, keys [B]: `key` with each global position in `positions` [B] folded in."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def fold_in(keys: jax.Array, data: jax.Array | int) -> jax.Array:
    """Fold the same number (a time step, the index of a draw) into every one of `keys` [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, data)


def normal(keys: jax.Array, shape: Sequence[int] = ()) -> jax.Array:
    """Draw standard normal numbers [B, *shape], example b from `keys[b]` alone."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def uniform(keys: jax.Array, shape: Sequence[int] = (), low: float = 0.0, high: float = 1.0) -> jax.Array:
    """Draw numbers uniform in [low, high), [B, *shape], example b from `keys[b]` alone."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=low, maxval=high))(keys)


def randint(keys: jax.Array, shape: Sequence[int], low: int, high: int) -> jax.Array:
    """Draw integers in [low, high), [B, *shape] int32, example b from `keys[b]` alone."""
    return jax.vmap(lambda key: jax.random.randint(key, shape, low, high))(keys)


def stratified(key: jax.Array, positions: jax.Array, batch_size: int) -> jax.Array:
    """Draw u [B] in [0, 1), each uniform by itself and together evenly spread over the global batch.

    One offset is shared by the batch, u_i = (offset + i / batch_size) mod 1 (the low-discrepancy sampler of Kingma et
    al. 2021, appendix I.1): a loss averaged over u has far less variance than with independent draws. Positions are in
    [0, batch_size).
    """
    return (jax.random.uniform(key) + positions.astype(jnp.float32) / batch_size) % 1.0
