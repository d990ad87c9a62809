"""Phases -> one pure train step: the only place with `grad`, `pmean` and optax updates."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gm_jax.state import TrainState, Tree

AXIS = "batch"  # the name of the device axis

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class Phase(NamedTuple):
    """One update of one network.

    Attributes:
        net: whose parameters and optimiser state are updated.
        loss: (params of all networks, model_state, batch, key) -> (loss, (metrics, model_state)); means over the batch.
        every: run at steps divisible by this only (lazy regularisation).
        repeats: updates in a step, each on a fresh batch (critic steps).
        noise_of: the number of the phase whose noise it draws, too; None: its own. What both compute from that noise
            and the same parameters, such as a generator's samples, XLA computes once.
    """

    net: str
    loss: Callable[[dict[str, Tree], dict[str, Tree], Batch, jax.Array], tuple[jax.Array, tuple[Metrics, Tree]]]
    every: int = 1
    repeats: int = 1
    noise_of: int | None = None


def batches_per_step(phases: Sequence[Phase]) -> int:
    """Return how many batches one step consumes: as many as the phase with the most repeats."""
    return max((phase.repeats for phase in phases), default=1)


def updates_per_step(phases: Sequence[Phase]) -> dict[str, float]:
    """Return how many updates each network gets in a step, on average."""
    updates: dict[str, float] = {}
    for phase in phases:
        updates[phase.net] = updates.get(phase.net, 0.0) + phase.repeats / phase.every
    return updates


def make_train_step(
    phases: Sequence[Phase],
    optimizers: dict[str, optax.GradientTransformation],
    ema_decays: dict[str, float | None],
    seed: int,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return `step(state, batch) -> (state, metrics)`, to be run under a mapped axis named `AXIS`.

    Leaves of `batch` are [batches_per_step, examples on this device, ...]. The noise of phase p at step s comes from
    `fold_in(fold_in(fold_in(root, s), p), repeat)`; losses fold in `batch["position"]`, an example's place in the
    global batch, wherever an example draws noise, so that noise does not depend on the number of devices.
    """

    def update(state: TrainState, phase: Phase, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        net = phase.net

        def loss(params):
            return phase.loss({**state.params, net: params}, state.model_state, batch, key)

        (_, (metrics, model_state)), grads = jax.value_and_grad(loss, has_aux=True)(state.params[net])
        grads, metrics, model_state = jax.lax.pmean((grads, metrics, model_state), AXIS)
        updates, opt_state = optimizers[net].update(grads, state.opt_state[net], state.params[net])
        metrics = {**metrics, f"grad_norm/{net}": optax.global_norm(grads)}
        state = state.replace(
            params={**state.params, net: optax.apply_updates(state.params[net], updates)},
            opt_state={**state.opt_state, net: opt_state},
            model_state=model_state,
        )
        return state, metrics

    def run_phase(state: TrainState, phase: Phase, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        if phase.repeats == 1:
            return update(state, phase, jax.tree.map(lambda x: x[0], batch), jax.random.fold_in(key, 0))

        def body(state, inputs):
            repeat, batch = inputs
            return update(state, phase, batch, jax.random.fold_in(key, repeat))

        fresh = jax.tree.map(lambda x: x[: phase.repeats], batch)
        state, metrics = jax.lax.scan(body, state, (jnp.arange(phase.repeats), fresh))
        return state, jax.tree.map(jnp.mean, metrics)

    def run_if_due(state: TrainState, phase: Phase, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
        if phase.every == 1:
            return run_phase(state, phase, batch, key)
        shapes = jax.eval_shape(lambda s: run_phase(s, phase, batch, key)[1], state)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def due(state):
            state, metrics = run_phase(state, phase, batch, key)
            # Times `every`, so that the mean over a window is the mean over the due steps.
            return state, jax.tree.map(lambda x: x * phase.every, metrics)

        # The predicate depends on the step alone: devices must agree on the collectives inside.
        return jax.lax.cond(state.step % phase.every == 0, due, lambda state: (state, zeros), state)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(jax.random.key(seed), state.step)
        metrics: Metrics = {}
        for number, phase in enumerate(phases):
            noise_of = number if phase.noise_of is None else phase.noise_of
            state, phase_metrics = run_if_due(state, phase, batch, jax.random.fold_in(step_key, noise_of))
            # A second phase of a network has a gradient of its own: its norm carries the phase's number.
            metrics |= {f"{name}/{number}" if name in metrics else name: x for name, x in phase_metrics.items()}
        ema = {
            net: _average(average, {"params": state.params[net], **state.model_state[net]}, ema_decays[net], state.step)
            for net, average in state.ema.items()
        }
        return state.replace(step=state.step + 1, ema=ema), metrics

    return step


def _average(ema: Tree, variables: Tree, decay: float, step: jax.Array) -> Tree:
    """Move the average; its decay warms up as (1 + step) / (10 + step), so that it forgets the initial values."""
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda average, x: average + (1.0 - decay) * (x - average), ema, variables)


def make_train_call(
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
) -> Callable[[TrainState, Batch, Batch], tuple[TrainState, Metrics]]:
    """Return `call(state, resident, batches) -> (state, metrics)`: several steps in one `lax.scan`.

    Leaves of `batches` are [steps, batches_per_step, examples on this device, ...], those of the metrics [steps].
    Where the data set lies on the device (`resident`, leaves [examples in all, ...]), `batches` holds just the
    examples' numbers under "index". One step is scanned too: then 1 and k steps a call agree bit for bit on a CPU.
    """

    def body(resident: Batch, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        index = batch["index"]
        local = index.shape[1]
        position = jax.lax.axis_index(AXIS) * local + jnp.arange(local)
        batch = {**batch, **{name: array[index] for name, array in resident.items()}}
        batch["position"] = jnp.broadcast_to(position, index.shape)
        return step(state, batch)

    def call(state: TrainState, resident: Batch, batches: Batch) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda state, batch: body(resident, state, batch), state, batches)

    return call
