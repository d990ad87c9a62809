"""Reverse processes: from noise to images in one `lax.scan`, ancestral (DDPM) and DDIM by the same step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gm_jax import random
from gm_jax.errors import UserError
from gm_jax.samplers.schedules import Schedule, diffuse, posterior, predict_epsilon

Denoiser = Callable[[jax.Array, jax.Array], jax.Array]  # (x_t [B, ...], t [B] int32) -> prediction of x_0 [B, ...]


class Samples(NamedTuple):
    """What a reverse process leaves: the samples, and a few of the P states it passed through."""

    x: jax.Array  # [B, ...] the end of the chain, x_0
    t: np.ndarray  # [P] the steps that were kept, from T down; P = 0 unless asked for
    x_t: jax.Array  # [P, B, ...] the states at those steps
    x0: jax.Array  # [P, B, ...] what the denoiser took x_0 for, seeing those states


def timesteps(T: int, steps: int) -> np.ndarray:
    """Return the `steps` + 1 decreasing steps T ... 0 that a chain visits, int32 [steps + 1]; steps = T visits all.

    They are evenly spaced and always start at T, where the prior is ("trailing" in Lin et al. 2023): a chain starting
    lower would see an input that it never met in training.
    """
    if not 1 <= steps <= T:
        raise UserError(f"sampling takes between 1 and {T} steps, not {steps}")
    return np.round(np.linspace(T, 0, steps + 1)).astype(np.int32)


def step(
    schedule: Schedule, x_t: jax.Array, x0: jax.Array, s: jax.Array, t: jax.Array, eta: float, keys: jax.Array
) -> jax.Array:
    """Go from x_t to x_s, s < t, given a prediction of x_0 (Song et al. 2021, eq. 12).

    x_s = signal_s x_0 + sqrt(noise_s^2 - c^2) epsilon + c z with c = eta times the posterior's standard deviation.
    eta = 0 is DDIM, eta = 1 is a draw of the posterior q(x_s | x_t, x_0), which is the ancestral step of DDPM.
    """
    epsilon = predict_epsilon(schedule, x_t, t, x0)
    if eta == 0.0:  # a plain number, not an array: deterministic sampling draws no noise
        return diffuse(schedule, x0, s, epsilon)
    _, variance = posterior(schedule, x0, x_t, s, t)
    c = eta * jnp.sqrt(variance)
    z = random.normal(random.fold_in(keys, t), x_t.shape[1:])
    kept = jnp.sqrt(jnp.maximum(schedule.noise[s] ** 2 - c**2, 0.0))  # rounding may leave a tiny negative number
    return schedule.signal[s] * x0 + kept * epsilon + c * z


def sample(
    denoise: Denoiser,
    schedule: Schedule,
    keys: jax.Array,
    x_T: jax.Array,
    steps: np.ndarray,
    eta: float = 0.0,
    clip: bool = True,
    keep: int = 0,
) -> Samples:
    """Run the reverse process over the decreasing `steps` (see `timesteps`) from x_T [B, ...].

    The noise of a step depends on `keys` [B] and the step's number only. `clip` holds predictions of x_0 in [-1, 1];
    the noise is then worked out again from the clipped prediction, so that state and prediction stay consistent.
    `keep` states, evenly spread over the chain and the first among them, are returned for a figure of the chain
    without storing the others.
    """
    count = len(steps) - 1
    kept = np.round(np.linspace(0, count - 1, min(keep, count))).astype(np.int32)
    slots = np.searchsorted(kept, np.arange(count)).astype(np.int32)  # the last to write slot k is step kept[k]
    history = jnp.zeros((2, len(kept), *x_T.shape), x_T.dtype)

    def body(carry, now):
        x, history = carry
        t, s, slot = now
        x0 = denoise(x, jnp.broadcast_to(t, x.shape[:1]))
        if clip:
            x0 = jnp.clip(x0, -1.0, 1.0)
        if len(kept):
            history = history.at[:, slot].set(jnp.stack([x, x0]), mode="drop")
        return (step(schedule, x, x0, s, t, eta, keys), history), None

    plan = (jnp.asarray(steps[:-1]), jnp.asarray(steps[1:]), jnp.asarray(slots))
    (x, history), _ = lax.scan(body, (x_T, history), plan)
    return Samples(x, steps[:-1][kept], history[0], history[1])


def prior(schedule: Schedule, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw x_T [B, *shape] from the prior p(x_T) = N(0, prior_scale^2 I)."""
    return schedule.prior_scale * random.normal(random.fold_in(keys, 0), shape)  # step t folds in t, and t >= 1


def forward_chain(schedule: Schedule, keys: jax.Array, x0: jax.Array, steps: np.ndarray) -> jax.Array:
    """Return x_t [P, B, ...] at the `steps` [P], one noise per example throughout: an image sinking into noise."""
    epsilon = random.normal(keys, x0.shape[1:])
    return jnp.stack([diffuse(schedule, x0, int(t), epsilon) for t in steps])
