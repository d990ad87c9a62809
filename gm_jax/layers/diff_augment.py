"""Differentiable augmentation (Zhao et al. 2020): what the discriminator sees, real or fake, is changed alike.

The generator learns through the changes, so that few images last longer without their changes leaking into samples.
Images are float32 [B, H, W, C] in [-1, 1]. Each change takes a few numbers u [B, n] in [0, 1) for every example.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gm_jax import random
from gm_jax.errors import UserError, nearest

SHIFT = 1 / 8  # of the side, at most, in either direction
HOLE = 1 / 2  # of the side


def colour(x: jax.Array, u: jax.Array) -> jax.Array:
    """Change brightness by up to 0.5, saturation by a factor of 0 to 2, contrast by one of 0.5 to 1.5."""
    brightness, saturation, contrast = (u[:, i, None, None, None] for i in range(3))
    x = x + brightness - 0.5
    grey = jnp.mean(x, axis=3, keepdims=True)
    x = grey + 2.0 * saturation * (x - grey)
    middle = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    return middle + (contrast + 0.5) * (x - middle)


def translation(x: jax.Array, u: jax.Array) -> jax.Array:
    """Shift by up to an eighth of the side up or down and left or right; what is uncovered is mid-grey (0)."""
    shifts = []
    for axis, side in enumerate(x.shape[1:3]):
        most = round(side * SHIFT)
        by = jnp.floor(u[:, axis] * (2 * most + 1)) - most
        place = jnp.arange(side)
        shifts.append((place[:, None] - place[None, :] == by[:, None, None]).astype(x.dtype))
    # Products with matrices of zeros and ones: their gradients are products too, where a gather's is a scatter, slow on
    # CPUs and without a fixed order of sums on GPUs.
    return jnp.einsum("bij,bjkc,blk->bilc", shifts[0], x, shifts[1])


def cutout(x: jax.Array, u: jax.Array) -> jax.Array:
    """Blank a square of half the side, around any pixel, with mid-grey (0)."""
    inside = []
    for axis, side in enumerate(x.shape[1:3]):
        centre, size = jnp.floor(u[:, axis, None] * side), round(side * HOLE)
        distance = jnp.arange(side) - centre + size // 2
        inside.append((distance >= 0) & (distance < size))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return jnp.where(hole[..., None], 0.0, x)


CHANGES = {"colour": (colour, 3), "translation": (translation, 2), "cutout": (cutout, 2)}  # and their random numbers


def check(names: Sequence[str]) -> None:
    """Raise UserError if there is a name of no change."""
    for name in names:
        if name not in CHANGES:
            raise UserError(f"gan.augment has {name!r}, but knows {', '.join(CHANGES)}{nearest(str(name), CHANGES)}")


def augment(x: jax.Array, keys: jax.Array, names: Sequence[str]) -> jax.Array:
    """Apply the named changes, in the order colour, translation, cutout; `keys` [B] has one for each example."""
    if not names:
        return x
    u, used = random.uniform(keys, (sum(count for _, count in CHANGES.values()),)), 0
    for name, (change, count) in CHANGES.items():
        if name in names:
            x = change(x, u[:, used : used + count])
        used += count
    return x
