"""What a denoising network may say, how its errors are weighed, and the variational bound in bits per dimension."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr

from gm_jax.samplers.processes import Level
from gm_jax.samplers.schedules import Schedule

DATA_DEVIATION = 0.5  # of images in [-1, 1], as in EDM


def _edm(level: Level) -> tuple[jax.Array, jax.Array]:
    scale = edm_scale(level)
    return level.noise / (DATA_DEVIATION * scale), -DATA_DEVIATION * level.signal / scale


# The network says p x_0 + q epsilon of x = signal x_0 + noise epsilon: a level's (p, q) by the prediction's name.
PREDICTIONS: dict[str, Callable[[Level], tuple[jax.Array | float, jax.Array | float]]] = {
    "noise": lambda level: (0.0, 1.0),
    "image": lambda level: (1.0, 0.0),
    "velocity": lambda level: (-level.noise, level.signal),  # Salimans & Ho (2022): well-posed at both ends
    "flow": lambda level: (-1.0, 1.0),  # rectified flow's velocity
    "edm": _edm,  # Karras et al. (2022): c_skip and c_out, so that what is asked for has unit variance at every level
}
MIN_SNR = 5.0  # Hang et al. (2023)
BOUNDING = ("noise", "velocity", "flow", "edm")  # objectives that weigh little noise as a likelihood does, about


def per_example(values: jax.Array) -> jax.Array:
    """Average over everything but the batch: [B, ...] -> [B]."""
    return jnp.mean(values.reshape(len(values), -1), axis=1)


def squared_error(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """Return mean((target - prediction)^2) per example [B]; with target epsilon, the simple loss of DDPM (eq. 14)."""
    return per_example((target - prediction) ** 2)


def edm_scale(level: Level) -> jax.Array:
    """Return the standard deviation of noisy images of that level, for data of DATA_DEVIATION."""
    return jnp.sqrt((DATA_DEVIATION * level.signal) ** 2 + level.noise**2)


def to_input(prediction: str, level: Level, x: jax.Array) -> jax.Array:
    """Return what the network sees of x [B, ...]: x, but with EDM's prediction scaled to unit variance (c_in)."""
    return x / edm_scale(level.spread(x)) if prediction == "edm" else x


def target(prediction: str, level: Level, x0: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Return what the network shall say, [B, ...]."""
    p, q = PREDICTIONS[prediction](level.spread(x0))
    parts = [factor * x for factor, x in ((p, x0), (q, epsilon)) if not (isinstance(factor, float) and factor == 0.0)]
    return sum(parts[1:], parts[0])


def to_x0(prediction: str, level: Level, x: jax.Array, output: jax.Array) -> jax.Array:
    """Turn the network's output, a prediction of `target(prediction, ...)`, into that of x_0 [B, ...], for noise > 0.

    Solves x = signal x_0 + noise epsilon and output = p x_0 + q epsilon.
    """
    level = level.spread(x)
    p, q = PREDICTIONS[prediction](level)
    return (q * x - level.noise * output) / (q * level.signal - level.noise * p)


def error_weight(quantity: str, level: Level) -> jax.Array:
    """Return how many times the squared error of x_0 an objective is, at levels [B] with noise > 0: [B].

    All predictions tell one image, so their squared errors differ by a factor of the level alone: SNR for the noise, 1
    for the image, (1 + SNR) for the velocity of a chain that preserves the variance, 1 / c_out^2 for EDM's. "min_snr"
    is that of the noise, but 5 at most (Hang et al. 2023).
    """
    if quantity == "min_snr":
        return jnp.minimum(error_weight("noise", level), MIN_SNR)
    p, q = PREDICTIONS[quantity](level)
    return ((q * level.signal - level.noise * p) / level.noise) ** 2


def prior_bits(schedule: Schedule, x0: jax.Array) -> jax.Array:
    """Return L_T, KL(q(x_T | x_0) || p(x_T)) in bits per dimension [B] (DDPM eq. 5); it holds no parameter."""
    mean = schedule.signal[-1] * x0 / schedule.prior_scale
    variance = (schedule.noise[-1] / schedule.prior_scale) ** 2
    return per_example(0.5 * (mean**2 + variance - 1.0 - np.log(variance))) / np.log(2.0)


def chain_bits(schedule: Schedule, x0: jax.Array, x0_hat: jax.Array, t: jax.Array, w: jax.Array = 0.0) -> jax.Array:
    """Return the bound's term L_{t-1} in bits per dimension [B] for t >= 2, and 0 for t = 1 (DDPM eq. 5).

    x0_hat is the prediction of x_0 from a draw of q(x_t | x_0). With w = 0 the reverse step p(x_{t-1} | x_t) has the
    posterior's own variance ("fixed small" in Ho et al.), so the Kullback-Leibler divergence is a squared error with
    the weight (SNR(t-1) - SNR(t)) / 2 (Kingma et al. 2021, eq. 13); w [B, ...] raises the logarithm of the variance,
    at 1 to that of beta_t (Nichol & Dhariwal 2021, eq. 15). The whole bound is `prior_bits`, the sum of these over t,
    and `decoder_bits` of t = 1.
    """
    gain = np.concatenate([[0.0, 0.0], -np.diff(schedule.snr[1:])])
    widest = np.concatenate([[0.0, 0.0], 2 * np.log(schedule.noise[2:] / schedule.noise[1:-1])])
    column = (-1,) + (1,) * (x0.ndim - 1)
    gain, widest = (jnp.asarray(values, jnp.float32)[t].reshape(column) for values in (gain, widest))
    raised = widest * w
    return per_example(raised + jnp.expm1(-raised) + jnp.exp(-raised) * gain * (x0 - x0_hat) ** 2) / np.log(4.0)


def decoder_bits(schedule: Schedule, x0: jax.Array, x0_hat: jax.Array, w: jax.Array = 0.0) -> jax.Array:
    """Return L_0 = -log2 p(x_0 | x_1) per dimension [B] for 8-bit images scaled to [-1, 1] (DDPM eq. 13).

    The mean of p(x_0 | x_1) is x0_hat. Its variance cannot be the posterior's, which is 0 at t = 1; as in the authors'
    code it is the posterior's at t = 2, and w [B, ...] raises its logarithm, at 1 to that of beta_1.
    """
    signal, noise = schedule.signal, schedule.noise
    scale = noise[1]
    if schedule.T > 1:
        scale *= np.sqrt(noise[2] ** 2 - (signal[2] / signal[1] * noise[1]) ** 2) / noise[2]
    scale = jnp.exp(np.log(scale) + w * np.log(noise[1] / scale))
    return per_example(-discretized_log_likelihood(x0, x0_hat, scale)) / np.log(2.0)


def term_bits(schedule: Schedule, x0: jax.Array, x0_hat: jax.Array, t: jax.Array, w: jax.Array = 0.0) -> jax.Array:
    """Return the bound's term at the steps t [B], the decoder's at t = 1, in bits per dimension [B]."""
    terms = [function(schedule, x0, x0_hat, *more) for function, more in ((chain_bits, (t, w)), (decoder_bits, (w,)))]
    return jnp.where(t > 1, *terms)


def discretized_log_likelihood(x: jax.Array, mean: jax.Array, scale: jax.Array) -> jax.Array:
    """Return log of the mass of N(mean, scale^2) in the bin of each 8-bit value x, in nats, of the shape of x.

    x is in {-1, -1 + 2/255, ..., 1}; a bin reaches 1/255 to both sides, the first and the last to infinity.
    """
    # By symmetry a bin can be moved below the mean, where log(cdf(upper) - cdf(lower)) keeps its digits far out.
    above = x > mean
    upper = jnp.where(x > 0.999, jnp.inf, (x + 1 / 255 - mean) / scale)
    lower = jnp.where(x < -0.999, -jnp.inf, (x - 1 / 255 - mean) / scale)
    lower, upper = jnp.where(above, -upper, lower), jnp.where(above, -lower, upper)
    log_upper, log_lower = log_ndtr(upper), log_ndtr(lower)
    return log_upper + jnp.log1p(-jnp.exp(log_lower - log_upper))
