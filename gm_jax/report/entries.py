"""Runs of one experiment together: seeds, duplicates aside, members of a sweep, and what each lacks."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gm_jax.defaults.base import NOT_OF_A_SAMPLE
from gm_jax.report.records import Fault, Run
from gm_jax.report.reports import Sweep
from gm_jax.report.shipped import Experiment
from gm_jax.workdir import is_neutral

WITHOUT_SAMPLES = ("classifier", "autoencoder")  # tasks that draw none
QUALITY = ("fid_", "frechet_")  # how the number begins by which samples of all families are compared


@dataclasses.dataclass(frozen=True)
class Entry:
    """Runs of one experiment, data and settings that differ in their seeds alone.

    Attributes:
        name: of the experiment, as the command line has it: "cnn_cifar10:modern".
        experiment: as it is shipped; None: it is not one of configs/.
        runs: one a seed, ascending.
        changes: keys whose values are others than in the shipped config, and the values.
        family: of the sweep that they belong to; "": none.
        values: of the swept keys but the seed.
        measuring: likewise of what was evaluated: the split, and how samples are drawn.
    """

    name: str
    experiment: Experiment | None
    runs: list[Run]
    changes: dict[str, Any]
    family: str
    values: dict[str, Any]
    measuring: dict[str, Any]

    @property
    def first(self) -> Run:
        """The run of the smallest seed, whose figures are shown."""
        return self.runs[0]

    @property
    def lacks(self) -> list[str]:
        """What keeps it from being the experiment as it is shipped, trained to its end and evaluated there."""
        run, found = self.first, []
        if self.experiment is None:
            found.append("no experiment of configs/: nothing to compare its settings with")
        if self.changes:
            found.append(f"differently configured: {', '.join(f'{key}={v}' for key, v in self.changes.items())}")
        if run.data.stand_in:
            found.append(f"trained on other data than asked for: {run.data.stand_in}")
        if run.step < run.steps:
            found.append(f"at step {run.step:,} of {run.steps:,}: start it again, unless it is running")
        if run.evaluation is None:
            found.append("not evaluated: run --mode=evaluate")
        elif run.evaluation.step != run.step:
            found.append(f"its evaluation is of step {run.evaluation.step:,}, not of {run.step:,}")
        if self.measuring:
            found.append(f"evaluated differently: {', '.join(f'{key}={v}' for key, v in self.measuring.items())}")
        return found

    @property
    def is_whole(self) -> bool:
        """True if it lacks nothing."""
        return not self.lacks

    @property
    def draws_samples(self) -> bool:
        """True if it is a generative model."""
        return self.first.task not in WITHOUT_SAMPLES

    @property
    def is_scored(self) -> bool:
        """True if its samples were compared with real images, so that families can be compared by them."""
        evaluation = self.first.evaluation
        return evaluation is not None and any(name.startswith(QUALITY) for name in evaluation.results)


@dataclasses.dataclass(frozen=True)
class Family:
    """A sweep: the entries of its members, in the order of their values."""

    name: str
    keys: list[str]
    entries: list[Entry]

    def lacks(self, sweep: Sweep) -> list[str]:
        """Return what keeps it from being a row's sweep, trained to its end and evaluated there."""
        changes: dict[str, str] = {}
        for entry in self.entries:
            found = entry.changes | entry.measuring
            expected = {key: v for key, v in sweep.overrides.items() if not _is_free(key) or _is_measuring(key)}
            for key in found.keys() | expected.keys():
                if found.get(key) != expected.get(key):
                    changes[key] = f"{key}={found[key]}" if key in found else f"{key} as shipped"
        absent = [value for value in sweep.values if all(e.values[sweep.key] != value for e in self.entries)]
        unfinished = [str(e.values[sweep.key]) for e in self.entries if e.first.step < e.first.steps]
        evaluated = [(e, e.first.evaluation.step if e.first.evaluation else None) for e in self.entries]
        unmeasured = [str(e.values[sweep.key]) for e, step in evaluated if step != e.first.step]
        changed = ", ".join(changes[key] for key in sorted(changes))
        return [
            *([f"differently configured: {changed}"] if changed else []),
            *([f"without {sweep.key}={','.join(map(str, absent))}"] if absent else []),
            *([f"not finished: {', '.join(unfinished)}"] if unfinished else []),
            *([f"not evaluated: {', '.join(unmeasured)}"] if unmeasured else []),
        ]


def make_entries(runs: Iterable[Run], experiments: Mapping[str, Experiment]) -> tuple[list[Entry], list[Fault]]:
    """Group runs by experiment, settings, data and step; return the groups, and the runs left out as duplicates."""
    groups: dict[tuple, dict[int, list[Run]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for run in runs:
        groups[_identity(run)][run.seed].append(run)
    entries, faults = [], []
    for by_seed in groups.values():
        kept = []
        for seed in sorted(by_seed):
            best, *others = sorted(by_seed[seed], key=_completeness, reverse=True)
            kept.append(best)
            faults += [
                Fault(run.name, f"the same experiment, settings and seed as {best.name}: only that is shown")
                for run in others
            ]
        entries.append(_entry(kept, experiments))
    return sorted(entries, key=lambda entry: (not entry.is_whole, entry.name, str(entry.values))), faults


def _completeness(run: Run) -> tuple:
    return (run.evaluation is not None, run.evaluation.time if run.evaluation else "", run.began, run.name)


def _identity(run: Run) -> tuple:
    """Return what two runs share that differ in their seeds alone."""
    settings = {key: value for key, value in run.settings.items() if not _is_free(key)}
    settings |= {"steps": run.steps, "reached": run.step, "evaluated": run.evaluation and run.evaluation.step}
    family = run.family if _swept(run) else ""
    return (run.config, family, run.data.fingerprint, repr(sorted([*settings.items(), *_measuring(run).items()])))


def _measuring(run: Run) -> dict[str, Any]:
    """Return the settings of what was evaluated: the split, and how samples are drawn."""
    settings = {**run.settings, **(run.evaluation.overrides if run.evaluation else {})}
    return {key: value for key, value in settings.items() if _is_measuring(key)}


def _is_measuring(key: str) -> bool:
    """True for the split that is evaluated, and for what a sample follows from."""
    group, _, name = key.partition(".")
    return key == "evaluation.split" or (group == "sampling" and name not in NOT_OF_A_SAMPLE)


def _is_free(key: str) -> bool:
    """True for a key that leaves the experiment what it is: its seed, where its data lie, how it is evaluated."""
    group, _, name = key.rpartition(".")
    if key == "steps" or (group.startswith("epochs") and not name.endswith("_every")):
        return False
    return key == "seed" or key.startswith("evaluation.") or is_neutral(key)


def _swept(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.values.items() if key != "seed"}


def _entry(runs: list[Run], experiments: Mapping[str, Experiment]) -> Entry:
    first = runs[0]
    experiment, values = experiments.get(first.config), _swept(first)
    name = experiment.label if experiment else first.config
    changes = {key: value for key, value in _changes(first, experiment).items() if key not in values}
    shipped = experiment.settings if experiment else first.settings
    measuring = {key: value for key, value in _measuring(first).items() if key in shipped and value != shipped[key]}
    return Entry(name, experiment, runs, changes, first.family if values else "", values, measuring)


def _changes(run: Run, experiment: Experiment | None) -> dict[str, Any]:
    """Return the settings by which a run differs from the shipped config, set by the user or by an older config."""
    given = {key: value for key, value in run.overrides.items() if not _is_free(key)}
    if experiment is None:
        return given
    shipped, counted = experiment.settings, {key[7:] for key in experiment.settings if key.startswith("epochs.")}
    small = {key[12:] for key in shipped if key.startswith("if_embedded.")} if run.data.origin == "embedded" else set()
    settled = counted | small | {key for key in shipped if key.startswith("if_embedded.")}
    other = {
        key: run.settings[key]
        for key, value in shipped.items()
        if key in run.settings and not _is_free(key) and key not in settled and run.settings[key] != value
    }
    return {**other, **{key: value for key, value in given.items() if key in settled or key not in shipped}}


def make_families(entries: Sequence[Entry]) -> list[Family]:
    """Return the sweeps over more than seeds."""
    families: dict[str, list[Entry]] = collections.defaultdict(list)
    for entry in entries:
        if entry.family:
            families[entry.family].append(entry)
    return [
        Family(name, list(members[0].values), sorted(members, key=lambda entry: _order(entry.values)))
        for name, members in families.items()
    ]


def _order(values: Mapping[str, Any]) -> list[tuple]:
    """Return what values are sorted by: numbers by size, before all else by its text."""
    return [(0, v, "") if isinstance(v, int | float) else (1, 0, str(v)) for v in values.values()]
