"""Self-attention over the positions of a feature map."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.layers.norm import GroupNorm


class SelfAttention(nn.Module):
    """Residual multi-head self-attention over all positions of [B, H, W, C], as in the U-Net of DDPM.

    The output projection starts at zero, so that the layer starts as the identity.
    """

    heads: int = 1
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        if channels % self.heads:
            raise UserError(
                f"attention over {channels} channels cannot be split into {self.heads} heads; change heads or width"
            )
        tokens = GroupNorm(dtype=self.dtype, name="norm")(x).reshape(batch, height * width, channels)
        qkv = nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(tokens)
        query, key, value = jnp.split(qkv.reshape(batch, height * width, 3 * self.heads, -1), 3, axis=2)
        mixed = jax.nn.dot_product_attention(query, key, value).reshape(batch, height * width, channels)
        out = nn.Dense(channels, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="out")(mixed)
        return x + out.reshape(x.shape)
