"""Projection: find the latents from which a generator draws given images (Karras et al. 2020, appendix D)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gm_jax.images import to_model, to_uint8
from gm_jax.layers.resample import halve

FRAMES = 30  # of the path to the result
COARSEST = 4  # pixels of the smallest images that are compared


class Projection(NamedTuple):
    """What was found for n images.

    Attributes:
        latent: float32 [n, ...].
        error: the distance of each result to its image, [n].
        path: images uint8 [frames, n, H, W, C] on the way, from the start to the result.
    """

    latent: np.ndarray
    error: np.ndarray
    path: np.ndarray


def distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the squared distance of images [..., H, W, C] in [-1, 1], its mean over all sizes down to 4 pixels: [...].

    Means of 2x2 pixels tell where something is before its edges meet. A trained network's features would say more of
    photographs; none is asked for here.
    """
    *lead, side, _, channels = jnp.broadcast_shapes(x.shape, y.shape)
    error = jnp.broadcast_to(x - y, (*lead, side, side, channels)).reshape(-1, side, side, channels)
    terms = [jnp.mean(jnp.square(error), axis=(1, 2, 3))]
    while error.shape[1] > COARSEST and error.shape[1] % 2 == 0:
        error = halve(error)
        terms.append(jnp.mean(jnp.square(error), axis=(1, 2, 3)))
    return (sum(terms) / len(terms)).reshape(lead)


def nearest(images: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return for each of the images uint8 [n, H, W, C] the number of the nearest one drawn, uint8 [m, H, W, C]."""
    drawn = to_model(jnp.asarray(drawn))
    closest = jax.jit(lambda image: jnp.argmin(distance(drawn, to_model(image))))
    return np.array([closest(image) for image in images])


def project(
    draw: Callable[[jax.Array], jax.Array], images: np.ndarray, start: np.ndarray, steps: int, learning_rate: float
) -> Projection:
    """Move latents from `start` [n, ...] until `draw` makes images [n, H, W, C] in [-1, 1] of them like those given.

    Adam's rate falls to 0 along a cosine, over at least as many steps as asked for.
    """
    goal, each = to_model(jnp.asarray(images)), -(-steps // (FRAMES - 1))
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, each * (FRAMES - 1)))

    def errors(w: jax.Array) -> jax.Array:
        return distance(draw(w), goal)

    def step(_, carry):
        w, state = carry
        updates, state = optimizer.update(jax.grad(lambda w: jnp.sum(errors(w)))(w), state)
        return optax.apply_updates(w, updates), state

    def frame(carry, _):
        return jax.lax.fori_loop(0, each, step, carry), to_uint8(draw(carry[0]))

    @jax.jit
    def run(w: jax.Array) -> tuple[jax.Array, ...]:
        (w, _), path = jax.lax.scan(frame, (w, optimizer.init(w)), length=FRAMES - 1)
        return w, errors(w), jnp.concatenate([path, to_uint8(draw(w))[None]])

    return Projection(*jax.device_get(run(jnp.asarray(start, jnp.float32))))
