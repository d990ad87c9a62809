"""The alarm when a generator's samples are all alike."""

import numpy as np

from gm_jax.metrics.diversity import mean_similarity
from gm_jax.stages import Batch

COMPARED = 1000  # real images whose pairs tell how alike images are


class CollapseAlarm:
    """Warns where samples are more alike than real images by a share, `alarm`, of what is possible.

    Copies of one image have similarity 1; of two, they exceed real images by about half of the rest. A pair of a
    conditional model is of one class, whose images are more alike than others.
    """

    def __init__(self, alarm: float, conditional: bool = False):
        self.alarm, self.conditional = alarm, conditional
        self.real_similarity: float | None = None  # of pairs of held-out images; measured when first asked for

    def __call__(self, found: float, held_out: Batch) -> list[str]:
        """Return a sentence if samples whose mean similarity was `found` look collapsed beside held-out images."""
        if self.real_similarity is None:
            real = np.asarray(held_out["image"][:COMPARED], np.float32) / 127.5 - 1.0
            classes = held_out["label"][:COMPARED] if self.conditional else np.zeros(len(real), np.int32)
            self.real_similarity = mean_similarity(real, classes)
        real = self.real_similarity
        if found <= real + self.alarm * (1.0 - real):
            return []
        return [
            f"the mean cosine similarity of two samples is {found:.3f}, of two real images {real:.3f}"
            f"{' (pairs of one class)' if self.conditional else ''}: the generator may have collapsed to a few images "
            f"(gan.collapse_alarm={self.alarm})"
        ]
