"""Projection: the latents of which a generator draws given images (Karras et al. 2020, appendix D)."""
from pathlib import Path

import numpy as np

from gm_jax.errors import UserError


def read_latent(path: str | Path) -> np.ndarray:
    """Return the latent float32 [D] or [layers, D] of a file that mode project wrote; UserError if it is none."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {file}: mode project writes such files")
    with np.load(file) as content:
        if "latent" not in content:
            raise UserError(f"{file} holds no latent: name one that mode project wrote")
        return content["latent"].astype(np.float32)
