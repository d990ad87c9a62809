"""Distances between features: precision and recall, density and coverage, memorisation; all pairs, block by block.

The manifold of a set is the union of balls around its features, whose radii reach to their k-th nearest neighbours.
"""

from collections.abc import Iterator

import numpy as np

ROWS, COLUMNS = 1000, 4000  # features that are compared at once
EXACT = 1024  # values of an image, up to which float32 has all sums of products


def pairs(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield |x|^2 - 2 x y + |y|^2 of blocks of x [n, D] and blocks of y [m, D], and which blocks these are.

    The squared distances are float64. Of small images, uint8, they are int32 and at half the cost: products of 1,024
    values from -128 to 127 add up to 2^24 at most, and float32 has all integers up to there.
    """
    small = x.dtype == y.dtype == np.uint8 and x.shape[1] <= EXACT
    kind, whole, centre = (np.float32, np.int32, 128) if small else (np.float64, np.float64, 0)
    for j in range(0, len(y), COLUMNS):
        b = np.asarray(y[j : j + COLUMNS], kind) - centre
        b_squared = np.sum(b**2, axis=1).astype(whole)
        b *= -2
        for i in range(0, len(x), ROWS):
            a = np.asarray(x[i : i + ROWS], kind) - centre
            squared = (a @ b.T).astype(whole, copy=False)
            squared += np.sum(a**2, axis=1)[:, None].astype(whole)
            squared += b_squared
            yield slice(i, i + len(a)), slice(j, j + len(b)), np.maximum(squared, 0, out=squared)


def nearest(x: np.ndarray, y: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared distances of each x [n, D] to its k nearest y [m, D], the nearest first, and which those are.

    Where there are fewer than k, the farthest stands for the rest.
    """
    squared, found = np.full((len(x), k), np.inf), np.zeros((len(x), k), int)
    for rows, columns, block in pairs(x, y):
        near = smallest(block, k)
        joined = np.concatenate([squared[rows], np.take_along_axis(block, near, 1)], axis=1)
        where = np.concatenate([found[rows], near + columns.start], axis=1)
        kept = smallest(joined, k)
        squared[rows], found[rows] = np.take_along_axis(joined, kept, 1), np.take_along_axis(where, kept, 1)
    order = np.argsort(squared, axis=1, kind="stable")[:, np.minimum(np.arange(k), len(y) - 1)]
    return np.take_along_axis(squared, order, 1), np.take_along_axis(found, order, 1)


def smallest(x: np.ndarray, k: int) -> np.ndarray:
    """Return where the k smallest of each row of x [n, m] are, in any order; all, if there are no more."""
    k = min(k, x.shape[1])
    return np.argpartition(x, k - 1, axis=1)[:, :k]


def others(x: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    """Return the squared distances of x[own], [n, D], to the k nearest x [m, D] that they are not themselves."""
    squared, found = nearest(x[own], x, k + 1)
    itself = found == own[:, None]
    itself[~itself.any(1), -1] = True  # among so many equal ones it was not found
    itself &= np.cumsum(itself, axis=1) == 1  # and not as the one that stands for the rest
    return squared[~itself].reshape(len(own), k)


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Return which share of generated features lies on the manifold of real ones, and the reverse.

    Kynkaanniemi et al. (2019): a feature lies on a manifold if it is in any of its balls, border included.
    """
    radii = [others(x, np.arange(len(x)), k)[:, -1] for x in (real, generated)]
    generated_on_real, real_on_generated = np.zeros(len(generated), bool), np.zeros(len(real), bool)
    for rows, columns, squared in pairs(real, generated):
        generated_on_real[columns] |= np.any(squared <= radii[0][rows, None], axis=0)
        real_on_generated[rows] |= np.any(squared <= radii[1][None, columns], axis=1)
    return float(generated_on_real.mean()), float(real_on_generated.mean())


def density_coverage(real: np.ndarray, generated: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Return how many balls of real features hold a generated one, over k, and which share of balls holds any.

    Naeem et al. (2020): density above 1 is where real features are crowded; borders are not included.
    """
    radii = others(real, np.arange(len(real)), k)[:, -1]
    held, hit = 0, np.zeros(len(real), bool)
    for rows, _, squared in pairs(real, generated):
        inside = squared < radii[rows, None]
        held += int(inside.sum())
        hit[rows] |= inside.any(axis=1)
    return held / (k * len(generated)), float(hit.mean())


def memorisation(training: np.ndarray, generated: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Compare how near samples are to training features with how near these are to each other.

    Returns:
        The mean distance of a generated feature to its nearest training feature over that of a training feature to its
        nearest other (of as many, drawn at random): near 0 for copies, about 1 for new examples of the data. And the
        share of generated features that are nearer to their nearest training feature than that one is to any other.
    """
    squared, where = nearest(generated, training, 1)
    some = np.random.default_rng(seed).permutation(len(training))[: len(generated)]
    among, around = (np.sqrt(others(training, rows, 1)) for rows in (some, where[:, 0]))
    distance = np.sqrt(squared)
    return float(distance.mean() / max(among.mean(), 1e-30)), float(np.mean(distance < around))
