"""Small convolutional networks: the first one everybody trains, LeNet, and the one of the CIFAR-10 speed records."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gm_jax.layers.conv import Conv
from gm_jax.layers.dropout import Dropout
from gm_jax.layers.norm import batch_norm
from gm_jax.layers.pool import fused_max_pool, global_max_pool, max_pool


class CNN(nn.Module):
    """3x3 convolutions without padding, max-pooling between them, then two dense layers.

    The defaults are the network of TensorFlow's CIFAR-10 tutorial (122,570 parameters for 32x32x3).
    """

    classes: int
    features: Sequence[int] = (32, 64, 64)  # channels of each convolution
    dense: int = 64  # units of the hidden dense layer
    dropout: float = 0.0  # around the hidden dense layer
    axis_name: str | None = None  # unused: no batch statistics
    dtype: str | None = None  # of the computation; parameters are float32

    @property
    def smallest(self) -> int:
        """The smallest image side that leaves a pixel for the dense layers."""
        side = 1
        for _ in self.features[1:]:
            side = 2 * (side + 2)
        return side + 2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, keys: jax.Array | None = None) -> jax.Array:
        """Map x [B, H, W, C] to logits [B, classes] float32; dropout acts if it is given keys [B]."""
        for i, features in enumerate(self.features):
            x = max_pool(x) if i else x
            name = f"conv{i}" if i else "stem"
            x = nn.relu(Conv(features, 3, padding="VALID", dtype=self.dtype, name=name)(x))
        x = Dropout(self.dropout, name="dropout0")(x.reshape(len(x), -1), keys)
        x = nn.relu(nn.Dense(self.dense, dtype=self.dtype, name="dense")(x))
        x = Dropout(self.dropout, name="dropout1")(x, keys)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with today's parts: ReLU, max-pooling, dropout."""

    classes: int
    features: Sequence[int] = (32, 64)  # channels of the two 5x5 convolutions
    dense: int = 128  # length of the feature vector
    dropout: float = 0.5  # of the feature vector
    axis_name: str | None = None  # unused: no batch statistics
    dtype: str | None = None  # of the computation; parameters are float32

    smallest = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, keys: jax.Array | None = None) -> jax.Array:
        """Map x [B, H, W, C] to logits [B, classes] float32; dropout acts if it is given keys [B]."""
        for i, features in enumerate(self.features):
            name = f"conv{i}" if i else "stem"
            x = nn.relu(fused_max_pool(Conv(features, 5, dtype=self.dtype, name=name)(x)))
        x = nn.relu(nn.Dense(self.dense, dtype=self.dtype, name="dense")(x.reshape(len(x), -1)))
        x = Dropout(self.dropout, name="dropout")(x, keys)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)


class SpeedNet(nn.Module):
    """The plain network of the CIFAR-10 speed records (airbench: Jordan 2024, arXiv 2404.00498), without their code.

    A 2x2 convolution that decorrelates its patch, then blocks of [conv, max-pool, norm, GELU, conv, norm, GELU] whose
    convolutions begin as the identity. The records compute the first kernel from the training images; here it begins
    as a cosine transform, to which the principal components of natural patches are close, followed by batch norm.
    """

    classes: int
    widths: Sequence[int] = (64, 256, 256)  # channels of each block; each halves the grid
    depth: int = 2  # convolutions of a block
    scale: float = 1 / 9  # of the logits
    axis_name: str | None = None  # the device axis over which batch statistics are taken
    dtype: str | None = None  # of the computation; parameters are float32

    @property
    def smallest(self) -> int:
        """The smallest image side that leaves a pixel after the last block."""
        return 2 ** len(self.widths) + 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, keys: jax.Array | None = None) -> jax.Array:
        """Map x [B, H, W, C] to logits [B, classes] float32."""
        patch = 4 * x.shape[-1]
        x = Conv(patch, 2, padding="VALID", use_bias=False, dtype=self.dtype, kernel_init=cosines, name="stem")(x)
        x = batch_norm(train, self.axis_name, self.dtype, use_scale=False, name="stem_norm")(x)
        x = nn.gelu(jnp.concatenate([x, -x], axis=-1))
        for block, width in enumerate(self.widths):
            for i in range(self.depth):
                name = f"block{block}_{i}"
                x = Conv(width, 3, use_bias=False, dtype=self.dtype, kernel_init=identity, name=name)(x)
                x = x if i else max_pool(x)
                x = nn.gelu(batch_norm(train, self.axis_name, self.dtype, use_scale=False, name=f"{name}_norm")(x))
        x = global_max_pool(x)
        x = nn.Dense(self.classes, use_bias=False, dtype=self.dtype, name="head")(x)
        return x.astype(jnp.float32) * self.scale


def cosines(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Kernel [kh, kw, in, kh kw in] of the orthonormal cosine transform of a patch, over rows, columns and channels."""
    from scipy.fft import dct

    rows, columns, channels = (dct(np.eye(n), norm="ortho", axis=0) for n in shape[:3])
    kernel = np.einsum("ai,bj,ck->ijkabc", rows, columns, channels)
    return jnp.asarray(kernel.reshape(shape), dtype)


def identity(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Kernel [kh, kw, in, out] whose first outputs repeat the inputs; the others are random (dirac initialisation)."""
    height, width, inputs, outputs = shape
    kernel = nn.initializers.lecun_uniform()(key, shape, dtype)
    same = min(inputs, outputs)
    dirac = jnp.zeros((height, width, inputs, same), dtype).at[height // 2, width // 2].set(jnp.eye(inputs, same))
    return kernel.at[..., :same].set(dirac)
