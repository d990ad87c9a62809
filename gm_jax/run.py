"""Open a run: settle its config, find its data, build its task, restore its networks."""

import dataclasses
import functools
import platform
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from gm_jax import data, parallel
from gm_jax.checkpoint import Checkpoints, Damaged
from gm_jax.data import shapes
from gm_jax.data.pipeline import arrays, hold_out
from gm_jax.errors import UserError
from gm_jax.judge import Judge
from gm_jax.optim import ema_decays, make_optimizers
from gm_jax.state import TrainState, create
from gm_jax.step import updates_per_step
from gm_jax.tasks import DataSpec, Task, make_task
from gm_jax.tasks.task import Trained, Variables, take
from gm_jax.workdir import Workdir, flatten, is_neutral

VALIDATION, SEEN = "validation", "seen"  # what scores during training are logged under


@dataclasses.dataclass
class Run:
    """A config and a workdir that fit each other, and what follows from them."""

    name: str  # of the config file, with its variant
    config: ConfigDict
    workdir: Workdir
    spec: DataSpec
    task: Task
    checkpoints: Checkpoints

    @functools.cached_property
    def dataset(self) -> data.Dataset:
        """The data set, found and compared with the one that the run began with."""
        dataset = data.load(self.config.dataset)
        self.check_dataset(dataset)
        return dataset

    def check_dataset(self, dataset: data.Dataset) -> None:
        """Raise UserError if the run began with other data."""
        began_with = self.workdir.run().get("dataset")
        if began_with and began_with["fingerprint"] != dataset.fingerprint(self.config.dataset.split):
            raise UserError(
                f"{self.workdir.path} was trained on {began_with['name']} ({began_with['origin']}: "
                f"{began_with['location']}), but now {dataset.name} ({dataset.origin}: {dataset.location}) is found: "
                "name the same data with --config.dataset.data_dir, or use another --workdir"
            )

    def split(self, name: str) -> dict[str, np.ndarray]:
        """Return a split of the data as a batch has it; UserError if the task cannot use it."""
        split = arrays(self.dataset.split(name))
        self.task.check_data(name, split)
        return split

    @functools.cached_property
    def partition(self) -> tuple[np.ndarray, np.ndarray]:
        """Which examples of the training split are trained on, and which are held out to choose the best checkpoint."""
        size, n = len(self.split(self.config.dataset.split)["image"]), self.config.dataset.validation
        return hold_out(size, 0 if self.own_validation else min(n, size // 10))

    @property
    def own_validation(self) -> str | None:
        """The name of the data set's own validation split; None if it has none."""
        return next((name for name in ("validation", "val") if name in self.dataset.sizes), None)

    def training(self) -> dict[str, np.ndarray]:
        """Return the examples that are trained on."""
        return {name: np.asarray(x)[self.partition[0]] for name, x in self.split(self.config.dataset.split).items()}

    def validation(self) -> tuple[str, dict[str, np.ndarray]]:
        """Return the examples that choose the best checkpoint, and the name under which their scores are logged.

        They are those of the data set's own validation split if it has one, else those held out from the training
        split, and where none is held out some that are trained on: then the name says so.
        """
        examples, held_out = self.split(self.own_validation or self.config.dataset.split), self.partition[1]
        if len(held_out):
            examples = {name: np.asarray(x)[held_out] for name, x in examples.items()}
        unseen = self.own_validation or len(held_out)
        return (VALIDATION if unseen else SEEN), take(examples, self.config.evaluation.n)

    def initial(self, key: jax.Array, fitted: dict[str, Any] | None = None) -> TrainState:
        """Return the state at step 0; parameters that are `fitted` replace the random ones of their network."""
        variables = self.task.init(key)
        variables |= {net: {**variables[net], "params": params} for net, params in (fitted or {}).items()}
        return create(variables, self.optimizers(variables), ema_decays(self.config, variables))

    def optimizers(self, networks: Iterable[str]) -> dict[str, optax.GradientTransformation]:
        """Return the optax transformation of each network."""
        updates = updates_per_step(self.task.phases())
        return make_optimizers(self.config, {network: updates.get(network, 1.0) for network in networks})

    def state_shapes(self) -> TrainState:
        """Return the shapes and dtypes of the state; a config that cannot work fails here."""
        return jax.eval_shape(self.initial, jax.random.key(0))

    def init_state(self) -> TrainState:
        """Return the state at step 0, on all devices."""
        # Jitted, so that the compilation cache serves it: op by op it takes several times as long. It runs once, and
        # optimising that many random draws took four times as long as compiling them plainly.
        plainly = {"xla_backend_optimization_level": 0}
        jitted = jax.jit(self.initial, out_shardings=parallel.replicated(), compiler_options=plainly)
        return jitted(jax.random.key(self.config.seed), self.task.fit(self.training()))

    def trained(self, state: TrainState) -> Trained:
        """Return what figures, samples and evaluation use, from a state on the devices."""
        step = int(state.step)
        stand_in = f" · NOTE: {self.spec.stand_in}" if self.spec.stand_in else ""
        return Trained(
            variables=self.task.standing(Variables(*state.averaged())),
            step=step,
            workdir=self.workdir,
            spec=self.spec,
            split=self.split,
            caption=f"{self.name} on {self.spec.name} · step {step}{stand_in}",
            chunk=self.config.sampling.batch_size,
            judge=self.judge,
        )

    def judge(self) -> Judge:
        """Open the judge of images that `evaluation.judge` names.

        Raises:
            UserError: it names none, or one that cannot judge images like these.
        """
        where = self.config.evaluation.get("judge")
        if where is None:
            raise UserError(
                "this needs a judge: give --config.evaluation.judge=WORKDIR of a trained classifier, or =shapes for "
                "images of that data set"
            )
        if where == "shapes":
            return Judge("the exact reader of shapes", list(shapes.ATTRIBUTES.values()), shapes.read)
        workdir = Workdir(where)
        other = open_trained(workdir.run().get("config", ""), {}, workdir)
        if other.config.task != "classifier":
            raise UserError(f"evaluation.judge={where} is a run of the task {other.config.task}: name a classifier's")
        if other.spec.image_shape != self.spec.image_shape:
            sizes = ["x".join(map(str, run.spec.image_shape)) for run in (other, self)]
            raise UserError(f"evaluation.judge={where} looks at images of {sizes[0]}, and these are {sizes[1]}")
        trained = other.restore("newest")
        name = f"{other.name} on {other.spec.name}, step {trained.step}"
        data = {run.workdir.run()["dataset"]["fingerprint"] for run in (self, other)}
        if len(data) > 1:
            name += f" (trained on other data than {self.spec.name})"
            logging.warning("evaluation.judge=%s: %s", where, name)
        describe, features = (functools.partial(f, trained) for f in (other.task.describe, other.task.features))
        return Judge(name, [other.spec.label_names], describe, features)

    def restore(self, which: str) -> Trained:
        """Restore the "newest" or "best" checkpoint or that of a step, without touching the folder.

        Raises:
            UserError: it is not there, or damaged.
        """
        steps = self.checkpoints.steps()
        if not steps:
            raise UserError(f"there is no checkpoint in {self.checkpoints.directory}: train first")
        step = {"newest": steps[-1], "best": self.checkpoints.best_step()}.get(which, which)
        if step is None:
            raise UserError("no checkpoint has been evaluated, so none is the best: use --checkpoint=newest")
        if str(step) not in map(str, steps):
            raise UserError(f"there is no checkpoint {which}; there are {', '.join(map(str, steps))}, newest and best")
        try:
            state, _ = self.checkpoints.restore(int(step), self.state_shapes())
        except Damaged as error:
            others = ", ".join(str(s) for s in steps if s != int(step)) or "none"
            raise UserError(f"checkpoint {step} is damaged ({error}); others: {others} (--checkpoint=N)") from error
        return self.trained(parallel.replicate(state))


def describe_dataset(run: Run) -> dict[str, Any]:
    """Return what run.json says of the data set that is really used, and of how its training split is used."""
    dataset, split = run.dataset, run.config.dataset.split
    name, examples = run.validation()
    return {
        "name": dataset.name,
        "requested": dataset.requested,
        "origin": dataset.origin,
        "location": dataset.location,
        "stand_in": dataset.stand_in,
        "sizes": dataset.sizes,
        "image_shape": list(dataset.image_shape),
        "label_names": list(dataset.label_names),
        "attribute_names": {name: list(values) for name, values in dataset.attribute_names.items()},
        "fingerprint": dataset.fingerprint(split),
        "trained_on": {"split": split, "n": len(run.partition[0])},
        "best_chosen_by": {"examples": name, "n": len(examples["image"]), "held_out": len(run.partition[1])},
    }


def environment() -> dict[str, Any]:
    """Return what the bits of a run depend on besides (config, seed, step)."""
    import os
    from importlib import metadata

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")
    return {
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
        "cpu_cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name: metadata.version(name) for name in packages},
    }


def adapt(config: ConfigDict, dataset: data.Dataset, overrides: Collection[str]) -> None:
    """Lay `config.if_embedded` over the config if the data are an embedded set, which is small; overrides prevail."""
    if dataset.origin != "embedded":
        return
    changes = {key: value for key, value in flatten(config.if_embedded).items() if key not in overrides}
    config.update_from_flattened_dict(changes)
    if changes:
        logging.warning("the embedded data are few: %s", ", ".join(f"{key}={value}" for key, value in changes.items()))


def settle(config: ConfigDict, workdir: Workdir, overrides: Collection[str]) -> data.Dataset:
    """Find the data, adapt the config to them, and compare it with the one that wrote the workdir.

    Raises:
        UserError: there are no such data, or the workdir is of another config.
    """
    dataset = data.load(config.dataset)
    adapt(config, dataset, overrides)
    workdir.check(config)
    return dataset


def open_training(name: str, config: ConfigDict, workdir: Workdir, overrides: Collection[str] = ()) -> Run:
    """Open a run to train: a new one, or one that goes on under the same config; `overrides` are the user's keys.

    Writes nothing.

    Raises:
        UserError: data, config or workdir do not allow it.
    """
    dataset = settle(config, workdir, overrides)
    spec = DataSpec(dataset.image_shape, dataset.label_names, dataset.attribute_names, dataset.stand_in, dataset.name)
    run = _assemble(name, config, workdir, spec)
    run.check_dataset(dataset)
    run.dataset = dataset
    return run


def open_trained(name: str, overrides: dict[str, Any], workdir: Workdir) -> Run:
    """Open a run to sample, evaluate or draw: under the config that trained it, with the overrides that are harmless.

    Raises:
        UserError: no run there, one of another config, or an override that would make it another model.
    """
    config = workdir.saved_config()
    record = workdir.run()
    if record.get("config", name) != name:
        raise UserError(f"{workdir.path} was written by the config {record['config']}, not {name}: name its --workdir")
    flat = flatten(config)
    for key, value in overrides.items():
        value = list(value) if isinstance(value, tuple) else value
        if not (is_neutral(key) or key.startswith("evaluation.")) and flat.get(key) != value:
            raise UserError(
                f"--config.{key}={value}, but {workdir.path} was trained with {flat.get(key)}: leave it out"
            )
        config.update_from_flattened_dict({key: value})
    seen = record["dataset"]
    spec = DataSpec(
        tuple(seen["image_shape"]),
        tuple(seen["label_names"]),
        {key: tuple(values) for key, values in seen["attribute_names"].items()},
        seen["stand_in"],
        seen["name"],
    )
    return _assemble(name, config, workdir, spec)


def _assemble(name: str, config: ConfigDict, workdir: Workdir, spec: DataSpec) -> Run:
    for key in ("sampling.n", "sampling.batch_size", "evaluation.batch_size"):
        group, entry = key.split(".")
        if config[group][entry] < 1:
            raise UserError(f"{key}={config[group][entry]} must be at least 1")
    if config.evaluation.n is not None and config.evaluation.n < 1:
        raise UserError(f"evaluation.n={config.evaluation.n} must be at least 1, or None for the whole split")
    for key, value in (("seed", config.seed), ("dataset.validation", config.dataset.validation)):
        if value < 0:
            raise UserError(f"{key}={value} must not be negative")
    task = make_task(config, spec)
    checkpoints = Checkpoints(Path(workdir.checkpoints), config.keep_checkpoints, task.monitor)
    return Run(name, config, workdir, spec, task, checkpoints)
