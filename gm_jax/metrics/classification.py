"""What tells a good classifier from a lucky one: the confusion matrix and the calibration."""

import jax
import jax.numpy as jnp
import numpy as np


def confusion(labels: jax.Array, predicted: jax.Array, classes: int) -> jax.Array:
    """Return per example a matrix with a single 1 at [label, predicted]: [B, classes, classes]; sums count."""
    return jax.nn.one_hot(labels, classes)[:, :, None] * jax.nn.one_hot(predicted, classes)[:, None, :]


def calibration(confidence: jax.Array, correct: jax.Array, bins: int) -> jax.Array:
    """Return per example [B, bins, 3]: (1, confidence, correct) in the example's bin of confidence, else 0.

    Bin b holds confidences in (b / bins, (b + 1) / bins], and the first one 0 too.
    """
    number = jnp.clip(jnp.ceil(confidence * bins).astype(jnp.int32) - 1, 0, bins - 1)
    entries = jnp.stack([jnp.ones_like(confidence), confidence, correct.astype(confidence.dtype)], axis=-1)
    return jax.nn.one_hot(number, bins)[:, :, None] * entries[:, None, :]


def expected_calibration_error(shares: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy, over bins weighted by size (Guo et al. 2017, eq. 3).

    `shares` [bins, 3] is the mean of `calibration` over the examples.
    """
    return float(np.sum(np.abs(shares[:, 2] - shares[:, 1])))
