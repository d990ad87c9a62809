"""Prepared TFDS directories, recognised by their own JSON files; TFDS itself is imported only to decode them."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gm_jax.data.cache import Cache
from gm_jax.data.dataset import Dataset
from gm_jax.data.tfds_decode import Features, decode, probe_shape, read_features, read_json
from gm_jax.data.tfds_files import Shards, choose_format, find_shards
from gm_jax.errors import UserError


def find(name: str, data_dirs: Sequence[Path]) -> Path | None:
    """Return the newest prepared version directory of a data set such as "mnist" or "cycle_gan/horse2zebra".

    Each of `data_dirs` may hold data sets, or be the data set's directory or version directory itself.
    """
    for data_dir in data_dirs:
        for parent in (data_dir / name, data_dir):
            for directory in (*_versions(parent), parent):
                if (directory / "dataset_info.json").exists() and full_name(directory) == name:
                    return directory
    return None


def prepared(data_dirs: Sequence[Path]) -> list[str]:
    """Return the names of the data sets prepared in `data_dirs`."""
    patterns = [f"{'*/' * depth}dataset_info.json" for depth in range(4)]
    return sorted({full_name(path.parent) for root in data_dirs for p in patterns for path in root.glob(p)} - {""})


def full_name(directory: Path) -> str:
    """Return the name, with the configuration if there is one, that a version directory states; "" if it states none.

    Other libraries have a `dataset_info.json`, too, without a name.
    """
    info = read_json(directory / "dataset_info.json")
    return "/".join(filter(None, (info.get("name"), info.get("configName"))))


def load(directory: Path, requested: str, image_size: int | None) -> Dataset:
    """Return a prepared data set with an `image` feature.

    Its labels are the ClassLabel feature `label`; other ClassLabel and bool features become attributes (bools are
    named "no" and "yes"), everything else is left out. Raises UserError if the files are neither array_record nor
    TFRecord, if there is no 8-bit `image`, or if the images vary in size and `image_size` is None.
    """
    directory = directory.absolute()
    info = read_json(directory / "dataset_info.json", "name", "version", "splits")
    name = full_name(directory)
    shards = find_shards(directory, info, choose_format(directory, info, name))
    filled = [files for files in shards.values() if files.size]
    if not filled:
        raise UserError(f"{directory} has no examples: delete it and prepare it again")
    features = read_features(directory)
    sizes = {split: files.size for split, files in shards.items()}
    cache = _cache(directory, f"{name}-{info['version']}", shards, features, image_size)
    image_shape = _stated_shape(features, image_size) or cache.image_shape(sizes) or probe_shape(filled[0], features)

    @functools.cache
    def read(split: str):
        def fill(images: np.ndarray):
            return decode(shards[split], features, image_size, images)

        return cache.load(split, (sizes[split], *image_shape), fill)

    return Dataset(
        name=name,
        origin="tfds",
        location=str(directory),
        requested=requested,
        stand_in=None,
        image_shape=image_shape,
        label_names=features.label_names or (),
        attribute_names={features.attribute_name(path): names for path, names in features.attributes.items()},
        sizes=sizes,
        read=read,
    )


def _cache(directory: Path, name: str, shards: dict[str, Shards], features: Features, image_size: int | None) -> Cache:
    paths = sorted(path for files in shards.values() for path in files.paths if path.exists())
    files = {path.relative_to(directory).as_posix(): path.stat() for path in paths}
    source = {
        "files": [[file, status.st_size, status.st_mtime_ns] for file, status in files.items()],
        "label_names": features.label_names,
        "attribute_names": features.attributes,
    }
    return Cache(name, {"directory": str(directory), "image_size": image_size}, source, beside=directory)


def _stated_shape(features: Features, image_size: int | None) -> tuple[int, int, int] | None:
    height, width, channels = features.image_shape
    if image_size is not None:
        return image_size, image_size, channels
    return None if -1 in (height, width) else (height, width, channels)


def _versions(parent: Path) -> list[Path]:
    """The subdirectories named like 3.0.1, newest first."""
    if not parent.is_dir():
        return []
    found = [path for path in parent.iterdir() if path.is_dir() and re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("."))), reverse=True)
