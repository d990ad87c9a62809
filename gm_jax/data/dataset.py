"""What the rest of gm_jax sees of a data set: named splits of uint8 images with labels and attributes."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from gm_jax.errors import UserError, nearest


@dataclass(frozen=True)
class Split:
    """One split: `images` uint8 [N, H, W, C] (usually a read-only memory map), `labels` and `attributes` int32 [N]."""

    images: np.ndarray
    labels: np.ndarray | None
    attributes: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """Return the sha256 over images, labels and attributes: names, types, shapes and values."""
        arrays = {"images": self.images} | ({} if self.labels is None else {"labels": self.labels})
        arrays |= {f"attribute {name}": self.attributes[name] for name in sorted(self.attributes)}
        digest = hashlib.sha256()
        for name, array in arrays.items():
            digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A data set that was found, described without decoding it; `split` decodes, or opens the cache, on first use."""

    name: str  # the data set really used
    origin: str  # "tfds", "folder" or "embedded"
    location: str  # the directory, or "scikit-learn" or "drawn by gm_jax" for an embedded set
    requested: str  # the name in the config
    stand_in: str | None  # one sentence when another set was asked for, else None
    image_shape: tuple[int, int, int]
    label_names: tuple[str, ...]  # () if unlabelled
    attribute_names: dict[str, tuple[str, ...]]  # names of the values of each attribute
    sizes: dict[str, int]  # examples per split
    read: Callable[[str], tuple[Split, str]] = field(repr=False, compare=False)  # split name -> the split, its sha256
    skipped: tuple[str, ...] = ()  # files that were left out because they cannot be read

    def split(self, name: str) -> Split:
        """Return a split; UserError if there is none of that name or it is empty."""
        return self._read(name)[0]

    def fingerprint(self, split: str) -> str:
        """Return the sha256 over pixels, labels and attributes of a split; it is stored with the cache."""
        return self._read(split)[1]

    def _read(self, name: str) -> tuple[Split, str]:
        if name not in self.sizes:
            known = ", ".join(self.sizes)
            raise UserError(f"data set '{self.name}' has no split '{name}'{nearest(name, self.sizes)}: it has {known}")
        if self.sizes[name] == 0:
            raise UserError(f"split '{name}' of data set '{self.name}' ({self.location}) is empty: use another split")
        return self.read(name)
