"""Runs as a notebook holds them: `run = gm_jax.load("runs/ddpm_mnist")`, `run.sample(16, seed=3, label=7)`.

What the command line prints in one line for a mistake, these functions raise as `gm_jax.UserError`.
"""

import copy
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from gm_jax import backend, cli, cluster, evaluate, export
from gm_jax.defaults.table import flatten
from gm_jax.errors import UserError, nearest
from gm_jax.run import Run, open_trained, open_training
from gm_jax.tasks.task import Task, Trained
from gm_jax.train import train
from gm_jax.workdir import Workdir, read_metrics


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """One checkpoint of a run.

    Attributes:
        run: its config, data, task and folder.
        trained: its variables, as samples and evaluation use them.
    """

    run: Run
    trained: Trained

    def __repr__(self) -> str:
        return f"<{self.trained.caption}: {self.run.workdir.path}>"

    @property
    def config(self) -> ConfigDict:
        """The config that trained it, with the changes that it was loaded with."""
        return self.run.config

    @property
    def step(self) -> int:
        """The step of the checkpoint."""
        return self.trained.step

    def sample(
        self, n: int | None = None, seed: int | None = None, label: int | str | Sequence[int | str] | None = None
    ) -> np.ndarray:
        """Draw images uint8 [n, H, W, C].

        They are the samples 0 ... n - 1 of a seed, by default those of mode sample. `label`: the class of all, or of
        each, by its number or name; None: as `config.sampling` says.

        Raises:
            UserError: no such class, n or seed, or a task that draws no samples or none on demand.
        """
        sampling, task = self.config.sampling, self.run.task
        n, seed = sampling.n if n is None else n, sampling.seed if seed is None else seed
        labels = None if label is None else class_numbers(task, label)
        if n < 1 or not 0 <= seed < 2**32:
            raise UserError(f"n={n} and seed={seed}: n must be at least 1, and a seed from 0 to {2**32 - 1}")
        if np.ndim(labels) and len(labels) != n:
            raise UserError(f"{n} samples with {np.size(labels)} labels: give one label, or one for each sample")
        drawn = task.sample(self.trained.variables, n, seed, labels=labels)
        if drawn is None:
            raise UserError(f"the task {self.config.task} draws no samples")
        return drawn["images"]

    def evaluate(self) -> dict[str, dict[str, Any]]:
        """Measure, and write evaluation.json, as mode evaluate does; return the results in it, by name.

        Each has its "value", "n", "split", "seed" and, where it is a mean, its "standard_error".
        """
        return evaluate.evaluate_trained(self.run, self.trained)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl: "step", "split" and the metrics by name."""
        return read_metrics(self.run.workdir.metrics)

    def figure(self, name: str) -> Image.Image:
        """Draw one of the task's figures, `figures/<name>.png`, and return it.

        Raises:
            UserError: no such figure.
        """
        known = self.run.task.figures()
        if name not in known:
            raise UserError(f"there is no figure {name!r}{nearest(name, known)}: there are {', '.join(known)}")
        known[name](self.trained)
        with Image.open(self.run.workdir.figures / f"{name}.png") as picture:
            return picture.copy()

    def apply(self, network: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a network with the run's averaged weights, as Flax's `apply` does (`method="encode"`, ...).

        Networks see images as floats; the docstrings in `gm_jax/models` say of each what it takes.

        Raises:
            UserError: no such network.
        """
        known = self.run.task.networks(self.trained.variables)
        if network not in known:
            names = ", ".join(known) or "none"
            raise UserError(f"there is no network {network!r}{nearest(network, known)}: there are {names}")
        module, variables = known[network]
        return module.apply(variables, *arguments, **keywords)

    def export(self, folder: str | Path | None = None) -> Path:
        """Write weights, programs and model card, as mode export does; return their folder."""
        folder = self.run.workdir.path / "export" if folder is None else Path(folder)
        export.write_export(self.run, self.trained, folder)
        return folder


def class_numbers(task: Task, label: int | str | Sequence[int | str]) -> np.ndarray:
    """Return the number of a class, or of each of several, int32 [] or [n].

    Raises:
        UserError: there is no such class.
    """
    if not task.classes:
        raise UserError("this model draws no class on demand: leave the label out")
    names = list(task.class_names)

    def number(one: int | str) -> int:
        if isinstance(one, str) and one in names:
            return names.index(one)
        if isinstance(one, str) or one not in range(task.classes):
            raise UserError(f"there is no class {one!r}{nearest(str(one), names)}: there are {', '.join(names)}")
        return one

    return np.int32(number(label) if np.ndim(label) == 0 else [number(one) for one in label])


def load(workdir: str | Path, checkpoint: str | int = "newest", changes: Mapping[str, Any] | None = None) -> LoadedRun:
    """Load a run: its "newest" or "best" checkpoint, or that of a step.

    `changes` are keys of the config, dotted, that may differ from training: `{"sampling.steps": 20}`.

    Raises:
        UserError: no run there, no such checkpoint, or a change that would make it another model.
    """
    backend.configure()
    folder = Workdir(workdir, cluster.is_writer())
    check_changes(folder.saved_config(), changes or {})
    run = open_trained(folder.run().get("config", ""), dict(changes or {}), folder)
    return LoadedRun(run, run.restore(str(checkpoint)))


def read_config(file: str | Path) -> ConfigDict:
    """Return the config in a file: "configs/NAME.py" or "configs/NAME.py:variant".

    Raises:
        UserError: no such file or variant.
    """
    cli.check_config_file(str(file))
    return cli.read_config([f"--config={file}"])[0]


def train_run(config: ConfigDict, workdir: str | Path, changes: Mapping[str, Any] | None = None) -> LoadedRun:
    """Train under a config in a folder, or go on where it stopped, as the command line does; return the run.

    `changes` are keys of the config, dotted; what they say prevails over `config.if_embedded` and `config.epochs`, and
    is recorded. The config itself stays as it is.

    Raises:
        UserError: as the command line.
        KeyboardInterrupt: it was interrupted; all is saved, and the same call goes on.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(f"{config!r} is no config: read one with gm_jax.read_config, or make one of gm_jax.defaults")
    backend.configure()
    config, changes = copy.deepcopy(config), dict(changes or {})
    check_changes(config, changes)
    config.update_from_flattened_dict(changes)
    folder = Workdir(workdir, cluster.is_writer())
    folder.create()
    name = folder.run().get("config") or folder.path.name
    opened = open_training(name, config, folder, changes)
    if train(opened, f"gm_jax.train_run(config, {str(workdir)!r})", time.time()):
        raise KeyboardInterrupt(f"stopped, and saved in {folder.path}: the same call goes on")
    return load(folder.path)


def check_changes(config: ConfigDict, changes: Mapping[str, Any]) -> None:
    """Raise UserError for a change of a key that the config does not have, or to a value of another type."""
    known = flatten(config)
    trial = copy.deepcopy(config)
    for key, value in changes.items():
        if key not in known:
            raise UserError(f"the config has no key {key!r}{nearest(key, known)}")
        try:
            trial.update_from_flattened_dict({key: value})
        except (TypeError, ValueError) as error:
            raise UserError(f"{key}={value!r}: {str(error).splitlines()[0]}") from error
