"""Reverse processes: from noise to images in one `lax.scan`, whichever sampler made the plan."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gm_jax import random
from gm_jax.samplers.plans import Plan
from gm_jax.samplers.processes import Level

Denoiser = Callable[[jax.Array, Level], jax.Array]  # (x [B, ...], level of numbers) -> prediction of x_0 [B, ...]


class Samples(NamedTuple):
    """What a reverse process leaves: the samples, and a few of the P states it passed through."""

    x: jax.Array  # [B, ...] the end of the chain
    kept: np.ndarray  # [P] the evaluations whose states were kept; P = 0 unless asked for
    states: jax.Array  # [P, B, ...] the states that they saw
    x0: jax.Array  # [P, B, ...] what the denoiser took x_0 for, seeing those states


def sample(denoise: Denoiser, plan: Plan, keys: jax.Array, x: jax.Array, clip: bool = True, keep: int = 0) -> Samples:
    """Run a plan from x [B, ...], usually a draw of `prior`.

    The noise of an evaluation depends on `keys` [B] and its number only. `clip` holds predictions of x_0 in [-1, 1];
    the noise is then worked out again from the clipped prediction, so that state and prediction stay consistent.
    `keep` states, evenly spread over the chain and the first among them, are returned for a figure of the chain
    without storing the others. One compiled program does for all plans of one length.
    """
    count = len(plan.base)
    kept = np.round(np.linspace(0, count - 1, min(keep, count))).astype(np.int32)
    slots = np.searchsorted(kept, np.arange(count)).astype(np.int32)  # the last to write slot k is evaluation kept[k]
    history = jnp.zeros((2, len(kept), *x.shape), x.dtype)

    def body(carry, now):
        x, final, before, history = carry
        number, slot, todo = now
        x0 = denoise(x, todo.level)
        if clip:
            x0 = jnp.clip(x0, -1.0, 1.0)
        if len(kept):
            history = history.at[:, slot].set(jnp.stack([x, x0]), mode="drop")
        mean = todo.base * final + todo.image * x0 + todo.previous * before
        z = lax.cond(todo.noise > 0.0, draw, lambda number: jnp.zeros_like(x), number)
        x = mean + todo.noise * z
        return (x, jnp.where(todo.final > 0.0, x, final), x0, history), None

    def draw(number: jax.Array) -> jax.Array:
        return random.normal(random.fold_in(keys, number), x.shape[1:])

    todo = jax.tree.map(lambda column: jnp.asarray(column, jnp.float32), plan)
    carry = (x, x, jnp.zeros_like(x), history)
    (x, _, _, history), _ = lax.scan(body, carry, (jnp.arange(count), jnp.asarray(slots), todo))
    return Samples(x, kept, history[0], history[1])


def prior(plan: Plan, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw the state to begin with, [B, *shape] from N(0, scale^2 I)."""
    return plan.scale * random.normal(random.fold_in(keys, 0), shape)


def diffuse(level: Level, x0: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Return x = signal x_0 + noise epsilon, for a level of numbers or [B]."""
    level = level.spread(x0)
    return level.signal * x0 + level.noise * epsilon
