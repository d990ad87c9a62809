"""Judges say in words what images show: a trained classifier, or the exact reader of the drawn shapes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gm_jax.errors import UserError

if TYPE_CHECKING:
    from gm_jax.tasks.task import Translation

NEAR = 3.0  # pixels by which a translated thing may move and still be in its place


class Judge(NamedTuple):
    """Who looks at images.

    Attributes:
        name: goes into captions and evaluation.json.
        attributes: all that it can say; of the words of one attribute, one holds for an image.
        describe: images uint8 [n, H, W, C] -> the words that hold for each.
        features: images -> what the judge reads its words from, [n, D]; None if it has no such thing.
        centres: images -> where the thing that they show is, [n, 2] in pixels; None if it cannot tell.
        accepted: images -> which of them show anything it knows at all, bool [n]; None if it cannot tell.
    """

    name: str
    attributes: Sequence[Sequence[str]]
    describe: Callable[[np.ndarray], Sequence[frozenset[str]]]
    features: Callable[[np.ndarray], np.ndarray] | None = None
    centres: Callable[[np.ndarray], np.ndarray] | None = None
    accepted: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def words(self) -> list[str]:
        """All that it can say, in one list."""
        return [word for attribute in self.attributes for word in attribute]


def count_classes(judge: Judge, drawn: dict[str, np.ndarray], real: dict[str, np.ndarray], names: Sequence[str]) -> Any:
    """Return what a judge says of samples and of held-out images, each {"images", perhaps "labels"}, as results.

    How many of the samples show each of the classes `names` (all the words of one of several) and, where there are
    labels, the share that shows the class asked for, beside the judge's own accuracy on the real images.

    Raises:
        UserError: the judge does not know the classes.
    """
    words = [frozenset([name] if name in judge.words else name.split()) for name in names]
    unknown = [name for name, needed in zip(names, words, strict=True) if not needed <= set(judge.words)]
    if unknown:
        raise UserError(
            f"the judge {judge.name} does not know {', '.join(unknown)}: it knows {', '.join(judge.words)}; give "
            "evaluation.judge a classifier that was trained on the same classes"
        )
    said = judge.describe(drawn["images"])
    counts = [sum(needed <= seen for seen in said) for needed in words]
    results = {"judged_classes": {"value": counts, "classes": list(names), "n": len(said)}}
    for key, images, seen in (
        ("judged_accuracy", drawn, said),
        ("judge_accuracy", real, judge.describe(real["images"]) if "labels" in real else ()),
    ):
        if "labels" in images:
            right = [words[label] <= shown for label, shown in zip(images["labels"], seen, strict=True)]
            results[key] = share(right)
    return {key: {**result, "judge": judge.name} for key, result in results.items()}


def compare_words(judge: Judge, translation: "Translation") -> dict[str, Any]:
    """Return what a judge says of images before and after a translation, as results.

    "shows" is the share that shows the word of the target domain, beside that of the untranslated. For each other
    attribute, "kept_red/green/..." is the share whose word stays; "in_place" that which moved by NEAR pixels at most.
    """
    before, after = (judge.describe(images) for images in (translation.source, translation.made))
    target, results = translation.words[1], {}
    if target in judge.words:
        for name, said in (("shows", after), ("shows_untranslated", before)):
            results[name] = share([target in words for words in said]) | {"word": target}
    for names in judge.attributes:
        if not set(translation.words) & set(names):
            stays = [bool(a & b & set(names)) for a, b in zip(before, after, strict=True)]
            results[f"kept_{'/'.join(names)}"] = share(stays)
    if judge.centres:
        moved = np.linalg.norm(judge.centres(translation.made) - judge.centres(translation.source), axis=1)
        results["in_place"] = share(moved <= NEAR) | {"pixels": NEAR}
    return {name: {**result, "judge": judge.name} for name, result in results.items()}


def share(hits: Sequence[bool]) -> dict[str, Any]:
    """Return the share of hits as a result."""
    value, n = float(np.mean(hits)), len(hits)
    return {"value": value, "standard_error": (value * (1.0 - value) / n) ** 0.5, "n": n}
