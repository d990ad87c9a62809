"""The table of evaluators: what the features of generated images say beside those of real ones."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from gm_jax.errors import UserError, nearest
from gm_jax.metrics import manifold
from gm_jax.metrics.frechet import Gaussian, frechet_distance
from gm_jax.metrics.inception_score import SPLITS, inception_score
from gm_jax.metrics.kernel import SUBSETS, kernel_distance


class Seen(NamedTuple):
    """What an extractor sees in a set of images.

    Attributes:
        statistics: mean and covariance of the features.
        features: float32 [n, D]; None: only the statistics are known.
        logits: float32 [n, classes]; None: the extractor has none.
    """

    statistics: Gaussian
    features: np.ndarray | None = None
    logits: np.ndarray | None = None


class Comparison(NamedTuple):
    """Everything that an evaluator may look at.

    Attributes:
        real: held-out images.
        generated: samples.
        training: what was trained on; None: unknown.
        seed: of random subsets.
        memorised: how many samples are compared with what was trained on, at most.
    """

    real: Seen
    generated: Seen
    training: Seen | None = None
    seed: int = 0
    memorised: int = 1000


Result = dict[str, Any]  # "value" and what belongs to it


def frechet(c: Comparison) -> dict[str, Result]:
    result: Result = {"value": frechet_distance(c.real.statistics, c.generated.statistics)}
    dimensions = len(c.real.statistics.mean)
    few = [n for n in (c.real.statistics.n, c.generated.statistics.n) if 0 < n <= dimensions]
    if few:
        result["note"] = f"{min(few)} images for features of {dimensions} values: the covariance is not of full rank"
    return {"frechet": result}


def kernel(c: Comparison) -> dict[str, Result]:
    mean, spread, size = kernel_distance(c.real.features, c.generated.features, seed=c.seed)
    return {"kernel": {"value": mean, "standard_deviation": spread, "subsets": SUBSETS, "subset_size": size}}


def score(c: Comparison) -> dict[str, Result]:
    mean, spread = inception_score(c.generated.logits)
    return {"inception_score": {"value": mean, "standard_deviation": spread, "splits": SPLITS}}


def precision_recall(c: Comparison) -> dict[str, Result]:
    precision, recall = manifold.precision_recall(c.real.features, c.generated.features)
    return {"precision": {"value": precision, "k": 3}, "recall": {"value": recall, "k": 3}}


def density_coverage(c: Comparison) -> dict[str, Result]:
    density, coverage = manifold.density_coverage(c.real.features, c.generated.features)
    return {"density": {"value": density, "k": 5}, "coverage": {"value": coverage, "k": 5}}


def memorisation(c: Comparison) -> dict[str, Result]:
    generated = c.generated.features[: c.memorised]
    ratio, closer = manifold.memorisation(c.training.features, generated, c.seed)
    sizes = {"n_training": len(c.training.features), "n_compared": len(generated)}
    return {"memorisation": {"value": ratio, **sizes}, "nearer_than_data": {"value": closer, **sizes}}


class Evaluator(NamedTuple):
    """A row of the table.

    Attributes:
        measure: what it says, by name.
        needs: the parts of a comparison, such as "generated.logits", without which it says nothing.
        better: which of its numbers are better when "min" or "max"; those can choose the best checkpoint.
    """

    measure: Callable[[Comparison], dict[str, Result]]
    needs: tuple[str, ...]
    better: dict[str, str]


FEATURES = ("real.features", "generated.features")
EVALUATORS = {
    "frechet": Evaluator(frechet, (), {"frechet": "min"}),
    "kernel": Evaluator(kernel, FEATURES, {"kernel": "min"}),
    "inception_score": Evaluator(score, ("generated.logits",), {"inception_score": "max"}),
    "precision_recall": Evaluator(precision_recall, FEATURES, {"precision": "max", "recall": "max"}),
    "density_coverage": Evaluator(density_coverage, FEATURES, {"density": "max", "coverage": "max"}),
    "memorisation": Evaluator(memorisation, ("training.features", "generated.features"), {}),
}
PUBLISHED = {"frechet": "fid", "kernel": "kid"}  # what the field calls them, by the published Inception alone


def check_evaluators(key: str, names: Iterable[str]) -> None:
    """Raise UserError, naming the config's key, unless all are in the table."""
    for name in names:
        if name not in EVALUATORS:
            raise UserError(f"{key}: {name!r} is not one of {', '.join(EVALUATORS)}{nearest(name, EVALUATORS)}")


def run(names: Iterable[str], comparison: Comparison, extractor: str, published: bool) -> dict[str, Result]:
    """Return what these evaluators say, under names that cannot be taken for others'.

    A number is called after its extractor, as `frechet_pixels`; only one by the `published` Inception is an `fid_...`,
    and then `extractor` is the convention of its resizing. An evaluator whose needs are not met says nothing.
    """
    results = {}
    for name in names:
        if lacks(comparison, name):
            continue
        for number, result in EVALUATORS[name].measure(comparison).items():
            called = PUBLISHED.get(number, number) if published else number
            results[f"{called}_{extractor}"] = result
    return results


def lacks(comparison: Comparison, name: str) -> list[str]:
    """Return what an evaluator needs of a comparison that is not there, such as "generated.logits"."""
    parts = {need: need.split(".") for need in EVALUATORS[name].needs}
    return [need for need, (whole, part) in parts.items() if getattr(getattr(comparison, whole), part, None) is None]
