"""Every shipped config's train calls and sampler are lowered for GPUs and TPUs, with no such device at hand.

So no CPU-only rule hides in them; that the compiler behind accepts them is not proved. All configs take minutes of
tracing: GM_JAX_SLOW=1 lowers them all, and else one of a kind that the others share code with.
"""

import os

import jax
import numpy as np
import pytest

from gm_jax import random
from gm_jax.layers.conv import native_rules
from gm_jax.step import AXIS, make_train_call
from tests.tiny import EXPERIMENTS, load, open_tiny

PLATFORMS = ("cuda", "tpu")
DEVICES = 2
TRAINED = [name for name in EXPERIMENTS if load(name).task not in ("gaussian_mixture", "naive_bayes")]
FEW = ("gan_mnist",)


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)


def lower(function, *arguments):
    """Lower a function that is mapped over devices, as `parallel` maps it, for all platforms; return its text."""
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=PLATFORMS).as_text()


def lower_stage(run, number):
    stage, sources = run.experiment.stages[number], run.sources()
    call = make_train_call(run.experiment.train_step(number))
    mapped = jax.vmap(call, in_axes=(None, None, 0, 2), axis_name=AXIS, axis_size=DEVICES)
    resident = {name: abstract(dict(source.data)) for name, source in sources.items()}
    share = stage.batch_size // DEVICES
    index = jax.ShapeDtypeStruct((run.config.steps_per_call, stage.batches, DEVICES, share), np.int32)
    batches = {name: {"index": index} for name in sources}
    position = jax.ShapeDtypeStruct((DEVICES, share), np.int32)
    return lower(mapped, run.experiment.state_shapes(), resident, position, batches)


def lower_sampler(run):
    variables = jax.eval_shape(run.experiment.trained_variables, run.experiment.state_shapes())
    batch = {"position": jax.ShapeDtypeStruct((4,), np.int32)}
    if run.task.classes:
        batch["label"] = batch["position"]

    def draw(variables, batch):
        return run.task.generate(variables, batch, random.example_keys(jax.random.key(0), batch["position"]))

    return lower(draw, variables, batch)


@pytest.mark.parametrize("name", TRAINED if os.environ.get("GM_JAX_SLOW") else FEW)
def test_train_calls_and_sampler_are_lowered_for_gpus_and_tpus(name, tmp_path):
    run = open_tiny(tmp_path, name)
    with native_rules():
        for number in range(len(run.experiment.stages)):
            assert "stablehlo" in lower_stage(run, number)
        if run.task.generate is not None:
            assert "stablehlo" in lower_sampler(run)


def test_what_only_cpus_know_is_not_lowered():
    def hidden(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x + 1)

    with pytest.raises(NotImplementedError, match="not found for platforms"):
        lower(hidden, np.zeros(2))
