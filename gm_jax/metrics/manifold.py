"""Distances between features: precision and recall, density and coverage, memorisation; all pairs, block by block.

The manifold of a set is the union of balls around its features, whose radii reach to their k-th nearest neighbours.
"""

from collections.abc import Iterator

import numpy as np

BLOCK = 1000  # features that are compared with as many others at once


def pairs(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield the distances of every block of x [n, D] to every block of y [m, D], and which blocks these are."""
    for i in range(0, len(x), BLOCK):
        a = np.asarray(x[i : i + BLOCK], np.float64)
        for j in range(0, len(y), BLOCK):
            b = np.asarray(y[j : j + BLOCK], np.float64)
            squared = np.sum(a**2, 1)[:, None] + np.sum(b**2, 1)[None] - 2.0 * a @ b.T
            yield slice(i, i + len(a)), slice(j, j + len(b)), np.sqrt(np.maximum(squared, 0.0))


def nearest(x: np.ndarray, y: np.ndarray, k: int = 1, same: bool = False) -> np.ndarray:
    """Return the distance of each x [n, D] to its k-th nearest y [m, D]; with `same` both are one set, without itself.

    Where there are fewer than k others, the farthest counts.
    """
    best = np.full((len(x), k), np.inf)
    for rows, columns, distances in pairs(x, y):
        if same and rows == columns:
            np.fill_diagonal(distances, np.inf)
        joined = np.concatenate([best[rows], distances], axis=1)
        best[rows] = np.partition(joined, range(k), axis=1)[:, :k]
    finite = np.where(np.isfinite(best), best, -np.inf)
    return np.where(np.isfinite(best[:, -1]), best[:, -1], finite.max(1))


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Return which share of generated features lies on the manifold of real ones, and the reverse.

    Kynkaanniemi et al. (2019): a feature lies on a manifold if it is in any of its balls, border included.
    """
    radii = [nearest(x, x, k, same=True) for x in (real, generated)]
    generated_on_real, real_on_generated = np.zeros(len(generated), bool), np.zeros(len(real), bool)
    for rows, columns, distances in pairs(real, generated):
        generated_on_real[columns] |= np.any(distances <= radii[0][rows, None], axis=0)
        real_on_generated[rows] |= np.any(distances <= radii[1][None, columns], axis=1)
    return float(generated_on_real.mean()), float(real_on_generated.mean())


def density_coverage(real: np.ndarray, generated: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Return how many balls of real features hold a generated one, over k, and which share of balls holds any.

    Naeem et al. (2020): density above 1 is where real features are crowded; borders are not included.
    """
    radii = nearest(real, real, k, same=True)
    held, hit = 0, np.zeros(len(real), bool)
    for rows, _, distances in pairs(real, generated):
        inside = distances < radii[rows, None]
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
    distance, where = neighbour(generated, training)
    some = np.random.default_rng(seed).permutation(len(training))[: len(generated)]
    among, around = (neighbour(training[rows], training, rows)[0] for rows in (some, where))
    return float(distance.mean() / max(among.mean(), 1e-30)), float(np.mean(distance < around))


def neighbour(x: np.ndarray, y: np.ndarray, own: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the distance of each x [n, D] to its nearest y [m, D], and which that is.

    `own` [n] are the rows of y that the x are themselves, which do not count.
    """
    best, where = np.full(len(x), np.inf), np.zeros(len(x), int)
    for rows, columns, distances in pairs(x, y):
        if own is not None:
            distances[own[rows, None] == np.arange(len(y))[None, columns]] = np.inf
        column = distances.argmin(1)
        near = distances[np.arange(len(distances)), column]
        where[rows] = np.where(near < best[rows], column + columns.start, where[rows])
        best[rows] = np.minimum(best[rows], near)
    return best, where
