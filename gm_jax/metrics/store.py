"""Samples and features on disk, appended chunk by chunk: a killed measurement loses one chunk.

A checksum beside the file seals it when it is complete.
"""

import fcntl
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from gm_jax import cluster
from gm_jax.errors import UserError
from gm_jax.metrics.frechet import Gaussian, gaussian

DAMAGED = (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error)  # of np.load


def collect(
    path: Path, n: int, shape: tuple[int, ...], dtype: Any, chunk: int, read: Callable[[int, int], np.ndarray]
) -> np.ndarray:
    """Return rows [n, *shape], mapped from a file that keeps them.

    `read(start, stop)` computes those that are not there yet, `chunk` at once (the last chunk may be shorter), always
    with the same borders; a row is a function of its number, so it does not matter in how many sittings. Another
    job that collects the same waits. Rows that were damaged on disk are computed again, with a warning. The processes
    of one job compute together, and get those that process 0 has on disk; each gives a path of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    row = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        there = cluster.tell(lambda: sound_rows(path, row, n, chunk))
        if not cluster.is_writer():
            os.truncate(path, 0)
        for start in range(0, there if cluster.count() > 1 else 0, chunk):
            wanted = (min(chunk, there - start), *shape)
            own = stored(path, dtype, shape)[start : start + chunk] if cluster.is_writer() else np.zeros(wanted, dtype)
            told = cluster.broadcast(own)
            if not cluster.is_writer():
                file.write(told.tobytes())
        for start in range(there, n, chunk):
            found = np.ascontiguousarray(read(start, min(start + chunk, n)), dtype)
            if found.shape != (min(chunk, n - start), *shape):
                raise ValueError(f"rows {start} ... are of shape {found.shape}")
            file.write(found.tobytes())
            file.flush()
        if there < n:
            os.fsync(file.fileno())
            seal = path.with_suffix(".json")
            temporary = seal.with_name(f".{os.getpid()}.{seal.name}")
            temporary.write_text(json.dumps(describe(path)))
            os.replace(temporary, seal)
        file.flush()
        return stored(path, dtype, shape)[:n]


def sound_rows(path: Path, row: int, n: int, chunk: int) -> int:
    """Return how many rows of so many bytes a file holds; where it holds less than n, cut it to whole chunks."""
    seal = path.with_suffix(".json")
    if seal.exists() and seal.read_text(errors="replace") != json.dumps(describe(path)):
        logging.warning("%s is damaged: it is computed again", path)
        os.truncate(path, 0)
    whole = path.stat().st_size // row
    if whole < n:
        whole = whole // chunk * chunk  # the last chunk may be of a shorter run
        seal.unlink(missing_ok=True)
        os.truncate(path, whole * row)
    return whole


def stored(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Map all rows of a file."""
    row = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.memmap(path, dtype, "r", shape=(path.stat().st_size // row, *shape))


def describe(path: Path) -> dict:
    """Return size and checksum of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
    return {"bytes": path.stat().st_size, "blake2b": digest.hexdigest()}


def statistics(path: Path, features: np.ndarray) -> Gaussian:
    """Return mean and covariance of features, kept in the file `path` (.npz) once they are computed.

    Where that is damaged they are computed again, with a warning.
    """
    if path.exists():
        try:
            return read_statistics(path)
        except UserError as error:
            logging.warning("%s: they are computed again", error)
    found = gaussian(features)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    np.savez(temporary, n=found.n, mu=found.mean, sigma=found.covariance)
    os.replace(temporary, path)
    return found


def read_statistics(path: Path) -> Gaussian:
    """Read a .npz of `mu` [D] and `sigma` [D, D], as the field publishes them; ours has `n`, too.

    Raises:
        UserError: the file is damaged, or they have other shapes, or values that are not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            n = int(arrays["n"]) if "n" in arrays else 0
            mean, covariance = arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64)
    except DAMAGED as error:
        raise UserError(f"{path} holds no statistics that can be read ({error}): get or make the file again") from error
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape or not np.isfinite([mean.sum(), covariance.sum()]).all():
        shapes = f"mu {list(mean.shape)} and sigma {list(covariance.shape)}"
        raise UserError(f"{path} has {shapes}: they should be [D], [D, D] and finite")
    return Gaussian(n, mean, covariance)
