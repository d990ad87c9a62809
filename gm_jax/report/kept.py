"""What earlier pages showed, docs/results/record.json: rows, compared runs and further runs, to be printed again."""

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gm_jax.data.atomic import write_text
from gm_jax.errors import UserError
from gm_jax.report.checked import Unreadable, get, is_number, read_object
from gm_jax.report.comparison import is_trained, way
from gm_jax.report.tables import is_shown
from gm_jax.report.workdirs import sound_results

PICTURES = Path("docs", "results")  # beside the page
FILE = PICTURES / "record.json"
FORMAT = 1
DAGGER = " †"  # behind the name of a kept run in the tables of the comparison
PART = ", partly"  # behind the name of a run that is not whole
ADDRESS = re.compile(rf"{PICTURES.as_posix()}/\w+\.png", re.ASCII)
RUN = {  # beside "whole", whether it is, and "results"
    "run": str, "config": str, "family": str, "data": str, "fingerprint": str, "stand_in": str | None, "step": int,
    "training_seconds": int | float, "date": str, "environment": str, "parameters": int,
}  # fmt: skip
REFERENCE = {"run": str, "data": str}


@dataclasses.dataclass(frozen=True)
class KeptRow:
    """A row as a page printed it, in Markdown.

    Attributes:
        state: "done" or "partly".
        date, hardware: when the last of its runs began, and what trained them.
        line: of the table on top.
        section: what stands below the row's picture.
        picture, caption: the address of its PNG, seen from the page; "": it has none.
    """

    state: str
    date: str
    hardware: str
    line: str
    section: str
    picture: str = ""
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class KeptRun:
    """A run that no row asks for, as a page printed it, in Markdown."""

    name: str
    date: str
    text: str


@dataclasses.dataclass(frozen=True)
class Record:
    """What a page was made of: rows by id, the runs of the comparison with its real images, and further runs."""

    rows: dict[str, KeptRow] = dataclasses.field(default_factory=dict)
    compared: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    further: list[KeptRun] = dataclasses.field(default_factory=list)


def read_record(folder: Path) -> Record:
    """Return the record beside a page in `folder`; an empty one if there is none.

    Raises:
        UserError: it is damaged, or none of this command's.
    """
    path = folder / FILE
    if not path.exists():
        return Record()
    try:
        content = read_object(path.parent, path.name)
        if content.get("format") != FORMAT:
            raise Unreadable(f"{path.name} is not of format {FORMAT}")
        rows = {name: _row(row, name) for name, row in get(content, path.name, "rows", dict).items()}
        compared = [_compared(run) for run in get(content, path.name, "compared", list)]
        further = [_further(run) for run in get(content, path.name, "further", list)]
    except Unreadable as error:
        raise UserError(f"{path}: {error}; restore it, or delete it to begin anew: nothing was overwritten") from error
    return Record(rows, compared, further)


def _row(row: Any, name: str) -> KeptRow:
    found = KeptRow(**{field.name: get(row, f"row {name}", field.name, str) for field in dataclasses.fields(KeptRow)})
    if found.state not in ("done", "partly") or not (found.picture == "" or ADDRESS.fullmatch(found.picture)):
        raise Unreadable(f"row {name} has a strange state or picture")
    return found


def _further(run: Any) -> KeptRun:
    return KeptRun(**{field.name: get(run, "a further run", field.name, str) for field in dataclasses.fields(KeptRun)})


def _compared(run: Any) -> dict[str, Any]:
    """Return a run of the comparison, checked, as tables can be made of it."""
    is_run = isinstance(run, dict) and is_trained(run)
    for key, kind in {**(RUN if is_run else REFERENCE), "results": dict}.items():
        get(run, "a compared run", key, kind)
    results = run["results"]
    sound = sound_results(results) == results and all(is_number(result["value"]) for result in results.values())
    if not sound or (is_run and not isinstance(run.get("whole"), bool)):
        raise Unreadable(f"the compared run {run['run']} is not what gm_jax writes")
    return run


def write_record(folder: Path, record: Record) -> None:
    """Write the record beside a page in `folder`."""
    content = {"format": FORMAT, **dataclasses.asdict(record)}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_text(folder / FILE, text.encode(errors="replace").decode())  # a damaged name may hold what no file can


def stripped(compared: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the record keeps of compared runs: what the tables are made of."""
    found = []
    for run in compared:
        results = {name: result for name, result in run["results"].items() if is_shown(name)}
        keys = [*RUN, "whole"] if is_trained(run) else REFERENCE
        found.append({key: run[key] for key in keys} | {"results": results})
    return found


def not_here(kept: Sequence[dict[str, Any]], here: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the kept runs without those of a name that is here, and what real images were not measured for here.

    A whole run stays beside a part of it.
    """
    whole = {_name(run): run["whole"] for run in here if is_trained(run)}
    measured = {(run["run"], way(n, r)) for run in here if not is_trained(run) for n, r in run["results"].items()}
    found = []
    for run in kept:
        if is_trained(run):
            found += [run] if _name(run) not in whole or run["whole"] > whole[_name(run)] else []
            continue
        results = {n: r for n, r in run["results"].items() if (run["run"], way(n, r)) not in measured}
        found += [{**run, "results": results}] if results else []
    return found


def _name(run: dict[str, Any]) -> str:
    return run["run"].removesuffix(PART)


def marked(kept: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return kept runs with a dagger behind their names."""
    return [{**run, "run": run["run"] + DAGGER} for run in kept]


def say_dagger(runs: Iterable[dict[str, Any]]) -> list[str]:
    """Return the line that explains the dagger, if some run has one."""
    mine = [run for run in runs if run["run"].endswith(DAGGER)]
    dates = ", ".join(sorted({run["date"] for run in mine if is_trained(run)}))
    when = f" (runs of {dates})" if dates else ""
    return [f"{DAGGER.strip()} Kept: measured for an earlier page{when}; not among these runs."] if mine else []
