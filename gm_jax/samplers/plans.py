"""Plans of samplers: at which levels to ask the denoiser, and how to combine its answers. NumPy, float64.

Every sampler here is one recursion, so that `samplers.diffusion.sample` runs them all. Asked at evaluation i for the
image x_0 behind x_i, it goes on to

    x_{i+1} = base_i y + image_i x_0 + previous_i x_0' + noise_i exp(widest_i w / 2) z

where x_0' is the answer before, z standard normal, and y the last state that was final: x_i itself, except in Heun's
method, whose first guess of a step is not final. w is 0, but for models that learn the variance of a step. Working the
coefficients out beforehand leaves no division by a noise of 0 in the scan, and no digits lost in differences such as
1 - alpha_bar.
"""

from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError
from gm_jax.samplers.processes import Level, Process


class Plan(NamedTuple):
    """What to do at each of E evaluations, arrays [E]."""

    level: Level  # at which the denoiser is asked
    base: np.ndarray
    image: np.ndarray
    previous: np.ndarray
    noise: np.ndarray
    final: np.ndarray  # 1: the new state is the next evaluation's y; 0: it is a guess
    widest: np.ndarray  # ln of the largest variance over noise^2, where w = 1

    @property
    def scale(self) -> np.ndarray:
        """Standard deviation of the state to begin with: that of data of unit variance at the first level."""
        return (self.level.signal[0] ** 2 + self.level.noise[0] ** 2) ** 0.5


def plan_of(level: Level, base, image, previous=0.0, noise=0.0, final=1.0, widest=0.0) -> Plan:
    """Return a plan of columns, or of numbers that hold for all evaluations."""
    columns = (base, image, previous, noise, final, widest)
    return Plan(level, *(np.broadcast_to(np.float64(column), level.noise.shape) for column in columns))


def ddim(levels: Level, eta: float = 0.0) -> Plan:
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12), for levels [N + 1] that end clean.

    x_s = signal_s x_0 + sqrt(noise_s^2 - c^2) epsilon + c z with c = eta times the posterior's standard deviation.
    eta = 1 draws from the posterior q(x_s | x_t, x_0), which is the ancestral step of DDPM (eq. 7), whose variance may
    be learned, up to that of q(x_t | x_s), beta_t; eta = 0 is Euler's method for the probability-flow equation and, on
    the levels of a flow, for its velocity.
    """
    (signal_t, noise_t, _), (signal_s, noise_s, _) = ends(levels)
    added = np.maximum(noise_t**2 - (signal_t / signal_s * noise_s) ** 2, 0.0)
    c = eta * np.sqrt(added) * noise_s / noise_t
    kept = np.sqrt(np.maximum(noise_s**2 - c**2, 0.0)) / noise_t
    widest = np.zeros_like(c)
    if eta == 1.0:
        widest[:-1] = 2 * np.log(noise_t[:-1] / noise_s[:-1])
    return plan_of(first(levels), kept, signal_s - kept * signal_t, noise=c, widest=widest)


def dpm_solver(levels: Level) -> Plan:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), for levels [N + 1] that end clean.

    With h the step in ln(signal / noise): x_s = noise_s / noise_t x - signal_s (exp(-h) - 1) D, where D extrapolates
    the last two answers to the middle of the step. The first step has but one answer; the last is of infinite length.
    """
    (signal_t, noise_t, _), (signal_s, noise_s, _) = ends(levels)
    shrink = signal_t * noise_s / (noise_t * signal_s)  # exp(-h)
    with np.errstate(divide="ignore"):
        h = -np.log(shrink)
    half = np.zeros_like(h)  # 1 / (2 r), r = h_before / h
    half[1:-1] = h[1:-1] / (2 * h[:-2])
    step = signal_s * (1 - shrink)
    return plan_of(first(levels), noise_s / noise_t, step * (1 + half), -step * half)


def heun(process: Process, levels: Level, churn: float = 0.0) -> Plan:
    """Heun's method with churn (Karras et al. 2022, algorithm 2), for levels [N + 1] that end clean.

    It solves dx/d sigma = (x - x_0) / sigma for x / signal, sigma = noise / signal, by 2 N - 1 evaluations: the last
    step, to sigma = 0, is Euler's. With churn, each step first raises its noise by min(churn / N, sqrt(2) - 1) of it.

    Raises:
        UserError: the first level is noise alone, where sigma is infinite.
    """
    if levels.signal[0] == 0.0:
        raise UserError("sampler heun cannot start from noise alone: set sampling.spacing=karras")
    count = len(levels.noise) - 1
    sigma = levels.noise / levels.signal
    raised = sigma[:-1] * (1 + min(churn / count, np.sqrt(2) - 1))
    start = process.at_ratio(raised) if churn else first(levels)
    rows = []  # (level, base, image, previous, noise, final)
    for i in range(count):
        here, there = row(start, i), row(levels, i + 1)
        t, s = raised[i], sigma[i + 1]
        base, euler = s / t * there.signal / here.signal, (1 - s / t) * there.signal
        if i + 1 == count:
            rows.append((here, base, euler, 0.0, 0.0, 1.0))
            break
        rows.append((here, base, euler, 0.0, 0.0, 0.0))
        answers = [there.signal * (t - s) / (2 * s), there.signal * (s - t) / 2 * (1 / s - 2 / t)]
        then = row(start, i + 1).signal
        rescaled = (then / there.signal) * np.array([base, *answers])
        rows.append((there, *rescaled, then * np.sqrt(max(raised[i + 1] ** 2 - s**2, 0.0)), 1.0))
    level, *columns = zip(*rows, strict=True)
    return plan_of(Level(*np.transpose(level)), *map(np.array, columns))


def row(levels: Level, i: int) -> Level:
    """Return the level number i."""
    return Level(*(column[i] for column in levels))


def first(levels: Level) -> Level:
    """Return all levels but the last."""
    return Level(*(column[:-1] for column in levels))


def ends(levels: Level) -> tuple[Level, Level]:
    """Return where each step begins, and where it ends."""
    return first(levels), Level(*(column[1:] for column in levels))
