"""The kernel distance (KID: Binkowski et al. 2018): the squared maximum mean discrepancy of a cubic kernel."""

import numpy as np

SUBSETS, SIZE = 100, 1000


def kernel_distance(
    real: np.ndarray, generated: np.ndarray, subsets: int = SUBSETS, size: int | None = None, seed: int = 0
) -> tuple[float, float, int]:
    """Return mean and standard deviation of the distance over random subsets, and how many features a subset has.

    Features are [n, D] and [m, D]; each subset draws `size` (None: 1,000) of either without replacement, or as many as
    there are. The estimate is unbiased, so that it may be negative; its kernel is (x . y / D + 1)^3.
    """
    size, rng = min(size or SIZE, len(real), len(generated)), np.random.default_rng(seed)
    distances = []
    for _ in range(subsets):
        x, y = (np.asarray(f[np.sort(rng.choice(len(f), size, replace=False))], np.float64) for f in (real, generated))
        distances.append(squared_discrepancy(x, y))
    return float(np.mean(distances)), float(np.std(distances)), size


def squared_discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy of x [n, D] and y [m, D], float64."""
    n, m = len(x), len(y)
    within = [(np.sum(k) - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (cubic(x, x), cubic(y, y))]
    return float(sum(within) - 2.0 * np.sum(cubic(x, y)) / (n * m))


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the kernel (x . y / D + 1)^3 of every pair, [n, m]."""
    values = x @ y.T / x.shape[1] + 1.0
    return values * values * values  # ten times as fast as ** 3
