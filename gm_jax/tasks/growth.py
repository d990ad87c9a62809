"""Progressive growing (Karras et al. 2018): which blocks are trained when, as a function of the step."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from gm_jax.errors import UserError


class Span(NamedTuple):
    """The steps between two borders.

    Attributes:
        block: the largest that is trained; its grid has 4 * 2^block pixels.
        fades: that block fades in.
        begin: the number of steps completed before it.
        end: likewise after it; None: it is the last.
        batch_size: of all devices together.
        rate: learning rates are so many times those of the config.
    """

    block: int
    fades: bool
    begin: int
    end: int | None
    batch_size: int
    rate: float

    @property
    def side(self) -> int:
        """How many pixels images have along one side."""
        return 4 << self.block

    @property
    def shown(self) -> tuple[int, ...]:
        """The blocks whose images are mixed."""
        return (self.block - 1, self.block) if self.fades else (self.block,)

    def level(self, step: jax.Array) -> jax.Array:
        """Return the level, see `gm_jax.models.stylegan`: from block - 1 up to block over the steps of a fade."""
        if not self.fades:
            return jnp.float32(self.block)
        share = (step - self.begin).astype(jnp.float32) / (self.end - self.begin)
        return self.block - 1.0 + jnp.clip(share, 0.0, 1.0)


def spans(config: ConfigDict, blocks: int) -> list[Span]:
    """Return all spans of a training: the smallest resolution stable, then each next one fading in, then stable.

    Each but the last has so many steps, in whole calls, that it sees at least `growth.stable` or `growth.fade` images.

    Raises:
        UserError: it begins with neither 4 nor 8 pixels, or with more than the images have.
    """
    growth, k = config.growth, config.steps_per_call
    if growth.first not in (4, 8):
        raise UserError(f"growth.first={growth.first} is not 4 or 8")
    first = growth.first.bit_length() - 3
    if first >= blocks:
        raise UserError(
            f"growth.first={growth.first} is larger than the images, which have {2 << blocks} pixels: set it 4"
        )
    planned, begin = [], 0
    for block in range(first, blocks):
        size = nth(growth.batch_sizes, block - first, config.batch_size)
        rate = nth(growth.rates, block - first, 1.0)
        for fades in (True, False) if block > first else (False,):
            steps = -(-(growth.fade if fades else growth.stable) // (size * k)) * k
            last = block == blocks - 1 and not fades
            planned.append(Span(block, fades, begin, None if last else begin + steps, size, rate))
            begin += steps
    return planned


def nth(values: Sequence, i: int, default: float) -> float:
    """Return values[i], the default if there are fewer."""
    return values[i] if i < len(values) else default
