"""AlexNet (Krizhevsky et al. 2012) for small images."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.layers.conv import Conv
from gm_jax.layers.dropout import Dropout
from gm_jax.layers.norm import batch_norm
from gm_jax.layers.pool import max_pool


class AlexNet(nn.Module):
    """Five convolutions, max-pooling after the first, second and fifth, and one dense layer.

    The channels are those of Krizhevsky's one-tower AlexNet (2014); kernels are 3x3, since 32 pixels leave no room for
    11x11.
    """

    classes: int
    features: Sequence[int] = (64, 192, 384, 256, 256)  # channels of the five convolutions
    stem_stride: int = 2  # 1 keeps the whole grid for the first convolution
    batch_norm: bool = False  # after each convolution
    dropout: float = 0.5  # before the dense layer
    axis_name: str | None = None  # the device axis over which batch statistics are taken
    dtype: str | None = None  # of the computation; parameters are float32

    @property
    def smallest(self) -> int:
        """The smallest image side that leaves a pixel for the dense layer."""
        return 7 * self.stem_stride + 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, keys: jax.Array | None = None) -> jax.Array:
        """Map x [B, H, W, C] to logits [B, classes] float32; dropout acts if it is given keys [B]."""
        for i, features in enumerate(self.features):
            x = Conv(
                features,
                3,
                strides=1 if i else self.stem_stride,
                use_bias=not self.batch_norm,
                dtype=self.dtype,
                kernel_init=nn.initializers.he_normal(),
                name=f"conv{i}" if i else "stem",
            )(x)
            # Pooling before ReLU gives the same as after it, on a quarter of the values.
            x = max_pool(x) if i in (0, 1, len(self.features) - 1) else x
            if self.batch_norm:
                x = batch_norm(train, self.axis_name, self.dtype, name=f"norm{i}")(x)
            x = nn.relu(x)
        x = Dropout(self.dropout, name="dropout")(x.reshape(len(x), -1), keys)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)
