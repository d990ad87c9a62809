"""The confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gm_jax.figures.caption import Caption
from gm_jax.figures.curves import save_figure


def save_confusion(path: Path, counts: np.ndarray, names: Sequence[str], caption: Caption) -> None:
    """Draw counts [classes, classes], rows the true classes: shade and number in each cell, as a PNG."""
    import matplotlib.figure  # takes 0.3 s to import; training starts without it

    classes = len(names)
    figure = matplotlib.figure.Figure(figsize=(3 + 0.5 * classes, 2.5 + 0.5 * classes), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", xticks=range(classes), yticks=range(classes))
    axes.set_xticklabels(names, rotation=45, ha="right")
    axes.set_yticklabels(names)
    if classes <= 30:  # beyond, numbers would overlap
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count:.0f}" if count else "", ha="center", va="center", color=colour, fontsize=8)
    save_figure(path, figure, caption)
