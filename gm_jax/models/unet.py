"""The U-Net of DDPM (Ho et al. 2020, appendix B), with an optional space-to-depth door for small machines."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from gm_jax.errors import UserError
from gm_jax.layers.attention import SelfAttention
from gm_jax.layers.conv import Conv
from gm_jax.layers.dropout import Dropout
from gm_jax.layers.embedding import sinusoidal
from gm_jax.layers.norm import GroupNorm
from gm_jax.layers.stream import sum_once


def space_to_depth(x: jax.Array, block: int) -> jax.Array:
    """Turn every block x block square of pixels into channels: [B, H, W, C] -> [B, H/block, W/block, block^2 C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // block, block, width // block, block, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // block, width // block, -1)


def depth_to_space(x: jax.Array, block: int) -> jax.Array:
    """Undo `space_to_depth`: [B, H, W, block^2 C] -> [B, H block, W block, C]."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, block, block, channels // block**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height * block, width * block, -1)


def enlarge(x: jax.Array) -> jax.Array:
    """Double height and width by repeating every value (nearest neighbour)."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an added time embedding, beside a skip; the last convolution starts at zero."""

    features: int
    dropout: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array, keys: jax.Array | None) -> jax.Array:
        zeros = nn.initializers.zeros
        x = sum_once(x)
        h = nn.silu(GroupNorm(dtype=self.dtype, name="norm1")(x))
        h = Conv(self.features, (3, 3), dtype=self.dtype, name="conv1")(h)
        h = h + nn.Dense(self.features, dtype=self.dtype, name="time")(time)[:, None, None]
        h = nn.silu(GroupNorm(dtype=self.dtype, name="norm2")(h))
        h = Dropout(self.dropout, name="dropout")(h, keys)
        h = Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=zeros, name="conv2")(h)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, dtype=self.dtype, name="skip")(x)
        return x + h


class DenseMiddle(nn.Module):
    """Residual fully-connected blocks over the whole coarse grid, each position with weights of its own.

    On small, centred images this learns global shape for far fewer operations than convolutions do: a weight costs one
    multiplication an image, not one for every position.
    """

    width: int
    blocks: int = 2
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        x = sum_once(x)
        batch, channels = x.shape[0], x.shape[-1]
        dense = partial(nn.Dense, dtype=self.dtype)
        h = dense(max(channels // 2, 1), name="narrow")(nn.silu(GroupNorm(dtype=self.dtype, name="norm")(x)))
        narrow = h.shape
        h = h.reshape(batch, -1)
        inputs = h.shape[-1]
        h = dense(self.width, name="enter")(h) + dense(self.width, name="time")(time)
        for i in range(self.blocks):
            r = dense(self.width, name=f"in{i}")(nn.LayerNorm(dtype=self.dtype, name=f"norm{i}")(h))
            r = nn.silu(r + dense(self.width, name=f"time{i}")(time))
            h = h + dense(self.width, kernel_init=nn.initializers.zeros, name=f"out{i}")(r)
        h = dense(inputs, name="leave")(nn.silu(nn.LayerNorm(dtype=self.dtype, name="last_norm")(h)))
        return x + dense(channels, kernel_init=nn.initializers.zeros, name="widen")(h.reshape(narrow))


class UNet(nn.Module):
    """Predict from a noisy image and its time step an image of the same shape (the noise, the velocity, ...).

    The defaults but dropout=0.1 are the paper's CIFAR-10 network (35.7M parameters).
    """

    width: int = 128  # channels at the first level
    multipliers: Sequence[int] = (1, 2, 2, 2)  # channels of each level, in widths; each level halves the grid
    blocks: int = 2  # residual blocks per level on the way down, one more on the way up
    attention: Sequence[int] = (16,)  # grid sizes at which every residual block is followed by self-attention
    heads: int = 1
    dropout: float = 0.0
    dense: int = 0  # width of fully-connected blocks that take the middle's place; 0: residual blocks, as in the paper
    space_to_depth: int = 1  # pixels per side that are folded into channels before the first convolution
    outputs: int = 1  # images to say, one behind the other in the channels
    classes: int = 0  # if not 0, the network also sees a label in 0 ... classes, where `classes` means "any"
    dtype: jnp.dtype | None = None  # of the computation; parameters are float32

    @nn.compact
    def __call__(
        self, x: jax.Array, t: jax.Array, keys: jax.Array | None = None, label: jax.Array | None = None
    ) -> jax.Array:
        """Map x [B, H, W, C] in about [-1, 1] and steps t [B] (int or float) to [B, H, W, outputs C] float32.

        Dropout acts if it is given one key per example, keys [B]. `label` int32 [B] goes with `classes`.
        """
        self.check(x.shape)
        time = sinusoidal(t, self.width)
        time = nn.silu(nn.Dense(4 * self.width, dtype=self.dtype, name="time1")(time))
        time = nn.Dense(4 * self.width, dtype=self.dtype, name="time2")(time)
        if self.classes:
            label = jnp.full(len(x), self.classes) if label is None else label
            time = time + nn.Embed(self.classes + 1, 4 * self.width, dtype=self.dtype, name="label")(label)
        time = nn.silu(time)

        h = space_to_depth(x, self.space_to_depth)
        channels = h.shape[-1]
        h = Conv(self.width, (3, 3), dtype=self.dtype, name="enter")(h)
        skips = [h]
        for level, multiplier in enumerate(self.multipliers):
            for block in range(self.blocks):
                h = self.block(f"down{level}_{block}", multiplier, h, time, keys)
                skips.append(h)
            if level < len(self.multipliers) - 1:
                h = Conv(h.shape[-1], (3, 3), strides=(2, 2), dtype=self.dtype, name=f"shrink{level}")(h)
                skips.append(h)

        if self.dense:
            h = SelfAttention(self.heads, self.dtype, name="middle_attention")(h)
            h = DenseMiddle(self.dense, dtype=self.dtype, name="middle_dense")(h, time)
        else:
            h = self.block("middle_0", self.multipliers[-1], h, time, keys, attend=True)
            h = self.block("middle_1", self.multipliers[-1], h, time, keys, attend=False)

        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for block in range(self.blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self.block(f"up{level}_{block}", multiplier, h, time, keys)
            if level:
                h = Conv(h.shape[-1], (3, 3), dtype=self.dtype, name=f"grow{level}")(enlarge(h))

        h = nn.silu(GroupNorm(dtype=self.dtype, name="norm")(h))
        h = Conv(self.outputs * channels, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros, name="leave")(h)
        return depth_to_space(h, self.space_to_depth).astype(jnp.float32)

    def block(
        self,
        name: str,
        multiplier: int,
        h: jax.Array,
        time: jax.Array,
        keys: jax.Array | None,
        attend: bool | None = None,
    ) -> jax.Array:
        """Apply a residual block and, where the grid size asks for it (or `attend` does), self-attention."""
        h = ResidualBlock(self.width * multiplier, self.dropout, self.dtype, name=name)(h, time, keys)
        if attend or (attend is None and h.shape[1] in self.attention):
            h = SelfAttention(self.heads, self.dtype, name=f"{name}_attention")(h)
        return h

    def check(self, shape: Sequence[int]) -> None:
        """Refuse images that do not divide into the levels' grids."""
        factor = self.space_to_depth * 2 ** (len(self.multipliers) - 1)
        if len(shape) != 4 or shape[1] % factor or shape[2] % factor:
            raise UserError(
                f"a U-Net of {len(self.multipliers)} levels with space_to_depth={self.space_to_depth} needs images "
                f"[B, H, W, C] whose height and width divide by {factor}, not {tuple(shape)}; use fewer multipliers or "
                "a smaller space_to_depth"
            )
