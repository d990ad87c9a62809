"""The results as one Markdown file with at most a dozen small pictures: what a repository shows of its runs."""

import dataclasses
import io
from pathlib import Path
from typing import Any

from gm_jax.errors import UserError
from gm_jax.report.collection import Collection
from gm_jax.report.entries import Entry
from gm_jax.report.facts import pictures
from gm_jax.report.pages import make_environment
from gm_jax.report.records import Figure
from gm_jax.report.reports import Number, read_importance
from gm_jax.report.rows import RowResult
from gm_jax.report.words import Measured, measure

PICTURES = Path("docs", "results")  # beside the file
FINDINGS = Path("docs", "findings.md")  # what people wrote, likewise; linked if it is there
MOST = 12  # pictures
BOXES = ((800, 480), (640, 400), (520, 320), (400, 240), (260, 160))  # width, height of a picture, the largest first
BYTES = 150_000  # of a picture
SCORES = 4  # of a run that belongs to no row
MADE_BY = "Made by `python -m gm_jax.report`"


def write_results(path: Path, collection: Collection, values: dict[str, Any]) -> Path:
    """Write the file and its pictures; `values` are what the pages know, too.

    Raises:
        UserError: it cannot be written, or there is a file that this did not make.
    """
    if path.exists() and MADE_BY not in path.read_text(errors="replace"):
        raise UserError(f"{path} was not made by this command: move it, to {FINDINGS} if it is prose, or name another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {**values, "small": write_pictures(path.parent, collection)}
        values |= {"numbers": numbers, "scores": scores}
        values["newest"] = max((run.began[:10] for run in collection.runs), default="")
        values["findings"] = FINDINGS.as_posix() if (path.parent / FINDINGS).exists() else ""
        text = make_environment(collection).get_template("results.md").render(**values)
        for escaped, quote in (("&#39;", "'"), ("&#34;", '"')):  # of HTML's attributes, which Markdown has none of
            text = text.replace(escaped, quote)
        path.write_bytes(text.encode(errors="replace"))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): name another with --results") from error
    return path


def write_pictures(folder: Path, collection: Collection) -> dict[str, tuple[str, str]]:
    """Write a small picture for each of the most important rows that have one; return address and caption by row.

    Rows that show the same figure share its picture.
    """
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    results, written, shown = {result.row.id: result for result in collection.results}, {}, {}
    for row in read_importance():
        figure = first_figure(results[row], collection)
        target = PICTURES / f"{row}.png"
        (folder / target).unlink(missing_ok=True)  # of other runs
        if figure is None or (figure.path not in shown and len(shown) == MOST):
            continue
        if figure.path not in shown:
            (folder / target).write_bytes(shrink(figure))
            shown[figure.path] = target.as_posix()
        written[row] = (shown[figure.path], figure.caption)
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
