"""Curves of metrics.jsonl over the steps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gm_jax.figures.caption import Caption
from gm_jax.figures.grid import save_atomically
from gm_jax.workdir import read_metrics


def save_curves(path: Path, metrics: Path, names: Sequence[str], caption: Caption) -> None:
    """Plot each of the named metrics of a metrics.jsonl, one panel a metric and one line a split, as a PNG."""
    import matplotlib.figure  # takes 0.3 s to import; training starts without it

    lines = read_metrics(metrics)
    figure = matplotlib.figure.Figure(figsize=(7 * len(names), 4.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for split in sorted({line["split"] for line in lines if name in line}, reverse=True):
            points = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=split, marker="o" if len(points) < 30 else None)
        axes.set(xlabel="step", ylabel=name)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
            low = min(min(line.get_ydata()) for line in axes.lines)
            high = max(max(line.get_ydata()) for line in axes.lines)
            if low > 0 and high > 10 * low:
                axes.set_yscale("log")
    save_figure(path, figure, caption)


def save_relation(path: Path, metrics: Path, names: tuple[str, str], caption: Caption) -> None:
    """Plot a metric of held-out images (the second name) over one that training last logged then, as a PNG.

    The title has Spearman's rank correlation: 1 where they always rise together, -1 where one falls as the other rises.
    """
    import matplotlib.figure
    import scipy.stats

    points, trained = [], None
    for line in read_metrics(metrics):
        if line["split"] == "train":
            trained = line.get(names[0], trained)
        elif trained is not None and names[1] in line:
            points.append((line["step"], trained, line[names[1]]))
    figure = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    if points:
        steps, x, y = zip(*points, strict=True)
        figure.colorbar(axes.scatter(x, y, c=steps, cmap="viridis"), label="step")
        varies = min(len(set(x)), len(set(y))) > 1
        correlation = f"{scipy.stats.spearmanr(x, y).statistic:.2f}" if varies else "undefined"
        axes.locator_params(axis="x", nbins=6)  # small losses have long labels
        axes.set_title(f"rank correlation {correlation}, n = {len(points)}")
    axes.set(xlabel=f"{names[0]}, training", ylabel=f"{names[1]}, held out")
    axes.grid(alpha=0.3)
    save_figure(path, figure, caption)


def save_table(path: Path, metrics: Path, names: Sequence[str]) -> None:
    """Write the named metrics of a metrics.jsonl as a Markdown table: a row a logged step, a column a split and name.

    Where a config logs every epoch, a row is an epoch.
    """
    lines = [line for line in read_metrics(metrics) if any(name in line for name in names)]
    splits = dict.fromkeys(line["split"] for line in lines)
    columns = [
        (s, name) for s in splits for name in names if any(s == line["split"] and name in line for line in lines)
    ]
    rows: dict[int, dict] = {}
    for line in lines:
        row = rows.setdefault(line["step"], {})
        row.update({(line["split"], name): f"{line[name]:.4f}" for name in names if name in line})
    head = ["step", *(f"{split} {name}" for split, name in columns)]
    body = [[str(step), *(row.get(column, "") for column in columns)] for step, row in rows.items()]
    text = [f"| {' | '.join(cells)} |" for cells in (head, ["---:"] * len(head), *body)]
    path.write_text("\n".join(text) + "\n")


def save_figure(path: Path, figure, caption: Caption) -> None:
    """Save a matplotlib figure as a PNG, with a caption below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.supxlabel(str(caption), fontsize=9)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    save_atomically(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"), path, caption)
