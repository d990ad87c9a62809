"""Judges say in words what images show: a trained classifier, or the exact reader of the drawn shapes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gm_jax.errors import UserError


class Judge(NamedTuple):
    """Who looks at images.

    Attributes:
        name: goes into captions and evaluation.json.
        attributes: all that it can say; of the words of one attribute, one holds for an image.
        describe: images uint8 [n, H, W, C] -> the words that hold for each.
        features: images -> what the judge reads its words from, [n, D]; None if it has no such thing.
        accepted: images -> which of them show anything it knows at all, bool [n]; None if it cannot tell.
    """

    name: str
    attributes: Sequence[Sequence[str]]
    describe: Callable[[np.ndarray], Sequence[frozenset[str]]]
    features: Callable[[np.ndarray], np.ndarray] | None = None
    accepted: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def words(self) -> list[str]:
        """All that it can say, in one list."""
        return [word for attribute in self.attributes for word in attribute]


def count_classes(judge: Judge, drawn: dict[str, np.ndarray], real: dict[str, np.ndarray], names: Sequence[str]) -> Any:
    """Return what a judge says of samples and of held-out images, each {"images", perhaps "labels"}, as results.

    How many of the samples show each of the classes `names` and, where there are labels, the share that shows the
    class asked for, beside the judge's own accuracy on the real images.

    Raises:
        UserError: the judge does not know the classes.
    """
    unknown = [name for name in names if name not in judge.words]
    if unknown:
        raise UserError(
            f"the judge {judge.name} does not know {', '.join(unknown)}: it knows {', '.join(judge.words)}; give "
            "evaluation.judge a classifier that was trained on the same classes"
        )
    said = judge.describe(drawn["images"])
    counts = [sum(name in words for words in said) for name in names]
    results = {"judged_classes": {"value": counts, "classes": list(names), "n": len(said)}}
    for key, images, words in (
        ("judged_accuracy", drawn, said),
        ("judge_accuracy", real, judge.describe(real["images"]) if "labels" in real else ()),
    ):
        if "labels" in images:
            right = [names[label] in word for label, word in zip(images["labels"], words, strict=True)]
            share, n = float(np.mean(right)), len(right)
            results[key] = {"value": share, "standard_error": (share * (1.0 - share) / n) ** 0.5, "n": n}
    return {key: {**result, "judge": judge.name} for key, result in results.items()}
