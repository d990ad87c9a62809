"""Inception V3 as FID means it: the network that Google released on 5 December 2015, whose weights many files hold.

It differs from the network of Szegedy et al. (2016): its average pools do not count the padding, and its last block
pools by maximum. Inference only.
"""

from collections.abc import Iterator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.layers.conv import Conv
from gm_jax.layers.norm import BatchNorm

SIZE = 299  # pixels of a side of the images that it was trained on
FEATURES = 2048
CLASSES = 1008  # of which 1,000 are ImageNet's


class Layer(NamedTuple):
    """A convolution without bias, batch normalisation and ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


AVERAGE, MAXIMUM = "average", "maximum"  # 3x3, stride 1
HALVE = "halve"  # the maximum of 3x3, stride 2, without padding
Step = Layer | str | tuple[Layer, Layer]  # a tuple: two layers of one input, whose outputs are put together
Branches = dict[str, list[Step]]


def block_a(last: int) -> Branches:
    """35x35 pixels."""
    return {
        "branch1x1": [Layer(64)],
        "branch5x5": [Layer(48), Layer(64, (5, 5))],
        "branch3x3dbl": [Layer(64), Layer(96, (3, 3)), Layer(96, (3, 3))],
        "branch_pool": [AVERAGE, Layer(last)],
    }


def block_c(inner: int) -> Branches:
    """17x17 pixels."""
    row, column = (1, 7), (7, 1)
    double = [Layer(inner), Layer(inner, column), Layer(inner, row), Layer(inner, column), Layer(192, row)]
    return {
        "branch1x1": [Layer(192)],
        "branch7x7": [Layer(inner), Layer(inner, row), Layer(192, column)],
        "branch7x7dbl": double,
        "branch_pool": [AVERAGE, Layer(192)],
    }


def block_e(pool: str) -> Branches:
    """8x8 pixels."""
    split = (Layer(384, (1, 3)), Layer(384, (3, 1)))
    return {
        "branch1x1": [Layer(320)],
        "branch3x3": [Layer(384), split],
        "branch3x3dbl": [Layer(448), Layer(384, (3, 3)), split],
        "branch_pool": [pool, Layer(192)],
    }


# In order: a layer, a pool, or branches of one input whose outputs are put together. The names are torchvision's.
BLOCKS: dict[str, Layer | str | Branches] = {
    "Conv2d_1a_3x3": Layer(32, (3, 3), 2, "VALID"),
    "Conv2d_2a_3x3": Layer(32, (3, 3), 1, "VALID"),
    "Conv2d_2b_3x3": Layer(64, (3, 3)),
    "pool1": HALVE,
    "Conv2d_3b_1x1": Layer(80),
    "Conv2d_4a_3x3": Layer(192, (3, 3), 1, "VALID"),
    "pool2": HALVE,
    "Mixed_5b": block_a(32),
    "Mixed_5c": block_a(64),
    "Mixed_5d": block_a(64),
    "Mixed_6a": {
        "branch3x3": [Layer(384, (3, 3), 2, "VALID")],
        "branch3x3dbl": [Layer(64), Layer(96, (3, 3)), Layer(96, (3, 3), 2, "VALID")],
        "pool": [HALVE],
    },
    "Mixed_6b": block_c(128),
    "Mixed_6c": block_c(160),
    "Mixed_6d": block_c(160),
    "Mixed_6e": block_c(192),
    "Mixed_7a": {
        "branch3x3": [Layer(192), Layer(320, (3, 3), 2, "VALID")],
        "branch7x7x3": [Layer(192), Layer(192, (1, 7)), Layer(192, (7, 1)), Layer(192, (3, 3), 2, "VALID")],
        "pool": [HALVE],
    },
    "Mixed_7b": block_e(AVERAGE),
    "Mixed_7c": block_e(MAXIMUM),
}


def named_steps(branch: str, steps: list[Step]) -> Iterator[tuple[str, Step]]:
    """Name the steps of a branch: its own name for a single layer, else "_1", "_2", ..., and "_2a", "_2b" if split."""
    pools = sum(isinstance(step, str) for step in steps)  # go first, and have no name
    for i, step in enumerate(steps, 1 - pools):
        yield branch if len(steps) - pools == 1 else f"{branch}_{i}", step


class BasicConv(nn.Module):
    """A `Layer`: convolution, batch normalisation with the running statistics, ReLU."""

    layer: Layer
    averaged: bool = (
        False  # the 3x3 averages of the convolution's outputs, which are the outputs of its inputs' averages
    )

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features, kernel, stride, padding = self.layer
        x = Conv(features, kernel, strides=stride, padding=padding, use_bias=False, name="conv")(x)
        x = averages(x) if self.averaged else x
        return nn.relu(BatchNorm(train=False, epsilon=1e-3, name="bn")(x))


class InceptionBlock(nn.Module):
    """Branches of one input, whose outputs are put together: [B, H, W, C] -> [B, H', W', sum of their features]."""

    branches: Branches
    width: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        outputs = []
        for branch, steps in self.branches.items():
            h = [x]
            averaged = False
            for name, step in named_steps(branch, steps):
                if step == AVERAGE:
                    averaged = True
                elif isinstance(step, str):
                    h = [pooled(h[0], step)]
                elif isinstance(step, Layer):
                    h = [BasicConv(thinned(step, self.width), averaged, name=name)(h[0])]
                else:
                    sides = zip(step, (f"{name}a", f"{name}b"), strict=True)
                    h = [BasicConv(thinned(layer, self.width), name=side)(h[0]) for layer, side in sides]
            outputs += h
        return jnp.concatenate(outputs, -1)


class InceptionV3(nn.Module):
    """The network of FID: 23,884,384 parameters and statistics, none of which a call changes."""

    width: int = 1  # divides the features of every layer: a small network for tests

    @nn.compact
    def __call__(self, x: jax.Array, blocks: bool = False) -> tuple[jax.Array, ...]:
        """Map images [B, 299, 299, 3] in [-1, 1] to (features [B, 2048], logits without bias [B, 1008]), both float32.

        The Inception Score of the field is of logits without bias: features @ kernel of the head. With `blocks` the
        outputs of everything in `BLOCKS` are a third result, {name: [B, H, W, C]}.
        """
        outputs = {}
        with jax.default_matmul_precision("highest"):  # GPUs would round what is multiplied to 10 bits
            for name, block in BLOCKS.items():
                if isinstance(block, Layer):
                    x = BasicConv(thinned(block, self.width), name=name)(x)
                else:
                    x = pooled(x, block) if isinstance(block, str) else InceptionBlock(block, self.width, name=name)(x)
                outputs[name] = x
            features = jnp.mean(x, (1, 2))
            logits = nn.Dense(CLASSES, use_bias=False, name="fc")(features)
        return (features, logits, outputs) if blocks else (features, logits)


def thinned(layer: Layer, width: int) -> Layer:
    """A layer with its features divided by `width`."""
    return layer._replace(features=layer.features // width)


def pooled(x: jax.Array, kind: str) -> jax.Array:
    """Keep the maximum of 3x3 pixels: all of them (MAXIMUM), or every second one without padding (HALVE)."""
    stride, padding = (2, "VALID") if kind == HALVE else (1, "SAME")
    return nn.max_pool(x, (3, 3), (stride, stride), padding)


def averages(x: jax.Array) -> jax.Array:
    """The means of 3x3 pixels, as many of them as lie in the image: [B, H, W, C] -> the same shape."""
    for axis in (1, 2):
        size = x.shape[axis]
        pads = [(1, 1) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(x, pads)
        x = sum(jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3))
        counts = jnp.full(size, 3.0).at[0].add(-1.0).at[-1].add(-1.0)
        x = x / jnp.expand_dims(counts, [i for i in range(4) if i != axis])
    return x
