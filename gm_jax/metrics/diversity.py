"""How alike samples are: cosine similarity, and the energy score that punishes both sameness and unlikeness to data."""

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 2000  # images that are compared with as many others at once


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

    Images of type uint8 are mapped to [-1, 1]. Blocks of pairs are compared in turn, so that memory grows with n alone.

    Returns:
        The number of the n (n - 1) pairs that do, and the mean similarity of all of them (NaN for a single image).
    """
    n = len(images)

    def directions(start: int) -> np.ndarray:
        x = images[start : start + BLOCK].reshape(-1, int(np.prod(images.shape[1:])))
        x = x / 127.5 - 1.0 if images.dtype == np.uint8 else x.astype(np.float64)
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    count, total = 0, 0.0
    for row in range(0, n, BLOCK):
        x = directions(row)
        for column in range(row, n, BLOCK):
            pairs = x @ (x if column == row else directions(column)).T
            if column == row:
                pairs = pairs[~np.eye(len(x), dtype=bool)]
            times = 1 if column == row else 2  # both orders
            count += times * int(np.sum(pairs > threshold))
            total += times * float(np.sum(pairs))
    return count, total / (n * (n - 1)) if n > 1 else float("nan")
