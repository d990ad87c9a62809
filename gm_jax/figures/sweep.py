"""What the runs of a sweep have in common and where they differ: rows of images, and numbers over the swept values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gm_jax.figures.caption import Caption
from gm_jax.figures.curves import save_figure
from gm_jax.figures.grid import grid, save_sheet

ROW_HEIGHT = 64  # pixels, about
PANELS = 3  # beside each other


def save_rows(path: Path, rows: Sequence[tuple[str, np.ndarray]], caption: Caption) -> None:
    """Write rows of images uint8 [n, H, W, C], each with its label on the left, as a PNG with a caption."""
    from PIL import Image, ImageDraw, ImageFont  # take time to import; training starts without them

    font = ImageFont.load_default(14)
    strips = []
    for _, images in rows:
        strip = Image.fromarray(grid(images, len(images)))
        scale = max(1, round(ROW_HEIGHT / strip.height))
        strips.append(strip.resize((strip.width * scale, strip.height * scale), Image.Resampling.NEAREST))
    left = int(max(font.getlength(label) for label, _ in rows)) + 16
    sheet = Image.new("RGB", (left + max(s.width for s in strips), sum(s.height for s in strips)), "white")
    draw, top = ImageDraw.Draw(sheet), 0
    for (label, _), strip in zip(rows, strips, strict=True):
        sheet.paste(strip, (left, top))
        draw.text((left - 8, top + strip.height // 2), label, fill="black", font=font, anchor="rm")
        top += strip.height
    save_sheet(path, sheet, caption)


def save_numbers(path: Path, runs: Sequence[tuple[dict[str, Any], dict[str, dict]]], caption: Caption) -> None:
    """Plot every number that all runs have, and not all the same, over the values of the first swept key, as a PNG.

    `runs` are (values by swept key, results by name as in evaluation.json). The other keys' values make lines of their
    own; there is a panel for each number; bars are two standard errors to either side.
    """
    import matplotlib.figure  # takes 0.3 s to import; training starts without it

    results = [member for _, member in runs]
    shared = [
        name
        for name, result in results[0].items()
        if all(name in member for member in results) and np.ndim(result["value"]) == 0 and "/" not in name
    ]
    names = [name for name in shared if len({member[name]["value"] for member in results}) > 1] or shared
    key, *others = runs[0][0]
    ticks = list(dict.fromkeys(values[key] for values, _ in runs))
    numeric = all(isinstance(tick, int | float) and not isinstance(tick, bool) for tick in ticks)
    place = {tick: tick if numeric else i for i, tick in enumerate(ticks)}
    lines: dict[str, list] = {}
    for values, member in runs:
        label = ", ".join(f"{other}={values[other]}" for other in others)
        lines.setdefault(label, []).append((place[values[key]], member))
    rows = -(-len(names) // PANELS)
    figure = matplotlib.figure.Figure(figsize=(4.6 * min(PANELS, len(names)), 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, min(PANELS, len(names)), squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        for label, points in lines.items():
            points = sorted(points, key=lambda point: point[0])
            numbers = [member[name] for _, member in points]
            errors = [2.0 * number.get("standard_error", 0.0) for number in numbers]
            places, heights = [x for x, _ in points], [number["value"] for number in numbers]
            axes.errorbar(places, heights, errors, label=label, marker="o", capsize=3)
        counts = sorted(
            {member[name]["n"] for points in lines.values() for _, member in points if member[name].get("n")}
        )
        n = f" (n = {' or '.join(map(str, counts))})" if counts else ""
        axes.set(xlabel=key, title=f"{name}{n}")
        if numeric and min(ticks) > 0 and max(ticks) >= 8 * min(ticks):
            axes.set_xscale("log")
        axes.set_xticks(list(place.values()), [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if others:
            axes.legend(fontsize=8)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    save_figure(path, figure, caption)
