"""What a task is: networks, phases, how to evaluate, how to sample, which figures to draw. Data for the one loop."""

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from gm_jax import parallel, random
from gm_jax.data.pipeline import choose
from gm_jax.errors import UserError
from gm_jax.figures.caption import Caption
from gm_jax.figures.grid import save_grid
from gm_jax.judge import Judge
from gm_jax.metrics.moments import Moments
from gm_jax.program import IMAGES, Program, label_input
from gm_jax.stages import Batch, Phase, Stage
from gm_jax.state import Tree, Variables
from gm_jax.workdir import Workdir


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


class Source(NamedTuple):
    """One of the data sources of a task.

    Attributes:
        split: of the data set, which is trained on.
        test: the split that is evaluated.
        where: the label or the attributes of the examples that belong to it, by name; {}: all do.
    """

    split: str
    test: str
    where: Mapping[str, int] = {}

    def members(self, data: Batch) -> np.ndarray:
        """Return which examples of a split belong to it, int32, ascending."""
        belongs = np.ones(len(data["image"]), bool)
        for name, value in self.where.items():
            belongs &= np.asarray(data[name]) == value
        return np.flatnonzero(belongs).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a figure can use of a run.

    Attributes:
        variables: on all devices.
        workdir: where figures go, and where the history of the metrics lies.
        spec: of the data.
        examples: reads n examples of the evaluated split (None: all), always the same, as a batch with the "position"
            of each; by source, where there are several. Called only by figures that show data.
        caption: goes under every figure; names config, data and step, and announces a stand-in.
        judge: opens the judge of images that `evaluation.judge` names; UserError if it names none.
    """

    variables: Variables
    workdir: Workdir
    spec: DataSpec
    examples: Callable[[int | None], Batch]
    caption: Caption
    judge: Callable[[], Judge]

    @property
    def step(self) -> int:
        """The step of the checkpoint."""
        return self.caption.step


def take(data: Batch, n: int | None) -> dict[str, np.ndarray]:
    """Return n of some examples (None: all), always the same, as a batch with the "position" of each."""
    if n is not None and n < len(data["image"]):
        data = {name: np.asarray(x)[choose(len(x), n)] for name, x in data.items()}
    return {**data, "position": np.arange(len(data["image"]), dtype=np.int32)}


class Translation(NamedTuple):
    """Images of one source, uint8 [n, H, W, C], as images of another.

    Attributes:
        source: what was translated.
        made: the translations.
        target: images of the other source.
        words: what a judge says of the images of either; "" where nothing does.
    """

    source: np.ndarray
    made: np.ndarray
    target: np.ndarray
    words: tuple[str, str] = ("", "")


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
        classes: how many the samples are asked for; 0: they are not conditional.
        class_names: what they are called, or what the classes of the data are; of several words, all hold.
        generate: draws samples; None: this task draws none.
    """

    monitor: tuple[str, str] = ("loss", "min")
    watched: tuple[str, ...] = ()
    units: dict[str, str] = {}  # noqa: RUF012  (never changed)
    classes: int = 0
    # (variables, batch of "position" and, if conditional, "label", keys [B]) -> {"images": uint8 [B, H, W, C], ...}
    generate: Callable[[Variables, Batch, jax.Array], dict[str, jax.Array]] | None = None

    def __init__(self, config: ConfigDict, spec: DataSpec):
        """Build the networks.

        Raises:
            UserError: the config does not fit the data or itself.
        """
        self.config = config
        self.spec = spec
        self.class_names: Sequence[str] = spec.label_names
        self._compiled: dict[Any, Callable] = {}

    def sources(self) -> dict[str, Source]:
        """Return the data sources; of several, batches and examples are dictionaries by their names."""
        return {"images": Source(self.config.dataset.split, self.config.evaluation.split)}

    def check_data(self, split: str, data: Batch) -> None:  # noqa: B027  (most tasks take any images)
        """Raise UserError if the examples of a split, NumPy arrays as in a batch, cannot serve this task."""

    def check_judge(self, judge: Callable[[], Judge]) -> None:  # noqa: B027  (most tasks ask none)
        """Raise UserError if what only the figures will need of `Trained.judge` is not to be had."""

    @abc.abstractmethod
    def init(self, key: jax.Array) -> dict[str, Tree]:
        """Return the initial Flax variables of each network."""

    def init_memory(self, key: jax.Array) -> dict[str, Tree]:
        """Return the initial memory (`TrainState.memory`)."""
        return {}

    def fit(self, training: Callable[[], Batch]) -> dict[str, Tree]:
        """Return the parameters to begin with, by network, that the training examples tell: in closed form or by EM.

        They replace those of `init`, whose shapes they have; {}: nothing is estimated. `training` reads the examples.
        """
        return {}

    def standing(self, variables: Variables) -> Variables:
        """Return what samples and evaluation use of a checkpoint's averaged variables: a function of these alone."""
        return variables

    @abc.abstractmethod
    def phases(self, stage: int = 0) -> Sequence[Phase]:
        """Return the updates of one step of a stage, in order; []: nothing is trained beyond what `fit` estimates."""

    def stages(self) -> Sequence[Stage]:
        """Return the stages of the training; one, unless phases or batch size change on the way."""
        return [Stage(0, self.phases(), self.config.batch_size)]

    def remember(self, stage: int, variables: Variables) -> dict[str, Tree]:
        """Return the memory with which a stage after the first begins, from the averaged variables at its border."""
        return variables.memory

    @abc.abstractmethod
    def validate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
        """Return per-example values [B, ...]; their means are logged during training. `keys` [B] are for noise."""

    def warnings(self, scores: dict[str, float], held_out: Batch) -> list[str]:
        """Return what looks wrong about a run whose validation on `held_out` gave these means, a sentence each."""
        return []

    def evaluate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
        """Return per-example values [B, ...], as thorough as it gets; their means are what evaluation.json holds."""
        return self.validate(variables, batch, keys)

    def derive(self, moments: dict[str, Moments]) -> dict[str, Any]:
        """Return further results, by name, from the moments of what `evaluate` returned over all examples."""
        return {}

    def iterate(
        self, function: Callable, variables: Variables, batch: Batch, seed: int, batch_size: int
    ) -> Iterator[Tree]:
        """Yield what `function(variables, batch, keys)` says of a batch of any size, NumPy, `batch_size` at once.

        It is compiled once and mapped over the devices; example i has the key that follows from the seed and its
        "position".
        """
        n = len(jax.tree.leaves(batch)[0])
        once = (function, min(batch_size, n))
        if once not in self._compiled:

            def with_keys(tree: tuple[Variables, jax.Array], batch: Batch) -> Tree:
                position = batch["position"] if "position" in batch else next(iter(batch.values()))["position"]
                return function(tree[0], batch, random.example_keys(tree[1], position))

            self._compiled[once] = parallel.iterate_examples(with_keys, once[1])
        return self._compiled[once]((variables, jax.random.key(seed)), batch)

    def apply(self, function: Callable, variables: Variables, batch: Batch, seed: int = 0) -> Tree:
        """Return what `iterate` yields, `sampling.batch_size` at once, as one tree of leaves [n, ...]."""
        return parallel.concatenate(self.iterate(function, variables, batch, seed, self.config.sampling.batch_size))

    def sample(
        self,
        variables: Variables,
        n: int,
        seed: int,
        generate: Callable | None = None,
        first: int = 0,
        labels: np.ndarray | None = None,
    ) -> dict[str, np.ndarray] | None:
        """Return {"images": uint8 [n, H, W, C], "labels": int32 [n] if conditional}; None: this task draws none.

        They are the samples number `first`, first + 1, ... of a seed. The labels, unless `labels` int32 [n] are given,
        are `sampling.label` or all classes in turn. Another `generate` than the task's own may say more.
        """
        generate = generate or self.generate
        if generate is None:
            return None
        batch = {"position": np.arange(first, first + n, dtype=np.int32)}
        if self.classes:
            asked = self.asked() if labels is None else labels
            batch["label"] = np.int32(np.broadcast_to(batch["position"] % self.classes if asked is None else asked, n))
        drawn = self.apply(generate, variables, batch, seed)
        return {**drawn, "labels": batch["label"]} if self.classes else drawn

    def asked(self) -> int | None:
        """Return the class that samples shall show; None: all in turn."""
        return self.config.sampling.label

    def classes_of(self, batch: Batch) -> np.ndarray | None:
        """Return the classes of examples; None: they have none."""
        return batch.get("label")

    def rows(self, trained: Trained, n: int) -> dict[str, Row]:
        """Return the images by which the runs of a sweep are compared, by the picture's name; by default samples."""
        drawn = self.sample(trained.variables, n, self.config.sampling.seed)
        return {} if drawn is None else {"samples": Row(drawn["images"])}

    @abc.abstractmethod
    def figures(self) -> dict[str, Callable[[Trained], None]]:
        """Return what draws `figures/<name>.png`, by name."""

    def draw_samples(self, trained: Trained) -> None:
        """Draw `sampling.n` samples."""
        n, seed = self.config.sampling.n, self.config.sampling.seed
        grid = self.sample(trained.variables, n, seed)["images"]
        save_grid(trained.workdir.figures / "samples.png", grid, 8, trained.caption.plus(*self.describe_samples()))

    def preview(self, trained: Trained) -> tuple[np.ndarray, int] | None:
        """Return the images that show progress during training, always of the same, and the columns of their grid."""
        drawn = self.sample(trained.variables, self.config.sampling.n, self.config.sampling.seed)
        return None if drawn is None else (drawn["images"], 8)

    def translations(self, trained: Trained) -> dict[str, Translation]:
        """Return what a task of several sources makes of the evaluated examples, by direction; {}: nothing."""
        return {}

    def describe_samples(self) -> list[str]:
        """Return what the caption of samples says of them."""
        asked = self.config.sampling.label if self.classes else None
        labels = ["labels 0, 1, 2, ..." if asked is None else f"label {asked}"] if self.classes else []
        return [f"seed {self.config.sampling.seed}", *labels]

    def networks(self, variables: Variables) -> dict[str, tuple[nn.Module, Tree]]:
        """Return the Flax modules and their variables, by name; {}: there are none."""
        return {}

    def programs(self) -> dict[str, Program]:
        """Return what mode export writes, by name; by default the sampler, if there is one."""
        if self.generate is None:
            return {}
        label = {"label": label_input(self.class_names)} if self.classes else {}
        return {"sample": Program(self.generate, label, {"images": IMAGES})}

    def modes(self) -> dict[str, Callable[[Trained], int]]:
        """Return what runs the further modes that `gm_jax/defaults/<task>.py` names (MODES); it returns the status."""
        return {}


def check_label(config: ConfigDict, classes: int) -> None:
    """Raise UserError if `sampling.label` asks for a class that there is not."""
    if config.sampling.label is not None and not 0 <= config.sampling.label < classes:
        raise UserError(f"sampling.label={config.sampling.label} is not one of the {classes} classes")
