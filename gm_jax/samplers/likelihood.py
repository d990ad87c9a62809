"""Likelihoods of images by the probability-flow equation (Song et al. 2021; Karras et al. 2022, eq. 1)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gm_jax import random
from gm_jax.samplers.diffusion import Denoiser
from gm_jax.samplers.processes import Process, karras

LEVELS = 127.5  # 8-bit values lie so densely in [-1, 1]


def bits_by_flow(denoise: Denoiser, process: Process, x0: jax.Array, keys: jax.Array, steps: int) -> jax.Array:
    """Return the bits per dimension [B] of 8-bit images x0 [B, ...] in [-1, 1], within the noise of one random trace.

    With u = x / signal and sigma = noise / signal, du/dsigma = (u - x_0(u)) / sigma carries images to noise, and the
    log-density changes by minus its divergence, which z^T J z estimates for random signs z (Hutchinson's trace). Heun's
    method takes `steps` steps between the process's smallest and largest ratio. Images get uniform noise of their bin's
    width first, so that this is an upper bound on the bits of the discrete values, in the mean.
    """
    dimensions = int(np.prod(x0.shape[1:]))
    levels = karras(process, steps + 1)
    sigma = (levels.noise[:-1] / levels.signal[:-1])[::-1]
    levels = jax.tree.map(lambda column: jnp.asarray(column[:-1][::-1], jnp.float32), levels)
    signs = jnp.sign(random.uniform(random.fold_in(keys, 0), x0.shape[1:], -1.0, 1.0))

    def slope(u: jax.Array, level) -> tuple[jax.Array, jax.Array]:
        """Return du/dsigma and the estimate of its divergence [B]."""
        x0, pull = jax.vjp(lambda u: denoise(level.signal * u, level).x0, u)
        trace = jnp.sum((signs * pull(signs)[0]).reshape(len(u), -1), axis=1)
        ratio = level.noise / level.signal
        return (u - x0) / ratio, (dimensions - trace) / ratio

    def body(carry, now):
        u, change = carry
        here, there, length = now
        first, divergence = slope(u, here)
        second, later = slope(u + length * first, there)
        return (u + length * (first + second) / 2, change + length * (divergence + later) / 2), None

    u = x0 + random.uniform(random.fold_in(keys, 1), x0.shape[1:], -0.5, 0.5) / LEVELS
    ends = (jax.tree.map(lambda column: column[:-1], levels), jax.tree.map(lambda column: column[1:], levels))
    (u, change), _ = lax.scan(body, (u, jnp.zeros(len(u))), (*ends, jnp.asarray(np.diff(sigma), jnp.float32)))
    squares = jnp.sum(jnp.square(u / sigma[-1]).reshape(len(u), -1), axis=1)
    log_prior = -0.5 * squares - dimensions * np.log(sigma[-1] * np.sqrt(2 * np.pi))
    return -(log_prior + change) / (dimensions * np.log(2.0)) + np.log2(LEVELS)
