"""The pages: what the templates show, rendered by Jinja with autoescape, and the pictures beside them."""

import dataclasses
import hashlib
import re
import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from gm_jax import compare
from gm_jax.errors import UserError
from gm_jax.report import plots, words
from gm_jax.report.collection import Collection
from gm_jax.report.entries import QUALITY, Entry
from gm_jax.report.records import Figure, Run
from gm_jax.report.reports import LossTable, Sweep

TEMPLATES = Path(__file__).with_name("templates")
COPIED = ("style.css", "report.js")
CURVES = {  # what shows how a task's training went, on images that it does not train on
    "accuracy": "Accuracy of classifiers",
    "elbo": "ELBO of variational autoencoders, nats",
    "energy_score": "Energy score of samples",
    "mean_squared_error": "Mean squared error of autoencoders",
    "loss": "Loss of diffusion models",
}
PICTURES = 3  # beside an entry
SMALL, SMALL_SIDE = 12, 480  # pictures in results.md at most, and their pixels
EPOCHS = 5  # at each end of a table of losses


class Site:
    """A folder of pages, with the pictures that they show."""

    def __init__(self, out: Path, collection: Collection):
        """`out` is made if it is not there; UserError if it cannot be written."""
        self.out, self.collection = out, collection
        loader = jinja2.FileSystemLoader(TEMPLATES)
        self.templates = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        filters = (words.duration, words.minutes, words.printed, words.cell)
        self.templates.filters.update({function.__name__: function for function in filters})
        self.templates.globals.update(
            collection=collection,
            measure=words.measure,
            how=how,
            command=command,
            sweep_command=sweep_command,
            pictures=pictures,
            losses=losses,
            href=self.href,
            sweep_plot=lambda family, row: Markup(plots.sweep(family, row.sweep.key, row.numbers)),
        )
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name in COPIED:
                shutil.copyfile(TEMPLATES / name, out / name)
        except OSError as error:
            raise UserError(f"cannot write to {out} ({error.strerror}): choose another folder with --out") from error

    def write(self) -> list[Path]:
        """Write every page and results.md."""
        collection = self.collection
        common = {
            "reports": collection.reports,
            "results": collection.results,
            "corners": collection.corners(),
            "comparisons": comparisons(collection.entries),
            "curves": [draw_curves(*group) for group in curve_groups(collection.entries)],
        }
        pages = {"index.html": ("index.html", {})}
        for report in collection.reports:
            mine = [result for result in collection.results if result.report is report]
            pages[f"{report.id}.html"] = ("report.html", {"report": report, "rows": mine})
        pages["results.md"] = ("results.md", {"small": self.small_pictures()})
        return [self._render(name, template, {**common, **values}) for name, (template, values) in pages.items()]

    def _render(self, name: str, template: str, values: dict[str, Any]) -> Path:
        path = self.out / name
        text = self.templates.get_template(template).render(page=path.stem, **values)
        path.write_bytes(text.encode(errors="replace"))  # a damaged name may hold what no page can
        return path

    def small_pictures(self) -> dict[str, str]:
        """Write small copies of a picture for each of the first rows that are done; return their addresses by row."""
        from PIL import Image

        addresses = {}
        for result in self.collection.results:
            whole = [entry.first.figures for entry in result.entries if entry.is_whole]
            found = [figure for figures in whole for figure in pictures(figures, result.row.figures)]
            if found and not result.row.comparison and len(addresses) < SMALL:
                addresses[result.row.id] = f"docs/result_{result.row.id}.png"
                path = self.out / addresses[result.row.id]
                path.parent.mkdir(exist_ok=True)
                with Image.open(found[0].path) as picture:
                    picture.thumbnail((SMALL_SIDE, SMALL_SIDE))
                    picture.save(path, optimize=True)
        return addresses

    def href(self, figure: Figure, folder: str) -> str:
        """Copy a picture of a run or sweep into the pages' folder, if that is not done yet; return its address."""
        name = re.sub(r"[^\w.,=+-]+", "_", folder, flags=re.ASCII)
        if name != folder:  # "a/b", "a b" and "a_b" are three
            name += f"-{hashlib.blake2b(folder.encode(errors='replace'), digest_size=4).hexdigest()}"
        target = Path("figures", name, figure.path.name)
        to, there = self.out / target, figure.path.stat()
        if not to.exists() or (to.stat().st_size, to.stat().st_mtime) != (there.st_size, there.st_mtime):
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(figure.path, to)
        return quote(target.as_posix())


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


def sweep_command(sweep: Sweep) -> str:
    """Return what runs a row's sweep."""
    values = ",".join(map(str, sweep.values))
    start = f"launch/sweep.sh --config=configs/{sweep.config}.py --sweep {sweep.key}={values}"
    return " ".join([start, *_flags(sweep.overrides)])


def _flags(changes: dict[str, Any]) -> list[str]:
    return [shlex.quote(f"--config.{key}={value}") for key, value in changes.items()]


def pictures(figures: dict[str, Figure], wanted: Sequence[str]) -> list[Figure]:
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


@dataclasses.dataclass(frozen=True)
class Curves:
    """Training curves on one axis: the plot, and the runs' names with the colours of their lines."""

    title: str
    svg: Markup
    names: list[tuple[str, str]]


def curve_groups(entries: Iterable[Entry]) -> list[tuple[str, str, dict[str, list]]]:
    """Return (metric, data, points by name) for every metric and data set that curves can be drawn of."""
    groups: dict[tuple[str, str], dict[str, list]] = {}
    for entry in entries:
        name = next((name for name in CURVES if any(name in line for line in entry.first.metrics)), None)
        points = plots.has_curve(entry, name) if name else []
        if len(points) > 1 and not entry.values:
            label = entry.name if entry.is_whole else f"{entry.first.name}, partly"
            groups.setdefault((name, entry.first.data.name), {})[label] = points
    return [(name, data, lines) for (name, data), lines in groups.items()]


def draw_curves(name: str, data: str, lines: dict[str, list]) -> Curves:
    """Draw a group of curves."""
    title = f"{CURVES[name]}, {data}"
    svg = plots.curves(title, lines, ("epoch", name.replace("_", " ")))
    return Curves(title, Markup(svg), [(label, plots.colour(i)) for i, label in enumerate(lines)])


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The comparison of the families on one data set: a table, what has to be said below it, and plots."""

    data: str
    head: list[str]
    body: list[list[str]]
    remarks: list[str]
    plots: list[Markup]
    markdown: str


def comparisons(entries: Iterable[Entry]) -> list[Comparison]:
    """Return a comparison for every data set of which samples were scored."""
    by_data: dict[tuple[str, str], list[dict]] = {}
    for entry in entries:
        run = entry.first
        if entry.is_scored and not entry.values:
            by_data.setdefault((run.data.name, run.data.fingerprint), []).append(compare.describe_run(run))
    return [_compare(data, runs) for (data, _), runs in by_data.items()]


def _compare(data: str, runs: list[dict]) -> Comparison:
    head, body = compare.cells(runs)
    names = [name for name in compare.columns(runs) if name.startswith(QUALITY)]
    drawn = [Markup(plots.comparison(name, runs)) for name in names]
    return Comparison(data, head, body, compare.remarks(runs), drawn, compare.table(runs))
