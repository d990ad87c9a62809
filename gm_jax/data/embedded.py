"""The data sets that need no files: scikit-learn's handwritten digits, and shapes drawn by gm_jax."""

import functools
import importlib.metadata
import zlib
from pathlib import Path

import numpy as np

from gm_jax.data import shapes as drawing
from gm_jax.data.cache import Cache
from gm_jax.data.dataset import Dataset
from gm_jax.errors import UserError

NAMES = ("digits", "shapes")
DIGITS = {"train": 1500, "test": 297}


def load(name: str, image_size: int | None = None, num_images: int | None = None) -> Dataset:
    """Return the embedded data set called `name` ("digits" or "shapes"); `num_images` is for shapes alone."""
    return digits(image_size or 28) if name == "digits" else shapes(image_size or 32, num_images or 10_000)


def digits(image_size: int = 28) -> Dataset:
    """Return the 1,797 digits of 8x8 pixels inside scikit-learn, scaled to [image_size, image_size, 1].

    The split is fixed: sorted by class, every sixth or so is one of the 297 test images, the other 1,500 are for
    training, so that both hold each class equally often (to within one image).
    """
    _check_size("digits", image_size)
    source = {"scikit-learn": importlib.metadata.version("scikit-learn"), "code": _checksum(__file__)}
    cache = Cache("digits", {"image_size": image_size}, source)

    @functools.cache
    def read(split: str):
        def fill(images: np.ndarray):
            pixels, labels = _digits_split(split)
            images[...] = np.stack([_enlarge(image, image_size) for image in pixels])[..., None]
            return labels, {}

        return cache.load(split, (DIGITS[split], image_size, image_size, 1), fill)

    return Dataset(
        name="digits",
        origin="embedded",
        location="scikit-learn",
        requested="digits",
        stand_in=None,
        image_shape=(image_size, image_size, 1),
        label_names=tuple("0123456789"),
        attribute_names={},
        sizes=dict(DIGITS),
        read=read,
    )


def shapes(image_size: int = 32, num_images: int = 10_000) -> Dataset:
    """Return the drawn set: RGB [image_size, image_size, 3], the label is the shape, every attribute is known.

    `num_images` are for training; the test split has a fifth as many, drawn from another stream.
    """
    _check_size("shapes", image_size)
    if num_images < 5:
        raise UserError(f"dataset.num_images is {num_images}: give 5 or more")
    sizes = {"train": num_images, "test": num_images // 5}
    identity = {"image_size": image_size, "num_images": num_images}
    cache = Cache("shapes", identity, {"code": _checksum(drawing.__file__)})

    @functools.cache
    def read(split: str):
        def fill(images: np.ndarray):
            attributes, geometry = drawing.describe(split, sizes[split])
            drawing.draw(images, attributes, geometry)
            return attributes["shape"], attributes

        return cache.load(split, (sizes[split], image_size, image_size, 3), fill)

    return Dataset(
        name="shapes",
        origin="embedded",
        location="drawn by gm_jax",
        requested="shapes",
        stand_in=None,
        image_shape=(image_size, image_size, 3),
        label_names=drawing.ATTRIBUTES["shape"],
        attribute_names=dict(drawing.ATTRIBUTES),
        sizes=sizes,
        read=read,
    )


def _digits_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, 8, 8] and labels int32 [N] of one split, in scikit-learn's order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    by_class = np.argsort(data.target, kind="stable")
    is_test = np.zeros(len(by_class), bool)
    is_test[by_class[np.arange(DIGITS["test"]) * len(by_class) // DIGITS["test"]]] = True
    chosen = is_test if split == "test" else ~is_test
    return np.rint(data.images[chosen] * (255 / 16)).astype(np.uint8), data.target[chosen].astype(np.int32)


def _enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Scale [8, 8] to [size, size] smoothly, with a narrow dark border so that no stroke touches the frame."""
    from PIL import Image

    inner = round(size * 24 / 28)
    before = (size - inner) // 2
    scaled = np.asarray(Image.fromarray(image).resize((inner, inner), Image.Resampling.BICUBIC))
    return np.pad(scaled, (before, size - inner - before))


def _check_size(name: str, image_size: int) -> None:
    if not 16 <= image_size <= 256:
        raise UserError(f"dataset.image_size is {image_size}: give 16 to 256 for '{name}'")


def _checksum(file: str) -> int:
    """Of the code that draws, so that changed code never meets an old cache."""
    return zlib.crc32(Path(file).read_bytes())
