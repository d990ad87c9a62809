"""The results as one Markdown file with at most a dozen small pictures: what a repository shows of its runs."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from gm_jax.errors import UserError
from gm_jax.report import charts, comparison, kept, tables
from gm_jax.report.collection import Collection
from gm_jax.report.entries import Entry
from gm_jax.report.facts import pictures
from gm_jax.report.kept import PICTURES, KeptRow, KeptRun, Record
from gm_jax.report.pages import make_environment
from gm_jax.report.records import Figure
from gm_jax.report.reports import Number, read_importance
from gm_jax.report.rows import RowResult
from gm_jax.report.words import Measured, measure

FINDINGS = Path("docs", "findings.md")  # what people wrote, beside the file; linked if it is there
MOST = 12  # pictures
BOXES = ((800, 480), (640, 400), (520, 320), (400, 240), (260, 160))  # width, height of a picture, the largest first
BYTES = 150_000  # of a picture
SCORES = 4  # of a run that belongs to no row
MADE_BY = "Made by `python -m gm_jax.report`"


@dataclasses.dataclass(frozen=True)
class Shown:
    """A row as results.md prints it: as in KeptRow, and a sentence that says so if it is kept from an earlier page."""

    state: str
    line: Markup
    section: Markup
    kept: str = ""


def write_results(path: Path, collection: Collection, values: dict[str, Any], earlier: Record | None = None) -> Path:
    """Write the file and its pictures; `values` are what the pages know, too.

    With the record of earlier pages it shows what the folder of runs has nothing for, too, and the record is renewed.

    Raises:
        UserError: it cannot be written, or there is a file that this did not make.
    """
    if path.exists() and MADE_BY not in path.read_text(errors="replace"):
        raise UserError(f"{path} was not made by this command: move it, to {FINDINGS} if it is prose, or name another")
    record = earlier or Record()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        environment = make_environment(collection)
        environment.globals.update(numbers=numbers, scores=scores)
        parts = environment.get_template("results_parts.md").module
        small = write_pictures(path.parent, collection, record)
        here = charts.scored(collection)
        others = kept.not_here(record.compared, here)
        compared = [*here, *kept.marked(others)]
        shown = {}
        for result in collection.results:
            if (one := show(result, compared, collection, record, parts)) is not None:
                shown[result.row.id] = one
        further = [_further(entry, parts) for entry in collection.others if not entry.family]
        names = {run.name for run in further}
        past = [run for run in record.further if run.name not in names]
        texts = [*(run.text for run in further), *(f"{run.text} (kept from an earlier page)" for run in past)]
        values = {**values, "shown": shown, "small": small, "further": [Markup(text) for text in texts]}
        values["newest"] = max((run.began[:10] for run in collection.runs), default="")
        values["findings"] = FINDINGS.as_posix() if (path.parent / FINDINGS).exists() else ""
        text = _markdown(environment.get_template("results.md").render(**values))
        path.write_bytes((text + "\n").encode(errors="replace"))
        if earlier is not None:
            ours = [r for r in collection.results if r.row.id in shown and not r.row.comparison]
            rows = {r.row.id: keep(r, shown[r.row.id], small, record) for r in ours}
            kept.write_record(path.parent, Record(rows, kept.stripped([*here, *others]), [*further, *past]))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): name another with --results") from error
    return path


def _markdown(text: str) -> Markup:
    """Return rendered Markdown, which has no attributes as HTML has, so that quotes stand for themselves."""
    return Markup(str(text).replace("&#39;", "'").replace("&#34;", '"').strip())


def show(
    result: RowResult, compared: Sequence[dict[str, Any]], collection: Collection, record: Record, parts: Any
) -> Shown | None:
    """Return a row as the page prints it, from its runs or else from the record; None: neither has it.

    `compared` are the runs of the comparison, `parts` the macros of results_parts.md.
    """
    if result.row.comparison:
        return show_comparison(result, compared, collection, parts)
    if not is_kept(result, record):
        if result.state == "not run":
            return None
        line, section = parts.line(result, parts.ours(result)), parts.section(result)
        return Shown(result.state, _markdown(line), _markdown(section))
    row = record.rows[result.row.id]
    why = "its runs are not among these" if result.state == "not run" else "the runs here are not finished"
    said = f"Kept: measured {row.date} on {row.hardware} by an earlier page; {why}."
    return Shown(row.state, Markup(row.line), Markup(row.section), said)


def is_kept(result: RowResult, record: Record) -> bool:
    """True if an earlier page has more of a row than the runs: these have nothing, or a part of what was done."""
    row = record.rows.get(result.row.id)
    return row is not None and (result.state == "not run" or (result.state, row.state) == ("partly", "done"))


def show_comparison(
    result: RowResult, compared: Sequence[dict[str, Any]], collection: Collection, parts: Any
) -> Shown | None:
    """Return the row that compares all runs whose samples were scored, kept ones among them; None: there are none."""
    trained = [run for run in compared if comparison.is_trained(run)]
    if not trained:
        return None
    done = {run["family"] for run in trained if run["whole"]}.issuperset(result.row.comparison)
    texts = []
    for runs in charts.by_data(compared):
        texts.append(tables.markdown(runs, [*charts.unscored(runs, collection), *kept.say_dagger(runs)]))
    said = "" if result.entries else "Kept: all of it was measured for earlier pages; its runs are not among these."
    line = parts.line(result, f"{len(trained)} runs scored")
    return Shown("done" if done else "partly", _markdown(line), _markdown(escape("\n\n".join(texts))), said)


def keep(result: RowResult, one: Shown, small: dict[str, tuple[str, str]], record: Record) -> KeptRow:
    """Return what the record says of a row that is shown, other than the comparison."""
    picture, caption = small.get(result.row.id, ("", ""))
    if one.kept:
        return dataclasses.replace(record.rows[result.row.id], picture=picture, caption=caption)
    entries = [*result.entries, *(entry for family in result.families for entry in family.entries)]
    runs = [run for entry in entries for run in entry.runs]
    hardware = "; ".join(sorted({run.device for run in runs}))
    date = max(run.began[:10] for run in runs)
    return KeptRow(one.state, date, hardware, str(one.line), str(one.section), picture, caption)


def _further(entry: Entry, parts: Any) -> KeptRun:
    return KeptRun(entry.name, entry.first.began[:10], str(_markdown(parts.further(entry))))


def write_pictures(folder: Path, collection: Collection, record: Record) -> dict[str, tuple[str, str]]:
    """Write a small picture for each of the most important rows that have one; return address and caption by row.

    Rows that show the same figure share its picture. Those of kept rows are what they were; they take their turn.
    """
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    results = {result.row.id: result for result in collection.results}
    kept_files = {name: folder / row.picture for name, row in record.rows.items() if row.picture}
    shown: dict[Path, str] = {}
    written, contents = {}, {}
    for name in read_importance():
        figure = None
        if is_kept(results[name], record):
            source, caption = kept_files.get(name), record.rows[name].caption
        else:
            figure = first_figure(results[name], collection)
            source, caption = (figure.path, figure.caption) if figure else (None, "")
        if source is None or not source.is_file() or (source not in shown and len(shown) == MOST):
            continue
        if source not in shown:
            shown[source] = (PICTURES / f"{name}.png").as_posix()
            contents[folder / shown[source]] = shrink(figure) if figure else source.read_bytes()
        written[name] = (shown[source], caption)
    old = [folder / PICTURES / f"{name}.png" for name in read_importance()]
    for path in {*old, *kept_files.values()} - contents.keys():
        path.unlink(missing_ok=True)
    for path, content in contents.items():  # after all are read: a kept one may get another row's name
        path.write_bytes(content)
    return written


def first_figure(result: RowResult, collection: Collection) -> Figure | None:
    """Return the first figure that a row wants of its first entry or sweep that has one; whole entries come first."""
    owners = [(entry.first.figures, entry.is_whole) for entry in result.entries if not result.row.comparison]
    owners += [(collection.family_figures[f.name], not f.lacks(result.row.sweep)) for f in result.families]
    for figures, whole in owners:
        for figure in pictures(figures, result.row.figures):
            caption = (figure.caption or figure.name) + ("" if whole else " · partly")
            return dataclasses.replace(figure, caption=caption)
    return None


def numbers(result: RowResult) -> list[tuple[Entry, Number, Measured]]:
    """Return what is measured of a row's numbers, entry by entry."""
    pairs = [(entry, number) for entry in result.entries for number in result.row.numbers]
    return [(entry, number, found) for entry, number in pairs if (found := measure(entry, number)) is not None]


def scores(entry: Entry) -> list[tuple[str, Measured]]:
    """Return the first numbers that mode evaluate found of an entry, of which no row says which are wanted."""
    results = entry.first.evaluation.results if entry.first.evaluation else {}
    names = [name for name, result in results.items() if not isinstance(result["value"], list) and "/" not in name]
    return [(name.replace("_", " "), measure(entry, Number(name, ours=name))) for name in names[:SCORES]]


def shrink(figure: Figure) -> bytes:
    """Return a PNG of a picture, as large as it may be."""
    from PIL import Image

    with Image.open(figure.path) as picture:
        whole = picture.convert("RGB")
    for box in BOXES:
        small = whole.copy()
        small.thumbnail(box)
        buffer = io.BytesIO()
        small.quantize(256).save(buffer, "PNG", optimize=True)
        if buffer.tell() < BYTES:
            break
    return buffer.getvalue()
