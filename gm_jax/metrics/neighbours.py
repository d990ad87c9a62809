"""Nearest training images in pixel space: are samples clear members of one class, and are they copies?"""

from typing import NamedTuple

import numpy as np


class Neighbours(NamedTuple):
    """What the nearest training images say of samples.

    Attributes:
        unanimous: bool [n], all k neighbours have the same label.
        label: int32 [n], the most frequent label among them.
        distance: float64 [n], root mean squared difference to the nearest, in grey levels (0 ... 255).
    """

    unanimous: np.ndarray
    label: np.ndarray
    distance: np.ndarray


def nearest_neighbours(samples: np.ndarray, images: np.ndarray, labels: np.ndarray, k: int = 10) -> Neighbours:
    """Find the k nearest of `images` uint8 [N, H, W, C], labelled int32 [N], for `samples` uint8 [n, H, W, C].

    A classifier of its own: no training, no weights. Unanimity is strict: of MNIST's test digits some 86 % have ten
    neighbours of one label.
    """
    from sklearn.neighbors import NearestNeighbors  # takes time to import

    known = images.reshape(len(images), -1).astype(np.float32)
    asked = samples.reshape(len(samples), -1).astype(np.float32)
    distances, found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(known).kneighbors(asked)
    votes = np.asarray(labels)[found]
    counts = np.stack([np.bincount(row, minlength=labels.max() + 1) for row in votes])
    return Neighbours(
        unanimous=counts.max(1) == k,
        label=counts.argmax(1).astype(np.int32),
        distance=distances[:, 0] / np.sqrt(known.shape[1]),
    )
