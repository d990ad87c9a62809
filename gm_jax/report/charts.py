"""Which runs are drawn together: training curves by metric and data set, and the comparison of the families."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

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


def comparisons(collection: Collection) -> list[Comparison]:
    """Return a comparison for every data set of which samples were scored, real images of that set last."""
    return [_compare(runs, unscored(runs, collection)) for runs in by_data(scored(collection))]


def scored(collection: Collection) -> list[dict[str, Any]]:
    """Return what is compared: the runs whose samples were scored, and real images in the samples' place."""
    found = []
    for entry in collection.entries:
        if entry.is_scored and not entry.values:
            part = {} if entry.is_whole else {"run": f"{entry.first.name}, partly"}
            found.append({**comparison.describe_run(entry.first), "whole": entry.is_whole, **part})
    return [*found, *map(comparison.describe_reference, collection.references)]


def by_data(compared: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the runs of each data set, real images of that set last."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in filter(comparison.is_trained, compared):
        groups.setdefault((run["data"], run["fingerprint"]), []).append(run)
    real = [run for run in compared if not comparison.is_trained(run)]
    return [[*runs, *(one for one in real if one["data"] == data)] for (data, _), runs in groups.items()]


def unscored(runs: Sequence[dict[str, Any]], collection: Collection) -> list[str]:
    """Return a remark that names the finished runs on the data set of these runs whose samples were not scored."""
    mine = [e for e in collection.entries if e.draws_samples and e.first.data.name == runs[0]["data"]]
    missing = [entry.first for entry in mine if not (entry.is_scored or entry.values)]
    names = [run.name for run in missing if run.step >= run.steps]
    way = "--mode=evaluate with --config.evaluation.metrics=frechet and the like"
    return [f"Finished, but not scored ({way}): {', '.join(names)}."] if names else []


def _compare(runs: list[dict[str, Any]], more: list[str]) -> Comparison:
    drawn = [Markup(plots.comparison(name, how, runs)) for name, how in comparison.drawn(runs)]
    return Comparison(runs[0]["data"], tables.tables(runs), [*tables.remarks(runs), *more], drawn)
