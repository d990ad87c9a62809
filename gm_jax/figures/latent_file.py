"""Files that hold the latent of an image."""

import os
from pathlib import Path

import numpy as np

from gm_jax.errors import UserError


def save_latent(path: Path, latent: np.ndarray, **about: float | str) -> None:
    """Write a latent [D] or [layers, D] and what else is known of it as an .npz."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    np.savez(temporary, latent=latent, **about)
    os.replace(temporary, path)


def read_latent(path: str | Path, size: int | None = None) -> np.ndarray:
    """Return the latent float32 [D] or [layers, D] of a file.

    Raises:
        UserError: there is no such file, it holds no latent, or one of another size than D = `size`.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {file}: --mode=project writes such files")
    with np.load(file) as content:
        if "latent" not in content:
            raise UserError(f"{file} holds no latent: name one that --mode=project wrote")
        latent = content["latent"].astype(np.float32)
    if size is not None and latent.shape[-1] != size:
        raise UserError(f"{file} holds a latent of {latent.shape[-1]} numbers, not {size}: it is of another generator")
    return latent
