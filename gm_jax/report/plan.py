"""Which experiments would fill the rows that are missing, how long each should take here, and what is left out why."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gm_jax.errors import UserError, nearest
from gm_jax.report.collection import Collection
from gm_jax.report.entries import WITHOUT_SAMPLES
from gm_jax.report.expected import Expected
from gm_jax.report.jobs import Job, folder_of, judged_by, measure_real, run_sweep, train
from gm_jax.report.records import Run
from gm_jax.report.reports import Judged, read_judged
from gm_jax.report.rows import RowResult
from gm_jax.report.shipped import Experiment

REFERENCE = 1.0  # minutes of measuring real images once


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is asked for: rows (None: all), minutes (None: any), "cpu" or "gpu" (None: what is there), seeds."""

    rows: Sequence[str] | None = None
    budget: float | None = None
    device: str | None = None
    seeds: int = 1


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
        self.expected = Expected(collection, wish.device)
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
        jobs |= {job.name: job for job in self._references()}
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
        path = self.folder / folder_of(experiment, seed)
        return self.expected.of_run(experiment, [run for run in self.collection.runs if run.path == path])

    def _single(self, experiment: Experiment, seed: int) -> Job:
        settings = experiment.settings
        drawn = settings["task"] not in WITHOUT_SAMPLES and settings["dataset.image_size"] is None
        judged = self.judged.get(settings["dataset.name"]) if drawn else None
        evaluation = judged_by(judged, self._judge(judged)) if judged else {}
        commands = train(experiment, seed, self.folder, evaluation)
        return Job(folder_of(experiment, seed), (), self._minutes(experiment, seed), commands, self._first(judged))

    def _judge(self, judged: Judged) -> Path | None:
        """Return the workdir of the classifier that judges; None: it is none that is trained."""
        if judged.judge not in self.collection.experiments:
            return None
        return self.finished.get((judged.judge, 0), self.folder / judged.judge)

    def _first(self, judged: Judged | None) -> tuple[str, ...]:
        """Return the experiments that must be finished before samples are judged."""
        trained = judged is not None and self._judge(judged) is not None
        return (judged.judge,) if trained and (judged.judge, 0) not in self.finished else ()

    def _sweep(self, result: RowResult) -> tuple[list[Job], list[str]]:
        """Return the job of a row's sweep, of one seed."""
        sweep = result.row.sweep
        if any(not family.lacks(sweep) for family in result.families):
            return [], []
        reason = self.absent(self.collection.experiments[sweep.config])
        if reason:
            return [], [f"{sweep.config}: {reason}"]
        name = f"{sweep.config}_sweep"
        mine = [family for family in result.families if family.name == name]
        if any(reason.startswith("differently") for family in mine for reason in family.lacks(sweep)):
            return [], [f"{self.folder / name} holds a sweep with other settings: move it away"]
        minutes = self.expected.of_sweep(sweep, [run for f in mine for entry in f.entries for run in entry.runs])
        return [Job(name, (), minutes, run_sweep(sweep, name, self.folder, self.wish.device))], []

    def _references(self) -> list[Job]:
        """Return the jobs that measure real images as the samples are judged, for the comparison of the families."""
        rows = tuple(result.row.id for result in self.collection.results if result.row.comparison)
        if self.wish.rows and not set(rows) & set(self.wish.rows):
            return []
        found = []
        for data, judged in self.judged.items():
            judge, name = self._judge(judged), f"real_{data}"
            files = {
                who: self.folder / f"{name}_{label}.json" for who, label in ((judge, judged.judge), ("pixels",) * 2)
            }
            commands = [measure_real(data, judged, who, file) for who, file in files.items() if not file.exists()]
            if judge is not None and commands and not self.absent(self.collection.experiments[judged.judge]):
                found.append(Job(name, rows, REFERENCE * len(commands), commands, self._first(judged), of_data=True))
        return found

    def _fit(self, jobs: Iterable[Job], left_out: list[tuple[str, str]], done: Sequence[str]) -> Plan:
        """Take jobs, those of the first seed before others and the cheapest first, as long as the budget lasts."""

        def order(job: Job) -> tuple:
            return (job.of_data, "_seed=" in job.name, job.minutes is None, job.minutes)

        taken: list[Job] = []
        left = math.inf if self.wish.budget is None else self.wish.budget
        for job in sorted(jobs, key=order):
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
        return Plan(taken, left_out, self.expected.scale)


def is_finished(run: Run) -> bool:
    """True if a run is trained up to its last step and evaluated there."""
    return run.step >= run.steps and run.evaluation is not None and run.evaluation.step == run.step
