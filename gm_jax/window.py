"""Means of metrics over the steps between two log lines."""

import jax
import numpy as np

from gm_jax.errors import UserError


def mean(values: np.ndarray) -> float | None:
    """Return the mean of a metric from its sums and counts [steps, ..., 2]; None if nothing was counted."""
    total, count = np.sum(np.reshape(np.asarray(values, np.float64), (-1, 2)), axis=0)
    return float(total / count) if count else None


class Diverged(UserError):
    """A metric is NaN or infinite.

    Attributes:
        metric: its name.
        step: the first at which it was.
    """

    def __init__(self, message: str, metric: str, step: int):
        super().__init__(message)
        self.metric, self.step = metric, step


class Window:
    """Metrics of the steps since the last log line, by step; part of a checkpoint, so that no mean is cut in two."""

    def __init__(self, values: dict[str, list]):
        """`values` are those of an earlier `Window`, as a checkpoint has them."""
        self._values = {name: list(v) for name, v in values.items()}
        self._pending: list[dict[str, jax.Array]] = []

    def append(self, metrics: dict[str, jax.Array]) -> None:
        """Add a call's metrics, each [steps, 2]; they stay on the device until they are needed."""
        self._pending.append(metrics)

    def values(self) -> dict[str, list]:
        """Return sum and count of every metric in every step of the window."""
        for metrics in jax.device_get(self._pending):
            for name, values in metrics.items():
                self._values.setdefault(name, []).extend(values.tolist())
        self._pending.clear()
        return self._values

    def check_finite(self, step: int) -> None:
        """Raise Diverged if a metric of the steps up to `step` is NaN or infinite."""
        for name, values in self.values().items():
            sums = np.asarray(values)[:, 0]
            bad = np.flatnonzero(~np.isfinite(sums))
            if bad.size:
                at = step - len(values) + int(bad[0]) + 1
                raise Diverged(f"{name} is {sums[bad[0]]} at step {at}: training has diverged", name, at)

    def close(self) -> dict[str, float]:
        """Return the means, without those of phases that were never due, and start anew."""
        means = {name: mean(values) for name, values in self.values().items()}
        self._values = {}
        return {name: value for name, value in means.items() if value is not None}
