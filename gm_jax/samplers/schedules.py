"""Noise schedules: how much signal and how much noise is left at each step of the forward process.

Everything is written in terms of x_t = signal_t x_0 + noise_t epsilon, so that one set of formulas serves
variance-preserving chains (Ho et al. 2020: signal^2 + noise^2 = 1) and variance-exploding ones (signal = 1). Index 0 is
the clean data, index T the prior.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.errors import UserError, nearest


class Schedule(NamedTuple):
    """The forward process x_t = signal[t] x_0 + noise[t] epsilon for t = 0 ... T, float32 arrays of length T + 1."""

    betas: jax.Array  # variance that the one-step transition t - 1 -> t adds; betas[0] = 0
    signal: jax.Array  # signal[0] = 1
    noise: jax.Array  # noise[0] = 0

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.betas) - 1

    @property
    def prior_scale(self) -> jax.Array:
        """Standard deviation of the prior p(x_T): that of x_T for data of unit variance (1 if variance preserving)."""
        return jnp.sqrt(self.signal[-1] ** 2 + self.noise[-1] ** 2)


def preserving(betas: np.ndarray) -> Schedule:
    """Return the chain x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) epsilon for betas [T] (DDPM eq. 2, 4).

    Raises:
        UserError: a beta that is not below 1.
    """
    if np.max(betas) >= 1.0:
        raise UserError(f"a chain that preserves the variance needs betas below 1, not {np.max(betas):g}")
    betas = np.concatenate([[0.0], np.asarray(betas, np.float64)])
    alpha_bar = np.cumprod(1.0 - betas)
    return _schedule(betas, np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar))


def exploding(betas: np.ndarray) -> Schedule:
    """Return the chain x_t = x_{t-1} + sqrt(beta_t) epsilon for betas [T]: nothing shrinks, the noise adds up."""
    betas = np.concatenate([[0.0], np.asarray(betas, np.float64)])
    return _schedule(betas, np.ones_like(betas), np.sqrt(np.cumsum(betas)))


def _schedule(*columns: np.ndarray) -> Schedule:
    """Round float64 columns once, at the end: 1 - alpha_bar computed in float32 loses half of its digits."""
    return Schedule(*(jnp.asarray(column, jnp.float32) for column in columns))


def linear(T: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Return the schedule of Ho et al. (2020), section 4: betas from beta_start to beta_end in equal steps."""
    return preserving(np.linspace(beta_start, beta_end, T))


def cosine(T: int, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Return alpha_bar(t) = f(t) / f(0), f(t) = cos^2((t/T + s)/(1 + s) pi/2) (Nichol & Dhariwal 2021, eq. 17)."""
    f = np.cos((np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2) ** 2
    return preserving(np.minimum(1 - f[1:] / f[:-1], max_beta))


def growing(T: int, beta_start: float = 1e-4, beta_end: float = 0.04) -> Schedule:
    """Return a variance-exploding chain whose betas go from beta_start to beta_end in equal steps."""
    return exploding(np.linspace(beta_start, beta_end, T))


REMAINS = 0.05  # of the variance of x_T may be the image's, at most

SCHEDULES: dict[str, Callable[..., Schedule]] = {"linear": linear, "cosine": cosine, "exploding": growing}


def make_schedule(name: str, T: int, **settings: float) -> Schedule:
    """Return the schedule called `name` with T steps; `settings` are the keyword arguments of its function."""
    if name not in SCHEDULES:
        raise UserError(f"no noise schedule '{name}'{nearest(name, SCHEDULES)}; there are: {', '.join(SCHEDULES)}")
    if T < 1:
        raise UserError(f"a noise schedule needs at least 1 step, not {T}")
    try:
        return SCHEDULES[name](T, **settings)
    except TypeError as error:  # a misspelt or foreign setting, such as beta_start for the cosine schedule
        raise UserError(f"noise schedule '{name}': {error}") from error


def check_prior(name: str, schedule: Schedule) -> None:
    """Raise UserError where the chain ends too early: sampling starts from noise without a trace of an image."""
    left = float((schedule.signal[-1] / schedule.prior_scale) ** 2)
    if left > REMAINS:
        raise UserError(
            f"the noise schedule '{name}' of {schedule.T} steps ends while {left:.0%} of the variance of x_T is the "
            f"image's (at most {REMAINS:.0%}), but samples start from noise alone: set diffusion.beta_end higher, "
            "more diffusion.timesteps, or diffusion.schedule=cosine"
        )


def at(values: jax.Array, t: jax.Array | int, like: jax.Array) -> jax.Array:
    """Return values[t] shaped to broadcast against `like` [B, ...]; t is one step or [B] steps."""
    chosen = jnp.asarray(values)[jnp.asarray(t)]
    return chosen.reshape(chosen.shape + (1,) * (like.ndim - chosen.ndim)) if chosen.ndim else chosen


def diffuse(schedule: Schedule, x0: jax.Array, t: jax.Array | int, epsilon: jax.Array) -> jax.Array:
    """Return x_t = signal_t x_0 + noise_t epsilon, a draw of q(x_t | x_0) for standard normal epsilon (DDPM eq. 4)."""
    return at(schedule.signal, t, x0) * x0 + at(schedule.noise, t, x0) * epsilon


def predict_x0(schedule: Schedule, x_t: jax.Array, t: jax.Array | int, epsilon: jax.Array) -> jax.Array:
    """Solve x_t = signal_t x_0 + noise_t epsilon for x_0."""
    return (x_t - at(schedule.noise, t, x_t) * epsilon) / at(schedule.signal, t, x_t)


def predict_epsilon(schedule: Schedule, x_t: jax.Array, t: jax.Array | int, x0: jax.Array) -> jax.Array:
    """Solve x_t = signal_t x_0 + noise_t epsilon for epsilon (t >= 1: at t = 0 there is no noise to find)."""
    return (x_t - at(schedule.signal, t, x_t) * x0) / at(schedule.noise, t, x_t)


def posterior(
    schedule: Schedule, x0: jax.Array, x_t: jax.Array, s: jax.Array | int, t: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
    """Return mean [B, ...] and variance (broadcastable) of the Gaussian q(x_s | x_t, x_0) for steps s < t.

    With a = signal_t / signal_s and v = noise_t^2 - a^2 noise_s^2 (so that x_t = a x_s + sqrt(v) epsilon):
    mean = a noise_s^2 / noise_t^2 x_t + signal_s v / noise_t^2 x_0, variance = v noise_s^2 / noise_t^2; for s = t - 1
    in a variance-preserving chain this is eq. 7 of Ho et al. (2020).
    """
    signal_s, noise_s = at(schedule.signal, s, x_t), at(schedule.noise, s, x_t)
    signal_t, noise_t = at(schedule.signal, t, x_t), at(schedule.noise, t, x_t)
    a = signal_t / signal_s
    v = noise_t**2 - a**2 * noise_s**2
    mean = (a * noise_s**2 * x_t + signal_s * v * x0) / noise_t**2
    return mean, v * noise_s**2 / noise_t**2


def snr(schedule: Schedule, t: jax.Array | int) -> jax.Array:
    """Return the signal-to-noise ratio signal_t^2 / noise_t^2, of the shape of t (infinite at t = 0)."""
    return (schedule.signal[t] / schedule.noise[t]) ** 2
