"""The latent space as a picture: a scatter of encoded images by class, and the plane that a manifold is drawn over."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gm_jax.figures.caption import Caption
from gm_jax.figures.curves import save_figure
from gm_jax.metrics.latents import principal_plane


def gaussian_plane(side: int) -> np.ndarray:
    """Return the latents [side * side, 2] of a square over which a standard Gaussian spreads evenly, row by row.

    Coordinates are the Gaussian's quantiles of (i + 1/2) / side (Kingma & Welling 2014, figure 4); the first latent
    grows to the right, the second upwards.
    """
    from scipy.stats import norm

    quantiles = norm.ppf((np.arange(side) + 0.5) / side)
    across, up = np.meshgrid(quantiles, quantiles[::-1])
    return np.stack([across, up], axis=-1).reshape(-1, 2).astype(np.float32)


def save_latent_map(
    path: Path, latents: np.ndarray, labels: np.ndarray | None, names: Sequence[str], caption: Caption
) -> None:
    """Scatter latents [n, D] as a PNG, coloured by labels int32 [n] if there are any.

    Two latents are shown as they are; of more, the first two principal components, which the picture then says.
    """
    import matplotlib.figure  # takes 0.3 s to import; training starts without it

    axis_names = ("first latent", "second latent")
    if latents.shape[1] != 2:
        latents, share = principal_plane(latents)
        axis_names = ("first principal component", "second principal component")
        caption = caption.plus(f"the two hold {share:.0%} of the variance")
    figure = matplotlib.figure.Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    if labels is None:
        axes.scatter(*latents.T, s=4, alpha=0.6)
    else:
        colours = matplotlib.colormaps["tab10" if len(names) <= 10 else "tab20"].colors
        for label in np.unique(labels):
            members = latents[labels == label]
            axes.scatter(*members.T, s=4, alpha=0.6, color=colours[label % len(colours)], label=names[label])
        axes.legend(markerscale=3, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set(xlabel=axis_names[0], ylabel=axis_names[1], aspect="equal")
    save_figure(path, figure, caption)
