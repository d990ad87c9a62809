"""Which runs are drawn together: training curves by metric and data set, and the comparison of the families."""

import dataclasses
from collections.abc import Iterable

from markupsafe import Markup

from gm_jax.report import comparison, plots, tables
from gm_jax.report.collection import Collection
from gm_jax.report.entries import Entry
from gm_jax.report.tables import Table

CURVES = {  # what shows how a task's training went, on images that it does not train on
    "accuracy": "Accuracy of classifiers",
    "elbo": "ELBO of variational autoencoders, nats",
    "energy_score": "Energy score of samples",
    "mean_squared_error": "Mean squared error of autoencoders",
    "loss": "Loss of diffusion models",
}


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
    """The comparison of the families on one data set: tables, what has to be said below them, and plots."""

    data: str
    tables: list[Table]
    remarks: list[str]
    plots: list[Markup]
    markdown: str


def comparisons(collection: Collection) -> list[Comparison]:
    """Return a comparison for every data set of which samples were scored, real images of that set last."""
    by_data: dict[tuple[str, str], list[dict]] = {}
    for entry in collection.entries:
        run = entry.first
        if entry.is_scored and not entry.values:
            about = comparison.describe_run(run) | ({} if entry.is_whole else {"run": f"{run.name}, partly"})
            by_data.setdefault((run.data.name, run.data.fingerprint), []).append(about)
    found = []
    for (data, _), runs in by_data.items():
        real = [comparison.describe_reference(one) for one in collection.references if one.data == data]
        found.append(_compare(data, [*runs, *real], _unscored(data, collection.entries)))
    return found


def _unscored(data: str, entries: Iterable[Entry]) -> list[str]:
    """Return a remark that names the finished runs on a data set whose samples were not scored."""
    missing = [e for e in entries if e.draws_samples and not (e.is_scored or e.values) and e.first.data.name == data]
    names = [entry.first.name for entry in missing if entry.first.step >= entry.first.steps]
    way = "--mode=evaluate with --config.evaluation.metrics=frechet and the like"
    return [f"Finished, but not scored ({way}): {', '.join(names)}."] if names else []


def _compare(data: str, runs: list[dict], more: list[str]) -> Comparison:
    drawn = [Markup(plots.comparison(name, how, runs)) for name, how in comparison.drawn(runs)]
    said = [*tables.remarks(runs), *more]
    return Comparison(data, tables.tables(runs), said, drawn, tables.markdown(runs, more))
