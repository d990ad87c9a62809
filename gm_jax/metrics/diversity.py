"""How alike samples are: cosine similarity, and the energy score that punishes both sameness and unlikeness to data."""

import jax
import jax.numpy as jnp
import numpy as np


def cosine_similarity(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the cosine of the angle between the images x and y [B, ...], flattened: [B]."""
    x, y = (a.reshape(len(a), -1) for a in (x, y))
    lengths = jnp.linalg.norm(x, axis=1) * jnp.linalg.norm(y, axis=1)
    return jnp.sum(x * y, axis=1) / jnp.maximum(lengths, 1e-12)


def energy_score(real: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Return |first - real| - |first - second| / 2 for real images and two independent samples [B, ...]: [B].

    |.| is the root mean square over an image. Its mean over examples is the energy score of Gneiting & Raftery (2007,
    eq. (22)), lowest if and only if samples have the distribution of the data; no network judges.
    """

    def distance(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.mean(jnp.square(x - y).reshape(len(x), -1), axis=1))

    return distance(first, real) - 0.5 * distance(first, second)


def mean_similarity(images: np.ndarray, classes: np.ndarray) -> float:
    """Return the mean cosine similarity of two different images [n, ...] of one class, int [n]: 0 if there are none.

    A class counts as much as it has images.
    """
    groups = [images[classes == number] for number in np.unique(classes)]
    groups = [group for group in groups if len(group) > 1]
    means = [similar_pairs(group, 1.0)[1] for group in groups]
    return float(np.average(means, weights=[len(group) for group in groups])) if groups else 0.0


def similar_pairs(images: np.ndarray, threshold: float) -> tuple[int, float]:
    """Count ordered pairs of different images [n, ...] whose cosine similarity exceeds the threshold.

    Returns:
        The number of the n (n - 1) pairs that do, and the mean similarity of all of them (NaN for a single image).
    """
    x = images.reshape(len(images), -1).astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    pairs = (x @ x.T)[~np.eye(len(x), dtype=bool)]
    return int(np.sum(pairs > threshold)), float(np.mean(pairs)) if pairs.size else float("nan")
