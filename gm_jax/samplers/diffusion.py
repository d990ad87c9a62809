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


class Answer(NamedTuple):
    """What a denoiser says of noisy images."""

    x0: jax.Array  # [B, ...] the prediction of x_0
    w: jax.Array | float = 0.0  # [B, ...] 0: a step's variance is its smallest; 1: its largest; logarithms in between


Denoiser = Callable[[jax.Array, Level], Answer]  # of x [B, ...] at a level of numbers


class Samples(NamedTuple):
    """What a reverse process leaves: the samples, and a few of the P states it passed through."""

    x: jax.Array  # [B, ...] the end of the chain
    kept: np.ndarray  # [P] the evaluations whose states were kept; P = 0 unless asked for
    states: jax.Array  # [P, B, ...] the states that they saw
    x0: jax.Array  # [P, B, ...] what the denoiser took x_0 for, seeing those states


class State(NamedTuple):
    """Where a chain is between two evaluations."""

    x: jax.Array  # what the denoiser sees next
    final: jax.Array  # the last state that is no guess
    x0: jax.Array  # the last answer


def begin(x: jax.Array) -> State:
    """Return the state before the first evaluation."""
    return State(x, x, jnp.zeros_like(x))


def step(denoise: Denoiser, todo: Plan, number: jax.Array, keys: jax.Array, state: State, clip: bool = True) -> State:
    """Do what a plan says of one evaluation, `todo`, whose noise depends on `keys` [B] and its number only."""
    x0, w = denoise(state.x, todo.level)
    if clip:
        x0 = jnp.clip(x0, -1.0, 1.0)

    def draw() -> jax.Array:
        return jnp.exp(todo.widest * w / 2) * random.normal(random.fold_in(keys, number), x0.shape[1:])

    z = lax.cond(todo.noise > 0.0, draw, lambda: jnp.zeros_like(x0))
    x = todo.base * state.final + todo.image * x0 + todo.previous * state.x0 + todo.noise * z
    return State(x, jnp.where(todo.final > 0.0, x, state.final), x0)


def sample(denoise: Denoiser, plan: Plan, keys: jax.Array, x: jax.Array, clip: bool = True, keep: int = 0) -> Samples:
    """Run a plan from x [B, ...], usually a draw of `prior`.

    `clip` holds predictions of x_0 in [-1, 1]; the noise is then worked out again from the clipped prediction, so that
    state and prediction stay consistent. `keep` states, evenly spread over the chain and the first among them, are
    returned for a figure without storing the others. One compiled program does for all plans of one length.
    """
    count = len(plan.base)
    kept = np.round(np.linspace(0, count - 1, min(keep, count))).astype(np.int32)
    slots = np.searchsorted(kept, np.arange(count)).astype(np.int32)  # the last to write slot k is evaluation kept[k]
    history = jnp.zeros((2, len(kept), *x.shape), x.dtype)

    def body(carry, now):
        (state, history), (number, slot, todo) = carry, now
        new = step(denoise, todo, number, keys, state, clip)
        if len(kept):
            history = history.at[:, slot].set(jnp.stack([state.x, new.x0]), mode="drop")
        return (new, history), None

    (state, history), _ = lax.scan(body, (begin(x), history), (jnp.arange(count), jnp.asarray(slots), in_float32(plan)))
    return Samples(state.x, kept, history[0], history[1])


def in_float32(plan: Plan) -> Plan:
    """Return a plan on the device."""
    return jax.tree.map(lambda column: jnp.asarray(column, jnp.float32), plan)


def prior(plan: Plan, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw the state to begin with, [B, *shape] from N(0, scale^2 I)."""
    return plan.scale * random.normal(random.fold_in(keys, 0), shape)


def diffuse(level: Level, x0: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Return x = signal x_0 + noise epsilon, for a level of numbers or [B]."""
    level = level.spread(x0)
    return level.signal * x0 + level.noise * epsilon
