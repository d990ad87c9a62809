"""Paths between latents, and the images along them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gm_jax.figures.caption import Caption
from gm_jax.figures.grid import save_strips


def lerp(start: np.ndarray, end: np.ndarray, steps: int) -> np.ndarray:
    """Walk straight from `start` to `end` [n, D]: latents [n, steps, D], both ends included."""
    t = np.linspace(0.0, 1.0, steps)[:, None]
    return (1.0 - t) * start[:, None] + t * end[:, None]


def slerp(start: np.ndarray, end: np.ndarray, steps: int) -> np.ndarray:
    """Walk from `start` to `end` [n, D] on great circles: latents [n, steps, D] (White 2016, arXiv 1609.04468).

    The direction turns evenly and the length changes linearly. In many dimensions Gaussian noise lies near a sphere:
    a straight line would leave it, and with it what a generator has seen.
    """
    lengths = [np.linalg.norm(ends, axis=-1, keepdims=True) for ends in (start, end)]
    start, end = (ends / length for ends, length in zip((start, end), lengths, strict=True))
    angle = np.arccos(np.clip(np.sum(start * end, -1), -1.0, 1.0))[:, None, None]
    t = np.linspace(0.0, 1.0, steps)[:, None]
    # sinc keeps parallel ends well-posed: sin(t angle) / sin(angle) tends to t.
    weights = [s * np.sinc(s * angle / np.pi) / np.sinc(angle / np.pi) for s in (1.0 - t, t)]
    return (weights[0] * start[:, None] + weights[1] * end[:, None]) * lerp(*lengths, steps)


def save_interpolation(
    path: Path,
    latents: np.ndarray,
    decode: Callable[[np.ndarray], np.ndarray],
    caption: Caption,
    ends: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Draw the images along paths of latents [rows, steps, D], one path a row, as a PNG.

    `decode` maps latents [n, D] to images uint8 [n, H, W, C]. `ends`, each uint8 [rows, H, W, C], are shown left and
    right of their row: the true images, where latents were encoded from some.
    """
    rows, steps = latents.shape[:2]
    images = decode(latents.reshape(rows * steps, -1).astype(np.float32))
    strips = images.reshape(rows, steps, *images.shape[1:])
    if ends is not None:
        strips = np.concatenate([ends[0][:, None], strips, ends[1][:, None]], axis=1)
    save_strips(path, strips, caption)
