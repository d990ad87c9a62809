"""Random changes of images that keep their label, as pure functions on the device.

Images are [B, H, W, C] of any type. Every example has a key of its own, made from (seed, step, place in the global
batch), so an augmentation is the same on any number of devices and after a resume.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.errors import UserError


def flip(images: jax.Array, keys: jax.Array) -> jax.Array:
    """Mirror left and right with probability 1/2."""
    mirrored = random.uniform(keys) < 0.5
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def crop(images: jax.Array, keys: jax.Array, padding: int) -> jax.Array:
    """Shift by up to `padding` pixels up or down and left or right; what is uncovered mirrors the image.

    The same as padding by reflection and cropping to the old size, in one gather and without the larger array.
    """
    _, height, width, _ = images.shape
    shift = random.randint(keys, (2,), -padding, padding + 1)
    rows = _reflected(jnp.arange(height) + shift[:, :1], height)  # [B, H]
    columns = _reflected(jnp.arange(width) + shift[:, 1:], width)  # [B, W]
    return _cut(images, rows, columns)


def window(images: jax.Array, keys: jax.Array, side: int) -> jax.Array:
    """Cut a random square of `side` pixels out of each image: [B, side, side, C]."""
    _, height, width, _ = images.shape
    rows, columns = (
        random.randint(random.fold_in(keys, axis), (1,), 0, whole - side + 1) + jnp.arange(side)
        for axis, whole in enumerate((height, width))
    )
    return _cut(images, rows, columns)


def _cut(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Take the rows [B, H'] and columns [B, W'] of each image: [B, H', W', C]."""
    return images[jnp.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflected(places: jax.Array, size: int) -> jax.Array:
    """Bring places back into [0, size) by mirroring at the first and the last pixel, which are not repeated."""
    places = jnp.abs(places)
    return jnp.where(places < size, places, 2 * (size - 1) - places)


def cutout(images: jax.Array, keys: jax.Array, size: int) -> jax.Array:
    """Set a size x size square around a random pixel to the image's mean (DeVries & Taylor 2017)."""
    _, height, width, _ = images.shape
    row, column = (random.fold_in(keys, axis) for axis in (0, 1))
    row, column = (random.randint(k, (), 0, n) for k, n in ((row, height), (column, width)))

    def inside(centre: jax.Array, length: int) -> jax.Array:
        distance = jnp.arange(length) - centre[:, None] + size // 2
        return (distance >= 0) & (distance < size)

    hole = (inside(row, height)[:, :, None] & inside(column, width)[:, None, :])[..., None]
    mean = jnp.mean(images.astype(jnp.float32), axis=(1, 2), keepdims=True).astype(images.dtype)
    return jnp.where(hole, mean, images)


def check(settings: Mapping, image_shape: Sequence[int]) -> None:
    """Raise UserError if `settings` (see `augment`) ask for more than images of that shape can give."""
    side = min(image_shape[:2])
    if not 0 <= settings["crop"] < side:
        raise UserError(f"augment.crop={settings['crop']} is not between 0 and {side - 1}, for images of {side} pixels")
    if not 0 <= settings["cutout"] <= side:
        raise UserError(f"augment.cutout={settings['cutout']} is not between 0 and the image's {side} pixels")


def augment(images: jax.Array, keys: jax.Array, settings: Mapping) -> jax.Array:
    """Apply what `config.augment` asks for: "flip" (a bool), "crop" and "cutout" (pixels; 0 is none)."""
    if settings["crop"]:
        images = crop(images, random.fold_in(keys, 0), settings["crop"])
    if settings["flip"]:
        images = flip(images, random.fold_in(keys, 1))
    if settings["cutout"]:
        images = cutout(images, random.fold_in(keys, 2), settings["cutout"])
    return images
