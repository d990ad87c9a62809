"""The residual stream: activations that one block after another reads and adds to."""

import jax
import jax.numpy as jnp

from gm_jax.layers.conv import own_rules


def sum_once(x: jax.Array) -> jax.Array:
    """Return x, to which a block's branches all go back: their gradients are summed once, and kept.

    XLA fuses cheap operations into whatever reads them, as often as it is read. On a CPU each block of a residual
    network would work out again the sum of what all later blocks send back. It does not repeat divisions: the gradient
    is divided by ones that only a look at its values could tell to be ones, so that it is the same to the last bit. A
    step of `ddpm_mnist` takes 0.92 of the time, of ResNet-50 0.96. Where convolutions are XLA's own, so is the sum.
    """
    return _kept(x) if own_rules() else x


@jax.custom_vjp
def _kept(x: jax.Array) -> jax.Array:
    return x


def _divide(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (gradient / (jnp.minimum(jnp.abs(gradient), 0.0) + 1.0),)


_kept.defvjp(lambda x: (x, None), _divide)
