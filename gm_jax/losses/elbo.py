"""The evidence lower bound (Kingma & Welling 2014), its terms and its importance-weighted cousin; all in nats.

log p(x) >= ELBO = E_q(z|x) log p(x|z) - KL(q(z|x) || p(z)),   q(z|x) = N(mean, diag exp(log_variance)),  p(z) = N(0, I)
"""

import math

import jax
import jax.numpy as jnp

PIXELS = (-3, -2, -1)  # height, width, channels


def bernoulli_log_likelihood(x: jax.Array, logits: jax.Array) -> jax.Array:
    """Return sum over pixels of x log p + (1 - x) log(1 - p), p = sigmoid(logits): [..., H, W, C] -> [...].

    For x in {0, 1} this is log p(x|z). For grey pixels in [0, 1] it is a cross-entropy, no normalised likelihood.
    """
    return jnp.sum(x * logits - jax.nn.softplus(logits), PIXELS)


def gaussian_log_likelihood(x: jax.Array, mean: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Return log of the density N(x; mean, exp(log_scale)^2 I): [..., H, W, C] -> [...]; it may be positive."""
    error = (x - mean) * jnp.exp(-log_scale)
    return jnp.sum(-0.5 * error**2 - log_scale - 0.5 * math.log(2 * math.pi), PIXELS)


def kl_divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)) of every latent, of the shape of `mean`."""
    return 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)


def free_bits(kl: jax.Array, nats: float) -> jax.Array:
    """Return sum over latents of max(kl, nats): a latent may use so many nats at no cost (Kingma et al. 2016, eq. 15).

    `kl` [D] is the mean over the batch, as in the paper.
    """
    return jnp.sum(jnp.maximum(kl, nats))


def reparameterise(mean: jax.Array, log_variance: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw z from q(z|x) with standard normal `noise` [B, K, D]; return z and log p(z) - log q(z|x) [B, K].

    mean and log_variance are [B, D]. The ratio's expectation is -KL, and log p(x|z) + ratio is the logarithm of an
    importance weight.
    """
    mean, log_variance = mean[:, None], log_variance[:, None]
    z = mean + jnp.exp(0.5 * log_variance) * noise
    return z, 0.5 * jnp.sum(noise**2 + log_variance - z**2, axis=-1)


def importance_weighted_bound(log_weights: jax.Array) -> jax.Array:
    """Return log mean_k w_k from log w [B, K]: [B] (Burda et al. 2016, eq. 8).

    Between the ELBO (K = 1) and log p(x) (K to infinity), and monotone in K in expectation.
    """
    return jax.nn.logsumexp(log_weights, axis=-1) - math.log(log_weights.shape[-1])
