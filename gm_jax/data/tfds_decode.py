"""The examples of a prepared TFDS data set, decoded: the features that gm_jax uses, then images, labels, attributes."""

import functools
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gm_jax.data.image import to_array
from gm_jax.errors import UserError

_CHUNK = 256  # examples that one thread reads and decodes at a time


@dataclass(frozen=True)
class Features:
    """What the reader uses of a data set's features."""

    image_shape: tuple[int, int, int]  # -1 where the size varies
    label_names: tuple[str, ...] | None  # None if there is no label
    attributes: dict[str, tuple[str, ...]]  # path in the example, such as "attributes/Smiling" -> names of its values

    def attribute_name(self, path: str) -> str:
        """Return the last part of an attribute's path, or the whole path where that would be ambiguous."""
        last = path.rsplit("/", 1)[-1]
        return path if [p.rsplit("/", 1)[-1] for p in self.attributes].count(last) > 1 else last


def read_json(path: Path) -> dict:
    """Read one of TFDS's description files; UserError if it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): prepare the data set again") from error


def read_features(directory: Path) -> Features:
    """Read `features.json` and the files of label names; UserError if there is no 8-bit `image`."""
    flat = _flatten(read_json(directory / "features.json")["featuresDict"]["features"])
    image = flat.get("image", {}).get("image")
    if image is None or image.get("dtype", "uint8") != "uint8":
        raise UserError(f"{directory} has no 8-bit feature 'image' (it has {', '.join(flat)}): use another data set")
    names = {}
    for path, feature in sorted(flat.items()):
        if "classLabel" in feature:
            file = directory / f"{path.replace('/', '-')}.labels.txt"
            numbers = map(str, range(int(feature["classLabel"].get("numClasses", 0))))
            lines = file.read_text().splitlines() if file.exists() else numbers
            names[path] = tuple(line.strip() for line in lines if line.strip())
        elif feature.get("tensor", {}).get("dtype") == "bool" and not feature["tensor"].get("shape"):
            names[path] = ("no", "yes")
    label_names = names.pop("label") if "classLabel" in flat.get("label", {}) else None
    return Features(tuple(int(n) for n in image["shape"]["dimensions"]), label_names, names)


def probe_shape(directory: Path, splits: Sequence[str], features: Features) -> tuple[int, int, int]:
    """Return the shape of the first image of the first of `splits`, for features that do not state it."""
    if not splits:
        raise UserError(f"{directory} has no examples: delete it and prepare it again")
    example = _read(_open(directory, splits[0]), 0, 1, directory)[0]
    return _to_array(example["image"], features.image_shape[2], None).shape


def decode(
    directory: Path, split: str, features: Features, image_size: int | None, images: np.ndarray
) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """Decode a split into `images` [N, H, W, C] and return its labels and attributes, int32 [N] each.

    Raises UserError if an image has another shape or a file is damaged.
    """
    count = len(images)
    labels = None if features.label_names is None else np.empty(count, np.int32)
    attributes = {path: np.empty(count, np.int32) for path in features.attributes}
    examples = _open(directory, split)

    def decode_chunk(start: int) -> None:
        for i, example in enumerate(_read(examples, start, min(start + _CHUNK, count), directory), start):
            image = _to_array(example["image"], images.shape[3], image_size)
            if image.shape != images.shape[1:]:
                sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (images.shape[1:], image.shape))
                raise UserError(f"images of {directory} vary in size ({sizes}): give --config.dataset.image_size=64")
            images[i] = image
            if labels is not None:
                labels[i] = example["label"]
            for path, values in attributes.items():
                values[i] = functools.reduce(lambda part, key: part[key], path.split("/"), example)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode_chunk, range(0, count, _CHUNK)))
    return labels, {features.attribute_name(path): values for path, values in attributes.items()}


def _open(directory: Path, split: str):
    """The examples of a split with random access, their images still encoded."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory, file_format="array_record")
    try:
        return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except Exception as error:  # array_record raises many kinds for a missing or damaged file
        raise _unreadable(directory, error) from error


def _read(examples, start: int, stop: int, directory: Path) -> list[dict]:
    try:
        return examples.__getitems__(range(start, stop))
    except Exception as error:
        raise _unreadable(directory, error) from error


def _unreadable(directory: Path, error: Exception) -> UserError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return UserError(f"the files in {directory} cannot be read ({reason}): delete the directory and prepare it again")


def _to_array(encoded: bytes, channels: int, image_size: int | None) -> np.ndarray:
    from PIL import Image

    return to_array(Image.open(io.BytesIO(encoded)), channels, image_size)


def _flatten(features: dict, prefix: str = "") -> dict[str, dict]:
    """Nested features by path: {"image": ..., "attributes/Smiling": ...}."""
    flat = {}
    for key, feature in features.items():
        nested = feature.get("featuresDict")
        flat |= _flatten(nested["features"], f"{prefix}{key}/") if nested else {prefix + key: feature}
    return flat
