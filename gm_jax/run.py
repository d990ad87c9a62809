"""Open a run: settle its config, find its data, build its task, restore its networks."""

import dataclasses
import functools
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from gm_jax import cluster, data, parallel
from gm_jax.checkpoint import Checkpoints, Damaged
from gm_jax.data import pipeline, shapes
from gm_jax.defaults.table import flatten, modes
from gm_jax.errors import UserError
from gm_jax.experiment import Experiment
from gm_jax.figures.caption import Caption
from gm_jax.judge import Judge
from gm_jax.metrics.evaluators import EVALUATORS
from gm_jax.portions import Portion, count_epochs, divide, own_validation
from gm_jax.state import TrainState
from gm_jax.step import flat
from gm_jax.tasks import DataSpec, Task
from gm_jax.tasks.task import Source, Trained, take
from gm_jax.workdir import Workdir, is_neutral

VALIDATION, SEEN = "validation", "seen"  # what scores during training are logged under


@dataclasses.dataclass
class Run:
    """An experiment and a workdir that fit each other, and the data."""

    name: str  # of the config file, with its variant
    experiment: Experiment
    workdir: Workdir
    overrides: dict[str, Any]  # keys of the config that the user set

    @property
    def config(self) -> ConfigDict:
        return self.experiment.config

    @property
    def spec(self) -> DataSpec:
        return self.experiment.spec

    @property
    def task(self) -> Task:
        return self.experiment.task

    @functools.cached_property
    def checkpoints(self) -> Checkpoints:
        during = self.config.evaluation.during
        better = next(iter(EVALUATORS[during[0]].better.values())) if during else self.task.monitor[1]
        return Checkpoints(Path(self.workdir.checkpoints), self.config.keep_checkpoints, better)

    @functools.cached_property
    def dataset(self) -> data.Dataset:
        """The data set, found and compared with the one that the run began with."""
        dataset = cluster.first(lambda: data.load(self.config.dataset))
        self.check_dataset(dataset)
        return dataset

    def fingerprint(self, dataset: data.Dataset) -> str:
        """Return the checksums of the splits that are trained on."""
        splits = dict.fromkeys(source.split for source in self.task.sources().values())
        return "+".join(dataset.fingerprint(split) for split in splits)

    def check_dataset(self, dataset: data.Dataset) -> None:
        """Raise UserError if the run began with other data."""
        began_with = self.workdir.run().get("dataset")
        if began_with and began_with["fingerprint"] != self.fingerprint(dataset):
            raise UserError(
                f"{self.workdir.path} was trained on {began_with['name']} ({began_with['origin']}: "
                f"{began_with['location']}), but now {dataset.name} ({dataset.origin}: {dataset.location}) is found: "
                "name the same data with --config.dataset.data_dir, or use another --workdir"
            )

    def split(self, name: str) -> dict[str, np.ndarray]:
        """Return a split of the data as a batch has it; UserError if the task cannot use it."""
        split = pipeline.arrays(self.dataset.split(name))
        self.task.check_data(name, split)
        return split

    @functools.cached_property
    def portions(self) -> dict[str, Portion]:
        """Which examples of each source are trained on, and which are held out to choose the best checkpoint."""
        return divide(self.task.sources(), self.dataset, self.config.dataset.validation)

    def check(self) -> None:
        """Raise UserError if the data, or what figures will need, are not to be had: before anything is trained."""
        splits = dict.fromkeys(s for source in self.task.sources().values() for s in (source.split, source.test))
        for split in splits:
            cluster.first(lambda split=split: self.split(split))
        cluster.check_same("data", [self.dataset.fingerprint(split) for split in splits])
        self.task.check_judge(self.judge)

    def sources(self) -> dict[str, pipeline.Stream]:
        """Return the streams of training examples."""
        streams = {}
        for name, source in self.task.sources().items():
            split = self.split(source.split)
            streams[name] = pipeline.Stream(split, self.portions[name].trained, pipeline.fits_on_device(split))
        return streams

    def training(self) -> dict[str, np.ndarray]:
        """Return the examples that are trained on; by source, where there are several."""
        return flat({name: pick(s.data, s.examples) for name, s in self.sources().items()})

    def examples(self, n: int | None) -> dict[str, np.ndarray]:
        """Return n examples of the evaluated split (None: all), always the same; see `Trained.examples`."""
        return together({name: self.members(source, source.test) for name, source in self.task.sources().items()}, n)

    def members(self, source: Source, split: str) -> dict[str, np.ndarray]:
        """Return the examples of a split that belong to a source."""
        examples = self.split(split)
        return pick(examples, source.members(examples)) if source.where else examples

    @functools.cached_property
    def own_validation(self) -> str | None:
        """The name of the data set's own validation split; None if it has none, or if it is trained on."""
        return own_validation(self.dataset, self.task.sources())

    @functools.cached_property
    def held_out(self) -> tuple[str, int]:
        """The name under which scores during training are logged, and how many examples each source holds out."""
        count = min(len(portion.held_out) for portion in self.portions.values())
        return (VALIDATION if self.own_validation or count else SEEN), count

    def validation(self) -> dict[str, np.ndarray]:
        """Return the examples that choose the best checkpoint.

        They are those of the data set's own validation split if it has one that is not trained on, else those held out
        from the training split, and where none is held out some that are trained on: `held_out` says so.
        """
        own, parts = self.own_validation, {}
        for name, source in self.task.sources().items():
            part = self.members(source, own or source.split)
            parts[name] = pick(self.split(source.split), self.portions[name].held_out) if self.held_out[1] else part
        return together(parts, self.config.evaluation.n)

    def init_state(self) -> TrainState:
        """Return the state at step 0, on all devices."""
        return self.experiment.init_state(self.task.fit(self.training))

    def trained(self, state: TrainState) -> Trained:
        """Return what figures and evaluation use, from a state on the devices."""
        return Trained(
            variables=self.experiment.trained_variables(state),
            workdir=self.workdir,
            spec=self.spec,
            examples=self.examples,
            caption=Caption(self.name, self.spec.name, int(state.step), self.spec.stand_in),
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
            words = list(shapes.ATTRIBUTES.values())
            able = {"centres": shapes.centres, "accepted": shapes.accepted}
            return Judge("the exact reader of shapes", words, shapes.read, **able)
        workdir = Workdir(where)
        other = open_trained(workdir.run().get("config", ""), {}, workdir)
        if other.config.task != "classifier":
            raise UserError(f"evaluation.judge={where} is a run of the task {other.config.task}: name a classifier's")
        if other.spec.image_shape != self.spec.image_shape:
            sizes = ["x".join(map(str, run.spec.image_shape)) for run in (other, self)]
            raise UserError(f"evaluation.judge={where} looks at images of {sizes[0]}, and these are {sizes[1]}")
        trained = other.restore("newest")
        name = f"{other.name} on {other.spec.name}, step {trained.step}"
        own = self.workdir.run().get("dataset", {}).get("fingerprint") or self.fingerprint(self.dataset)
        if own != workdir.run()["dataset"]["fingerprint"]:
            name += f" (trained on other data than {self.spec.name})"
            logging.warning("evaluation.judge=%s: %s", where, name)
        describe, features = (functools.partial(f, trained) for f in (other.task.describe, other.task.features))
        return Judge(name, [other.spec.label_names], describe, features)

    def restore(self, which: str) -> Trained:
        """Restore the "newest" or "best" checkpoint or that of a step, without touching the folder.

        Raises:
            UserError: it is not there, or damaged.
        """
        shapes = self.experiment.state_shapes()
        state, _ = cluster.hand_out(lambda: self._restore(which, shapes), shapes)
        return self.trained(parallel.replicate(state))

    def _restore(self, which: str, shapes: TrainState) -> tuple[TrainState, None]:
        steps = self.checkpoints.steps()
        if not steps:
            raise UserError(f"there is no checkpoint in {self.checkpoints.directory}: train first")
        step = {"newest": steps[-1], "best": self.checkpoints.best_step()}.get(which, which)
        if step is None:
            raise UserError("no checkpoint has been evaluated, so none is the best: use --checkpoint=newest")
        if str(step) not in map(str, steps):
            raise UserError(f"there is no checkpoint {which}; there are {', '.join(map(str, steps))}, newest and best")
        try:
            return self.checkpoints.restore(int(step), shapes)[0], None
        except Damaged as error:
            others = ", ".join(str(s) for s in steps if s != int(step)) or "none"
            raise UserError(f"checkpoint {step} is damaged ({error}); others: {others} (--checkpoint=N)") from error


def pick(data: dict[str, np.ndarray], numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Return some of the examples."""
    return {name: np.asarray(x)[numbers] for name, x in data.items()}


def together(sources: dict[str, dict[str, np.ndarray]], n: int | None) -> dict[str, np.ndarray]:
    """Return n examples (None: all) of every source, of each as many as of the smallest."""
    least = min(len(examples["image"]) for examples in sources.values())
    n = least if n is None else min(n, least)
    return flat({name: take(examples, n) for name, examples in sources.items()})


def adapt(config: ConfigDict, dataset: data.Dataset, overrides: Collection[str]) -> list[str]:
    """Lay `config.if_embedded` over the config if the data are an embedded set, which is small; overrides prevail.

    Returns:
        The keys that it set.
    """
    if dataset.origin != "embedded":
        return []
    changes = {key: value for key, value in flatten(config.if_embedded).items() if key not in overrides}
    config.update_from_flattened_dict(changes)
    if changes:
        logging.warning("the embedded data are few: %s", ", ".join(f"{key}={value}" for key, value in changes.items()))
    return list(changes)


def settle(config: ConfigDict, workdir: Workdir, overrides: Collection[str]) -> tuple[data.Dataset, Experiment]:
    """Find the data, adapt the config to them, and compare it with the one that wrote the workdir.

    Raises:
        UserError: there are no such data, the config does not fit them, or the workdir is of another config.
    """
    cluster.check_same("a config", json.loads(config.to_json()))
    dataset = cluster.first(lambda: data.load(config.dataset))
    adapted = adapt(config, dataset, overrides)
    spec = DataSpec(dataset.image_shape, dataset.label_names, dataset.attribute_names, dataset.stand_in, dataset.name)
    experiment = Experiment(config, spec)
    portions = divide(experiment.task.sources(), dataset, config.dataset.validation)
    longest = max(len(portion.trained) for portion in portions.values())
    if count_epochs(config, experiment, longest, {*overrides, *adapted}):
        experiment = Experiment(config, spec)
    workdir.check(config)
    return dataset, experiment


def open_training(name: str, config: ConfigDict, workdir: Workdir, overrides: dict[str, Any] | None = None) -> Run:
    """Open a run to train: a new one, or one that goes on under the same config; `overrides` are the user's keys.

    Writes nothing.

    Raises:
        UserError: data, config or workdir do not allow it.
    """
    dataset, experiment = settle(config, workdir, overrides or {})
    run = Run(name, experiment, workdir, overrides or {})
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
    if "dataset" not in record:
        raise UserError(f"{workdir.path} has no run.json that tells its data: start the training again")
    flat_config, free = flatten(config), {"evaluation", *modes(config.task)}
    for key, value in overrides.items():
        value = list(value) if isinstance(value, tuple) else value
        if not (is_neutral(key) or key.partition(".")[0] in free) and flat_config.get(key) != value:
            raise UserError(
                f"--config.{key}={value}, but {workdir.path} was trained with {flat_config.get(key)}: leave it out"
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
    return Run(name, Experiment(config, spec), workdir, overrides)
