"""The state of training: everything that a checkpoint holds and a resumed run needs."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

Tree = Any


@flax.struct.dataclass
class TrainState:
    """Arrays of one run; every dictionary has one entry for each network.

    Attributes:
        step: int32 scalar, the number of completed steps.
        params: trainable parameters.
        model_state: other variables of the networks (batch statistics, spectral vectors); may be empty.
        opt_state: one optax state for each network.
        ema: moving averages of the parameters, for the networks that keep one.
    """

    step: jax.Array
    params: dict[str, Tree]
    model_state: dict[str, Tree]
    opt_state: dict[str, Tree]
    ema: dict[str, Tree]

    def averaged_params(self) -> dict[str, Tree]:
        """Parameters to sample and evaluate with: the moving average where there is one."""
        return {**self.params, **self.ema}


def create(
    variables: dict[str, Tree],
    optimizers: dict[str, optax.GradientTransformation],
    ema_decays: dict[str, float | None],
) -> TrainState:
    """Build the state at step 0 from each network's initial Flax variables."""
    params = {net: tree["params"] for net, tree in variables.items()}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state={net: {k: v for k, v in tree.items() if k != "params"} for net, tree in variables.items()},
        opt_state={net: optimizers[net].init(params[net]) for net in params},
        # A copy: donating a buffer that stands in the state twice fails.
        ema={net: jax.tree.map(jnp.copy, params[net]) for net in params if ema_decays[net] is not None},
    )
