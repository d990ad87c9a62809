"""Compare generated images with real ones: samples and features are streamed to disk, evaluators read them there."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from gm_jax import backend, cluster
from gm_jax.data.pipeline import choose
from gm_jax.errors import UserError
from gm_jax.extractors import Extractor, digest, open_extractor
from gm_jax.metrics import evaluators
from gm_jax.metrics.evaluators import Comparison, Seen
from gm_jax.metrics.frechet import gaussian
from gm_jax.metrics.store import collect, statistics
from gm_jax.provenance import code_digest
from gm_jax.run import Run
from gm_jax.tasks.task import Trained, Translation

MEMORISED = 1000  # samples that are compared with every training image, at most


class Drawn(NamedTuple):
    """Samples on disk.

    Attributes:
        images: uint8 [n, H, W, C].
        labels: int32 [n]; None: they are not conditional.
        seconds: to draw one image, compilation left out.
        path: of the file that keeps them; features of them lie beside it.
    """

    images: np.ndarray
    labels: np.ndarray | None
    seconds: float
    path: Path


def draw(run: Run, trained: Trained, n: int) -> Drawn:
    """Return the first n samples of a checkpoint, those of `sampling.seed`; what is on disk already is not drawn again.

    Those of one way of sampling from one set of weights, by this very code, are kept in the workdir.
    """
    sampling, chunk, times = run.config.sampling, run.config.sampling.batch_size, []
    record = np.dtype([("image", np.uint8, run.spec.image_shape), ("label", np.int32)])

    def read(start: int, stop: int) -> np.ndarray:
        began = time.perf_counter()
        drawn = run.task.sample(trained.variables, chunk, sampling.seed, first=start)  # whole, so that one program does
        times.append(time.perf_counter() - began)
        rows = np.empty(stop - start, record)
        rows["image"] = drawn["images"][: stop - start]
        rows["label"] = drawn["labels"][: stop - start] if "labels" in drawn else -1
        return rows

    how = json.dumps({**sampling.to_dict(), "n": None}, sort_keys=True, default=str)
    made_by = short_hash(f"{digest(trained.variables)} {code_digest()} {how}")
    path = run.workdir.folder("samples") / f"step{trained.step}_{made_by}.samples"
    for other in path.parent.glob("step*"):
        if not other.name.startswith(path.stem):
            other.unlink()
    rows = collect(path, n, (), record, chunk, read)
    clock = path.with_suffix(".seconds")
    if not cluster.tell(clock.exists):
        while len(times) < 2:  # the first time it is compiled
            read(0, min(chunk, n))
        clock.write_text(repr(float(np.median(times[1:])) / chunk))
    labels = rows["label"] if rows["label"][0] >= 0 else None
    return Drawn(rows["image"], labels, cluster.tell(lambda: float(clock.read_text())), path)


def short_hash(text: str) -> str:
    """Return a short name that follows from a text."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def look(extractor: Extractor, read: Callable[[int, int], np.ndarray], n: int, path: Path) -> Seen:
    """Return what an extractor sees in n images, uint8, that `read(start, stop)` gives; kept beside `path`."""
    path = path.with_name(f"{path.stem}_{extractor.identity}.features")
    width = extractor.width + extractor.classes
    rows = collect(path, n, (width,), np.float32, extractor.chunk, lambda i, j: extractor.see(read(i, j)))
    features = rows[:, : extractor.width]
    return Seen(
        statistics(path.with_name(f"{path.stem}_{n}.npz"), features),
        features,
        rows[:, extractor.width :] if extractor.classes else None,
    )


def look_at_data(run: Run, extractor: Extractor, split: str, numbers: np.ndarray) -> Seen:
    """Return what an extractor sees in some examples of a split; kept under the data's checksum for all runs."""
    images = run.dataset.split(split).images
    key = f"{run.dataset.fingerprint(split)[:16]}_{short_hash(numbers.tobytes().hex())}"
    return look(extractor, lambda i, j: np.asarray(images[numbers[i:j]]), len(numbers), kept(key))


def kept(key: str) -> Path:
    """Return where features of data are kept for all runs; those by other code than this are removed."""
    folder = (backend.cache_root() if cluster.is_writer() else cluster.scratch()) / "features"
    for other in folder.glob(f"{key}_*"):
        if not other.name.startswith(f"{key}_{code_digest()}"):
            other.unlink()
    return folder / f"{key}_{code_digest()}.images"


def measure(run: Run, drawn: Drawn) -> dict[str, Any]:
    """Return what the evaluators of `evaluation.metrics` say of samples, by every extractor, with what it is of."""
    settings, n = run.config.evaluation, len(drawn.images)
    (source,) = run.task.sources().values()
    (portion,) = run.portions.values()
    test = choose(run.dataset.sizes[source.test], settings.n)
    results: dict[str, Any] = {}
    for extractor in open_extractors(settings, run.spec.image_shape):
        generated = look(extractor, lambda i, j: np.asarray(drawn.images[i:j]), n, drawn.path)
        real = look_at_data(run, extractor, source.test, test)
        training = None
        if "memorisation" in settings.metrics:
            training = look_at_data(run, extractor, source.split, portion.trained)
        comparison = Comparison(real, generated, training, settings.seed, MEMORISED)
        about = {
            "n_real": len(test),
            "n_generated": n,
            "split": source.test,
            **describe(extractor, settings.convention),
        }
        found = evaluators.run(settings.metrics, comparison, extractor.name, extractor.published)
        results |= {number: {**result, **about, "seeds": 1} for number, result in found.items()}
    seed = run.config.sampling.seed
    results["sampling_time"] = {"value": drawn.seconds, "unit": "seconds", "batch_size": run.config.sampling.batch_size}
    return {name: {"n": n, "split": source.test, "seed": seed, **result} for name, result in results.items()}


def open_extractors(settings: ConfigDict, image_shape: tuple[int, int, int]) -> list[Extractor]:
    """Return the extractors that `evaluation` names, for images of one shape; none where no metrics are asked for.

    Raises:
        UserError: there is none of that name, or two would call their numbers alike.
    """
    if not settings.metrics:
        return []
    found: dict[str, Extractor] = {}
    for where in settings.extractors:
        extractor = open_extractor(where, settings.convention, image_shape, settings.inception)
        if extractor.name in found:
            raise UserError(
                f"evaluation.extractors: the numbers of {where} would be called {extractor.name} as another's are: "
                "evaluate with one after the other"
            )
        found[extractor.name] = extractor
    return list(found.values())


def measure_translation(run: Run, translation: Translation) -> dict[str, Any]:
    """Return what the evaluators say of translations beside images of the other domain, and of what was translated.

    The latter, "..._untranslated", is where a translation that changes nothing stands.
    """
    settings, results = run.config.evaluation, {}
    for extractor in open_extractors(settings, translation.made.shape[1:]):
        about = {"n_real": len(translation.target), "n_generated": len(translation.made), "n": len(translation.made)}
        about |= describe(extractor, settings.convention)
        real = see_all(extractor, translation.target)
        for whose, images in (("", translation.made), ("_untranslated", translation.source)):
            comparison = Comparison(real, see_all(extractor, images), None, settings.seed, MEMORISED)
            found = evaluators.run(settings.metrics, comparison, extractor.name, extractor.published)
            results |= {f"{number}{whose}": {**result, **about} for number, result in found.items()}
    return results


def see_all(extractor: Extractor, images: np.ndarray) -> Seen:
    """Return what an extractor sees in images that lie in memory."""
    pieces = range(0, len(images), extractor.chunk)
    rows = np.concatenate([extractor.see(images[i : i + extractor.chunk]) for i in pieces])
    features = rows[:, : extractor.width]
    return Seen(gaussian(features), features, rows[:, extractor.width :] if extractor.classes else None)


def describe(extractor: Extractor, convention: str) -> dict[str, Any]:
    """Return what is to be said of a number's extractor."""
    resizing = {"convention": convention} if extractor.resizes else {}
    return {"extractor": extractor.name, "weights": extractor.identity, **resizing}


class During:
    """The scores of `evaluation.during`: of a few samples against the examples held out for validation."""

    def __init__(self, run: Run):
        """Look at the data, if any scores are asked for.

        Raises:
            UserError: the task draws no samples, or there is no such extractor.
        """
        self._run, self._settings = run, run.config.evaluation
        self.monitor: str | None = None  # the score that chooses the best checkpoint, once there is one
        if not self._settings.during:
            return
        if run.task.generate is None or len(run.portions) > 1:
            raise UserError(
                f"evaluation.during={self._settings.during} needs a task that draws samples like its data: leave it out"
            )
        settings = self._settings
        shape = run.spec.image_shape
        self._extractor = open_extractor(settings.extractors[0], settings.convention, shape, settings.inception)
        self._real = see_all(self._extractor, run.validation()["image"])
        alike = Comparison(self._real, self._real)
        for name in settings.during:
            for need in evaluators.lacks(alike, name):
                what = f"{need}, which {self._extractor.name} does not give in training"
                raise UserError(f"evaluation.during: {name} needs {what}: leave it out, or name another extractor")

    def __call__(self, trained: Trained) -> dict[str, float]:
        """Return the numbers by name; {} if none are asked for."""
        settings = self._settings
        if not settings.during:
            return {}
        drawn = self._run.task.sample(trained.variables, settings.during_n, self._run.config.sampling.seed)
        comparison = Comparison(self._real, see_all(self._extractor, drawn["images"]), None, settings.seed, 0)
        extractor = self._extractor
        found = evaluators.run(settings.during, comparison, extractor.name, extractor.published)
        self.monitor = next(iter(found))
        return {name: float(result["value"]) for name, result in found.items()}
