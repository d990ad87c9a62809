"""The state of training: everything that a checkpoint holds and a resumed run needs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

Tree = Any


class Variables(NamedTuple):
    """What losses, samplers and evaluation see of the networks.

    Attributes:
        params: by network; where samples are drawn or measured, the moving averages of those that keep one.
        model_state: their other variables, by network.
        memory: see `TrainState`.
    """

    params: dict[str, Tree]
    model_state: dict[str, Tree]
    memory: dict[str, Tree]

    def of(self, net: str) -> Tree:
        """Return one network's Flax variables."""
        return {"params": self.params[net], **self.model_state[net]}


@flax.struct.dataclass
class TrainState:
    """Arrays of one run; every dictionary but `memory` has one entry for each network.

    Attributes:
        step: int32 scalar, the number of completed steps.
        params: trainable parameters.
        model_state: other variables of the networks (batch statistics, spectral vectors); may be empty.
        opt_state: one optax state for each network.
        ema: moving averages of parameters and model_state, joined, for the networks that keep one.
        memory: what is neither parameter nor statistic, such as a pool of images. Phases compute it from values that
            are the same on all devices (`step.gather`); it is averaged neither over devices nor over time.
    """

    step: jax.Array
    params: dict[str, Tree]
    model_state: dict[str, Tree]
    opt_state: dict[str, Tree]
    ema: dict[str, Tree]
    memory: dict[str, Tree]

    def variables(self) -> Variables:
        """Return what a loss sees."""
        return Variables(self.params, self.model_state, self.memory)

    def averaged(self) -> Variables:
        """Return what to sample and evaluate with: the moving averages where there are some."""
        split = {net: split_variables(tree) for net, tree in self.ema.items()}
        params, model_state = ({net: pair[i] for net, pair in split.items()} for i in range(2))
        return Variables({**self.params, **params}, {**self.model_state, **model_state}, self.memory)


def split_variables(variables: Tree) -> tuple[Tree, Tree]:
    """Split one network's Flax variables into its parameters and all else."""
    return variables["params"], {name: tree for name, tree in variables.items() if name != "params"}


def create(
    variables: Mapping[str, Tree],
    optimizers: Mapping[str, optax.GradientTransformation],
    ema_decays: Mapping[str, float | None],
    memory: Mapping[str, Tree] | None = None,
) -> TrainState:
    """Build the state at step 0 from each network's initial Flax variables."""
    split = {net: split_variables(tree) for net, tree in variables.items()}
    params = {net: pair[0] for net, pair in split.items()}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state={net: pair[1] for net, pair in split.items()},
        opt_state={net: optimizers[net].init(params[net]) for net in params},
        # A copy: donating a buffer that stands in the state twice fails.
        ema={net: jax.tree.map(jnp.copy, variables[net]) for net in params if ema_decays[net] is not None},
        memory=dict(memory or {}),
    )
