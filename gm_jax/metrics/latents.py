"""Measures of a latent space: which of its dimensions are used, and the plane that shows most of it."""

import numpy as np

from gm_jax.metrics.moments import Moments


def active_units(posterior_mean: Moments, threshold: float = 0.01) -> int:
    """Return how many latents depend on the image: variance of the posterior mean over the images > threshold.

    Burda et al. (2016), section 5.2. The moments are of [n, D].
    """
    return int(np.sum(posterior_mean.variance > threshold))


def dead_units(activation: Moments, threshold: float = 0.01) -> float:
    """Return the share of units whose activation varies by less than `threshold` over all images.

    The moments are of [n, units].
    """
    return float(np.mean(activation.high - activation.low < threshold))


def principal_plane(latents: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the first two principal components of latents [n, D], [n, 2], and the share of variance they hold.

    The sign of a component is that of its largest weight; a single latent (D = 1) gets a second component of zeros.
    """
    centred = latents - latents.mean(0)
    _, scales, directions = np.linalg.svd(centred, full_matrices=False)
    largest = np.argmax(np.abs(directions), axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]
    plane = np.zeros((len(latents), 2))
    plane[:, : len(directions[:2])] = centred @ directions[:2].T
    return plane, float(np.sum(scales[:2] ** 2) / max(np.sum(scales**2), 1e-30))
