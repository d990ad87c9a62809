"""Which experiments would fill the rows that are missing, how long each should take here, and what is left out why."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gm_jax.errors import UserError, nearest
from gm_jax.report.collection import Collection
from gm_jax.report.entries import Entry
from gm_jax.report.reports import Judged, read_judged
from gm_jax.report.rows import RowResult
from gm_jax.report.shipped import Experiment

UNJUDGED = ("classifier", "autoencoder")  # tasks that draw no samples


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is asked for: rows (None: all), minutes (None: any), "cpu" or "gpu" (None: what is there), seeds."""

    rows: Sequence[str] | None = None
    budget: float | None = None
    device: str | None = None
    seeds: int = 1


@dataclasses.dataclass(frozen=True)
class Job:
    """Command lines of gm_jax that fill rows, one after another.

    Attributes:
        name: the folder of its run or sweep below that of all runs.
        rows: that it fills.
        minutes: that it should take here; None: unknown.
        commands: what follows `python -m`.
        first: experiments that must be finished before it.
    """

    name: str
    rows: tuple[str, ...]
    minutes: float | None
    commands: list[list[str]]
    first: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Plan:
    """Jobs in the order in which they run, and the rows that are left out with the reason."""

    jobs: list[Job]
    left_out: list[tuple[str, str]]
    scale: float | None

    @property
    def minutes(self) -> float:
        """What the jobs should take together, as far as that is known."""
        return sum(job.minutes or 0.0 for job in self.jobs)


class Planner:
    """Plans for one wish; `absent` says why a data set, by its flat config, is not to be had ("": it is)."""

    def __init__(self, collection: Collection, folder: Path, wish: Wish, absent: Callable[[Experiment], str]):
        self.collection, self.folder, self.wish, self.absent = collection, folder, wish, absent
        self.scale = speed(collection.entries, wish.device)
        self.judged = read_judged()
        self.finished = {
            (run.config, run.seed): run.path
            for entry in collection.entries
            for run in entry.runs
            if not (entry.changes or entry.measuring or entry.family) and is_finished(run)
        }

    def plan(self, done: Sequence[str] = ()) -> Plan:
        """Return what to run, cheapest first, without the jobs `done`, as far as the budget goes."""
        jobs, left_out = {}, []
        for result in self._asked():
            choices, reasons = self._choices(result)
            if choices:
                for job in choices:
                    known = jobs.get(job.name, job)
                    jobs[job.name] = dataclasses.replace(job, rows=(*dict.fromkeys((*known.rows, result.row.id)),))
            elif reasons:
                left_out.append((result.row.id, reasons[0]))
        jobs = {name: job for name, job in jobs.items() if name not in done}
        return self._fit(jobs.values(), left_out, done)

    def _asked(self) -> list[RowResult]:
        """Return the rows that are asked for and not done; the comparison comes by itself from the others."""
        known = {result.row.id: result for result in self.collection.results}
        for row in self.wish.rows or ():
            if row not in known:
                raise UserError(f"--rows: there is no row {row!r}{nearest(row, known)}: there are {', '.join(known)}")
        wanted = [known[row] for row in self.wish.rows] if self.wish.rows else list(known.values())
        return [result for result in wanted if not result.row.comparison]

    def _choices(self, result: RowResult) -> tuple[list[Job], list[str]]:
        """Return the jobs that fill a row, those of its cheapest experiment, and why others cannot."""
        if result.row.sweep:
            return self._sweep(result)
        missing = {e: self._missing(e) for e in self.collection.experiments.values() if result.row.id in e.rows}
        if not all(missing.values()):  # one has all its seeds
            return [], []
        reasons = []
        for experiment in sorted(missing, key=self._cost):
            reason = self._obstacle(experiment, missing[experiment])
            if not reason:
                return [self._single(experiment, seed) for seed in missing[experiment]], reasons
            reasons.append(f"{experiment.label}: {reason}")
        return [], reasons

    def _missing(self, experiment: Experiment) -> list[int]:
        """Return the seeds of which there is no finished run."""
        return [seed for seed in range(self.wish.seeds) if (experiment.name, seed) not in self.finished]

    def _cost(self, experiment: Experiment) -> float:
        """Return the minutes of all missing seeds; infinitely many if they are not known."""
        known = [self._minutes(experiment, seed) for seed in self._missing(experiment)]
        return math.inf if None in known else sum(known)

    def _obstacle(self, experiment: Experiment, seeds: Sequence[int]) -> str:
        """Return why an experiment cannot be run; "": it can."""
        if experiment.minutes is None and not (self.wish.rows and self.wish.budget is None):
            return f"how long it takes is not known, it wants a GPU (named with --rows, it runs): {experiment.command}"
        folders = [self.folder / folder_of(experiment, seed) for seed in seeds]
        for entry in self.collection.entries:
            for run in entry.runs:
                other = ", ".join(key for key in entry.changes if key != "steps")  # a shorter run can go on
                if run.path in folders and (other or run.config != experiment.name):
                    return f"{run.path} holds a run of {run.config} with other settings ({other}): move it away"
        return self.absent(experiment)

    def _minutes(self, experiment: Experiment, seed: int = 0) -> float | None:
        """Return the minutes that are left of an experiment here; half-finished runs have a part behind them."""
        if experiment.minutes is None:
            return None
        whole = experiment.minutes * (self.scale or 1.0)
        runs = [run for run in self.collection.runs if run.path == self.folder / folder_of(experiment, seed)]
        return whole * (1.0 - min(runs[0].step / max(runs[0].steps, 1), 1.0)) if runs else whole

    def _single(self, experiment: Experiment, seed: int) -> Job:
        name = folder_of(experiment, seed)
        start = ["gm_jax.main", f"--config={experiment.file}", f"--workdir={self.folder / name}"]
        start += [f"--config.seed={seed}"] if seed else []
        judged, first = self._judged(experiment), ()
        if judged and judged.judge in self.collection.experiments and (judged.judge, 0) not in self.finished:
            first = (judged.judge,)
        commands = [start, [*start, "--mode=evaluate", *self._evaluation(judged)]]
        return Job(name, (), self._minutes(experiment, seed), commands, first)

    def _judged(self, experiment: Experiment) -> Judged | None:
        """Return how samples of an experiment are judged; None: they are not."""
        settings = experiment.settings
        if settings["task"] in UNJUDGED or settings["dataset.image_size"] is not None:
            return None
        return self.judged.get(settings["dataset.name"])

    def _evaluation(self, judged: Judged | None) -> list[str]:
        if judged is None:
            return []
        keys = {**judged.evaluation}
        if judged.judge in self.collection.experiments:
            where = self.finished.get((judged.judge, 0), self.folder / judged.judge)
            keys |= {"judge": where, "extractors": f"{where},pixels"}
        else:
            keys |= {"judge": judged.judge}
        return [f"--config.evaluation.{key}={value}" for key, value in keys.items()]

    def _sweep(self, result: RowResult) -> tuple[list[Job], list[str]]:
        """Return the job of a row's sweep, of one seed, two members at once where there are cores for it."""
        sweep = result.row.sweep
        if any(not family.lacks(sweep) for family in result.families):
            return [], []
        reason = self.absent(self.collection.experiments[sweep.config])
        if reason:
            return [], [f"{sweep.config}: {reason}"]
        name = f"{sweep.config}_sweep"
        for family in result.families:
            if family.name == name and any(reason.startswith("differently") for reason in family.lacks(sweep)):
                return [], [f"{self.folder / name} holds a sweep with other settings: move it away"]
        values = ",".join(map(str, sweep.values))
        command = ["gm_jax.sweep", f"--config=configs/{sweep.config}.py", f"--sweep={sweep.key}={values}"]
        command += [f"--workdir={self.folder / name}", *(f"--config.{k}={v}" for k, v in sweep.overrides.items())]
        if self.wish.device != "gpu" and len(os.sched_getaffinity(0)) > 1:
            command.append("--jobs=2")
        return [Job(name, (), sweep.minutes * (self.scale or 1.0), [command])], []

    def _fit(self, jobs: Iterable[Job], left_out: list[tuple[str, str]], done: Sequence[str]) -> Plan:
        """Take jobs, those of the first seed before others and the cheapest first, as long as the budget lasts."""
        taken: list[Job] = []
        left = math.inf if self.wish.budget is None else self.wish.budget
        for job in sorted(jobs, key=lambda job: ("_seed=" in job.name, job.minutes is None, job.minutes)):
            before = [self._single(self.collection.experiments[name], 0) for name in job.first]
            batch = [*(other for other in before if all(other.name != one.name for one in taken)), job]
            needed = sum(one.minutes or 0.0 for one in batch)
            reason = ""
            if any(one.name in done for one in before):
                reason = f"{job.name}: {before[0].name}, which judges its samples, failed"
            elif needed > left:
                reason = f"{' and '.join(one.name for one in batch)}: {needed:.0f} minutes, {max(left, 0):.0f} are left"
            if reason:
                left_out += [(row, reason) for row in job.rows]
            else:
                taken += batch
                left -= needed
        return Plan(taken, left_out, self.scale)


def folder_of(experiment: Experiment, seed: int) -> str:
    """Return the folder of an experiment's run, below that of all runs."""
    return experiment.name if seed == 0 else f"{experiment.name}_seed={seed}"


def is_finished(run) -> bool:
    """True if a run is trained up to its last step and evaluated there."""
    return run.step >= run.steps and run.evaluation is not None and run.evaluation.step == run.step


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
