"""What is known of a run, as plain data."""

import dataclasses
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Fault:
    """What keeps a folder, or a part of it, out of the pages: its name, the reason, and what to do if it is known."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture of a run: its file, its size in pixels, its caption, and what a sprite holds (None: it is none)."""

    name: str
    path: Path
    width: int
    height: int
    caption: str
    sprite: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Data:
    """The data really used: how many examples train, where they are from, and whether they stand in for others."""

    name: str
    origin: str
    stand_in: str | None
    fingerprint: str
    examples: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What mode evaluate wrote: the results by name, each with its "value"; `overrides` are keys set for it alone.

    `seconds` it took (None: an older gm_jax did not say), up to `time`.
    """

    step: int
    time: str
    seconds: float | None
    overrides: dict[str, Any]
    results: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Reference:
    """Real images measured in the place of samples, the yardstick of a comparison.

    Attributes:
        name: of its file.
        data: the name of the data set.
        generated: the images in the samples' place, such as "mnist:train".
        results: as in an evaluation, each with its n, split, extractor and weights.
    """

    name: str
    data: str
    generated: str
    results: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known of one run.

    Attributes:
        path: the workdir.
        name: its path below the folder of runs.
        config: the experiment's name, such as "cnn_cifar10_modern".
        settings: its resolved config, flat.
        overrides: the keys that the user set.
        rows: of the reports, as run.json has them.
        step, seconds, images: what the training has reached, how long it took, how many examples it has seen (None:
            an older gm_jax did not say).
        began: when it was last started.
        metrics: the lines of metrics.jsonl.
        evaluation, evaluations: the last one (None: there is none), and all.
        values: of the swept keys, if it is a member of a family.
        family: the folder of that family; "": none.
    """

    path: Path
    name: str
    config: str
    settings: dict[str, Any]
    overrides: dict[str, Any]
    rows: tuple[str, ...]
    command: str
    data: Data
    environment: dict[str, Any]
    parameters: int
    step: int
    seconds: float
    images: int | None
    began: str
    metrics: list[dict[str, Any]]
    evaluation: Evaluation | None
    evaluations: list[Evaluation]
    figures: dict[str, Figure]
    values: dict[str, Any]
    family: str

    @property
    def task(self) -> str:
        """The kind of training."""
        return self.settings["task"]

    @property
    def seed(self) -> int:
        """What all of its noise follows from."""
        return self.settings["seed"]

    @property
    def steps(self) -> int:
        """How many steps the run is to have."""
        return self.settings["steps"]

    @property
    def epochs(self) -> float | None:
        """How often the training has seen every example; None: not known."""
        return None if self.images is None or not self.data.examples else self.images / self.data.examples

    @property
    def shown_step(self) -> int:
        """The step whose numbers are shown: that of the last evaluation, or the last one."""
        return self.evaluation.step if self.evaluation else self.step

    @property
    def device(self) -> str:
        """What trained it, in words."""
        devices, cores = str(self.environment.get("devices", "unknown")), self.environment.get("cpu_cores")
        if not (cores and devices.endswith("cpu")):
            return devices
        processor = self.environment.get("processor")
        unit = "core" if cores == 1 else "cores"
        return f"{cores} {unit} of {processor}" if processor else f"{cores} CPU {unit}"
