"""Plots as inline SVG that takes the page's font and colours, so that it is right in light and dark and in print."""

import html
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from gm_jax.report.comparison import Way, draw
from gm_jax.report.entries import Entry, Family
from gm_jax.report.reports import Number
from gm_jax.report.words import Measured, measure

INK = "#010203"  # stands for the page's own colour of text until the SVG is written
COLOURS = ("#3b82c4", "#d9730d", "#2f9e6e", "#b455a0", "#c2410c", "#7c6ff0", "#a1860b", "#d6457a")
DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gm_jax",
    "text.parse_math": False,  # names may have dollars
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "axes.titlesize": 11,
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}


def curves(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], labels: tuple[str, str]) -> str:
    """Draw lines of (x, y) by name on one axis; line i is the group "line-i" of the SVG."""

    def draw(figure) -> None:
        axes = figure.subplots()
        for i, points in enumerate(lines.values()):
            marker = "o" if len(points) < 30 else None
            (line,) = axes.plot(*zip(*points, strict=True), marker=marker, color=colour(i), linestyle=dash(i))
            line.set_gid(f"line-{i}")
        axes.set(xlabel=labels[0], ylabel=labels[1])
        values = [y for points in lines.values() for _, y in points]
        if min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")

    return _svg(title, (7.6, 3.8), draw)


def colour(i: int) -> str:
    """Return the colour of line i."""
    return COLOURS[i % len(COLOURS)]


def dash(i: int):
    """Return how line i is dashed: colours come again after eight lines."""
    return DASHES[i // len(COLOURS) % len(DASHES)]


def sweep(family: Family, key: str, numbers: Sequence[Number]) -> str:
    """Draw numbers over the swept values, a panel each, with two of their errors to either side; which, it says below.

    Other swept keys make lines of their own. Vectors and numbers that no member has are left out.
    """
    series = {number.name: _series(family, key, number) for number in numbers if number.at is None}
    series = {name: lines for name, lines in series.items() if any(lines.values())}

    values = list(dict.fromkeys(entry.values[key] for entry in family.entries))
    numeric = all(isinstance(value, int | float) for value in values)
    places = {value: value if numeric else i for i, value in enumerate(values)}

    def draw(figure) -> None:
        panels = figure.subplots(1, len(series), squeeze=False)[0]
        for axes, (name, lines) in zip(panels, series.items(), strict=True):
            for i, (label, points) in enumerate(lines.items()):
                x, y = [places[value] for value, _ in points], [found.value for _, found in points]
                bars = [2.0 * (found.error or 0.0) for _, found in points]
                axes.errorbar(x, y, bars, label=label or None, marker="o", capsize=3, color=colour(i))
            if numeric and min(values) > 0 and max(values) >= 8 * min(values):
                axes.set_xscale("log")
            axes.set_xticks(list(places.values()), [str(value) for value in values])
            axes.minorticks_off()
            said = _bars([found for points in lines.values() for _, found in points])
            axes.set(xlabel="\n".join([key, *textwrap.wrap(said, 40)]), title=name)
            if any(lines):
                axes.legend()

    return _svg(f"{family.name}: {', '.join(series)} over {key}", (3.4 * len(series), 3.2), draw) if series else ""


def _bars(found: Sequence[Measured]) -> str:
    """Return what the bars of a panel are, and of how many images its numbers are."""
    kinds = " or ".join(sorted({one.of for one in found if one.error}))
    n = " or ".join(f"{n:,}" for n in sorted({one.n for one in found if one.n}))
    return ", ".join([*([f"bars: ± 2 x {kinds}"] if kinds else []), *([f"n = {n}"] if n else [])])


def _series(family: Family, key: str, number: Number) -> dict[str, list[tuple[Any, Measured]]]:
    """Return the points (value, what is measured there) by the other swept values."""
    lines: dict[str, list[tuple[Any, Measured]]] = {}
    for entry in family.entries:
        found, value = measure(entry, number), entry.values[key]
        if found is not None and not isinstance(found.value, list):
            others = ", ".join(f"{other}={v}" for other, v in entry.values.items() if other != key)
            lines.setdefault(others, []).append((value, found))
    return lines


def comparison(name: str, how: Way, runs: Sequence[dict]) -> str:
    """Draw a number of quality, measured in one way, over the time that a sample takes, and over training time."""
    return _svg(f"{name}. {how}", (8.8, 3.6), lambda figure: draw(figure, name, how, runs, COLOURS))


def has_curve(entry: Entry, name: str) -> list[tuple[float, float]]:
    """Return (epoch, value) of a metric of images that are not trained on; by steps where epochs are not known."""
    run = entry.first
    scale = run.epochs / run.step if run.epochs and run.step else 1.0
    return [
        (line["step"] * scale, line[name])
        for line in run.metrics
        if line["split"] in ("validation", "seen") and math.isfinite(line.get(name, math.nan))
    ]


def _svg(title: str, size: tuple[float, float], draw) -> str:
    """Return a figure as an SVG element whose text and lines are as the page around it."""
    import matplotlib
    import matplotlib.figure
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
        draw(figure)
        _plain_logarithms(figure)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return _inline(buffer.getvalue(), title, size[0])


def _plain_logarithms(figure) -> None:
    """Print the ticks of logarithmic axes as plain numbers: by default they are formulas, which are not parsed here."""
    from matplotlib.ticker import LogFormatter, LogFormatterMathtext, NullFormatter

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
            axis.set_major_formatter(LogFormatter())
            low, high = sorted(axis.get_view_interval())
            crowded = axis.axis_name == "x" and high > 10.0 * low  # its labels stand side by side
            axis.set_minor_formatter(NullFormatter() if crowded else LogFormatter(labelOnlyBase=False))


def _inline(document: str, title: str, width: float) -> str:
    """Return the SVG element of a document without what would reach beyond it: its style sheet and its groups' ids.

    A plot of so many inches is shrunk to 5.5 at most where there is no room: smaller, it could not be read.
    """
    svg = document[document.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="line-(\d+)">', r'<g data-line="\1">', svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'font-family: [^;"]*', "font-family: inherit", svg)
    svg = re.sub(r'font: ([\d.]+px) [^;"]*', r"font-size: \1; font-family: inherit", svg)
    label = html.escape(title, quote=True)
    about = f'role="img" aria-label="{label}" style="min-width: {min(width, 5.5)}in"'
    return svg.replace(INK, "currentColor").replace("<svg ", f"<svg {about} ", 1)
