"""Mean, variance and range of per-example values, gathered chunk by chunk: nothing keeps all examples."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """What is known of values [n, ...] in float64; arrays [...].

    Attributes:
        n: how many examples.
        mean: over the examples.
        square: sum of squared differences from the mean.
        low: the smallest value.
        high: the largest value.
    """

    n: int
    mean: np.ndarray
    square: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Moments":
        """Return the moments of values [n, ...]."""
        values = np.asarray(values, np.float64)
        mean = values.mean(0)
        return cls(len(values), mean, np.sum((values - mean) ** 2, 0), values.min(0), values.max(0))

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of values together (Chan et al. 1979)."""
        n, apart = self.n + other.n, other.mean - self.mean
        mean = self.mean + apart * (other.n / n)
        square = self.square + other.square + apart**2 * (self.n * other.n / n)
        return Moments(n, mean, square, np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def variance(self) -> np.ndarray:
        """The mean squared difference from the mean."""
        return self.square / self.n

    @property
    def standard_error(self) -> np.ndarray:
        """Of the mean, sqrt(square / (n - 1) / n); NaN for a single example."""
        return np.sqrt(self.square / (self.n - 1) / self.n) if self.n > 1 else np.full(self.mean.shape, np.nan)


def gather(chunks: Iterable[dict[str, np.ndarray]]) -> dict[str, Moments]:
    """Return the moments of every named value of all chunks, {name: [B, ...]} each."""
    moments: dict[str, Moments] = {}
    for chunk in chunks:
        for name, values in chunk.items():
            of_chunk = Moments.of(values)
            moments[name] = moments[name].merge(of_chunk) if name in moments else of_chunk
    return moments
