"""The pages: what the templates show, rendered by Jinja with autoescape, and the pictures beside them."""

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from gm_jax.errors import UserError
from gm_jax.report import facts, plots, words
from gm_jax.report.charts import comparisons, curve_groups, draw_curves
from gm_jax.report.collection import Collection
from gm_jax.report.records import Figure

TEMPLATES = Path(__file__).with_name("templates")
COPIED = ("style.css", "report.js")


def make_environment(collection: Collection) -> jinja2.Environment:
    """Return what renders templates, with all that they call."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    filters = (words.duration, words.minutes, words.printed, words.plain, words.cell)
    environment.filters.update({function.__name__: function for function in filters})
    said = (facts.how, facts.command, facts.evaluated, facts.sweep_command, facts.pictures, facts.losses, words.measure)
    environment.globals.update({function.__name__: function for function in said})
    environment.globals.update(
        collection=collection,
        sweep_plot=lambda family, row: Markup(plots.sweep(family, row.sweep.key, row.numbers)),
    )
    return environment


class Site:
    """A folder of pages, with the pictures that they show."""

    def __init__(self, out: Path, collection: Collection):
        """`out` is made if it is not there; UserError if it cannot be written."""
        self.out, self.collection = out, collection
        self.templates = make_environment(collection)
        self.templates.globals["href"] = self.href
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name in COPIED:
                shutil.copyfile(TEMPLATES / name, out / name)
        except OSError as error:
            raise UserError(f"cannot write to {out} ({error.strerror}): choose another folder with --out") from error

    def write(self) -> dict[str, Any]:
        """Write every page; return what all of them know."""
        collection = self.collection
        common = {
            "reports": collection.reports,
            "results": collection.results,
            "corners": collection.corners(),
            "comparisons": comparisons(collection),
            "curves": [draw_curves(*group) for group in curve_groups(collection.entries)],
        }
        self._render("index.html", "index.html", common)
        for report in collection.reports:
            mine = [result for result in collection.results if result.report is report]
            self._render(f"{report.id}.html", "report.html", {**common, "report": report, "rows": mine})
        return common

    def _render(self, name: str, template: str, values: dict[str, Any]) -> None:
        path = self.out / name
        text = self.templates.get_template(template).render(page=path.stem, **values)
        path.write_bytes(text.encode(errors="replace"))  # a damaged name may hold what no page can

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
