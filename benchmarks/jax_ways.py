"""One training step and one sampling step in JAX: of gm_jax as it is and, traced inside `stock()`, of Flax's layers."""

import itertools
import math
import runpy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.flops import product_flops
from benchmarks.timing import Way
from gm_jax import images, parallel, random
from gm_jax.losses.diffusion import to_x0
from gm_jax.optim import ema_decays
from gm_jax.run import Run
from gm_jax.samplers import diffusion as samplers
from gm_jax.step import AXIS, Phase, batches_per_step, make_train_step
from gm_jax.tasks import DataSpec, make_task
from gm_jax.train import compile_call

CONFIGS = Path(__file__).parent.parent / "configs"
DATA = {  # image shape and classes of each data set
    "mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "faces64": ((64, 64, 3), 7),
    "shapes": ((32, 32, 3), 3),
}
EXAMPLES = 4096  # random ones: speed does not depend on what the images show


class RandomRun(Run):
    """A run without a workdir, on random data."""

    def split(self, name: str) -> dict[str, np.ndarray]:
        """Return random images and labels of the experiment's shapes."""
        generator = np.random.default_rng(0)
        image = generator.integers(0, 256, (EXAMPLES, *self.spec.image_shape), np.uint8)
        return {"image": image, "label": generator.integers(0, len(self.spec.label_names), EXAMPLES, np.int32)}

    def training(self) -> dict[str, np.ndarray]:
        """Return the same examples."""
        return self.split("train")


def open_experiment(experiment: str, batch_size: int | None = None) -> Run:
    """Open "config" or "config:variant" without data or a workdir; `batch_size` is also the number of samples."""
    name, _, variant = experiment.partition(":")
    get_config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]
    config = get_config(variant) if variant else get_config()
    if batch_size is not None:
        config.batch_size = config.sampling.n = batch_size
    if config.task == "diffusion":
        config.diffusion.conditional = False  # the peers know the unconditional network
    config.sampling.batch_size = config.sampling.n  # all at once, and no more of them
    shape, classes = DATA[config.dataset.name]
    spec = DataSpec(shape, tuple(map(str, range(classes))))
    return RandomRun(experiment, config, None, spec, make_task(config, spec), None)


def parameters(run: Run) -> int:
    """Return the number of trainable parameters of all networks."""
    return sum(leaf.size for leaf in jax.tree.leaves(run.state_shapes().params))


def bare_call(run: Run, phases: Sequence[Phase] | None = None) -> Callable:
    """Return `train.compile_call` without its scan: one jitted step, of all phases or of these."""
    networks = list(jax.eval_shape(run.task.init, jax.random.key(0)))
    phases = run.task.phases() if phases is None else phases
    step = make_train_step(phases, run.optimizers(networks), ema_decays(run.config, networks), run.config.seed)

    def call(state, resident, batches):
        index = batches["index"][0]
        local = index.shape[1]
        position = jax.lax.axis_index(AXIS) * local + jnp.arange(local)
        batch = {"index": index, **{name: array[index] for name, array in resident.items()}}
        return step(state, {**batch, "position": jnp.broadcast_to(position, index.shape)})

    return parallel.map_training(call)


def training_batches(run: Run, steps: int) -> dict[str, np.ndarray]:
    """Return the numbers of random examples for so many steps, as the loop gives them to a call."""
    shape = (steps, batches_per_step(run.task.phases()), run.config.batch_size)
    return parallel.split_batches({"index": np.random.default_rng(1).integers(0, EXAMPLES, shape, np.int32)})


def step_flops(run: Run) -> float:
    """Return the work of a training step, traced at once, phase by phase: a lazy one counts by how often it runs."""
    state, resident, batches = run.state_shapes(), run.split("train"), training_batches(run, 1)
    return sum(
        product_flops(bare_call(run, [phase._replace(every=1)]), state, resident, batches) / phase.every
        for phase in run.task.phases()
    )


class Training:
    """A compiled training call of `steps` steps on one batch after another, with its state.

    Attributes:
        compile_seconds: to trace and to compile; from the cache, where this program was compiled before.
    """

    def __init__(self, run: Run, steps: int = 1, make_call: Callable[[Run], Callable] = compile_call):
        self.run, self.steps = run, steps
        self.resident = parallel.replicate(run.split("train"))
        self.batches = training_batches(run, steps)
        self.state = run.init_state()
        began = time.perf_counter()
        self.function = make_call(run)
        lowered = self.function.lower(self.state, self.resident, self.batches)
        traced = time.perf_counter()
        self.compiled = lowered.compile()
        self.compile_seconds = {"trace": traced - began, "compile": time.perf_counter() - traced}

    def __call__(self) -> Any:
        self.state, metrics = self.compiled(self.state, self.resident, self.batches)
        return metrics

    def way(self, name: str) -> Way:
        """Return it under a name."""
        cycle = math.lcm(*(phase.every for phase in self.run.task.phases()))
        return Way(name, self, steps=self.steps, cycle=cycle)


def sampling(run: Run, name: str) -> Way:
    """Return the task's own way to draw `sampling.n` samples, traced at once."""
    trained = run.trained(run.init_state())
    n = run.config.sampling.n
    way = Way(name, lambda: run.task.sample(trained, n, 0), wait=lambda _: None, steps=sampling_steps(run))
    way.call()
    return way


def sampling_steps(run: Run) -> int:
    """Return how many evaluations of the network one sample takes."""
    return getattr(run.task, "sampling_steps", 1)


def bare_sampling(run: Run, name: str) -> tuple[Way, float]:
    """Return a Python loop over one jitted step of a diffusion task's sampler, traced at once, and a step's FLOPs."""
    task, schedule, n = run.task, run.task.schedule, run.config.sampling.n
    params = run.init_state().params["denoiser"]

    def step(params, x, t, s, keys):
        output = task.network.apply({"params": params}, x, jnp.broadcast_to(t, (n,)))
        x0 = jnp.clip(to_x0(task.prediction, schedule, x, jnp.broadcast_to(t, (n,)), output), -1.0, 1.0)
        return samplers.step(schedule, x, x0, s, t, task.eta, keys)

    keys = random.example_keys(jax.random.key(0), jnp.arange(n))
    noise = jax.jit(lambda keys: samplers.prior(schedule, keys, run.spec.image_shape))
    steps = samplers.timesteps(schedule.T, task.sampling_steps)
    arguments = (params, noise(keys), steps[0], steps[1], keys)
    compiled = jax.jit(step).lower(*arguments).compile()

    def draw():
        x = noise(keys)
        for t, s in itertools.pairwise(steps):
            x = compiled(params, x, t, s, keys)
        return x

    return Way(name, draw, steps=len(steps) - 1), product_flops(step, *arguments)


def generation(run: Run, name: str) -> tuple[Way, float]:
    """Return the images of `sampling.n` latents of a GAN or a VAE in one jitted call, traced at once, and its FLOPs."""
    task, variables = run.task, run.trained(run.init_state()).variables
    keys = random.example_keys(jax.random.key(0), jnp.arange(run.config.sampling.n))

    def draw(variables, keys):
        z = random.normal(keys, (run.config.model.latent_dim,))
        if run.config.task == "gan":
            return images.to_uint8(task.generate(*variables, z, None)[0])
        return images.unit_to_uint8(jax.nn.sigmoid(task.decode(variables.params, z)))

    compiled = jax.jit(draw).lower(variables, keys).compile()
    return Way(name, lambda: compiled(variables, keys)), product_flops(draw, variables, keys)


def prediction(run: Run, name: str) -> tuple[Way, float]:
    """Return a classifier's logits of one batch, traced at once, and its FLOPs."""
    variables = run.trained(run.init_state()).variables
    image = jax.device_put(run.split("train")["image"][: run.config.batch_size])
    compiled = jax.jit(run.task.logits).lower(variables, image).compile()
    return Way(name, lambda: compiled(variables, image)), product_flops(run.task.logits, variables, image)
