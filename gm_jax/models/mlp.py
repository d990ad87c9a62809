"""Feed-forward networks."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.layers.dropout import Dropout
from gm_jax.layers.norm import batch_norm


class MLP(nn.Module):
    """Fully connected layers with ReLU over the pixels of an image, to the logits of its class."""

    classes: int
    hidden: Sequence[int] = (64, 32)  # units of each hidden layer
    batch_norm: bool = False  # after each hidden layer, before its ReLU
    dropout: float = 0.0  # after each hidden layer
    axis_name: str | None = None  # the device axis over which batch statistics are taken
    dtype: str | None = None  # of the computation; parameters are float32

    smallest = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, keys: jax.Array | None = None) -> jax.Array:
        """Map x [B, H, W, C] to logits [B, classes] float32; dropout acts if it is given keys [B]."""
        x = x.reshape(len(x), -1)
        for i, units in enumerate(self.hidden):
            name = f"dense{i}" if i else "stem"
            x = nn.Dense(units, use_bias=not self.batch_norm, dtype=self.dtype, name=name)(x)
            if self.batch_norm:
                x = batch_norm(train, self.axis_name, self.dtype, name=f"norm{i}")(x)
            x = Dropout(self.dropout, name=f"dropout{i}")(nn.relu(x), keys)
        return nn.Dense(self.classes, dtype=self.dtype, name="head")(x).astype(jnp.float32)
