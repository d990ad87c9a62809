"""Measure trained networks on held-out data: a few numbers during training, all of them in mode evaluate."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gm_jax import parallel
from gm_jax.judge import count_classes
from gm_jax.metrics.diversity import similar_pairs
from gm_jax.metrics.neighbours import nearest_neighbours
from gm_jax.run import Run
from gm_jax.tasks.task import Trained
from gm_jax.workdir import write_json

NEIGHBOURS = 10
SIMILAR = 0.9  # cosine similarity above which the report calls a pair highly similar


class Measure:
    """A per-example function of the task, compiled once, over a batch of held-out examples."""

    def __init__(self, run: Run, function: Callable, batch: dict[str, np.ndarray]):
        """`function` is (variables, batch, key) -> {name: [B, ...]}; `batch` has any number of examples."""
        self._batch, self._key = batch, jax.random.key(run.config.seed)
        self._run = parallel.map_examples(
            lambda tree, batch: function(tree[0], batch, tree[1]),
            min(run.config.evaluation.batch_size, len(batch["image"])),
        )

    def __call__(self, trained: Trained) -> dict[str, np.ndarray]:
        """Return every example's values, float64 [n, ...]; padding never counts."""
        values = self._run((trained.variables, self._key), self._batch)
        return {name: np.asarray(v, np.float64) for name, v in values.items()}


def evaluate(run: Run, checkpoint: str) -> int:
    """Write evaluation.json: every number with its n, split, seed and, where it is a mean, its standard error."""
    trained, split = run.restore(checkpoint), run.config.evaluation.split
    values = Measure(run, run.task.evaluate, trained.some(split, run.config.evaluation.n))(trained)
    about = {"n": len(next(iter(values.values()))), "split": split, "seed": run.config.seed}
    results = {name: {**summary(v), **about} for name, v in values.items()}
    results.update({name: {"value": v, **about} for name, v in run.task.derive(values).items()})
    for name in results.keys() & run.task.units.keys():
        results[name]["unit"] = run.task.units[name]
    results |= judge_samples(run, trained)
    path = run.workdir.path / "evaluation.json"
    content = {"config": run.name, "step": trained.step, "data": run.dataset.name, "stand_in": run.spec.stand_in}
    write_json(path, {**content, "results": results})
    for name, result in results.items():
        if np.ndim(result["value"]) == 0:
            error = f" ± {result['standard_error']:.5f}" if "standard_error" in result else ""
            print(f"{name:24s} {result['value']:.5f}{error}")
    print(f"n = {about['n']} of {split}, {trained.caption}: {path}", flush=True)
    return 0


def judge_samples(run: Run, trained: Trained) -> dict[str, Any]:
    """Look at `evaluation.samples` samples: are they alike, near the training images, what the judge expects?"""
    evaluation, seed = run.config.evaluation, run.config.sampling.seed
    drawn = run.task.sample(trained, evaluation.samples, seed) if evaluation.samples else None
    if drawn is None:
        return {}
    held_out = trained.some(evaluation.split, evaluation.n)
    real = {name + "s": held_out[name] for name in ("image", "label") if name in held_out}
    alike = {"": drawn["images"], "_of_real_images": real["images"][: evaluation.samples]}
    results = {f"similar_pairs{whose}": count_similar(scaled(images)) for whose, images in alike.items()}
    training = run.training()
    for whose, images in alike.items():
        near = look_for_neighbours(images, training)
        results |= {f"{name}{whose}": result for name, result in near.items()}
    if evaluation.get("judge"):
        judge = run.judge()
        if judge.features:
            seen = {f"similar_features{whose}": judge.features(images) for whose, images in alike.items()}
            results |= {name: {**count_similar(x), "judge": judge.name} for name, x in seen.items()}
        results |= count_classes(judge, drawn, real, run.spec.label_names or judge.words)
    return {
        name: {**result, "split": result.get("split", evaluation.split), "seed": seed}
        for name, result in results.items()
    }


def scaled(images: np.ndarray) -> np.ndarray:
    """Map uint8 to float32 in [-1, 1]."""
    return images.astype(np.float32) / 127.5 - 1.0


def count_similar(x: np.ndarray) -> dict[str, Any]:
    """Count the ordered pairs of images or features [n, ...] that are nearly the same."""
    count, mean = similar_pairs(x, SIMILAR)
    n = len(x)
    return {"value": count, "pairs": n * (n - 1), "above": SIMILAR, "mean_cosine_similarity": mean, "n": n}


def look_for_neighbours(images: np.ndarray, data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Compare samples uint8 [n, H, W, C] with the labelled training images; {} where those have no labels.

    `classes_found` counts the classes that some sample's neighbours agree on.
    """
    if "label" not in data:
        return {}
    near = nearest_neighbours(images, data["image"], data["label"], NEIGHBOURS)
    about = {"n": len(images), "split": "train", "neighbours": NEIGHBOURS}
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
