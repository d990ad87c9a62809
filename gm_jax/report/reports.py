"""The five reports as data: their rows and the numbers that they print, from reports.toml."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("reports.toml")


@dataclasses.dataclass(frozen=True)
class Number:
    """A number of a row.

    Attributes:
        name: what the page calls it.
        ours: its name in evaluation.json; "": it is of the training's metrics.
        logged, take: else the metric, and which of its values: "min" or "last".
        unit: "%" of a share, which is then shown times 100.
        report: what the report prints, a number or a list; None: nothing.
        at: the swept value that it belongs to; None: it is of all.
    """

    name: str
    ours: str = ""
    logged: str = ""
    take: str = "last"
    unit: str = ""
    report: float | list[float] | None = None
    at: Any = None


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The family of runs that a row is: an experiment over the values of one key.

    `minutes` are of two CPU cores, for all members with their evaluations.
    """

    config: str
    key: str
    values: list[Any]
    minutes: float
    overrides: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class LossTable:
    """Losses by epoch as a report prints them: rows of the epoch and a number for each column."""

    columns: list[str]
    ours: list[str]
    report: list[list[float]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One system of a report.

    Attributes:
        id: such as "W1".
        system: what it is.
        says: what the report shows of it.
        numbers: the first is the headline.
        figures: to be shown first, by name.
        sweep: the runs that it takes; None: single ones.
        table: losses by epoch that the report prints.
        comparison: the tasks whose samples it compares; []: it is no comparison.
    """

    id: str
    system: str
    says: str
    numbers: list[Number] = dataclasses.field(default_factory=list)
    figures: list[str] = dataclasses.field(default_factory=list)
    sweep: Sweep | None = None
    table: LossTable | None = None
    comparison: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Report:
    """One of the reports: its letter, the number of its file, and its rows."""

    id: str
    source: str
    title: str
    rows: list[Row]


@dataclasses.dataclass(frozen=True)
class Judged:
    """How samples of a data set are judged: the classifier's experiment or "shapes", and keys of `evaluation`."""

    judge: str
    evaluation: dict[str, Any]


def read_reports() -> list[Report]:
    """Return the reports with their rows."""
    return [Report(r["id"], r["source"], r["title"], [_row(row) for row in r["row"]]) for r in _read()["report"]]


def read_judged() -> dict[str, Judged]:
    """Return how samples are judged, by data set."""
    return {name: Judged(**how) for name, how in _read()["judged"].items()}


def read_importance() -> list[str]:
    """Return the ids of the rows whose pictures stand beside the results, the most important first."""
    return _read()["pictures"]


def _read() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text())


def _row(row: dict[str, Any]) -> Row:
    parts = {"numbers": [Number(**number) for number in row.get("numbers", [])]}
    parts |= {name: kind(**row[name]) for name, kind in (("sweep", Sweep), ("table", LossTable)) if name in row}
    return Row(**{**row, **parts})
