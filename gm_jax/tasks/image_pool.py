"""The pool of past samples that a discriminator is shown (Shrivastava et al. 2017, section 2.3)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class ImagePool(NamedTuple):
    """Images generated some time ago.

    Attributes:
        images: float32 [size, H, W, C].
        count: int32, how many of them there are.
    """

    images: jax.Array
    count: jax.Array


def empty_pool(size: int, image_shape: Sequence[int]) -> ImagePool:
    """Return a pool for so many images, which has none yet."""
    return ImagePool(jnp.zeros((size, *image_shape)), jnp.int32(0))


def exchange(pool: ImagePool, images: jax.Array, key: jax.Array) -> tuple[ImagePool, jax.Array]:
    """Show images [n, H, W, C] to the pool, one after the other; return it, and what it answers [n, H, W, C].

    Until it is full it keeps a copy of each and returns it. Then it does one of two things, equally often: it returns
    the image and forgets it, or it returns one of its own, which the image replaces. The noise of image i follows from
    the key and i.
    """
    size = len(pool.images)

    def show(pool: ImagePool, inputs: tuple[jax.Array, jax.Array]) -> tuple[ImagePool, jax.Array]:
        number, image = inputs
        own = jax.random.fold_in(key, number)
        full = pool.count == size
        swapped = full & jax.random.bernoulli(jax.random.fold_in(own, 0))
        place = jnp.where(full, jax.random.randint(jax.random.fold_in(own, 1), (), 0, size), pool.count)
        stored = pool.images[place]
        kept = pool.images.at[place].set(jnp.where(swapped | ~full, image, stored))
        return ImagePool(kept, jnp.minimum(pool.count + 1, size)), jnp.where(swapped, stored, image)

    return jax.lax.scan(show, pool, (jnp.arange(len(images)), images))
