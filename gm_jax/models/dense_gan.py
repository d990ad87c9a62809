"""Dense generators and discriminators, as in the first GAN (Goodfellow et al. 2014)."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.layers.dropout import Dropout
from gm_jax.layers.norm import batch_norm


class DenseGenerator(nn.Module):
    """Latents to images in [-1, 1]: dense layers with leaky ReLU, batch norm after all but the first and the last."""

    image_shape: Sequence[int]
    classes: int = 0  # if not 0, it sees a label, one-hot, joined to the latent
    hidden: Sequence[int] = (128, 256, 512, 1024)  # units of each hidden layer
    slope: float = 0.2  # of the leaky ReLU below 0
    axis_name: str | None = None  # the device axis over which batch statistics are taken

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Map latents z [B, D] and labels int32 [B] to images [B, H, W, C]."""
        x = jnp.concatenate([z, jax.nn.one_hot(label, self.classes)], axis=-1) if self.classes else z
        for i, units in enumerate(self.hidden):
            x = nn.Dense(units, use_bias=i == 0, name=f"dense{i}")(x)
            x = batch_norm(train, self.axis_name, name=f"norm{i}")(x) if i else x
            x = nn.leaky_relu(x, self.slope)
        x = nn.Dense(math.prod(self.image_shape), name="head")(x)
        return jnp.tanh(x).reshape(-1, *self.image_shape)


class DenseDiscriminator(nn.Module):
    """Images in [-1, 1] to logits: dense layers with leaky ReLU over the pixels and, one-hot, the label."""

    classes: int = 0  # if not 0, it sees a label
    hidden: Sequence[int] = (512, 256)  # units of each hidden layer
    dropout: float = 0.0  # after each hidden layer
    slope: float = 0.2  # of the leaky ReLU below 0

    @nn.compact
    def __call__(
        self, x: jax.Array, label: jax.Array | None = None, train: bool = False, keys: jax.Array | None = None
    ) -> jax.Array:
        """Map x [B, H, W, C] and labels int32 [B] to logits [B]; dropout acts if it is given keys [B]."""
        x = x.reshape(len(x), -1)
        if self.classes:
            x = jnp.concatenate([x, jax.nn.one_hot(label, self.classes)], axis=-1)
        for i, units in enumerate(self.hidden):
            x = nn.leaky_relu(nn.Dense(units, name=f"dense{i}")(x), self.slope)
            x = Dropout(self.dropout, name=f"dropout{i}")(x, keys)
        return nn.Dense(1, name="head")(x)[:, 0]
