"""Max-pooling whose gradient is fast on CPUs too."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp


def max_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Keep the largest value of every size x size square: [B, H, W, C] -> [B, H // size, W // size, C].

    Maxima of rows, then of columns, of a reshaped array: the gradient is made of selections, where that of a window
    reduction is a select-and-scatter, 2 to 5 times slower on a CPU and without a deterministic version on GPUs. (The
    gradient of `jnp.max` is faster still, but looks for values that equal the maximum, and finds none, so that it
    divides by 0, where XLA computes them again with other rounding.)
    """
    batch, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size * channels)
    x = functools.reduce(jnp.maximum, [x[:, :, i] for i in range(size)])
    return functools.reduce(jnp.maximum, jnp.split(x, size, axis=-1))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def fused_max_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Return `max_pool` for networks of few channels.

    Without a gradient it is a window reduction, which XLA fuses with the convolutions around it on CPUs: LeNet predicts
    in 0.7 of the time. Networks of 64 channels and more took 1.1 times as long with it.
    """
    return nn.max_pool(x, (size, size), (size, size))


@fused_max_pool.defjvp
def _fused_max_pool_jvp(size: int, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, ...]:
    return jax.jvp(functools.partial(max_pool, size=size), primals, tangents)


def overlapping_max_pool(x: jax.Array, size: int = 3, stride: int = 2) -> jax.Array:
    """Keep the largest value of every size x size square, a square every `stride` values: [B, H, W, C] -> [B, h, w, C].

    As PyTorch's `MaxPool2d(size, stride, padding=size // 2)`, with the gradient of `max_pool`.
    """
    padding = [(0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)]
    x = jnp.pad(x, padding, constant_values=-jnp.inf)
    for axis in (1, 2):
        last = (x.shape[axis] - size) // stride * stride  # where the last square begins
        x = functools.reduce(jnp.maximum, [jax.lax.slice_in_dim(x, i, last + i + 1, stride, axis) for i in range(size)])
    return x


def global_max_pool(x: jax.Array) -> jax.Array:
    """Keep the largest value of every channel: [B, H, W, C] -> [B, C]; the gradient goes to its first place."""
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    place = jnp.argmax(x, axis=1, keepdims=True)
    return jnp.sum(jnp.where(jnp.arange(x.shape[1])[:, None] == place, x, 0.0), axis=1)
