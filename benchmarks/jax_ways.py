"""One training step and one sampling step in JAX: of gm_jax as it is and, traced inside `stock()`, of Flax's layers."""

import itertools
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.flops import product_flops
from benchmarks.timing import Way
from gm_jax import parallel, random
from gm_jax.losses.diffusion import to_x0
from gm_jax.optim import ema_decays, make_optimizers
from gm_jax.run import Run
from gm_jax.samplers import diffusion as samplers
from gm_jax.step import AXIS, batches_per_step, make_train_step
from gm_jax.tasks import DataSpec, make_task
from gm_jax.train import compile_call

CONFIGS = Path(__file__).parent.parent / "configs"
DATA = {"mnist": ((28, 28, 1), 10), "cifar10": ((32, 32, 3), 10)}  # image shape and classes of each data set
EXAMPLES = 4096  # random ones: speed does not depend on what the images show


def open_experiment(experiment: str, batch_size: int | None = None) -> Run:
    """Open "config" or "config:variant" without data or a workdir; `batch_size` is also the number of samples."""
    name, _, variant = experiment.partition(":")
    get_config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]
    config = get_config(variant) if variant else get_config()
    if batch_size is not None:
        config.batch_size = config.sampling.n = batch_size
    if config.task == "diffusion":
        config.diffusion.conditional = False  # the peers know the unconditional network
    shape, classes = DATA[config.dataset.name]
    spec = DataSpec(shape, tuple(map(str, range(classes))))
    return Run(experiment, config, None, spec, make_task(config, spec), None)


def random_data(run: Run) -> dict[str, np.ndarray]:
    """Return random images and labels of the experiment's shapes."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (EXAMPLES, *run.spec.image_shape), np.uint8)
    return {"image": images, "label": generator.integers(0, len(run.spec.label_names), EXAMPLES, np.int32)}


def parameters(run: Run) -> int:
    """Return the number of trainable parameters of all networks."""
    return sum(leaf.size for leaf in jax.tree.leaves(run.state_shapes().params))


def bare_call(run: Run) -> Callable:
    """Return `train.compile_call` without its scan: one jitted step."""
    networks = list(jax.eval_shape(run.task.init, jax.random.key(0)))
    step = make_train_step(
        run.task.phases(), make_optimizers(run.config, networks), ema_decays(run.config, networks), run.config.seed
    )

    def call(state, resident, batches):
        index = batches["index"][0]
        local = index.shape[1]
        position = jax.lax.axis_index(AXIS) * local + jnp.arange(local)
        batch = {"index": index, **{name: array[index] for name, array in resident.items()}}
        return step(state, {**batch, "position": jnp.broadcast_to(position, index.shape)})

    return parallel.map_training(call)


class Training:
    """A compiled training call of `steps` steps on one batch after another, with its state.

    Attributes:
        compile_seconds: to trace and to compile; from the cache, where this program was compiled before.
    """

    def __init__(self, run: Run, steps: int = 1, make_call: Callable[[Run], Callable] = compile_call):
        self.resident = parallel.replicate(random_data(run))
        shape = (steps, batches_per_step(run.task.phases()), run.config.batch_size)
        index = np.random.default_rng(1).integers(0, EXAMPLES, shape, np.int32)
        self.batches = parallel.split_batches({"index": index})
        self.state = run.init_state()
        began = time.perf_counter()
        self.function = make_call(run)
        lowered = self.function.lower(self.state, self.resident, self.batches)
        traced = time.perf_counter()
        self.compiled = lowered.compile()
        self.compile_seconds = {"trace": traced - began, "compile": time.perf_counter() - traced}
        self.steps = steps

    def __call__(self) -> Any:
        self.state, metrics = self.compiled(self.state, self.resident, self.batches)
        return metrics

    def flops(self) -> float:
        """Return the work of a call."""
        return product_flops(self.function, self.state, self.resident, self.batches)

    def way(self, name: str) -> Way:
        """Return it under a name."""
        return Way(name, self, steps=self.steps)


def sampling(run: Run, name: str) -> Way | None:
    """Return the task's own way to draw `sampling.n` samples, traced at once; None for a task that draws none."""
    trained = run.trained(run.init_state())
    n = run.config.sampling.n
    way = Way(name, lambda: run.task.sample(trained, n, 0), wait=lambda _: None, steps=sampling_steps(run))
    return way if way.call() is not None else None


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


def prediction(run: Run, name: str) -> tuple[Way, float]:
    """Return a classifier's logits of one batch, traced at once, and its FLOPs."""
    variables = run.trained(run.init_state()).variables
    image = jax.device_put(random_data(run)["image"][: run.config.batch_size])
    compiled = jax.jit(run.task.logits).lower(variables, image).compile()
    return Way(name, lambda: compiled(variables, image)), product_flops(run.task.logits, variables, image)
