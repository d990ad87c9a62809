"""The losses of the adversarial game, by name. Logits are what the discriminator returns, any real number [B].

The discriminator minimises the means of `real` over real images and of `fake` over generated ones, the generator that
of `generator` over generated ones. All are per example, [B] -> [B].
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gm_jax.errors import UserError, nearest

Term = Callable[[jax.Array], jax.Array]


class Adversarial(NamedTuple):
    """One way to play.

    Attributes:
        real: (logits, target) -> loss; only where there are `targets` does a target other than 1 mean anything.
        fake: logits -> loss.
        generator: logits -> loss.
        probability: the logits are those of a probability: sigmoid(logit) = D(x).
        targets: real images have a target, so that it can be smoothed.
    """

    real: Callable[[jax.Array, float], jax.Array]
    fake: Term
    generator: Term
    probability: bool = False
    targets: bool = False


def cross_entropy(logits: jax.Array, target: float) -> jax.Array:
    """Return -target log D - (1 - target) log(1 - D) for D = sigmoid(logits), without ever computing D."""
    return jax.nn.softplus(logits) - target * logits


LOSSES = {
    # Goodfellow et al. 2014, eq. (1): max_D E log D(x) + E log(1 - D(G(z))), which G minimises ...
    "minimax": Adversarial(
        real=cross_entropy,
        fake=jax.nn.softplus,
        generator=lambda logits: -jax.nn.softplus(logits),
        probability=True,
        targets=True,
    ),
    # ... or, since that gives no gradient while D is sure: G maximises log D(G(z)) instead (section 3 there).
    "non_saturating": Adversarial(
        real=cross_entropy,
        fake=jax.nn.softplus,
        generator=lambda logits: jax.nn.softplus(-logits),
        probability=True,
        targets=True,
    ),
    # Arjovsky et al. 2017; the report's eq. (2): max_C E C(x) - E C(G(z)), for a critic of bounded slope.
    "wasserstein": Adversarial(
        real=lambda logits, target: -logits, fake=lambda logits: logits, generator=lambda logits: -logits
    ),
    # Lim & Ye 2017: no more reward beyond the margins.
    "hinge": Adversarial(
        real=lambda logits, target: jax.nn.relu(1.0 - logits),
        fake=lambda logits: jax.nn.relu(1.0 + logits),
        generator=lambda logits: -logits,
    ),
    # Mao et al. 2017, eq. (9) with a = 0, b = c = 1.
    "least_squares": Adversarial(
        real=lambda logits, target: 0.5 * jnp.square(logits - target),
        fake=lambda logits: 0.5 * jnp.square(logits),
        generator=lambda logits: 0.5 * jnp.square(logits - 1.0),
        targets=True,
    ),
}


def make_adversarial(name: str) -> Adversarial:
    """Return the losses of that name; UserError if there are none."""
    if name not in LOSSES:
        raise UserError(f"gan.loss={name!r} is not one of {', '.join(LOSSES)}{nearest(name, LOSSES)}")
    return LOSSES[name]
