"""One training step and one sampling step in JAX: of gm_jax as it is and, traced inside `stock()`, of Flax's layers."""

import functools
import math
import runpy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.flops import product_flops
from benchmarks.timing import Way
from gm_jax import parallel, random
from gm_jax.errors import UserError
from gm_jax.experiment import Experiment
from gm_jax.losses.diffusion import to_input, to_x0
from gm_jax.portions import count_epochs
from gm_jax.samplers import diffusion as samplers
from gm_jax.samplers.processes import Level
from gm_jax.stages import Phase
from gm_jax.state import TrainState
from gm_jax.step import flat, make_train_step
from gm_jax.tasks import DataSpec

CONFIGS = Path(__file__).parent.parent / "configs"
DATA = {  # image shape and classes of each data set
    "mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "faces64": ((64, 64, 3), 7),
    "shapes": ((32, 32, 3), 3),
    "cycle_gan/horse2zebra": ((286, 286, 3), 2),
}
EPOCH = 50_000  # examples, about those of MNIST and CIFAR-10, from which schedules take their lengths
EXAMPLES = 4096  # random ones, of large images fewer: speed does not depend on what they show
BYTES = 2**27  # of images at most


class RandomExperiment(Experiment):
    """An experiment with a name, on random examples of its data's shapes, at one of its stages.

    Attributes:
        stage: what is measured of training.
        number: the stage's.
    """

    def __init__(self, name: str, config: ConfigDict, spec: DataSpec, number: int = 0):
        super().__init__(config, spec)
        if count_epochs(config, self, EPOCH, ()):
            super().__init__(config, spec)
        if number >= len(self.stages):
            raise UserError(f"{name}: there is no stage {number}, the last is {len(self.stages) - 1}")
        self.name, self.number, self.stage = name, number, self.stages[number]

    @functools.cached_property
    def data(self) -> dict[str, np.ndarray]:
        """Random images and labels."""
        generator = np.random.default_rng(0)
        n = examples(self.spec.image_shape)
        image = generator.integers(0, 256, (n, *self.spec.image_shape), np.uint8)
        return {"image": image, "label": generator.integers(0, len(self.spec.label_names), n, np.int32)}

    def resident(self) -> dict[str, dict[str, np.ndarray]]:
        """The examples of every source of the task."""
        return dict.fromkeys(self.task.sources(), self.data)

    def random_state(self) -> TrainState:
        """The state at step 0, at the stage's first step; what is fitted in earnest is random here, too."""
        state = self.init_state(self.task.fit(lambda: self.data))
        return state.replace(step=state.step + self.stage.begin)

    @property
    def cycle(self) -> int:
        """After how many steps of the stage its lazy phases repeat."""
        return math.lcm(*(phase.every for phase in self.stage.phases))

    def stage_call(self) -> Callable:
        """Return the function that the loop calls at the stage."""
        return self.train_call(self.number)


def open_experiment(experiment: str, batch_size: int | None = None, **changes: Any) -> RandomExperiment:
    """Open "config" or "config:variant", perhaps at a stage, "config@4", without data.

    `batch_size` is also the number of samples and of images evaluated together; `changes` are further keys of the
    config, dots written as double underscores.

    Raises:
        UserError: there are not so many stages.
    """
    config_name, _, stage = experiment.partition("@")
    name, _, variant = config_name.partition(":")
    get_config = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]
    config = get_config(variant) if variant else get_config()
    if batch_size is not None:
        config.batch_size = config.sampling.n = config.evaluation.batch_size = batch_size
        if "growth" in config:
            config.growth.batch_sizes = ()  # the same at all stages
    if config.task == "diffusion":
        config.diffusion.conditional = False  # the peers know the unconditional network
    for domain in config.get("domains", {}).values():
        domain.attribute = None  # what is random has none
    config.sampling.batch_size = config.sampling.n  # all at once, and no more of them
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    shape, classes = DATA[config.dataset.name]
    return RandomExperiment(experiment, config, DataSpec(shape, tuple(map(str, range(classes)))), int(stage or 0))


def examples(image_shape: tuple[int, int, int]) -> int:
    """Return how many random images of a shape there are."""
    return min(EXAMPLES, BYTES // math.prod(image_shape))


def parameters(experiment: Experiment) -> int:
    """Return the number of trainable parameters of all networks."""
    return sum(leaf.size for leaf in jax.tree.leaves(experiment.state_shapes().params))


def bare_call(experiment: RandomExperiment, phases: Sequence[Phase] | None = None) -> Callable:
    """Return `stage_call` without its scan: one jitted step, of all phases or of these."""
    phases, number = experiment.stage.phases if phases is None else phases, experiment.number
    optimizers, decays = experiment.optimizers(number), experiment.ema_decays(number)
    step = make_train_step(phases, optimizers, decays, experiment.config.seed)

    def call(state, resident, position, batches):
        found = {}
        for source, batch in batches.items():
            index = batch["index"][0]
            data = {name: array[index] for name, array in resident[source].items()}
            found[source] = {"index": index, **data, "position": jnp.broadcast_to(position, index.shape)}
        return step(state, flat(found))

    return parallel.map_training(call)


def training_batches(experiment: RandomExperiment, steps: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the numbers of random examples for so many steps, as the loop gives them to a call."""
    stage = experiment.stage
    n = examples(experiment.spec.image_shape)
    shape, generator = (steps, stage.batches, stage.batch_size), np.random.default_rng(1)
    numbers = {source: generator.integers(0, n, shape, np.int32) for source in experiment.task.sources()}
    return parallel.split_batches({source: {"index": index} for source, index in numbers.items()})


def step_flops(experiment: RandomExperiment) -> float:
    """Return the work of a training step, traced at once, phase by phase: a lazy one counts by how often it runs."""
    stage = experiment.stage
    position, batches = parallel.positions(stage.batch_size), training_batches(experiment, 1)
    arguments = experiment.state_shapes(), experiment.resident(), position, batches
    return sum(
        product_flops(bare_call(experiment, [phase._replace(every=1)]), *arguments) / phase.every
        for phase in stage.phases
    )


class Training:
    """A compiled training call of `steps` steps on one batch after another, with its state.

    Attributes:
        compile_seconds: to trace and to compile; from the cache, where this program was compiled before.
    """

    def __init__(
        self,
        experiment: RandomExperiment,
        steps: int = 1,
        make_call: Callable[[RandomExperiment], Callable] = RandomExperiment.stage_call,
    ):
        self.experiment, self.steps = experiment, steps
        position = parallel.positions(experiment.stage.batch_size)
        self.inputs = parallel.replicate(experiment.resident()), position, training_batches(experiment, steps)
        self.state = experiment.random_state()
        began = time.perf_counter()
        self.function = make_call(experiment)
        lowered = self.function.lower(self.state, *self.inputs)
        traced = time.perf_counter()
        self.compiled = lowered.compile()
        self.compile_seconds = {"trace": traced - began, "compile": time.perf_counter() - traced}

    def __call__(self) -> Any:
        self.state, metrics = self.compiled(self.state, *self.inputs)
        return metrics

    def way(self, name: str) -> Way:
        """Return it under a name."""
        return Way(name, self, steps=self.steps, cycle=self.experiment.cycle)


def sampling(experiment: RandomExperiment, name: str) -> Way:
    """Return the task's own way to draw `sampling.n` samples, traced at once."""
    variables, n = experiment.trained_variables(experiment.random_state()), experiment.config.sampling.n
    draw = functools.partial(experiment.task.sample, variables, n, 0)
    way = Way(name, draw, wait=lambda _: None, steps=sampling_steps(experiment))
    way.call()
    return way


def sampling_steps(experiment: RandomExperiment) -> int:
    """Return how many evaluations of the network one sample takes."""
    return len(experiment.task.plan.base) if hasattr(experiment.task, "plan") else 1


def bare_sampling(experiment: RandomExperiment, name: str) -> tuple[Way, float]:
    """Return a Python loop over one jitted step of a diffusion task's sampler, traced at once, and a step's FLOPs."""
    task, n = experiment.task, experiment.config.sampling.n
    params, plan = experiment.random_state().params["denoiser"], samplers.in_float32(task.plan)

    def step(params, todo, number, keys, state):
        def denoise(x, level):
            levels = Level(*(jnp.broadcast_to(column, n) for column in level))
            output = task.network.apply({"params": params}, to_input(task.prediction, levels, x), levels.time)
            return samplers.Answer(to_x0(task.prediction, levels, x, output))

        return samplers.step(denoise, todo, number, keys, state)

    keys = random.example_keys(jax.random.key(0), jnp.arange(n))
    noise = jax.jit(lambda keys: samplers.prior(plan, keys, experiment.spec.image_shape))
    steps = [(jax.tree.map(lambda column, i=i: column[i], plan), jnp.int32(i)) for i in range(len(plan.base))]
    arguments = (params, *steps[0], keys, samplers.begin(noise(keys)))
    compiled = jax.jit(step).lower(*arguments).compile()

    def draw():
        state = samplers.begin(noise(keys))
        for todo, number in steps:
            state = compiled(params, todo, number, keys, state)
        return state.x

    return Way(name, draw, steps=len(steps)), product_flops(step, *arguments)


def generation(experiment: RandomExperiment, name: str) -> tuple[Way, float]:
    """Return the images of `sampling.n` latents of a GAN or a VAE in one jitted call, traced at once, and its FLOPs."""
    variables = experiment.trained_variables(experiment.random_state())
    keys = random.example_keys(jax.random.key(0), jnp.arange(experiment.config.sampling.n))

    def draw(variables, keys):
        batch = {"position": jnp.arange(len(keys)), "label": jnp.zeros(len(keys), jnp.int32)}
        return experiment.task.generate(variables, batch, keys)["images"]

    compiled = jax.jit(draw).lower(variables, keys).compile()
    return Way(name, lambda: compiled(variables, keys)), product_flops(draw, variables, keys)


def prediction(experiment: RandomExperiment, name: str) -> tuple[Way, float]:
    """Return a classifier's logits of one batch, traced at once, and its FLOPs."""
    variables, logits = experiment.trained_variables(experiment.random_state()), experiment.task.logits
    image = jax.device_put(experiment.data["image"][: experiment.config.batch_size])
    compiled = jax.jit(logits).lower(variables, image).compile()
    return Way(name, lambda: compiled(variables, image)), product_flops(logits, variables, image)


def extraction(experiment: RandomExperiment, name: str) -> Way:
    """Return what metrics do with a classifier: `evaluation.batch_size` images on the host to features and logits."""
    task, image = experiment.task, images_to_extract(experiment)
    trained = SimpleNamespace(variables=experiment.trained_variables(experiment.random_state()))
    way = Way(name, lambda: task.look(trained, task.features_and_logits, image), wait=lambda _: None)
    way.call()
    return way


def bare_extraction(experiment: RandomExperiment, name: str) -> tuple[Way, float]:
    """Return the same in one jitted call that begins and ends on the device, traced at once, and its FLOPs."""
    variables = experiment.trained_variables(experiment.random_state())
    arguments = variables, {"image": jax.device_put(images_to_extract(experiment))}, None
    look = experiment.task.features_and_logits
    compiled = jax.jit(look).lower(*arguments).compile()
    return Way(name, lambda: compiled(*arguments)), product_flops(look, *arguments)


def images_to_extract(experiment: RandomExperiment) -> np.ndarray:
    """Return the images that an extractor looks at together."""
    return experiment.data["image"][: experiment.config.evaluation.batch_size]
