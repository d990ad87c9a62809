"""Normalisation over groups of channels and over the batch, arranged for speed on a CPU."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018) of [B, H, W, C], groups of at least 4 channels and at most 32 groups.

    The same function and parameters as `nn.GroupNorm`, with statistics summed per channel first and combined per group
    on the small [B, C] array: normalising is then one multiplication and one addition per element, which XLA fuses with
    what follows.
    """

    groups: int = 32
    epsilon: float = 1e-5
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        groups = math.gcd(self.groups, max(channels // 4, 1))
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))

        values = x.astype(jnp.float32)  # statistics of half-precision activations need single precision
        moments = jnp.stack([jnp.mean(values, (1, 2)), jnp.mean(values * values, (1, 2))])  # [2, B, C]
        mean, square = jnp.mean(moments.reshape(2, -1, groups, channels // groups), axis=-1)  # each [B, groups]
        inverse = jax.lax.rsqrt(jnp.maximum(square - mean**2, 0.0) + self.epsilon)

        mean, inverse = (jnp.repeat(each, channels // groups, axis=-1) for each in (mean, inverse))  # each [B, C]
        factor = inverse * scale
        shift = bias - mean * factor
        return (values * factor[:, None, None] + shift[:, None, None]).astype(self.dtype or x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) of [B, ..., C] over all axes but the last.

    The same function, parameters and running statistics ("batch_stats") as `nn.BatchNorm`, but applied as one
    multiplication and one addition per element, also in the gradient: up to three times faster on a CPU.
    """

    train: bool
    axis_name: str | None = None  # the device axis over which the batch is split
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype | None = None
    use_scale: bool = True
    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape, axes = x.shape[-1:], tuple(range(x.ndim - 1))
        scale = self.param("scale", self.scale_init, shape) if self.use_scale else 1.0
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_variance = self.variable("batch_stats", "var", jnp.ones, shape)

        values = x.astype(jnp.float32)  # statistics of half-precision activations need single precision
        if self.train and not self.is_initializing():
            moments = jnp.stack([jnp.mean(values, axes), jnp.mean(values * values, axes)])
            mean, square = moments if self.axis_name is None else jax.lax.pmean(moments, self.axis_name)
            variance = jnp.maximum(square - mean**2, 0.0)
            for running, new in ((running_mean, mean), (running_variance, variance)):
                running.value = self.momentum * running.value + (1.0 - self.momentum) * new
        else:
            mean, variance = running_mean.value, running_variance.value
        factor = jax.lax.rsqrt(variance + self.epsilon) * scale
        return (values * factor + (bias - mean * factor)).astype(self.dtype or x.dtype)


def batch_norm(train: bool, axis_name: str | None, dtype: str | None = None, **settings) -> BatchNorm:
    """Return batch normalisation whose statistics are those of the global batch.

    In training `axis_name` is the device axis to average over (None: there is one device). The running statistics
    forget quickly (momentum 0.9), so that they fit the weights also at the end of a short run.
    """
    return BatchNorm(train, axis_name, dtype=dtype, **settings)


STANDING = 10  # batches over which standing statistics are taken


def standing_statistics(draw: Callable[[Any, jax.Array], Any], statistics: Any) -> Any:
    """Return the mean batch statistics of STANDING batches (standing statistics of BigGAN, Brock et al. 2019).

    `draw(statistics, key)` runs the network once in training and returns the statistics moved by that batch;
    `statistics` has the shapes.
    """

    def move(moved, key):
        return draw(moved, key), None

    nothing = jax.tree.map(jnp.zeros_like, statistics)
    moved, _ = jax.lax.scan(move, nothing, jax.random.split(jax.random.key(0), STANDING))
    return jax.tree.map(lambda x: x / (1.0 - BatchNorm.momentum**STANDING), moved)


def instance_norm(x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Give every channel of every image [B, H, W, C] mean 0 and variance 1 over its positions (Ulyanov et al. 2016).

    The variance is taken about the mean, in a second pass: of a channel that is almost constant, the mean of squares
    minus the square of the mean is rounding alone.
    """
    centred = x - jnp.mean(x, (1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), (1, 2), keepdims=True) + epsilon)
