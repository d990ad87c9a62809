"""Penalties on the slope of a critic, per example; their gradients are second derivatives."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Critic = Callable[[jax.Array], jax.Array]  # images [B, ...] -> logits [B], each example by itself


def squared_slope(critic: Critic, x: jax.Array) -> jax.Array:
    """Return ||d critic(x) / dx||^2 for each of the images x [B, ...]: [B]."""
    slope = jax.grad(lambda x: jnp.sum(critic(x)))(x)
    return jnp.sum(jnp.square(slope).reshape(len(x), -1), axis=1)


def gradient_penalty(critic: Critic, real: jax.Array, fake: jax.Array, share: jax.Array) -> jax.Array:
    """Return (||slope|| - 1)^2 between real and fake images [B, ...], `share` [B] of the way from fake to real: [B].

    WGAN-GP (Gulrajani et al. 2017, eq. (3)): the best critic has slope 1 almost everywhere on such lines.
    """
    share = share.reshape(-1, *[1] * (real.ndim - 1))
    squared = squared_slope(critic, share * real + (1.0 - share) * fake)
    # The square root has an infinite derivative at 0, where a critic that is still flat would make NaN of it.
    return jnp.square(jnp.sqrt(squared + 1e-12) - 1.0)


def r1(critic: Critic, real: jax.Array) -> jax.Array:
    """Return ||slope||^2 / 2 at real images [B, ...]: [B] (Mescheder et al. 2018, eq. (9), without its weight)."""
    return 0.5 * squared_slope(critic, real)
