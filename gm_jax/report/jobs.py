"""The command lines that fill rows: train and evaluate a run, run a sweep, measure real images."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gm_jax.report.reports import Judged, Sweep
from gm_jax.report.shipped import Experiment
from gm_jax.report.tables import REAL


@dataclasses.dataclass(frozen=True)
class Job:
    """Command lines of gm_jax that fill rows, one after another.

    Attributes:
        name: the folder of its run or sweep below that of all runs.
        rows: that it fills.
        minutes: that it should take here; None: unknown.
        commands: what follows `python -m`.
        first: experiments that must be finished before it.
        of_data: it measures data, which is done after all runs; its log is NAME.log, beside the folders of runs.
    """

    name: str
    rows: tuple[str, ...]
    minutes: float | None
    commands: list[list[str]]
    first: tuple[str, ...] = ()
    of_data: bool = False

    @property
    def log(self) -> str:
        """The file below the folder of runs that has what it printed."""
        return f"{self.name}.log" if self.of_data else f"{self.name}/log.txt"


def folder_of(experiment: Experiment, seed: int) -> str:
    """Return the folder of an experiment's run, below that of all runs."""
    return experiment.name if seed == 0 else f"{experiment.name}_seed={seed}"


def train(experiment: Experiment, seed: int, folder: Path, evaluation: Mapping[str, Any]) -> list[list[str]]:
    """Return what trains an experiment, and evaluates it with these keys of `evaluation`."""
    start = ["gm_jax.main", f"--config={experiment.file}", f"--workdir={folder / folder_of(experiment, seed)}"]
    start += [f"--config.seed={seed}"] if seed else []
    return [start, [*start, "--mode=evaluate", *(f"--config.evaluation.{k}={v}" for k, v in evaluation.items())]]


def judged_by(judged: Judged, judge: Path | None) -> dict[str, Any]:
    """Return the keys of `evaluation` by which samples are judged; `judge` is the workdir of a classifier."""
    if judge is None:
        return {**judged.evaluation, "judge": judged.judge}
    return {**judged.evaluation, "judge": judge, "extractors": f"{judge},pixels"}


def run_sweep(sweep: Sweep, name: str, folder: Path, device: str | None) -> list[list[str]]:
    """Return what runs a row's sweep, two members at once where there are cores for it."""
    values = ",".join(map(str, sweep.values))
    command = ["gm_jax.sweep", f"--config=configs/{sweep.config}.py", f"--sweep={sweep.key}={values}"]
    command += [f"--workdir={folder / name}", *(f"--config.{k}={v}" for k, v in sweep.overrides.items())]
    return [[*command, "--jobs=2"] if device != "gpu" and len(os.sched_getaffinity(0)) > 1 else command]


def measure_real(data: str, judged: Judged, extractor: Path | str, file: Path) -> list[str]:
    """Return what measures training images as if they were samples, as many as are judged, against the test images."""
    sizes = {"n": judged.evaluation.get("n"), "n_generated": judged.evaluation.get("samples")}
    given = [f"--{key}={n}" for key, n in sizes.items() if n is not None]
    command = ["gm_jax.metrics", f"{data}:test", f"{data}:train", f"--extractor={extractor}", *given]
    return [*command, f"--metrics={REAL}", f"--json={file}"]
