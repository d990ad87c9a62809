"""What the pages say of an entry beside its numbers: how it was trained, by which commands, its figures and losses."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gm_jax.report import words
from gm_jax.report.entries import Entry
from gm_jax.report.records import Figure, Run
from gm_jax.report.reports import LossTable, Sweep

PICTURES = 3  # beside an entry
EPOCHS = 5  # at each end of a table of losses


def how(entry: Entry) -> list[str]:
    """Return what an entry was trained on, for how long, where, with which seeds, to which step, and when."""
    runs, first = entry.runs, entry.first
    seconds = sum(run.seconds for run in runs) / len(runs)
    seeds = ", ".join(str(run.seed) for run in runs)
    trained = any(line["split"] == "train" for line in first.metrics)  # baselines are estimated in one step
    epochs = [f"{first.epochs:,.3g} epochs"] if first.epochs and trained else []
    data = f"{first.data.name} ({first.data.origin}), {first.data.examples:,} images train"
    return [
        data,
        *epochs,
        f"{words.duration(seconds)} of training" + (" each" if len(runs) > 1 else ""),
        first.device,
        f"seeds {seeds}" if len(runs) > 1 else f"seed {seeds}",
        f"checkpoint of step {first.shown_step:,}",
        first.began[:10],
    ]


def command(entry: Entry) -> str:
    """Return what trains an entry's first run again."""
    if entry.experiment is None:
        return entry.first.command
    changes = {**entry.values, **entry.changes, **({"seed": entry.first.seed} if entry.first.seed else {})}
    return " ".join([entry.experiment.command, *_flags(changes)])


def evaluated(entry: Entry) -> str:
    """Return the flags that evaluate it as its first run was; "": it was not. Workdirs are called runs/NAME."""
    if entry.first.evaluation is None:
        return ""
    settings = entry.first.evaluation.overrides
    changes = {key: _portable(v) for key, v in settings.items() if key.startswith(("evaluation.", "sampling."))}
    return " ".join(["--mode=evaluate", *_flags(changes)])


def _portable(value: Any) -> Any:
    """Return a value as a command line has it, the paths in it as they would be in anybody's clone."""
    if isinstance(value, list):
        return ",".join(str(_portable(one)) for one in value)
    return f"runs/{Path(value).name}" if isinstance(value, str) and value.startswith("/") else value


def sweep_command(sweep: Sweep) -> str:
    """Return what runs a row's sweep."""
    values = ",".join(map(str, sweep.values))
    start = f"launch/sweep.sh --config=configs/{sweep.config}.py --sweep {sweep.key}={values}"
    return " ".join([start, *_flags(sweep.overrides)])


def _flags(changes: Mapping[str, Any]) -> list[str]:
    return [shlex.quote(f"--config.{key}={value}") for key, value in changes.items()]


def pictures(figures: Mapping[str, Figure], wanted: Sequence[str]) -> list[Figure]:
    """Return the pictures to show: those that a row wants, else the first ones; no sprites."""
    shown = {name: figure for name, figure in figures.items() if figure.sprite is None}
    return [shown[name] for name in wanted if name in shown] or list(shown.values())[:PICTURES]


def losses(run: Run, table: LossTable) -> list[list[str]]:
    """Return a run's losses as the report prints its own: of the first and the last five epochs, then None between."""
    lines = [line for line in run.metrics if line["split"] == "train" and all(name in line for name in table.ours)]
    per_step = run.epochs / run.step if run.epochs and run.step else 0.0
    rows = [[f"{line['step'] * per_step:.0f}", *(f"{line[name]:.4f}" for name in table.ours)] for line in lines]
    by_epoch = list({row[0]: row for row in rows}.values()) if per_step else []
    return by_epoch if len(by_epoch) <= 2 * EPOCHS else [*by_epoch[:EPOCHS], [], *by_epoch[-EPOCHS:]]
