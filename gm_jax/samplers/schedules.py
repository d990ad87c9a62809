"""Noise schedules: how much signal and how much noise is left at each step of a chain that turns images into noise.

Everything is written in terms of x_t = signal_t x_0 + noise_t epsilon, so that one set of formulas serves
variance-preserving chains (Ho et al. 2020: signal^2 + noise^2 = 1) and variance-exploding ones (signal = 1). Index 0 is
the clean data, index T the prior. Schedules are worked out in NumPy's float64: 1 - alpha_bar loses half of its digits
in float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError, nearest


class Schedule(NamedTuple):
    """The chain x_t = signal[t] x_0 + noise[t] epsilon for t = 0 ... T, float64 arrays of length T + 1."""

    betas: np.ndarray  # variance that the one-step transition t - 1 -> t adds; betas[0] = 0
    signal: np.ndarray  # signal[0] = 1
    noise: np.ndarray  # noise[0] = 0

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.betas) - 1

    @property
    def prior_scale(self) -> float:
        """Standard deviation of the prior p(x_T): that of x_T for data of unit variance (1 if variance preserving)."""
        return float(np.hypot(self.signal[-1], self.noise[-1]))

    @property
    def snr(self) -> np.ndarray:
        """The signal-to-noise ratios signal^2 / noise^2 [T + 1], infinite at t = 0."""
        with np.errstate(divide="ignore"):
            return (self.signal / self.noise) ** 2


def preserving(betas: np.ndarray) -> Schedule:
    """Return the chain x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) epsilon for betas [T] (DDPM eq. 2, 4).

    Raises:
        UserError: a beta that is not below 1.
    """
    if np.max(betas) >= 1.0:
        raise UserError(f"a chain that preserves the variance needs betas below 1, not {np.max(betas):g}")
    betas = np.concatenate([[0.0], np.asarray(betas, np.float64)])
    log_alpha_bar = np.cumsum(np.log1p(-betas))
    return Schedule(betas, np.exp(log_alpha_bar / 2), np.sqrt(-np.expm1(log_alpha_bar)))


def exploding(betas: np.ndarray) -> Schedule:
    """Return the chain x_t = x_{t-1} + sqrt(beta_t) epsilon for betas [T]: nothing shrinks, the noise adds up."""
    betas = np.concatenate([[0.0], np.asarray(betas, np.float64)])
    return Schedule(betas, np.ones_like(betas), np.sqrt(np.cumsum(betas)))


def linear(T: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Return the schedule of Ho et al. (2020), section 4: betas from beta_start to beta_end in equal steps."""
    return preserving(np.linspace(beta_start, beta_end, T))


def cosine(T: int, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Return alpha_bar(t) = f(t) / f(0), f(t) = cos^2((t/T + s)/(1 + s) pi/2) (Nichol & Dhariwal 2021, eq. 17)."""
    f = np.cos((np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2) ** 2
    return preserving(np.minimum(1 - f[1:] / f[:-1], max_beta))


def sigmoid(T: int, start: float = -3.0, end: float = 3.0, max_beta: float = 0.999) -> Schedule:
    """Return alpha_bar(t) = (g(1) - g(t)) / (g(1) - g(0)), g(t) = 1 / (1 + exp(-start - (end - start) t/T)).

    The schedule of Jabri et al. (2022), whose middle is steeper than the cosine's.
    """
    g = 1 / (1 + np.exp(-(start + (end - start) * np.arange(T + 1) / T)))
    alpha_bar = (g[-1] - g) / (g[-1] - g[0])
    return preserving(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def growing(T: int, beta_start: float = 1e-4, beta_end: float = 0.04) -> Schedule:
    """Return a variance-exploding chain whose betas go from beta_start to beta_end in equal steps."""
    return exploding(np.linspace(beta_start, beta_end, T))


REMAINS = 0.05  # of the variance of x_T may be the image's, at most

SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "exploding": growing,
}


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
