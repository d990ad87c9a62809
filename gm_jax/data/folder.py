"""A folder of image files as a data set.

`<folder>/train`, `<folder>/test` (or val, validation, trainA, trainB, testA, testB, in any case) are the splits if
they exist. Otherwise a file is in `test` if the sha256 of its path inside the folder is divisible by ten, else in
`train`: about 90/10, the same everywhere; and `all` is both together, in the sorted order of the paths. Subfolders are
classes, in sorted order; images that lie in no subfolder are unlabelled.

Links to folders are followed, but every folder counts once: where it really lies, if that is inside the data set, else
at the first link that leads to it, upper folders first, then by name. Further links are warned about.
"""

import functools
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
from absl import logging

from gm_jax.data.atomic import usable, write_text
from gm_jax.data.cache import Cache
from gm_jax.data.dataset import Dataset
from gm_jax.data.image import is_grey, to_array
from gm_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
OTHERS = (".gif", ".tif", ".tiff", ".jfif", ".avif", ".heic")  # images, too, that are left out with a warning
SPLITS = ("train", "test", "val", "validation", "trainA", "trainB", "testA", "testB")


def load(folder: str | os.PathLike, requested: str, image_size: int | None, skip_corrupt: bool = False) -> Dataset:
    """Return the images under `folder`: RGB, or one channel if every file is grey.

    Images are cropped to the central square and resized to `image_size` if it is given. Raises UserError if there is
    no image, if one cannot be read (`skip_corrupt`: those are left out), or if they differ in size and there is no
    `image_size`.
    """
    root = Path(os.path.expanduser(folder)).absolute()  # Path.expanduser raises for an unknown user
    if not root.is_dir():
        raise UserError(f"dataset.folder {root} is not a directory: give a folder of images")
    found = list_images(root)
    skipped = _unreadable(root, found) if skip_corrupt else ()
    splits = _splits(root, [file for file in found if file not in skipped])
    files = sorted({file for part in splits.values() for file in part})
    if not files:
        raise UserError(f"dataset.folder {root} has no images ({', '.join(SUFFIXES)}): give another folder")
    label_names = _label_names(root, splits)
    identity = {"folder": str(root), "image_size": image_size}
    cache = Cache(root.name, identity, {"files": _state(root, files), "label_names": label_names})
    image_shape = cache.image_shape(splits) or _probe(root, files, image_size)

    @functools.cache
    def read(split: str):
        paths = list(splits[split])

        def fill(images: np.ndarray):
            def decode(i: int) -> None:
                images[i] = open_picture(root / paths[i], lambda picture: to_array(picture, image_shape[2], image_size))

            _in_threads(decode, range(len(paths)))
            numbers = {label: number for number, label in enumerate(label_names)}
            labels = np.array([numbers[splits[split][path]] for path in paths], np.int32) if label_names else None
            return labels, {}

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
        skipped=skipped,
    )


def read_images(path: str | os.PathLike, channels: int, size: int) -> tuple[list[str], np.ndarray]:
    """Return the names of one image, or of all in a folder, and the images uint8 [n, size, size, channels].

    Each is cropped to its central square and resized. Raises UserError if there is none, or if one cannot be read.
    """
    root = Path(path)
    names = list_images(root) if root.is_dir() else []
    files = [root] if root.is_file() else [root / name for name in names]
    if not files:
        raise UserError(f"{root} is no image, nor a folder of images ({', '.join(SUFFIXES)})")
    pictures = _in_threads(lambda file: open_picture(file, lambda picture: to_array(picture, channels, size)), files)
    return [file.stem for file in files], np.stack(pictures)


def list_images(root: Path) -> list[str]:
    """Return the sorted relative paths, written with '/', of the image files under `root`; hidden ones are skipped.

    Raises UserError if a folder cannot be listed.
    """
    found, others, counted, starts = [], [], {}, [root]
    for start in starts:  # grows by the links, which so come after everything that lies here
        for directory, subdirectories, names in os.walk(start, onerror=_refuse):
            status = os.stat(directory)
            first = counted.setdefault((status.st_dev, status.st_ino), directory)
            if first != directory:
                logging.warning("%s is the same folder as %s: its images count once, there.", directory, first)
                subdirectories.clear()
                continue
            subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
            starts += [
                Path(directory, name) for name in subdirectories if os.path.islink(os.path.join(directory, name))
            ]
            paths = [Path(directory, name) for name in names if not name.startswith(".")]
            found += [path.relative_to(root).as_posix() for path in paths if path.suffix.lower() in SUFFIXES]
            others += [path for path in paths if path.suffix.lower() in OTHERS]
    if others:
        logging.warning("%d images are left out, such as %s: convert them to .png.", len(others), min(others))
    return sorted(found)


def _unreadable(root: Path, files: list[str]) -> tuple[str, ...]:
    """Return the files that cannot be decoded, with a warning; what was found is kept as long as no file changes."""
    state = hashlib.sha256(_bytes(f"{root} {_state(root, files)}")).hexdigest()
    kept = Path(os.environ.get("GM_JAX_CACHE") or "~/.cache/gm_jax").expanduser() / "unreadable" / f"{state}.json"

    def fails(file: str) -> bool:
        try:
            open_picture(root / file, lambda picture: picture.load())
        except UserError as error:
            logging.warning("%s", error)
            return True
        return False

    if kept.exists():
        bad = json.loads(kept.read_text())
    else:
        bad = [file for file, failed in zip(files, _in_threads(fails, files), strict=True) if failed]
        if usable(kept.parent, 0):
            write_text(kept, json.dumps(bad))
    if bad:
        logging.warning("%d of %d images cannot be read and are left out, such as %s", len(bad), len(files), bad[0])
    return tuple(bad)


def _splits(root: Path, files: list[str]) -> dict[str, dict[str, str]]:
    """Split name -> {relative path: class name, "" where the file lies in no class folder}."""
    known = {split.lower(): split for split in SPLITS}
    own = {
        path.name: known[path.name.lower()] for path in root.iterdir() if path.is_dir() and path.name.lower() in known
    }
    tops = {file.split("/")[0] for file in files}
    if any(split.startswith("train") for split in own.values()) or tops <= own.keys():
        parts = {split: {} for split in SPLITS if split in own.values()}
        for file in files:
            top, _, inner = file.partition("/")
            if top in own:
                parts[own[top]][file] = inner
        outside = [file for file in files if file.split("/")[0] not in own]
        if outside:
            example = (len(outside), root, ", ".join(own), outside[0])
            logging.warning("%d images of %s lie outside its folders %s and are left out, such as %s", *example)
    else:
        parts = {"train": {}, "test": {}, "all": {file: file for file in files}}
        for file in files:
            is_test = int(hashlib.sha256(_bytes(file)).hexdigest(), 16) % 10 == 0
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
        try:
            status = (root / file).stat()
        except OSError as error:  # a link that leads nowhere
            _refuse(error)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise UserError(f"{root / file} is no regular file: take it out of the folder")
        digest.update(_bytes(f"{file} {status.st_size} {status.st_mtime_ns}\n"))
    return digest.hexdigest()


def _refuse(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename} cannot be read ({error.strerror}): mend it or take it out of the folder"
    ) from error


def _bytes(path: str) -> bytes:
    return path.encode(errors="surrogateescape")  # names of old archives are not always UTF-8


def _probe(root: Path, files: list[str], image_size: int | None) -> tuple[int, int, int]:
    """Find the image shape from the files' headers alone."""

    def header(picture) -> tuple[tuple[int, int], bool]:
        turned = picture.getexif().get(0x0112) in (5, 6, 7, 8)  # EXIF orientations that swap width and height
        return picture.size[::-1] if turned else picture.size, is_grey(picture)

    headers = _in_threads(lambda file: open_picture(root / file, header, decode=False), files)
    channels = 1 if all(grey for _, grey in headers) else 3
    if image_size is not None:
        return image_size, image_size, channels
    first = headers[0][0]
    for file, (size, _) in zip(files, headers, strict=True):
        if size != first:
            sizes = f"{root / files[0]} is {first[0]}x{first[1]}, {root / file} is {size[0]}x{size[1]}"
            raise UserError(f"images differ in size ({sizes}): give --config.dataset.image_size=64 or the like")
    return first[1], first[0], channels


def open_picture(path: Path, use: Callable, decode: bool = True):
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
