"""Between images at the border (uint8 NHWC) and images inside a model (float32 in [-1, 1]; in some, [0, 1])."""

import jax
import jax.numpy as jnp


def to_model(images: jax.Array) -> jax.Array:
    """Map uint8 in 0 ... 255 to float32 in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(images: jax.Array) -> jax.Array:
    """Map floats in [-1, 1], clipped, to the nearest uint8."""
    return jnp.round((jnp.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


def to_unit(images: jax.Array) -> jax.Array:
    """Map uint8 in 0 ... 255 to float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def unit_to_uint8(images: jax.Array) -> jax.Array:
    """Map floats in [0, 1], clipped, to the nearest uint8."""
    return jnp.round(jnp.clip(images, 0.0, 1.0) * 255.0).astype(jnp.uint8)
