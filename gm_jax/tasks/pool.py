"""The pool of past images (Shrivastava et al. 2017, section 2.3): who also sees old fakes does not forget them."""

import jax
import jax.numpy as jnp

from gm_jax.state import Tree


def empty_pool(size: int, image_shape: tuple[int, ...]) -> dict[str, Tree]:
    """Return a pool of `size` images, none there yet; one of size 0 is {}: arrays without values cannot be saved."""
    return {} if size == 0 else {"images": jnp.zeros((size, *image_shape)), "count": jnp.int32(0)}


def query(pool: dict[str, Tree], images: jax.Array, key: jax.Array) -> tuple[jax.Array, dict[str, Tree]]:
    """Hand images [B, ...] in, one after the other; return as many for the discriminator, and the new pool.

    Until the pool is full an image is stored and returned. Then, with probability 1/2, a random one of the stored is
    returned and the new image takes its place; otherwise the new image is returned and not stored. A pool of size 0
    returns what it is given.
    """
    if not pool:
        return images, pool
    size = len(pool["images"])

    def one(pool, inputs):
        image, key = inputs
        stored, count = pool["images"], pool["count"]
        chance, choice = jax.random.split(key)
        full = count == size
        swap = full & (jax.random.uniform(chance) < 0.5)
        place = jnp.where(full, jax.random.randint(choice, (), 0, size), count)
        answer = jnp.where(swap, stored[place], image)
        kept = jnp.where(swap | ~full, image, stored[place])
        return {"images": stored.at[place].set(kept), "count": jnp.minimum(count + 1, size)}, answer

    pool, answers = jax.lax.scan(one, pool, (images, jax.random.split(key, len(images))))
    return answers, pool
