"""Which examples of the data train, and which choose the best checkpoint."""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from gm_jax.data import Dataset
from gm_jax.data.pipeline import arrays, hold_out
from gm_jax.defaults.table import flatten
from gm_jax.experiment import Experiment
from gm_jax.tasks.task import Source


class Portion(NamedTuple):
    """The examples of one source, by their numbers in its split, int32, ascending."""

    trained: np.ndarray
    held_out: np.ndarray


def own_validation(dataset: Dataset, sources: Mapping[str, Source]) -> str | None:
    """Return the name of the data set's own validation split; None if it has none, or a source trains on it."""
    trained = {source.split for source in sources.values()}
    return next((name for name in ("validation", "val") if name in dataset.sizes and name not in trained), None)


def divide(sources: Mapping[str, Source], dataset: Dataset, validation: int) -> dict[str, Portion]:
    """Hold `validation` examples of each source out of its training, a tenth at most.

    None are held out where the data set has a validation split of its own, which serves all sources alike.
    """
    n = 0 if own_validation(dataset, sources) else validation
    return {name: divide_one(source, dataset, n) for name, source in sources.items()}


def divide_one(source: Source, dataset: Dataset, n: int) -> Portion:
    """Hold n examples of a source out, a tenth at most. Reads no data, unless it has some of the split's alone."""
    if not source.where:
        size = len(dataset.split(source.split)) if source.split not in dataset.sizes else dataset.sizes[source.split]
        return Portion(*hold_out(size, min(n, size // 10)))
    members = source.members(arrays(dataset.split(source.split)))
    return Portion(*(members[part] for part in hold_out(len(members), min(n, len(members) // 10))))


def count_epochs(config: ConfigDict, experiment: Experiment, examples: int, given: Collection[str]) -> bool:
    """Set the keys that `config.epochs` counts in epochs of so many examples, but those `given`; True if there are any.

    An epoch is rounded up to a multiple of `steps_per_call`.
    """
    stage, k = experiment.stages[0], config.steps_per_call
    epoch = math.ceil(examples / (stage.batch_size * stage.batches) / k) * k
    counted = {key: n for key, n in flatten(config.epochs).items() if n is not None and key not in given}
    config.update_from_flattened_dict({key: max(round(n * epoch / k), 1) * k for key, n in counted.items()})
    return bool(counted)
