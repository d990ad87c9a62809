"""What a task is: networks, phases, how to evaluate, how to sample, which figures to draw. Data for the one loop."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from gm_jax.data.pipeline import choose
from gm_jax.errors import UserError
from gm_jax.judge import Judge
from gm_jax.step import Batch, Phase
from gm_jax.workdir import Workdir

Tree = Any


class DataSpec(NamedTuple):
    """What a model must know of its data.

    Attributes:
        image_shape: (height, width, channels).
        label_names: the classes; () if the data have no labels.
        attribute_names: value names by attribute.
        stand_in: None, or the sentence that announces other data than the config asked for.
        name: of the data set really used.
    """

    image_shape: tuple[int, int, int]
    label_names: tuple[str, ...] = ()
    attribute_names: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  (never changed)
    stand_in: str | None = None
    name: str = ""


class Variables(NamedTuple):
    """Trained networks: `params` (averaged where there is an average) and `model_state`, by network."""

    params: dict[str, Tree]
    model_state: dict[str, Tree]


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a figure or a sampler can use of a run.

    Attributes:
        variables: on all devices.
        step: of the checkpoint.
        split: reads a split of the data as {"image": uint8 [N, H, W, C], ...}; called only by figures that show data.
        caption: goes under every figure; names config, data and step, and announces a stand-in.
        chunk: examples that are sampled or evaluated at once.
        judge: opens the judge of images that `evaluation.judge` names; UserError if it names none.
    """

    variables: Variables
    step: int
    workdir: Workdir
    spec: DataSpec
    split: Callable[[str], dict[str, np.ndarray]]
    caption: str
    chunk: int
    judge: Callable[[], Judge]

    def some(self, split: str, n: int | None) -> dict[str, np.ndarray]:
        """Return n examples (None: all) of a split, always the same, as a batch with the "position" of each."""
        return take(self.split(split), n)


def take(data: Batch, n: int | None) -> dict[str, np.ndarray]:
    """Return n of some examples (None: all), always the same, as a batch with the "position" of each."""
    if n is not None and n < len(data["image"]):
        data = {name: np.asarray(x)[choose(len(x), n)] for name, x in data.items()}
    return {**data, "position": np.arange(len(data["image"]), dtype=np.int32)}


class Row(NamedTuple):
    """One run's images in a picture that has a row for each run.

    Attributes:
        images: uint8 [n, H, W, C].
        reference: what they should look like, drawn once above all rows; None: nothing.
    """

    images: np.ndarray
    reference: np.ndarray | None = None


def check_labels(split: str, data: Batch, classes: int) -> None:
    """Raise UserError unless every example of a split has a label that is one of the classes."""
    if "label" not in data:
        raise UserError(f"split '{split}' has no labels, but they are needed here: use another split or data set")
    labels = data["label"]
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise UserError(
            f"label {labels[wrong[0]]} of example {wrong[0]} in split '{split}' is not one of the {classes} classes "
            f"0 ... {classes - 1} ({wrong.size} such labels): mend the data, or use another split"
        )


class Task(abc.ABC):
    """Everything that the loop knows of a model; a subclass says what its networks, losses and figures are.

    Attributes:
        config: the run's config.
        spec: of the data.
        monitor: the validation metric whose best checkpoint is kept, and "min" or "max".
        watched: the validation metrics that the progress bar shows.
        units: what the numbers in evaluation.json are measured in, by name, where that needs saying.
    """

    monitor: tuple[str, str] = ("loss", "min")
    watched: tuple[str, ...] = ()
    units: dict[str, str] = {}  # noqa: RUF012  (never changed)

    def __init__(self, config: ConfigDict, spec: DataSpec):
        """Build the networks.

        Raises:
            UserError: the config does not fit the data or itself.
        """
        self.config = config
        self.spec = spec

    def check_data(self, split: str, data: Batch) -> None:  # noqa: B027  (most tasks take any images)
        """Raise UserError if the examples of a split, NumPy arrays as in a batch, cannot serve this task."""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> dict[str, Tree]:
        """Return the initial Flax variables of each network."""

    def fit(self, data: Batch) -> dict[str, Tree]:
        """Return the parameters to begin with, by network, that the training split tells: in closed form or by EM.

        They replace those of `init`, whose shapes they have; {}: nothing is estimated.
        """
        return {}

    def standing(self, variables: Variables) -> Variables:
        """Return what samples and evaluation use of a checkpoint's averaged variables: a function of these alone."""
        return variables

    @abc.abstractmethod
    def phases(self) -> Sequence[Phase]:
        """Return the updates of one step, in order; []: nothing is trained beyond what `fit` estimates."""

    @abc.abstractmethod
    def validate(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """Return per-example values [B, ...]; their means are logged during training."""

    def warnings(self, scores: dict[str, float], held_out: Batch) -> list[str]:
        """Return what looks wrong about a run whose validation on `held_out` gave these means, a sentence each."""
        return []

    def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """Return per-example values [B, ...], as thorough as it gets; their means are what evaluation.json holds."""
        return self.validate(variables, batch, key)

    def derive(self, values: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return further results, by name, from the values [n, ...] that `evaluate` returned for all n examples."""
        return {}

    def sample(self, trained: Trained, n: int, seed: int) -> dict[str, np.ndarray] | None:
        """Return {"images": uint8 [n, H, W, C], "labels": int32 [n] if conditional}; None: this task draws none."""
        return None

    def rows(self, trained: Trained, n: int) -> dict[str, Row]:
        """Return the images by which the runs of a sweep are compared, by the picture's name; by default samples."""
        drawn = self.sample(trained, n, self.config.sampling.seed)
        return {} if drawn is None else {"samples": Row(drawn["images"])}

    @abc.abstractmethod
    def figures(self) -> dict[str, Callable[[Trained], None]]:
        """Return what draws `figures/<name>.png`, by name."""
