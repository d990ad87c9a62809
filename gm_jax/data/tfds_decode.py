"""The examples of a prepared TFDS data set, decoded: the features that gm_jax uses, then images, labels, attributes.

A record is a serialised `tf.train.Example`: features by path, an image as the bytes of its PNG or JPEG file, class
labels and bools as integers.
"""

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gm_jax.data.image import MODES, to_array
from gm_jax.data.tfds_files import Shards
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


def read_json(path: Path, *keys: str) -> dict:
    """Read one of TFDS's description files; UserError if it cannot be read or lacks one of the `keys`."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): prepare the data set again") from error
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise UserError(f"{path} is not what TFDS writes: prepare the data set again")
    return content


def read_features(directory: Path) -> Features:
    """Read `features.json` and the files of label names; UserError if there is no 8-bit `image`."""
    content = read_json(directory / "features.json")
    if "type" in content:  # as TFDS wrote it until 2022
        import tensorflow_datasets as tfds
        from google.protobuf import json_format

        content = json_format.MessageToDict(tfds.features.FeatureConnector.from_json(content).to_proto())
    flat = _flatten(content.get("featuresDict", {}).get("features", {}))
    image = flat.get("image", {}).get("image")
    if image is None or image.get("dtype", "uint8") != "uint8":
        raise UserError(f"{directory} has no 8-bit feature 'image' (it has {', '.join(flat)}): use another data set")
    shape = tuple(int(n) for n in image.get("shape", {}).get("dimensions", ()))
    if len(shape) != 3 or shape[2] not in MODES:
        raise UserError(f"images of {directory} have the shape {shape}, not 1, 3 or 4 channels: use another data set")
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
    return Features(shape, label_names, names)


def probe_shape(shards: Shards, features: Features) -> tuple[int, int, int]:
    """Return the shape of a split's first image, for features that do not state it."""
    (record,) = shards.read(shards.open(), range(1))
    try:
        return _image(_parse(record), features.image_shape[2], None).shape
    except Exception as error:  # Pillow raises many kinds for a damaged image
        raise shards.unreadable(f"example 0: {error}") from error


def decode(
    shards: Shards, features: Features, image_size: int | None, images: np.ndarray
) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
    """Decode a split into `images` [N, H, W, C] and return its labels and attributes, int32 [N] each.

    Raises UserError if an image has another shape or a file is damaged.
    """
    columns = [*features.attributes] + ["label"] * (features.label_names is not None)
    values = {path: np.empty(len(images), np.int32) for path in columns}
    records = shards.open()

    def decode_one(i: int, record: bytes) -> None:
        example = _parse(record)
        for path, column in values.items():
            column[i] = _one(path, example[path].int64_list)
        image = _image(example, images.shape[3], image_size)
        if image.shape != images.shape[1:]:
            sizes = " and ".join(f"{shape[1]}x{shape[0]}" for shape in (images.shape[1:], image.shape))
            raise UserError(f"images of {shards.directory} vary in size ({sizes}): give --config.dataset.image_size=64")
        images[i] = image

    def decode_chunk(start: int) -> None:
        numbers = range(start, min(start + _CHUNK, len(images)))
        for i, record in zip(numbers, shards.read(records, numbers), strict=True):
            try:
                decode_one(i, record)
            except UserError:
                raise
            except Exception as error:  # Pillow and protobuf raise many kinds for a damaged example
                raise shards.unreadable(f"example {i}: {error}") from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode_chunk, range(0, len(images), _CHUNK)))
    labels = None if features.label_names is None else values.pop("label")
    return labels, {features.attribute_name(path): column for path, column in values.items()}


def _parse(record: bytes):
    """The features of a serialised example by path; three times as fast as TFDS's own way, which looks at all."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


def _image(example, channels: int, image_size: int | None) -> np.ndarray:
    from PIL import Image

    encoded = _one("image", example["image"].bytes_list)
    return to_array(Image.open(io.BytesIO(encoded)), channels, image_size)


def _one(path: str, values):
    if len(values.value) != 1:
        raise ValueError(f"it has {len(values.value)} values of '{path}'")
    return values.value[0]


def _flatten(features: dict, prefix: str = "") -> dict[str, dict]:
    """Nested features by path: {"image": ..., "attributes/Smiling": ...}."""
    flat = {}
    for key, feature in features.items():
        nested = feature.get("featuresDict")
        flat |= _flatten(nested["features"], f"{prefix}{key}/") if nested else {prefix + key: feature}
    return flat
