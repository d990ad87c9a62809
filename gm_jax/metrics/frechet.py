"""The Frechet distance between two sets of features, as between the Gaussians of their means and covariances."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gm_jax.errors import UserError

BLOCK = 1000  # features that are converted to float64 at once


class Gaussian(NamedTuple):
    """Mean and covariance of features, in float64.

    Attributes:
        n: how many features they are of; 0: unknown, of published statistics.
        mean: [D].
        covariance: [D, D], unbiased (divided by n - 1).
    """

    n: int
    mean: np.ndarray
    covariance: np.ndarray


def gaussian(features: np.ndarray) -> Gaussian:
    """Return mean and covariance of features [n, D], read block by block.

    Raises:
        UserError: fewer than two, or a value that is not finite.
    """
    n, dimensions = features.shape
    if n < 2:
        raise UserError(f"a covariance needs two features or more, not {n}: ask for more images")
    mean = sum(block.sum(0) for block in blocks(features)) / n
    if not np.isfinite(mean).all():
        raise UserError("a feature is NaN or infinite: look at the images, and at the extractor's weights")
    scatter = np.zeros((dimensions, dimensions))
    for block in blocks(features):
        scatter += (block - mean).T @ (block - mean)
    return Gaussian(n, mean, scatter / (n - 1))


def blocks(features: np.ndarray) -> Iterable[np.ndarray]:
    """Yield features [n, D] in float64, some at once."""
    for start in range(0, len(features), BLOCK):
        yield np.asarray(features[start : start + BLOCK], np.float64)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson & Landau 1982; FID: Heusel et al. 2017).

    tr (C1 C2)^(1/2) is the sum of the roots of the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2), which are those
    of C1 C2: no general matrix root, which may be complex or fail, is taken.

    Raises:
        UserError: of features of different sizes.
    """
    if first.mean.shape != second.mean.shape:
        sizes = " and ".join(str(len(g.mean)) for g in (first, second))
        raise UserError(f"the statistics are of features of {sizes} values: they must be of one extractor")
    values, vectors = np.linalg.eigh(first.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    inner = root.T @ second.covariance @ root
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(inner), 0.0)).sum()
    apart = np.sum((first.mean - second.mean) ** 2)
    return float(max(apart + np.trace(first.covariance) + np.trace(second.covariance) - 2.0 * overlap, 0.0))
