"""Phases -> one pure train step: the only place with `grad`, `pmean` and optax updates."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from gm_jax.stages import Batch, Context, Metrics, Phase, Result, stable_hash
from gm_jax.state import TrainState, Tree, Variables

AXIS = "batch"  # the name of the device axis


def gather(tree: Tree, position: jax.Array) -> Tree:
    """Return leaves [B, ...] of all devices' parts of a batch, [global batch, ...], in the order of `position` [B]."""
    order = jnp.argsort(jax.lax.all_gather(position, AXIS, tiled=True))
    return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, tiled=True)[order], tree)


def first(batches: Batch) -> Batch:
    """Return the first of a step's batches."""
    return jax.tree.map(lambda x: x[0], batches)


def mean_of_devices(tree: Tree) -> Tree:
    """Return the mean over all devices of leaves; a single one has nothing to join, where XLA would copy everything."""
    return tree if jax.lax.axis_size(AXIS) == 1 else jax.lax.pmean(tree, AXIS)


Made = tuple[Tree, Callable[[Tree], tuple[Tree]]]  # what was made, and its slope -> (the gradient of its makers,)


def make(phase: Phase, variables: Variables, batch: Batch, context: Context) -> Made:
    """Return what a phase makes, once for all phases that need it, and the way back for gradients."""

    def of(own):
        return phase.make(variables._replace(params={**variables.params, **own}), batch, context)

    return jax.vjp(of, {net: variables.params[net] for net in phase.makers})


def derive(
    phase: Phase, variables: Variables, batch: Batch, context: Context, made: Made | None = None
) -> tuple[tuple[jax.Array, Result], dict[str, Tree]]:
    """Return a phase's (value, result), and the gradient by network; what it makes has been `made`, or is made here."""
    things, back = made or (make(phase, variables, batch, context) if phase.make else (None, None))
    if phase.make and phase.nets == phase.makers:
        found, slope = jax.value_and_grad(
            lambda things: phase.loss(variables, batch, context._replace(made=things)), has_aux=True
        )(things)
        return found, back(slope)[0]

    def loss(own):
        everything = variables._replace(params={**variables.params, **own})
        return phase.loss(everything, batch, context._replace(made=things))

    return jax.value_and_grad(loss, has_aux=True)({net: variables.params[net] for net in phase.nets})


def make_train_step(
    phases: Sequence[Phase],
    optimizers: Mapping[str, optax.GradientTransformation],
    ema_decays: Mapping[str, float | None],
    seed: int,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Return `step(state, batch) -> (state, metrics)`, to be run under a mapped axis named `AXIS`.

    Leaves of `batch` are [batches of a step, examples on this device, ...]. The noise of a phase at step s comes from
    `fold_in(fold_in(fold_in(root, s), stable_hash(its name)), repeat)`; losses fold in `batch["position"]`, an
    example's place in the global batch, wherever an example draws noise, so that noise does not depend on the number
    of devices. Metrics are [..., 2], a sum and a count over the updates of this step: (0, 0) where none is due.

    Optimisers are handed the number of completed steps (`step`), of which rates are functions.
    """
    optimizers = {net: optax.with_extra_args_support(optimizer) for net, optimizer in optimizers.items()}
    makers = {net for phase in phases for net in phase.makers}

    def update(
        state: TrainState, phase: Phase, batch: Batch, key: jax.Array, made: Made | None = None
    ) -> tuple[TrainState, Metrics]:
        params, opt_state = {net: state.params[net] for net in phase.nets}, {}
        (_, result), grads = derive(phase, state.variables(), batch, Context(key, state.step), made)
        grads, metrics, model_state = mean_of_devices((grads, result.metrics, result.model_state))
        for net in phase.nets:
            updates, opt_state[net] = optimizers[net].update(
                grads[net], state.opt_state[net], params[net], step=state.step
            )
            params[net] = optax.apply_updates(params[net], updates)
            metrics = {**metrics, f"grad_norm/{net}": optax.global_norm(grads[net])}
        state = state.replace(
            params={**state.params, **params},
            opt_state={**state.opt_state, **opt_state},
            model_state={**state.model_state, **(model_state or {})},
            memory=state.memory if result.memory is None else result.memory,
        )
        return state, {name: jnp.stack([x, jnp.ones_like(x)], -1) for name, x in metrics.items()}

    def run_phase(
        state: TrainState, phase: Phase, batch: Batch, key: jax.Array, made: Made | None = None
    ) -> tuple[TrainState, Metrics]:
        if phase.repeats == 1:
            return update(state, phase, first(batch), jax.random.fold_in(key, 0), made)

        def body(state, inputs):
            repeat, batch = inputs
            return update(state, phase, batch, jax.random.fold_in(key, repeat))

        fresh = jax.tree.map(lambda x: x[: phase.repeats], batch)
        state, metrics = jax.lax.scan(body, state, (jnp.arange(phase.repeats), fresh))
        return state, jax.tree.map(lambda x: jnp.sum(x, 0), metrics)

    def run_if_due(
        state: TrainState, phase: Phase, batch: Batch, key: jax.Array, made: Made | None
    ) -> tuple[TrainState, Metrics]:
        if phase.every == 1:
            return run_phase(state, phase, batch, key, made)
        shapes = jax.eval_shape(lambda s: run_phase(s, phase, batch, key)[1], state)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        # The predicate depends on the step alone: devices must agree on the collectives inside.
        return jax.lax.cond(
            state.step % phase.every == 0,
            lambda state: run_phase(state, phase, batch, key),
            lambda state: (state, nothing),
            state,
        )

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        step_key = jax.random.fold_in(jax.random.key(seed), state.step)
        metrics: Metrics = {}
        made: dict[str, Made] = {}  # by the noise of which
        for phase in phases:
            source = phase.noise_of or phase.name
            key = jax.random.fold_in(step_key, stable_hash(source))
            if phase.make and phase.repeats == phase.every == 1 and source not in made:
                context = Context(jax.random.fold_in(key, 0), state.step)
                made[source] = make(phase, state.variables(), first(batch), context)
            state, found = run_if_due(state, phase, batch, key, made.get(source) if phase.make else None)
            if set(phase.nets) & makers:
                made = {}  # by networks that are no longer the same
            # What a second phase measures under the same name, such as a gradient's norm, carries the phase's.
            metrics |= {f"{name}/{phase.name}" if name in metrics else name: x for name, x in found.items()}
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
) -> Callable[[TrainState, Batch, jax.Array, Batch], tuple[TrainState, Metrics]]:
    """Return `call(state, resident, position, batches) -> (state, metrics)`: several steps in one `lax.scan`.

    `batches` has a dictionary for each source of data, with leaves [steps, batches of a step, examples on this device,
    ...]; leaves of the metrics are [steps, ..., 2]. `position` [examples on this device] are the examples' places in
    the global batch. Where a source lies on the device (`resident`, leaves [examples in all, ...]), its batches hold
    just the examples' numbers under "index". A single source is what the step sees; of several, the dictionary. One
    step is scanned, too: then 1 and k steps a call agree bit for bit on a CPU.
    """

    def call(state: TrainState, resident: Batch, position: jax.Array, batches: Batch) -> tuple[TrainState, Metrics]:
        def read(source: str, batch: Batch) -> Batch:
            index = batch["index"]
            found = {name: array[index] for name, array in resident[source].items()}
            return {**batch, **found, "position": jnp.broadcast_to(position, index.shape)}

        def body(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
            return step(state, flat({source: read(source, batch) for source, batch in batches.items()}))

        return jax.lax.scan(body, state, batches)

    return call


def flat(sources: Mapping[str, Tree]) -> Tree:
    """Return what a single source holds; of several, all as a dictionary by source."""
    return next(iter(sources.values())) if len(sources) == 1 else dict(sources)
