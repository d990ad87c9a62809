"""Extractors see features in images: the pixels themselves, a trained classifier of ours, the field's Inception."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gm_jax import inception_weights, parallel
from gm_jax.errors import UserError
from gm_jax.metrics.resize import SIZE, resize
from gm_jax.models.inception import InceptionV3
from gm_jax.workdir import Workdir

INCEPTION_CHUNK = 32  # images of 299x299 pixels at once

SIDE = 32  # pixels of the largest image whose pixels are features; larger ones are averaged


class Extractor(NamedTuple):
    """What maps images to features, and how its numbers are to be called.

    Attributes:
        name: goes into the names of numbers.
        identity: a hash of weights and settings: features are kept under it.
        published: whether it is the field's Inception with the published weights.
        width: how many features an image has.
        classes: how many logits come after them; 0: none.
        chunk: images that it sees at once.
        resizes: whether a convention says how.
        see: images uint8 [n, H, W, C], n at most `chunk` -> float32 [n, width + classes].
    """

    name: str
    identity: str
    published: bool
    width: int
    classes: int
    chunk: int
    resizes: bool
    see: Callable[[np.ndarray], np.ndarray]


def open_extractor(
    name: str, convention: str, image_shape: tuple[int, int, int], weights: str | None = None
) -> Extractor:
    """Open "pixels", "inception", or the classifier that was trained in a workdir, for images of one shape.

    `convention` is how images are resized for inception, and `weights` the file of its published weights.

    Raises:
        UserError: there is none, or it cannot see such images.
    """
    if name == "pixels":
        return pixels(image_shape)
    if name == "inception":
        return inception(convention, weights)
    return classifier(name, image_shape)


def pixels(image_shape: tuple[int, int, int]) -> Extractor:
    """Return the extractor whose features are the pixels in [0, 1], averaged to at most SIDE in height and width."""
    height, width, channels = image_shape
    factor = max(-(-side // SIDE) for side in (height, width))
    size = (height // factor, width // factor)

    def see(images: np.ndarray) -> np.ndarray:
        kept = images[:, : size[0] * factor, : size[1] * factor].astype(np.float32) / 255.0
        means = kept.reshape(-1, size[0], factor, size[1], factor, channels).mean((2, 4))
        return means.reshape(len(images), -1)

    name = "pixels" if factor == 1 else f"pixels{size[0]}x{size[1]}"
    return Extractor(name, name, False, size[0] * size[1] * channels, 0, 500, False, see)


def classifier(where: str, image_shape: tuple[int, int, int]) -> Extractor:
    """Return the last features and the logits of a classifier, called after its experiment."""
    from gm_jax.run import open_trained

    workdir = Workdir(where)
    run = open_trained(workdir.run().get("config", ""), {}, workdir)
    if run.config.task != "classifier":
        raise UserError(f"extractor {where} is a run of the task {run.config.task}: name a classifier's workdir")
    if run.spec.image_shape != tuple(image_shape):
        sizes = ["x".join(map(str, shape)) for shape in (run.spec.image_shape, image_shape)]
        raise UserError(f"extractor {where} looks at images of {sizes[0]}, and these are {sizes[1]}")
    trained, chunk = run.restore("newest"), run.config.evaluation.batch_size
    batch = {"image": np.zeros((1, *image_shape), np.uint8)}
    width = jax.eval_shape(run.task.last_features, trained.variables, batch, None).shape[1]
    look = functools.partial(run.task.look, trained, run.task.features_and_logits)
    see = functools.partial(in_full, look, chunk)
    identity = digest(trained.variables)
    return Extractor(run.name, identity, False, width, len(run.spec.label_names), chunk, False, see)


def in_full(look: Callable[[np.ndarray], np.ndarray], chunk: int, images: np.ndarray) -> np.ndarray:
    """Look at `chunk` images, whatever is given, so that one program sees all: the last ones are repeated."""
    n = len(images)
    return look(np.concatenate([images, np.repeat(images[-1:], chunk - n, 0)]))[:n]


def inception(convention: str, weights: str | None) -> Extractor:
    """Return the Inception of the FID, its weights from a file or downloaded, with a way to resize."""
    variables, source = inception_weights.load(weights)
    network, published = InceptionV3(), source in inception_weights.KNOWN
    on_host = convention == "clean"  # by Pillow

    def look(variables: Any, batch: dict[str, jax.Array]) -> jax.Array:
        images = batch["image"] if on_host else resize(batch["image"], convention)
        return jnp.concatenate(network.apply(variables, images), axis=-1)

    run = parallel.iterate_examples(look, INCEPTION_CHUNK)
    placed = parallel.replicate(variables)

    def see(images: np.ndarray) -> np.ndarray:
        given = resize(images, convention) if on_host else images
        return parallel.concatenate(run(placed, {"image": given}))

    picture = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    width, classes = (x.shape[1] for x in jax.eval_shape(network.apply, variables, picture))
    name = convention if published else f"inception_{convention}"
    return Extractor(name, f"{source[:16]}-{convention}", published, width, classes, INCEPTION_CHUNK, True, see)


def digest(tree: Any) -> str:
    """Return a hash of all arrays of a tree."""
    found = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()
