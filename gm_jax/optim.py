"""Optax transformations from a config, one for each network."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from gm_jax.errors import UserError, nearest


def kernels(params):
    """Return a tree that is True at what weight decay shrinks: kernels, not biases and the scales of norms."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


OPTIMIZERS = {
    "adam": lambda rate, c: optax.adam(rate, b1=c.beta1, b2=c.beta2, eps=c.epsilon),
    "adamw": lambda rate, c: optax.adamw(rate, c.beta1, c.beta2, c.epsilon, weight_decay=c.weight_decay, mask=kernels),
    "sgd": lambda rate, c: optax.chain(
        optax.add_decayed_weights(c.weight_decay, kernels), optax.sgd(rate, momentum=c.beta1, nesterov=c.nesterov)
    ),
    "none": lambda rate, c: optax.set_to_zero(),  # for parameters that are fitted, not trained
    "rmsprop": lambda rate, c: optax.rmsprop(rate, decay=c.beta2, eps=c.epsilon, eps_in_sqrt=False),
}
DECAYING = ("adamw", "sgd")  # those that know weight_decay


def settings(config: ConfigDict, network: str) -> ConfigDict:
    """Return `config.optim` with the entries of `config.optim.<network>` that are not None laid over it."""
    optim = ConfigDict({key: value for key, value in config.optim.items() if not isinstance(value, ConfigDict)})
    if network in config.optim:
        optim.update({key: value for key, value in config.optim[network].items() if value is not None})
    return optim


def learning_rate(optim: ConfigDict, updates_per_step: float = 1.0) -> optax.Schedule:
    """Return the learning rate as a function of the number of updates: linear warm-up, then constant or a decay to 0.

    `warmup_steps` and `decay_steps` are training steps, in each of which there are `updates_per_step` updates.
    Its length is `decay_steps`, a key of its own, so that a run can be prolonged (`steps`) without changing its past.
    """
    schedule = _schedule(optim)
    return schedule if updates_per_step == 1.0 else lambda count: schedule(count / updates_per_step)


def _schedule(optim: ConfigDict) -> optax.Schedule:
    """Return the learning rate as a function of the training step."""
    peak, warmup = optim.learning_rate, optim.warmup_steps
    if optim.decay == "constant":
        after = optax.constant_schedule(peak)
    elif optim.decay_steps is None or optim.decay_steps <= warmup:
        raise UserError(f"optim.decay={optim.decay} needs optim.decay_steps above warmup_steps={warmup}")
    elif optim.decay == "cosine":
        after = optax.cosine_decay_schedule(peak, optim.decay_steps - warmup)
    elif optim.decay == "linear":
        after = optax.linear_schedule(peak, 0.0, optim.decay_steps - warmup)
    else:
        raise UserError(f"optim.decay={optim.decay!r} is not one of constant, cosine, linear")
    if warmup == 0:
        return after
    # Starts at peak / warmup, not at 0, so that the first step is not lost.
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup), after], [warmup])


def clip_weights(limit: float) -> optax.GradientTransformation:
    """Keep every parameter in [-limit, limit], so that a critic is not too steep (WGAN, algorithm 1)."""
    return optax.stateless_with_tree_map(lambda update, p: jnp.clip(p + update, -limit, limit) - p)


def make_optimizers(
    config: ConfigDict, updates_per_step: Mapping[str, float]
) -> dict[str, optax.GradientTransformation]:
    """Return an optax transformation for each network, which gets so many updates in a training step.

    Raises:
        UserError: an unknown optimiser or decay, or a weight decay that the optimiser does not know.
    """
    optimizers = {}
    for network, updates in updates_per_step.items():
        optim = settings(config, network)
        if optim.name not in OPTIMIZERS:
            raise UserError(
                f"optim.name={optim.name!r} is not one of {', '.join(OPTIMIZERS)}{nearest(optim.name, OPTIMIZERS)}"
            )
        if optim.weight_decay and optim.name not in DECAYING:
            raise UserError(f"optim.name={optim.name} ignores optim.weight_decay: use {' or '.join(DECAYING)}")
        transformation = OPTIMIZERS[optim.name](learning_rate(optim, updates), optim)
        if optim.clip_norm is not None:
            transformation = optax.chain(optax.clip_by_global_norm(optim.clip_norm), transformation)
        if optim.get("clip_weights") is not None:
            transformation = optax.chain(transformation, clip_weights(optim.clip_weights))
        optimizers[network] = transformation
    return optimizers


def ema_decays(config: ConfigDict, networks: Iterable[str]) -> dict[str, float | None]:
    """Return the decay of each network's moving average, None where it keeps none."""
    decays = {network: settings(config, network).ema_decay for network in networks}
    for network, decay in decays.items():
        if decay is not None and not 0.0 <= decay < 1.0:
            raise UserError(f"ema_decay={decay} of optim or optim.{network} is not in [0, 1)")
    return decays
