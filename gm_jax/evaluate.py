"""Measure trained networks on held-out data: a few numbers during training, all of them in mode evaluate."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gm_jax.judge import compare_words, count_classes
from gm_jax.measure import Drawn, draw, kept, measure, measure_translation, short_hash
from gm_jax.metrics.diversity import similar_pairs
from gm_jax.metrics.moments import Moments, gather
from gm_jax.metrics.neighbours import FOUND, NEIGHBOURS, find_neighbours, vote
from gm_jax.metrics.store import collect
from gm_jax.provenance import code
from gm_jax.run import Run
from gm_jax.tasks.task import Task, Trained, Variables
from gm_jax.workdir import append_line, write_json

AT_ONCE = 1000  # samples whose neighbours are looked for together
SIMILAR = 0.9  # cosine similarity above which the report calls a pair highly similar


class Measure:
    """A per-example function of the task over a batch of held-out examples, of which nothing keeps all values."""

    def __init__(self, task: Task, function: Callable, batch: dict[str, np.ndarray]):
        """`function` is (variables, batch, keys) -> {name: [B, ...]}; `batch` has any number of examples."""
        self._task, self._function, self.batch = task, function, batch

    def __call__(self, variables: Variables) -> dict[str, Moments]:
        """Return the moments of every value; padding never counts."""
        config = self._task.config
        chunks = self._task.iterate(self._function, variables, self.batch, config.seed, config.evaluation.batch_size)
        return gather(chunks)


def evaluate(run: Run, checkpoint: str) -> int:
    """Evaluate a checkpoint and print the numbers."""
    trained = run.restore(checkpoint)
    results = evaluate_trained(run, trained)
    for name, result in results.items():
        if np.ndim(result["value"]) == 0:
            error = f" ± {result['standard_error']:.5f}" if "standard_error" in result else ""
            print(f"{name:24s} {result['value']:.5f}{error}")
    first, path = next(iter(results.values())), run.workdir.path / "evaluation.json"
    print(f"n = {first['n']} of {first['split']}, {trained.caption}: {path}", flush=True)
    return 0


def evaluate_trained(run: Run, trained: Trained) -> dict[str, Any]:
    """Write evaluation.json: every number with its n, split, seed and, where it is a mean, its standard error.

    evaluations.jsonl keeps all of them, a line each.

    Returns:
        The numbers, as they stand there, by name.
    """
    config, began = run.config, time.perf_counter()
    moments = Measure(run.task, run.task.evaluate, trained.examples(config.evaluation.n))(trained.variables)
    splits = dict.fromkeys(source.test for source in run.task.sources().values())
    about = {"n": next(iter(moments.values())).n, "split": "+".join(splits), "seed": config.seed}
    results = {name: {**summary(m), **about} for name, m in moments.items()}
    results.update({name: {"value": v, **about} for name, v in run.task.derive(moments).items()})
    for name in results.keys() & run.task.units.keys():
        results[name]["unit"] = run.task.units[name]
    results |= judge_samples(run, trained) | judge_translations(run, trained)
    content = {"config": run.name, "step": trained.step, "data": run.dataset.name, "stand_in": run.spec.stand_in}
    content |= {"overrides": run.overrides, "code": code(), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    content |= {"seconds": time.perf_counter() - began, "results": results}
    if run.workdir.writes:
        write_json(run.workdir.path / "evaluation.json", content)
        append_line(run.workdir.evaluations, json.dumps(content))
    return results


def judge_samples(run: Run, trained: Trained) -> dict[str, Any]:
    """Draw `evaluation.samples` samples; return what the evaluators measure of them, and what they show."""
    n = run.config.evaluation.samples
    if not n or run.task.generate is None or len(run.portions) > 1:
        return {}
    drawn = draw(run, trained, n)
    return measure(run, drawn) | look_at_samples(run, trained, drawn)


def look_at_samples(run: Run, trained: Trained, drawn: Drawn) -> dict[str, Any]:
    """Return whether samples are alike, near the training images, and of the classes that the judge sees in data."""
    evaluation, seed, results = run.config.evaluation, run.config.sampling.seed, {}
    samples = {"images": drawn.images} | ({} if drawn.labels is None else {"labels": drawn.labels})
    held_out = trained.examples(evaluation.n)
    label = run.task.classes_of(held_out)
    real = {"images": held_out["image"]} | ({} if label is None else {"labels": label})
    alike = {"": drawn.images, "_of_real_images": real["images"][: len(drawn.images)]}
    results |= {f"similar_pairs{whose}": count_similar(images) for whose, images in alike.items()}
    training = run.training()
    paths = {"": drawn.path, "_of_real_images": kept(contents(alike["_of_real_images"]))}
    for whose, images in alike.items():
        near = look_for_neighbours(images, training, run.config.dataset.split, paths[whose])
        results |= {f"{name}{whose}": result for name, result in near.items()}
    if evaluation.get("judge"):
        judge = run.judge()
        if judge.features:
            seen = {f"similar_features{whose}": judge.features(images) for whose, images in alike.items()}
            results |= {name: {**count_similar(x), "judge": judge.name} for name, x in seen.items()}
        if judge.accepted:
            seen = {f"accepted{whose}": Moments.of(judge.accepted(images)) for whose, images in alike.items()}
            results |= {name: {**summary(m), "n": m.n, "judge": judge.name} for name, m in seen.items()}
        results |= count_classes(judge, samples, real, run.task.class_names or judge.words)
    return {
        name: {**result, "split": result.get("split", evaluation.split), "seed": seed}
        for name, result in results.items()
    }


def judge_translations(run: Run, trained: Trained) -> dict[str, Any]:
    """Return what the evaluators measure of translations beside images of the other domain, and what a judge sees."""
    evaluation, results = run.config.evaluation, {}
    for direction, translation in run.task.translations(trained).items():
        found = measure_translation(run, translation)
        if evaluation.get("judge"):
            found |= compare_words(run.judge(), translation)
        results |= {f"{name}_{direction}": result for name, result in found.items()}
    return {name: {"split": evaluation.split, "seed": evaluation.seed, **result} for name, result in results.items()}


def count_similar(x: np.ndarray) -> dict[str, Any]:
    """Count the ordered pairs of images uint8 (which are mapped to [-1, 1]) or features [n, ...] nearly the same."""
    count, mean = similar_pairs(x, SIMILAR)
    n = len(x)
    return {"value": count, "pairs": n * (n - 1), "above": SIMILAR, "mean_cosine_similarity": mean, "n": n}


def look_for_neighbours(images: np.ndarray, data: dict[str, np.ndarray], split: str, path: Path) -> dict[str, Any]:
    """Compare samples uint8 [n, H, W, C] with the labelled training images of a split; {} where there are no labels.

    What is found is kept beside `path`. `classes_found` counts the classes that some sample's neighbours agree on.
    """
    if "label" not in data:
        return {}
    known = data["image"]
    path = path.with_name(f"{path.stem}_{contents(known)}.neighbours")
    rows = collect(path, len(images), (), FOUND, AT_ONCE, lambda i, j: find_neighbours(images[i:j], known))
    near = vote(rows, data["label"])
    about = {"n": len(images), "split": split, "neighbours": NEIGHBOURS}
    found = np.unique(near.label[near.unanimous])
    return {
        "neighbours_unanimous": {**summary(Moments.of(near.unanimous)), **about},
        "neighbour_distance": {**summary(Moments.of(near.distance)), **about, "unit": "grey levels, root mean square"},
        "classes_found": {"value": len(found), "standard_error": 0.0, **about},
    }


def contents(images: np.ndarray) -> str:
    """Return a short name for what is in images."""
    return short_hash(hashlib.blake2b(np.ascontiguousarray(images)).hexdigest())


def summary(moments: Moments) -> dict[str, Any]:
    """Return the mean over the examples and its standard error."""
    return {"value": moments.mean.tolist(), "standard_error": moments.standard_error.tolist()}
