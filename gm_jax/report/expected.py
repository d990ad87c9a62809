"""How long training and evaluating should take here: what the configs expect, rescaled by what runs here took."""

import os
import statistics
from collections.abc import Iterable, Sequence

from gm_jax.report.collection import Collection
from gm_jax.report.entries import WITHOUT_SAMPLES, Entry
from gm_jax.report.records import Run
from gm_jax.report.reports import Sweep
from gm_jax.report.shipped import Experiment

EVALUATION = 0.5  # minutes of an evaluation, as long as no run of its task says here how long one takes
OF_SAMPLES = 1.0  # likewise where thousands of samples are drawn and judged
OVERHEAD = 0.25  # minutes beside an evaluation itself: two processes start, figures are drawn


class Expected:
    """Minutes that are left of experiments and sweeps."""

    def __init__(self, collection: Collection, device: str | None):
        """`device` is "cpu", "gpu" or None: any."""
        self._runs = collection.runs
        self.scale = speed(collection.entries, device)

    def of_run(self, experiment: Experiment, runs: Sequence[Run] = ()) -> float | None:
        """Return the minutes of training and evaluating that are left; `runs` may have a part behind them.

        None: the config does not tell.
        """
        if experiment.minutes is None:
            return None
        left = 1.0 - max((progress(run) for run in runs), default=0.0)
        return experiment.minutes * (self.scale or 1.0) * left + self.of_evaluation(experiment.settings["task"])

    def of_evaluation(self, task: str) -> float:
        """Return the minutes of evaluating a run of a task: as those of that task took here, if any did."""
        mine = [run.evaluation for run in self._runs if run.task == task and run.evaluation]
        seconds = [evaluation.seconds for evaluation in mine if evaluation.seconds is not None]
        if seconds:
            return statistics.mean(seconds) / 60.0 + OVERHEAD
        return EVALUATION if task in WITHOUT_SAMPLES else OF_SAMPLES

    def of_sweep(self, sweep: Sweep, runs: Iterable[Run] = ()) -> float:
        """Return the minutes that are left of a sweep, its evaluations included; `runs` are the members there are."""
        behind = {}
        for run in runs:
            value = run.values.get(sweep.key)
            if value in sweep.values:
                behind[value] = max(behind.get(value, 0.0), progress(run))
        left = 1.0 - sum(behind.values()) / len(sweep.values)
        return sweep.minutes * (self.scale or 1.0) * left


def progress(run: Run) -> float:
    """Return the share of a run's steps that is trained."""
    return min(run.step / max(run.steps, 1), 1.0)


def speed(entries: Sequence[Entry], device: str | None) -> float | None:
    """Return how many times their expected minutes runs took, on as many cores or such a device; None: none did."""
    took = expected = 0.0
    for entry in entries:
        if entry.experiment is None or entry.experiment.minutes is None or entry.changes:
            continue
        for run in entry.runs:
            on_cpu = str(run.environment.get("devices", "")).endswith("cpu")
            same = run.environment.get("cpu_cores") == len(os.sched_getaffinity(0)) if on_cpu else True
            if same and (device is None or (device == "cpu") == on_cpu):
                took += run.seconds
                expected += 60.0 * entry.experiment.minutes * run.step / max(run.steps, 1)
    return took / expected if expected else None
