"""Readers of the idx files that MNIST and its relatives come in."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from gm_jax.errors import UserError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MOST = 2**28  # bytes of a file, unpacked: a few kilobytes can become gigabytes


def find_idx(source: Path, name: str) -> Path:
    """Return `<source>/<name>` or the same with .gz; UserError if there is neither."""
    for path in (source / name, source / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(f"{source} has no file {name} or {name}.gz: give the folder of the four idx files as --source")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an idx file of unsigned bytes, gzipped or not, as uint8 of that many dimensions.

    Raises UserError if the magic number or the length is wrong.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            with gzip.open(path) as file:
                data = file.read(MOST + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path} is a damaged gzip file ({error}): get it again") from error
        if len(data) > MOST:
            raise UserError(f"{path} holds more than {MOST} bytes, as none of these files does: get it again")
    # Two zero bytes, 8 for unsigned bytes, the number of dimensions, then each dimension as a big-endian uint32.
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(f"{path} begins with {data[:4].hex()}, an idx file with 000008{dimensions:02x}: get it again")
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if len(data) != header + math.prod(shape):
        raise UserError(f"{path} has {len(data)} bytes, its header says {header + math.prod(shape)}: get it again")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [N, 28, 28] and labels uint8 [N] below 10; UserError if they do not fit together."""
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape != (len(labels), 28, 28) or labels.max(initial=0) > 9:
        found = f"images {images.shape}, labels {labels.shape} up to {labels.max(initial=0)}"
        raise UserError(f"{images_path} and {labels_path} do not fit together ({found}): get both again")
    return images, labels
