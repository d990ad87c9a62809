"""What of a task can leave gm_jax: functions whose inputs and outputs are told in words (`Task.programs`)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

IMAGES = "images, NHWC, 0 ... 255"


class Input(NamedTuple):
    """An input of a program.

    Attributes:
        shape: of one example.
        dtype: such as "uint8".
        meaning: what it is and which values it may have.
    """

    shape: tuple[int, ...]
    dtype: str
    meaning: str


class Program(NamedTuple):
    """A function of trained networks.

    Attributes:
        function: (variables, batch of the inputs and "position", keys [B]) -> {name: [B, ...]}, as all functions of a
            task; every example by itself.
        inputs: by name, without the batch.
        outputs: what each is, by name.
    """

    function: Callable
    inputs: dict[str, Input]
    outputs: dict[str, str]


def image_input(shape: Sequence[int]) -> Input:
    """Return an input of images of a shape (height, width, channels)."""
    return Input(tuple(shape), "uint8", IMAGES)


def label_input(names: Sequence[str]) -> Input:
    """Return an input of classes, whose names are given."""
    return Input((), "int32", f"the class asked for: {legend(names)}")


def legend(names: Sequence[str]) -> str:
    """Return which number stands for which class."""
    numbers = [str(i) for i in range(len(names))]
    if list(names) == numbers:
        return f"0 ... {numbers[-1]}"
    return ", ".join(f"{number} {name}" for number, name in zip(numbers, names, strict=True))


def latent_input(dimensions: int, meaning: str) -> Input:
    """Return an input of vectors."""
    return Input((dimensions,), "float32", meaning)
