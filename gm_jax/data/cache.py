"""Decoded splits on disk: decoded once, memory-mapped afterwards, checksummed, written atomically.

An entry is a directory of `images.npy`, `labels.npy` (if labelled), `attributes.npy` (one row per attribute) and
`meta.json`. It lies beside the source files, or in ~/.cache/gm_jax/data where that cannot be written; $GM_JAX_CACHE
overrides both.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from gm_jax.data.atomic import new_directory, usable
from gm_jax.data.dataset import Split
from gm_jax.errors import UserError

FORMAT = 1  # of an entry; raise it when the same source would be decoded or stored differently
SLOW_BYTES = 2**31  # of images: verifying more than that is announced, for it takes a second or more

# Writes the images [N, H, W, C] into the array given and returns labels and attributes.
Fill = Callable[[np.ndarray], tuple[np.ndarray | None, dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Cache:
    """The cache of one data set: `identity` names its entries, and a changed `source` makes them stale."""

    name: str  # readable start of the entries' names
    identity: dict  # JSON: which files at which image size
    source: dict  # JSON: everything else the content depends on (sizes and times of the files, names of the labels)
    beside: Path | None = None  # the directory of the source files, if the cache may lie there

    def image_shape(self, splits: Iterable[str]) -> tuple[int, int, int] | None:
        """Return the image shape [H, W, C] that any cached split has, or None where nothing is cached yet."""
        for root in self._roots():
            for split in splits:
                stored = self._stored(root / self._entry(split))
                if stored is not None:
                    return stored[0].images.shape[1:]
        return None

    def load(self, split: str, shape: tuple[int, int, int, int], fill: Fill) -> tuple[Split, str]:
        """Return a split of `shape` [N, H, W, C] and its sha256, from the cache or else by calling `fill`.

        Raises UserError where $GM_JAX_CACHE cannot be written.
        """
        entry = self._entry(split)
        for root in self._roots():
            stored = self._open(root / entry, shape)
            if stored is not None:
                return stored
        for root in self._roots():
            if usable(root, int(np.prod(shape))):
                return self._build(root / entry, shape, fill)
        if os.environ.get("GM_JAX_CACHE"):
            raise UserError(f"$GM_JAX_CACHE = {os.environ['GM_JAX_CACHE']} cannot be written or is full: set another")
        logging.warning("No place for a cache of %s: it is decoded at every start. Set $GM_JAX_CACHE.", self.name)
        images = np.empty(shape, np.uint8)
        decoded = Split(images, *fill(images))
        return decoded, decoded.fingerprint()

    def _roots(self) -> list[Path]:
        if os.environ.get("GM_JAX_CACHE"):
            return [Path(os.environ["GM_JAX_CACHE"]).expanduser()]
        beside = [self.beside / "gm_jax_cache"] if self.beside else []
        return [*beside, Path("~/.cache/gm_jax/data").expanduser()]

    def _entry(self, split: str) -> str:
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        return f"{self.name.replace('/', '-')}-{split}-{digest[:12]}"

    def _stored(self, directory: Path) -> tuple[Split, str] | None:
        """Memory-map an entry, with its sha256; None if it is missing, stale, or (with a warning) unreadable."""
        path = directory / "meta.json"
        if not path.exists():
            return None
        try:
            meta = json.loads(path.read_text())
            if meta["format"] != FORMAT or meta["source"] != json.loads(json.dumps(self.source)):
                return None
            return _read(directory, meta), meta["sha256"]
        except Exception as error:  # NumPy raises many kinds for a damaged header
            return _damaged(directory, error)

    def _open(self, directory: Path, shape: tuple[int, int, int, int]) -> tuple[Split, str] | None:
        """Memory-map and verify an entry; None if it is missing, stale, or (with a warning) damaged."""
        stored = self._stored(directory)
        if stored is None:
            return None
        split, sha256 = stored
        if split.images.shape != tuple(shape):
            return _damaged(directory, f"it holds {split.images.shape}")
        if split.images.nbytes > SLOW_BYTES:
            logging.info("Verifying %.1f GB of %s: about a second per GB.", split.images.nbytes / 1e9, directory)
        if split.fingerprint() != sha256:
            return _damaged(directory, "its checksum differs")
        return stored

    def _build(self, directory: Path, shape: tuple[int, int, int, int], fill: Fill) -> tuple[Split, str]:
        """Decode into a new entry and memory-map it."""
        logging.info("Decoding %d images of %s once, into %s.", shape[0], self.name, directory)
        with new_directory(directory) as temporary:
            images = np.lib.format.open_memmap(temporary / "images.npy", "w+", np.uint8, shape)
            labels, attributes = fill(images)
            images.flush()
            if labels is not None:
                np.save(temporary / "labels.npy", labels)
            np.save(temporary / "attributes.npy", np.array(list(attributes.values()), np.int32).reshape(-1, shape[0]))
            meta = {
                "format": FORMAT,
                "identity": self.identity,
                "source": self.source,
                "shape": shape,
                "attributes": list(attributes),
                "bytes": {path.name: path.stat().st_size for path in temporary.iterdir()},
                "sha256": Split(images, labels, attributes).fingerprint(),
            }
            (temporary / "meta.json").write_text(json.dumps(meta, indent=1))
            # Opened before it is moved, so that no other process can take it away in between.
            return _read(temporary, meta), meta["sha256"]


def _damaged(directory: Path, why: Exception | str) -> None:
    logging.warning("The cache %s is damaged (%s): it is rebuilt.", directory, why)


def _read(directory: Path, meta: dict) -> Split:
    """Memory-map the images of an entry and read the rest; ValueError if a file has the wrong size or shape."""
    for file, size in meta["bytes"].items():
        if (directory / file).stat().st_size != size:
            raise ValueError(f"{file} has the wrong size")
    labels = np.load(directory / "labels.npy") if "labels.npy" in meta["bytes"] else None
    attributes = np.load(directory / "attributes.npy")
    images = np.load(directory / "images.npy", mmap_mode="r")
    if images.shape != tuple(meta["shape"]):
        raise ValueError(f"images.npy holds {images.shape}")
    return Split(images, labels, dict(zip(meta["attributes"], attributes, strict=True)))
