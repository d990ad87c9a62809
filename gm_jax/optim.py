"""Optax transformations from a config, one for each network."""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from gm_jax.errors import UserError
from gm_jax.stages import Phase


def kernels(params):
    """Return a tree that is True at what weight decay shrinks: kernels, not biases and the scales of norms."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


# What makes an update of a gradient; its length, the learning rate, comes after it.
OPTIMIZERS = {
    "adam": lambda c: optax.scale_by_adam(c.beta1, c.beta2, c.epsilon),
    "adamw": lambda c: optax.chain(
        optax.scale_by_adam(c.beta1, c.beta2, c.epsilon), optax.add_decayed_weights(c.weight_decay, kernels)
    ),
    "sgd": lambda c: optax.chain(
        optax.add_decayed_weights(c.weight_decay, kernels), optax.trace(c.beta1, nesterov=c.nesterov)
    ),
    "none": lambda c: optax.set_to_zero(),  # for parameters that are fitted, not trained
    "rmsprop": lambda c: optax.scale_by_rms(c.beta2, c.epsilon, eps_in_sqrt=False),
}
DECAYING = ("adamw", "sgd")  # those that know weight_decay


def settings(config: ConfigDict, network: str) -> ConfigDict:
    """Return `config.optim` with the entries of `config.optim.<network>` that are not None laid over it."""
    optim = ConfigDict({key: value for key, value in config.optim.items() if not isinstance(value, ConfigDict)})
    if network in config.optim:
        optim.update({key: value for key, value in config.optim[network].items() if value is not None})
    return optim


def learning_rate(optim: ConfigDict) -> optax.Schedule:
    """Return the learning rate as a function of the completed steps: linear warm-up, then constant or a decay to 0.

    The decay begins at `hold_steps`, or with the end of the warm-up. It ends at `decay_steps`, a key of its own, so
    that a run can be prolonged (`steps`) without changing its past.
    All updates in a step have the same rate.
    """
    peak, warmup = optim.learning_rate, optim.warmup_steps
    begin = max(warmup, optim.hold_steps)
    pieces, borders = [optax.constant_schedule(peak)], []
    if optim.decay != "constant":
        if optim.decay_steps is None or optim.decay_steps <= begin:
            raise UserError(
                f"optim.decay={optim.decay} needs optim.decay_steps above warmup_steps={warmup} and "
                f"hold_steps={optim.hold_steps}"
            )
        decay = (
            optax.cosine_decay_schedule if optim.decay == "cosine" else lambda p, n: optax.linear_schedule(p, 0.0, n)
        )
        after = decay(peak, optim.decay_steps - begin)
        pieces, borders = ([*pieces, after], [begin]) if begin > warmup else ([after], [])
    if warmup:
        # Starts at peak / warmup, not at 0, so that the first step is not lost.
        pieces, borders = [optax.linear_schedule(peak / warmup, peak, warmup), *pieces], [warmup, *borders]
    return optax.join_schedules(pieces, borders) if borders else pieces[0]


def follow(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Scale an update to descend by the rate of the training step, which `update` is handed as `step`.

    A count of the updates would tell the step only as long as every step has as many of them.
    """

    def update(updates, state, params=None, *, step, **others):
        return jax.tree.map(lambda u: -jnp.asarray(schedule(step), u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def clip_weights(limit: float) -> optax.GradientTransformation:
    """Keep every parameter in [-limit, limit], so that a critic is not too steep (WGAN, algorithm 1)."""
    return optax.stateless_with_tree_map(lambda update, p: jnp.clip(p + update, -limit, limit) - p)


def lazy_share(phases: Sequence[Phase], network: str) -> float:
    """Return the share of a network's updates that are not those of lazy phases: 1 where there are none.

    That is k / (k + 1) for one update a step, and one lazy one at every k-th.
    """
    updates = [(phase.every, phase.repeats) for phase in phases if network in phase.nets]
    regular = sum(repeats for every, repeats in updates if every == 1)
    return regular / sum(repeats / every for every, repeats in updates) if regular else 1.0


def make_optimizers(
    config: ConfigDict, networks: Iterable[str], phases: Sequence[Phase] = (), rate: float = 1.0
) -> dict[str, optax.GradientTransformation]:
    """Return an optax transformation for each network, which these phases update; `rate` multiplies learning rates.

    With `optim.lazy_correction`, learning rate and betas of a network that has lazy phases are those of StyleGAN2
    (Karras et al. 2020, appendix B): the rate times c, the betas to the power c, c as of `lazy_share`.

    Raises:
        UserError: a decay without a length, or a weight decay that the optimiser does not know.
    """
    optimizers = {}
    for network in networks:
        optim = settings(config, network)
        if optim.weight_decay and optim.name not in DECAYING:
            raise UserError(f"optim.name={optim.name} ignores optim.weight_decay: use {' or '.join(DECAYING)}")
        optim.learning_rate *= rate
        if optim.lazy_correction:
            share = lazy_share(phases, network)
            optim.learning_rate *= share
            optim.beta1, optim.beta2 = optim.beta1**share, optim.beta2**share
        chain = [OPTIMIZERS[optim.name](optim), follow(learning_rate(optim))]
        if optim.clip_norm is not None:
            chain.insert(0, optax.clip_by_global_norm(optim.clip_norm))
        if optim.get("clip_weights") is not None:
            chain.append(clip_weights(optim.clip_weights))
        optimizers[network] = optax.chain(*chain)
    return optimizers


def ema_decays(config: ConfigDict, networks: Iterable[str], batch_size: int) -> dict[str, float | None]:
    """Return the decay of each network's moving average in a step of so many images, None where it keeps none.

    It is `optim.ema_decay`, whatever the step has, or what leaves one half after `optim.ema_half_life` images.
    """
    decays = {}
    for network in networks:
        optim = settings(config, network)
        half_life = optim.get("ema_half_life")
        decays[network] = optim.ema_decay if half_life is None else 0.5 ** (batch_size / half_life)
    return decays
