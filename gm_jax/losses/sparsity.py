"""Penalties on activations that make a code sparse."""

import jax
import jax.numpy as jnp

EPSILON = 1e-6  # keeps the logarithms of a silent unit finite


def l1(activations: jax.Array) -> jax.Array:
    """Return sum over units of |a|, averaged over the batch: activations [B, units] -> scalar (003, eq. 1)."""
    return jnp.mean(jnp.sum(jnp.abs(activations), axis=-1))


def kl(activity: jax.Array, target: float) -> jax.Array:
    """Return sum over units of KL(Bernoulli(target) || Bernoulli(activity)) (Ng 2011, Sparse autoencoder).

    `activity` [units], in (0, 1), is each unit's mean over the batch: every unit is to be active as rarely as `target`.
    """
    activity = jnp.clip(activity, EPSILON, 1.0 - EPSILON)
    on, off = jnp.log(target / activity), jnp.log((1.0 - target) / (1.0 - activity))
    return jnp.sum(target * on + (1.0 - target) * off)
