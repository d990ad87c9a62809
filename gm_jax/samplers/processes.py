"""Processes from images to noise, x = signal x_0 + noise epsilon, and the levels at which they are trained and sampled.

Three kinds share everything else: chains of T steps (DDPM), EDM's unbounded noise (Karras et al. 2022), and the
straight lines of rectified flow (Liu et al. 2023). Levels for training are drawn on the device; those for sampling are
worked out in NumPy's float64.
"""

import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from gm_jax.errors import UserError
from gm_jax.samplers.schedules import Schedule

Array = jax.Array | np.ndarray

LARGEST_RATIO = 80.0  # of noise to signal at which sampling by ratios starts, as in EDM


class Level(NamedTuple):
    """How noisy an image is: x = signal x_0 + noise epsilon. Numbers, or arrays of one shape."""

    signal: Array
    noise: Array
    time: Array  # what the network is told

    def spread(self, like: jax.Array) -> "Level":
        """Return levels of [B] so shaped that they multiply images [B, ...]."""
        return Level(*(jnp.asarray(v).reshape(jnp.shape(v) + (1,) * (like.ndim - jnp.ndim(v))) for v in self))


class Process(Protocol):
    """What training and sampling must know of a process.

    Attributes:
        ratios: the smallest and the largest ratio of noise to signal that sampling by ratios visits.
        most: how many evenly spaced levels there are, at most.
    """

    ratios: tuple[float, float]
    most: float

    def draw(self, u: jax.Array) -> Level:
        """Return the levels to train at, for u uniform in [0, 1), of the shape of u."""

    def evenly(self, steps: int) -> Level:
        """Return `steps` levels from the prior on, evenly spaced in the network's time, and the clean image's."""

    def at_ratio(self, ratio: np.ndarray) -> Level:
        """Return the levels at which noise / signal is this, for ratios > 0."""


class Chain:
    """The T steps of a schedule; the time is the step, 1 ... T, in between where a ratio asks for it."""

    def __init__(self, schedule: Schedule):
        self.schedule, self.most = schedule, schedule.T
        ratio = schedule.noise[1:] / schedule.signal[1:]
        self.ratios = float(ratio[0]), min(float(ratio[-1]), LARGEST_RATIO)

    def at_step(self, t: jax.Array) -> Level:
        """Return the levels of the steps t, int32 of any shape."""
        signal, noise = (jnp.asarray(column, jnp.float32)[t] for column in self.schedule[1:])
        return Level(signal, noise, t)

    def draw(self, u: jax.Array) -> Level:
        return self.at_step(1 + jnp.floor(u * self.schedule.T).astype(jnp.int32))

    def evenly(self, steps: int) -> Level:
        """Start at T, where the prior is ("trailing" in Lin et al. 2023), and visit whole steps.

        Raises:
            UserError: more steps than there are.
        """
        T = self.schedule.T
        if steps > T:
            raise UserError(f"sampling takes between 1 and {T} steps, not {steps}")
        t = np.round(np.linspace(T, 0, steps + 1)).astype(np.int32)
        return Level(self.schedule.signal[t], self.schedule.noise[t], np.float64(t))

    def at_ratio(self, ratio: np.ndarray) -> Level:
        schedule = self.schedule
        known = np.log(schedule.noise[1:] / schedule.signal[1:])
        time = np.interp(np.log(ratio), known, np.arange(1.0, schedule.T + 1))
        signal = 1 / np.sqrt(1 + ratio**2) if schedule.signal[-1] < 1 else np.ones_like(ratio)
        return Level(signal, signal * ratio, time)


class LogNormal:
    """EDM (Karras et al. 2022, table 1): signal 1, ln noise ~ N(mean, deviation^2); the time is ln(noise) / 4."""

    ratios, most = (0.002, LARGEST_RATIO), math.inf

    def __init__(self, mean: float = -1.2, deviation: float = 1.2):
        self.mean, self.deviation = mean, deviation

    def draw(self, u: jax.Array) -> Level:
        log = self.mean + self.deviation * ndtri(jnp.clip(u, 1e-6, 1 - 1e-6))
        return Level(jnp.ones_like(log), jnp.exp(log), log / 4)

    def evenly(self, steps: int) -> Level:
        low, high = self.ratios
        return end_clean(self.at_ratio(np.geomspace(high, low, steps)))

    def at_ratio(self, ratio: np.ndarray) -> Level:
        return Level(np.ones_like(ratio), ratio, np.log(ratio) / 4)


class Flow:
    """Rectified flow: x = (1 - s) x_0 + s epsilon for s uniform in [0, 1]; the time is 1000 s."""

    ratios, most = (0.002, LARGEST_RATIO), math.inf

    def draw(self, u: jax.Array) -> Level:
        s = jnp.clip(u, 1e-4, 1.0)  # at s = 0 there is nothing to learn, and the weights of errors are infinite
        return Level(1 - s, s, 1000 * s)

    def evenly(self, steps: int) -> Level:
        s = np.linspace(1, 0, steps + 1)
        return Level(1 - s, s, 1000 * s)

    def at_ratio(self, ratio: np.ndarray) -> Level:
        s = ratio / (1 + ratio)
        return Level(1 - s, s, 1000 * s)


def end_clean(levels: Level) -> Level:
    """Append the level of the clean image."""
    return Level(*(np.append(column, end) for column, end in zip(levels, (1.0, 0.0, 0.0), strict=True)))


def karras(process: Process, steps: int, rho: float = 7.0) -> Level:
    """Return `steps` levels whose noise-to-signal ratios are evenly spaced after taking the rho-th root, and the clean.

    Karras et al. (2022), eq. 5: the larger rho, the more of the steps are spent on little noise.
    """
    low, high = (limit ** (1 / rho) for limit in process.ratios)
    return end_clean(process.at_ratio(np.linspace(high, low, steps) ** rho))
