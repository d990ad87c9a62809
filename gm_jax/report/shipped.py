"""The experiments in configs/: which rows of the reports they reproduce, on which data, and how long that takes."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import gm_jax
from gm_jax.defaults.table import flatten
from gm_jax.errors import UserError

CONFIGS = Path(gm_jax.__file__).parent.parent / "configs"


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """A config as it is shipped.

    Attributes:
        name: as run.json has it: "cnn_cifar10_modern".
        file: as the command line has it: "configs/cnn_cifar10.py:modern".
        rows: of the reports.
        minutes: that training should take on two CPU cores; None: unknown.
        settings: the flat config.
    """

    name: str
    file: str
    rows: tuple[str, ...]
    minutes: float | None
    settings: dict[str, Any]

    @property
    def label(self) -> str:
        """Its name as the command line has it: "cnn_cifar10:modern"."""
        return self.file.removeprefix("configs/").replace(".py", "")

    @property
    def command(self) -> str:
        """What trains it."""
        return f"python -m gm_jax.main --config={self.file}"


def read_experiments() -> dict[str, Experiment]:
    """Return every config and variant by name, a config before its variants.

    Raises:
        UserError: the folder is not there: gm_jax is not run from its repository.
    """
    if not CONFIGS.is_dir():
        raise UserError(f"there is no folder {CONFIGS}: run this from a clone of gm_jax, which has the configs")
    found = {}
    for path in sorted(CONFIGS.glob("*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for variant in ("", *getattr(module, "VARIANTS", ())):
            experiment = _experiment(path, variant, module.get_config(*([variant] if variant else [])))
            found[experiment.name] = experiment
    return found


def _experiment(path: Path, variant: str, config: ConfigDict) -> Experiment:
    name, file = path.stem, f"{path.parent.name}/{path.name}"
    if variant:
        name, file = f"{name}_{variant}", f"{file}:{variant}"
    return Experiment(name, file, tuple(config.rows), config.minutes, flatten(config))
