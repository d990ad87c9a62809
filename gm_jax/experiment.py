"""An experiment: a config and the kind of data it meets. Networks, stages, optimisers and steps follow, and no more."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from gm_jax import parallel
from gm_jax.optim import ema_decays, make_optimizers
from gm_jax.stages import Stage, check_stages
from gm_jax.state import TrainState, Tree, Variables, create
from gm_jax.step import make_train_call, make_train_step
from gm_jax.tasks import DataSpec, make_task


class Experiment:
    """What a config means, as functions of (config, seed, step): no files, no data.

    Attributes:
        config: resolved.
        spec: of the data.
        task: what `config.task` names.
        stages: of the training, see `Stage`.
    """

    def __init__(self, config: ConfigDict, spec: DataSpec):
        """Build the task.

        Raises:
            UserError: a key out of its range, or a config that does not fit the data or itself.
        """
        self.config, self.spec = config, spec
        self.task = make_task(config, spec)
        self.stages: tuple[Stage, ...] = tuple(self.task.stages())
        check_stages(self.stages, config.steps_per_call)

    @functools.cached_property
    def init(self) -> Callable[[jax.Array], dict[str, Tree]]:
        """`task.init`, which takes up to seconds to trace, traced once for all that follows from it."""
        return jax.jit(self.task.init, inline=True)

    @functools.cached_property
    def networks(self) -> tuple[str, ...]:
        """The names of the networks."""
        return tuple(jax.eval_shape(self.init, jax.random.key(0)))

    def optimizers(self, stage: int = 0, rate: float = 1.0) -> dict[str, Any]:
        """Return the optax transformation of each network in a stage; their states have one shape in all stages.

        All learning rates are `rate` times those of the config.
        """
        return make_optimizers(self.config, self.networks, self.stages[stage].phases, self.stages[stage].rate * rate)

    def ema_decays(self, stage: int = 0) -> dict[str, float | None]:
        """Return the decay of each network's moving average in a stage; None where it keeps none."""
        return ema_decays(self.config, self.networks, self.stages[stage].batch_size)

    def initial(self, key: jax.Array, fitted: dict[str, Tree] | None = None) -> TrainState:
        """Return the state at step 0; parameters that are `fitted` replace the random ones of their network."""
        variables = self.init(key)
        variables |= {net: {**variables[net], "params": params} for net, params in (fitted or {}).items()}
        return create(variables, self.optimizers(), self.ema_decays(), self.task.init_memory(key))

    def state_shapes(self) -> TrainState:
        """Return the shapes and dtypes of the state; a config that cannot work fails here."""
        return jax.eval_shape(self.initial, jax.random.key(0))

    def init_state(self, fitted: dict[str, Tree] | None = None) -> TrainState:
        """Return the state at step 0, on all devices."""
        # Jitted, so that the compilation cache serves it: op by op it takes several times as long. It runs once, and
        # optimising that many random draws took four times as long as compiling them plainly.
        plainly = {"xla_backend_optimization_level": 0}
        jitted = jax.jit(self.initial, out_shardings=parallel.replicated(), compiler_options=plainly)
        return jitted(jax.random.key(self.config.seed), fitted)

    def begin(self, stage: int, state: TrainState) -> TrainState:
        """Return the state with which a stage begins, once the one before has ended.

        Some optimisers start anew, and the task may note something in the memory.
        """
        optimizers, fresh = self.optimizers(stage), self.stages[stage].fresh

        def start(state: TrainState) -> tuple[dict[str, Tree], dict[str, Tree]]:
            opt_state = {net: optimizers[net].init(state.params[net]) for net in fresh}
            return opt_state, self.task.remember(stage, state.averaged())

        opt_state, memory = jax.jit(start, out_shardings=parallel.replicated())(state)
        return state.replace(opt_state={**state.opt_state, **opt_state}, memory=memory)

    def train_step(self, stage: int = 0, rate: float = 1.0) -> Callable:
        """Return the pure step of a stage, (state, batch) -> (state, metrics); see `make_train_step`, `optimizers`."""
        phases, decays = self.stages[stage].phases, self.ema_decays(stage)
        return make_train_step(phases, self.optimizers(stage, rate), decays, self.config.seed)

    def train_call(self, stage: int = 0, rate: float = 1.0) -> Callable:
        """Return the function that the loop calls, mapped over the devices; see `parallel.map_training`."""
        return parallel.map_training(make_train_call(self.train_step(stage, rate)))

    def trained_variables(self, state: TrainState) -> Variables:
        """Return what samples and evaluation use of a state."""
        return self.task.standing(state.averaged())
