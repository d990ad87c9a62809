"""Measure trained networks on held-out data: a few numbers during training, all of them in mode evaluate."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gm_jax import parallel
from gm_jax.errors import UserError
from gm_jax.metrics.neighbours import nearest_neighbours
from gm_jax.run import Run
from gm_jax.tasks.task import Trained
from gm_jax.workdir import write_json

NEIGHBOURS = 10


class Measure:
    """A per-example function of the task, compiled once, over the first `evaluation.n` examples of the split."""

    def __init__(self, run: Run, function: Callable):
        """`function` is (variables, batch, key) -> {name: [B, ...]}."""
        evaluation = run.config.evaluation
        if evaluation.n is not None and evaluation.n < 1:
            raise UserError(f"evaluation.n={evaluation.n} must be at least 1, or None for the whole split")
        data = {name: np.asarray(x[: evaluation.n]) for name, x in run.split(evaluation.split).items()}
        self._batch = {**data, "position": np.arange(len(data["image"]))}
        self._key = jax.random.key(run.config.seed)
        self._run = parallel.map_examples(
            lambda tree, batch: function(tree[0], batch, tree[1]), min(evaluation.batch_size, len(data["image"]))
        )

    def __call__(self, trained: Trained) -> dict[str, np.ndarray]:
        """Return every example's values, float64 [n, ...]; padding never counts."""
        values = self._run((trained.variables, self._key), self._batch)
        return {name: np.asarray(v, np.float64) for name, v in values.items()}


def evaluate(run: Run, checkpoint: str) -> int:
    """Write evaluation.json: every number with its n, split, seed and, where it is a mean, its standard error."""
    trained = run.restore(checkpoint)
    values = Measure(run, run.task.evaluate)(trained)
    about = {"n": len(next(iter(values.values()))), "split": run.config.evaluation.split, "seed": run.config.seed}
    results = {name: {**summary(v), **about} for name, v in values.items()}
    results.update({name: {"value": v, **about} for name, v in run.task.derive(values).items()})
    results |= judge_samples(run, trained)
    path = run.workdir.path / "evaluation.json"
    content = {"config": run.name, "step": trained.step, "data": run.dataset.name, "stand_in": run.spec.stand_in}
    write_json(path, {**content, "results": results})
    for name, result in results.items():
        if np.ndim(result["value"]) == 0:
            error = f" ± {result['standard_error']:.5f}" if "standard_error" in result else ""
            print(f"{name:24s} {result['value']:.5f}{error}")
    print(f"n = {about['n']} of {about['split']}, step {trained.step}: {path}", flush=True)
    return 0


def judge_samples(run: Run, trained: Trained) -> dict[str, Any]:
    """Compare `evaluation.samples` samples with the labelled training images; {} where there are no samples or labels.

    `classes_found` counts the classes that some sample's neighbours agree on.
    """
    n, seed = run.config.evaluation.samples, run.config.sampling.seed
    data = run.split("train")
    drawn = run.task.sample(trained, n, seed) if n and "label" in data else None
    if drawn is None:
        return {}
    near = nearest_neighbours(drawn["images"], data["image"], data["label"], NEIGHBOURS)
    about = {"n": n, "split": "train", "seed": seed, "neighbours": NEIGHBOURS}
    found = np.unique(near.label[near.unanimous])
    return {
        "neighbours_unanimous": {**summary(near.unanimous.astype(float)), **about},
        "neighbour_distance": {**summary(near.distance), **about, "unit": "grey levels, root mean square"},
        "classes_found": {"value": len(found), "standard_error": 0.0, **about},
    }


def summary(values: np.ndarray) -> dict[str, Any]:
    """Return the mean over the examples [n, ...] and its standard error."""
    error = values.std(0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.full(values.shape[1:], np.nan)
    return {"value": values.mean(0).tolist(), "standard_error": error.tolist()}
