"""A folder of image files as a data set.

`<folder>/train`, `<folder>/test` (or val, validation, trainA, trainB, testA, testB) are the splits if they exist.
Otherwise a file is in `test` if the sha256 of its path inside the folder is divisible by ten, else in `train`: about
90/10, the same everywhere. Subfolders are classes, in sorted order; images that lie in no subfolder are unlabelled.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gm_jax.data.cache import Cache
from gm_jax.data.dataset import Dataset
from gm_jax.data.image import is_grey, to_array
from gm_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SPLITS = ("train", "test", "val", "validation", "trainA", "trainB", "testA", "testB")


def load(folder: str | os.PathLike, requested: str, image_size: int | None) -> Dataset:
    """Return the images under `folder`: RGB, or one channel if every file is grey.

    Images are cropped to the central square and resized to `image_size` if it is given. Raises UserError if there is
    no image, if one cannot be read, or if they differ in size and there is no `image_size`.
    """
    root = Path(folder).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"dataset.folder {root} is not a directory: give a folder of images")
    files = list_images(root)
    if not files:
        raise UserError(f"dataset.folder {root} has no images ({', '.join(SUFFIXES)}): give another folder")
    splits = _splits(root, files)
    label_names = _label_names(root, splits)
    identity = {"folder": str(root), "image_size": image_size}
    cache = Cache(root.name, identity, {"files": _state(root, files), "label_names": label_names})
    image_shape = cache.image_shape(splits) or _probe(root, files, image_size)

    @functools.cache
    def read(split: str):
        paths = list(splits[split])

        def fill(images: np.ndarray):
            def decode(i: int) -> None:
                images[i] = _open(root / paths[i], lambda picture: to_array(picture, image_shape[2], image_size))

            _in_threads(decode, range(len(paths)))
            labels = [label_names.index(splits[split][path]) for path in paths] if label_names else None
            return None if labels is None else np.array(labels, np.int32), {}

        return cache.load(split, (len(paths), *image_shape), fill)

    return Dataset(
        name=root.name,
        origin="folder",
        location=str(root),
        requested=requested,
        stand_in=None,
        image_shape=image_shape,
        label_names=label_names,
        attribute_names={},
        sizes={name: len(paths) for name, paths in splits.items()},
        read=read,
    )


def list_images(root: Path) -> list[str]:
    """Return the sorted relative paths, written with '/', of the image files under `root`; hidden ones are skipped."""
    found = []
    for directory, subdirectories, names in os.walk(root, followlinks=True):
        subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
        paths = (Path(directory, name) for name in names if not name.startswith("."))
        found += [path.relative_to(root).as_posix() for path in paths if path.suffix.lower() in SUFFIXES]
    return sorted(found)


def _splits(root: Path, files: list[str]) -> dict[str, dict[str, str]]:
    """Split name -> {relative path: class name, "" where the file lies in no class folder}."""
    if any((root / name).is_dir() for name in SPLITS if name.startswith("train")):
        names = [name for name in SPLITS if (root / name).is_dir()]
        parts = {name: {file: file.split("/", 1)[1] for file in files if file.split("/")[0] == name} for name in names}
    else:
        parts = {"train": {}, "test": {}}
        for file in files:
            is_test = int(hashlib.sha256(file.encode()).hexdigest(), 16) % 10 == 0
            parts["test" if is_test else "train"][file] = file
    return {
        name: {file: inner.split("/")[0] if "/" in inner else "" for file, inner in part.items()}
        for name, part in parts.items()
    }


def _label_names(root: Path, splits: dict[str, dict[str, str]]) -> tuple[str, ...]:
    """Sorted class names, () if no image lies in a class folder; a mixture is an error."""
    example = {label: file for part in splits.values() for file, label in part.items()}
    if "" in example and len(example) > 1:
        other = next(file for label, file in example.items() if label)
        raise UserError(f"{root / other} lies in a class folder but {root / example['']} does not: move one of them")
    return tuple(sorted(example.keys() - {""}))


def _state(root: Path, files: list[str]) -> str:
    """Digest of every file's name, size and time of change."""
    digest = hashlib.sha256()
    for file in files:
        status = (root / file).stat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _probe(root: Path, files: list[str], image_size: int | None) -> tuple[int, int, int]:
    """Find the image shape from the files' headers alone."""

    def header(picture) -> tuple[tuple[int, int], bool]:
        turned = picture.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap width and height
        return picture.size[::-1] if turned else picture.size, is_grey(picture)

    headers = _in_threads(lambda file: _open(root / file, header, decode=False), files)
    channels = 1 if all(grey for _, grey in headers) else 3
    if image_size is not None:
        return image_size, image_size, channels
    first = headers[0][0]
    for file, (size, _) in zip(files, headers, strict=True):
        if size != first:
            sizes = f"{root / files[0]} is {first[0]}x{first[1]}, {root / file} is {size[0]}x{size[1]}"
            raise UserError(f"images differ in size ({sizes}): give --config.dataset.image_size=64 or the like")
    return first[1], first[0], channels


def _open(path: Path, use: Callable, decode: bool = True):
    """Return `use(picture)` of an image file, turned upright if decoded; UserError naming a file that fails."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            if picture.mode[0] in "IF":
                raise ValueError("it has more than 8 bits per channel")
            return use(ImageOps.exif_transpose(picture) if decode else picture)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise UserError(f"image {path} cannot be read ({error}): mend it or take it out of the folder") from error


def _in_threads(function: Callable, items: Iterable) -> list:
    """`map` in parallel threads (Pillow decodes outside Python's global lock); the first error ends it."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))
