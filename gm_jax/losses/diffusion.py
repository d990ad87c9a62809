"""The denoising loss of DDPM, the quantities a network may predict, and the variational bound in bits per dimension."""

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr

from gm_jax.errors import UserError, nearest
from gm_jax.samplers.schedules import Schedule, at, posterior, predict_x0, snr

OBJECTIVES = ("noise", "velocity", "image")


def per_example(values: jax.Array) -> jax.Array:
    """Average over everything but the batch: [B, ...] -> [B]."""
    return jnp.mean(values.reshape(len(values), -1), axis=1)


def squared_error(target: jax.Array, prediction: jax.Array) -> jax.Array:
    """Return mean((target - prediction)^2) per example [B]; with target epsilon, the simple loss of DDPM (eq. 14)."""
    return per_example((target - prediction) ** 2)


def check_objective(objective: str) -> None:
    """Refuse the name of an objective that does not exist."""
    if objective not in OBJECTIVES:
        raise UserError(
            f"no objective '{objective}'{nearest(objective, OBJECTIVES)}; there are: {', '.join(OBJECTIVES)}"
        )


def target(objective: str, schedule: Schedule, x0: jax.Array, t: jax.Array, epsilon: jax.Array) -> jax.Array:
    """Return what the network shall predict, [B, ...]: epsilon, x_0, or the velocity v.

    v = signal_t epsilon - noise_t x_0 (Salimans & Ho 2022) stays well-posed at both ends: it is the noise where the
    image is clean and (minus) the image where all is noise.
    """
    check_objective(objective)
    if objective == "noise":
        return epsilon
    if objective == "image":
        return x0
    return at(schedule.signal, t, x0) * epsilon - at(schedule.noise, t, x0) * x0


def to_x0(objective: str, schedule: Schedule, x_t: jax.Array, t: jax.Array, output: jax.Array) -> jax.Array:
    """Turn the network's output, a prediction of `target(objective, ...)`, into that of x_0 [B, ...], for t >= 1."""
    check_objective(objective)
    if objective == "noise":
        return predict_x0(schedule, x_t, t, output)
    if objective == "image":
        return output
    signal, noise = at(schedule.signal, t, x_t), at(schedule.noise, t, x_t)
    return (signal * x_t - noise * output) / (signal**2 + noise**2)


def error_weight(quantity: str, schedule: Schedule, t: jax.Array) -> jax.Array:
    """Return how many times the squared error of x_0 that of a quantity is, at steps t [B] >= 1: [B].

    All three describe one prediction, so their errors differ by a factor of the step alone: SNR_t for the noise,
    (signal_t^2 + noise_t^2)^2 / noise_t^2 for the velocity.
    """
    check_objective(quantity)
    if quantity == "image":
        return jnp.ones(t.shape)
    if quantity == "noise":
        return snr(schedule, t)
    signal, noise = schedule.signal[t], schedule.noise[t]
    return ((signal**2 + noise**2) / noise) ** 2


def prior_bits(schedule: Schedule, x0: jax.Array) -> jax.Array:
    """Return L_T, KL(q(x_T | x_0) || p(x_T)) in bits per dimension [B] (DDPM eq. 5); it holds no parameter."""
    mean = schedule.signal[-1] * x0 / schedule.prior_scale
    variance = (schedule.noise[-1] / schedule.prior_scale) ** 2
    return per_example(0.5 * (mean**2 + variance - 1.0 - jnp.log(variance))) / jnp.log(2.0)


def step_bits(schedule: Schedule, x0: jax.Array, x0_hat: jax.Array, t: jax.Array) -> jax.Array:
    """Return the bound's term of step t in bits per dimension [B]: L_{t-1} for t >= 2, L_0 for t = 1 (DDPM eq. 5).

    x0_hat is the prediction of x_0 from a draw of q(x_t | x_0). The reverse step p(x_{t-1} | x_t) has the posterior's
    own variance ("fixed small" in Ho et al.), so the Kullback-Leibler divergence is a squared error with the weight
    (SNR(t-1) - SNR(t)) / 2 (Kingma et al. 2021, eq. 13). The whole bound is `prior_bits` plus the sum of these over
    t = 1 ... T.
    """
    s = jnp.maximum(t - 1, 1)  # t = 1 takes the other branch; SNR(0) is infinite
    gain = 0.5 * (snr(schedule, s) - snr(schedule, t))
    later = gain * squared_error(x0, x0_hat) / jnp.log(2.0)
    return jnp.where(t == 1, decoder_bits(schedule, x0, x0_hat), later)


def decoder_bits(schedule: Schedule, x0: jax.Array, x0_hat: jax.Array) -> jax.Array:
    """Return L_0 = -log2 p(x_0 | x_1) per dimension [B] for 8-bit images scaled to [-1, 1] (DDPM eq. 13).

    The mean of p(x_0 | x_1) is x0_hat. Its variance cannot be the posterior's, which is 0 at t = 1; as in the authors'
    code it is the posterior's at t = 2.
    """
    _, variance = posterior(schedule, x0, x0, 1, 2) if schedule.T > 1 else (None, schedule.noise[1] ** 2)
    return per_example(-discretized_log_likelihood(x0, x0_hat, jnp.sqrt(variance))) / jnp.log(2.0)


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
