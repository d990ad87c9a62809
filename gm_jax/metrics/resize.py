"""The three ways in which the field brings images to the 299x299 pixels that FID's Inception takes.

Scores differ between them, so a score names its convention:

  tf       the graph of 2015 and NVIDIA's archive: bilinear, the corners of pixels aligned at the upper left
  pytorch  pytorch-fid: bilinear, the centres of pixels aligned; like `tf` without antialiasing
  clean    clean-fid (Parmar et al. 2022): bicubic with antialiasing, as Pillow has it, neither rounded nor clipped
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from gm_jax.errors import UserError, nearest

Array = jax.Array | np.ndarray
SIZE = 299  # pixels that FID's Inception takes


def resize(images: Array, convention: str, size: int = SIZE) -> Array:
    """Resize images uint8 [B, H, W, 1 or 3] to float32 [B, size, size, 3] as the network takes them.

    The range is [-1, 1] for `pytorch`, [-1, 127 / 128] for `tf`, and wider than that for `clean`: bicubic overshoots.
    Grey images are repeated. Raises UserError for another convention or number of channels.
    """
    if convention not in CONVENTIONS:
        names = ", ".join(CONVENTIONS)
        raise UserError(
            f"no convention of resizing is called '{convention}'{nearest(convention, CONVENTIONS)}: {names}"
        )
    channels = images.shape[-1]
    if channels not in (1, 3):
        raise UserError(f"FID's Inception takes grey or RGB images, not {channels} channels: measure other data")
    resized = CONVENTIONS[convention](images, size)
    return resized if channels == 3 else resized.repeat(3, axis=-1)


def tf(images: Array, size: int) -> jax.Array:
    """TensorFlow 1's `resize_bilinear`, then (x - 128) / 128: images [B, H, W, C] -> [B, size, size, C]."""
    rows, columns = (interpolation(scale(n, size) * np.arange(size, dtype=np.float32), n) for n in images.shape[1:3])
    return (separable(images, rows, columns) - 128) / 128


def pytorch(images: Array, size: int) -> jax.Array:
    """PyTorch's `interpolate(x / 255, mode="bilinear", align_corners=False)`, then 2 x - 1, likewise."""
    centres = np.arange(size, dtype=np.float32) + 0.5
    rows, columns = (interpolation(scale(n, size) * centres - np.float32(0.5), n) for n in images.shape[1:3])
    return 2 * separable(images, rows / 255, columns) - 1


def clean(images: Array, size: int) -> np.ndarray:
    """Pillow's bicubic of float32, a channel at a time, then (x - 128) / 128, likewise; on the host."""

    def one(image: np.ndarray) -> np.ndarray:
        channels = [Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC) for channel in image]
        return np.stack([np.asarray(channel) for channel in channels], -1)

    with ThreadPoolExecutor() as pool:  # Pillow computes without Python's lock
        resized = list(pool.map(one, np.asarray(images, np.float32).transpose(0, 3, 1, 2)))
    return (np.stack(resized) - 128) / 128


CONVENTIONS: dict[str, Callable[[Array, int], Array]] = {"tf": tf, "pytorch": pytorch, "clean": clean}


def scale(pixels: int, size: int) -> np.float32:
    """How many pixels become one."""
    return np.float32(pixels / size)


def interpolation(places: np.ndarray, pixels: int) -> np.ndarray:
    """Return the matrix [len(places), pixels] that interpolates linearly at `places`, and repeats what lies outside."""
    places = np.clip(places, 0, pixels - 1)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(pixels, dtype=np.float32)), 0).astype(np.float32)


def separable(images: Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """Apply matrices [h, H] and [w, W] to rows and columns of images [B, H, W, C] -> [B, h, w, C] float32."""
    x = jnp.asarray(images, jnp.float32)
    return jnp.einsum("hi,bijc,wj->bhwc", rows, x, columns, precision="highest")
