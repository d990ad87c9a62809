"""Nearest training images in pixel space: are samples clear members of one class, and are they copies?"""

from typing import NamedTuple

import numpy as np

from gm_jax.metrics.manifold import nearest

NEIGHBOURS = 10
FOUND = np.dtype([("rows", np.int32, (NEIGHBOURS,)), ("distance", np.float64)])


class Neighbours(NamedTuple):
    """What the nearest training images say of samples.

    Attributes:
        unanimous: bool [n], all neighbours have the same label.
        label: int32 [n], the most frequent label among them.
        distance: float64 [n], root mean squared difference to the nearest, in grey levels (0 ... 255).
    """

    unanimous: np.ndarray
    label: np.ndarray
    distance: np.ndarray


def find_neighbours(samples: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return FOUND [n], the rows of the nearest `images` uint8 [N, H, W, C] to `samples` uint8 [n, H, W, C].

    The distance is the root mean squared difference to the nearest of all, in grey levels.
    """
    asked, known = (x.reshape(len(x), -1) for x in (samples, images))
    squared, rows = nearest(asked, known, NEIGHBOURS)
    found = np.empty(len(asked), FOUND)
    found["rows"], found["distance"] = rows, np.sqrt(squared[:, 0] / known.shape[1])
    return found


def vote(found: np.ndarray, labels: np.ndarray) -> Neighbours:
    """Return what the neighbours FOUND [n] among images labelled int32 [N] say.

    A classifier of its own: no training, no weights. Unanimity is strict: of MNIST's test digits some 86 % have ten
    neighbours of one label.
    """
    counts = np.stack([np.bincount(row, minlength=labels.max() + 1) for row in np.asarray(labels)[found["rows"]]])
    return Neighbours(counts.max(1) == NEIGHBOURS, counts.argmax(1).astype(np.int32), found["distance"])
