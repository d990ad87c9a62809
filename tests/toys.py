"""Phases with toy networks, each one line of NumPy: whole losses are compared with what can be worked out by hand.

The real networks are compared with PyTorch's elsewhere. Expected values are NumPy, float64; raw noise is drawn by
`gm_jax.random` in the way that the docstrings say, and handed to them.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gm_jax.figures.caption import Caption
from gm_jax.stages import Context, Phase
from gm_jax.state import Variables
from gm_jax.step import AXIS, derive
from gm_jax.tasks import DataSpec, Task, make_task
from gm_jax.tasks.task import Trained, take
from gm_jax.workdir import Workdir
from tests.tiny import shrunk

SHAPE = (4, 4, 1)  # of an image, ...
PIXELS = 16
NAMES = ("a", "b", "c")  # ... which shows one of these

Tree = Any
close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, to make parameters of: the same in every test."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def batch_of(n: int) -> dict[str, np.ndarray]:
    """n labelled images whose places in the global batch are not their places here."""
    image = np.random.default_rng(n).integers(0, 256, (n, *SHAPE), dtype=np.uint8)
    label, position = np.arange(n, dtype=np.int32) % len(NAMES), np.roll(np.arange(n, dtype=np.int32), 3)
    return {"image": image, "label": label, "position": position}


def toy_task(experiment: str, names: tuple[str, ...] = NAMES, **changes: Any) -> Task:
    """The task of a shrunk config for images of SHAPE; its networks are still the real ones."""
    return make_task(shrunk(experiment, **changes), DataSpec(SHAPE, names))


def compare(actual: Tree, expected: Tree) -> None:
    """The same tree of nearly the same numbers."""
    jax.tree.map(close, actual, expected)


def run(function: Callable, *arguments: Tree) -> Tree:
    """Call a function on one device, under the mapped axis of a step; its result in float64."""
    mapped = jax.pmap(lambda one: function(*one), axis_name=AXIS, devices=jax.devices()[:1])
    return jax.tree.map(lambda x: np.float64(x[0]), mapped(jax.tree.map(lambda x: x[None], arguments)))


def check_phases(
    phases: Sequence[Phase],
    variables: Variables,
    batch: dict,
    context: Context,
    draw: Callable,
    *expected: Callable,
) -> Tree:
    """Compare each phase's loss, metrics, new state and gradient with what is expected.

    `draw` is (batch, key) -> the raw noise; `expected` are (params, noise) -> (loss, metrics, model_state), the last
    with the networks that the phase changes. A gradient is compared along a random direction in its network's
    parameters, with central differences of the expected loss.

    Returns:
        The noise.
    """
    params = variables.params

    def everything(variables, batch, context):
        def gradient(phase):
            found, slope = derive(phase, variables, batch, context)
            return found, slope[phase.nets[0]]

        # One program: XLA draws the noise once for all.
        return [gradient(phase) for phase in phases], draw(batch, context.key)

    found, noise = run(everything, variables, batch, context)
    for phase, ((loss, result), slope), expect in zip(phases, found, expected, strict=True):
        values = (loss, result.metrics, result.model_state or {})
        assert result.memory is None
        check(phase.nets[0], values, slope, params, lambda own, expect=expect: expect(own, noise))
    return noise


def check(net: str, values: Tree, slope: Tree, params: dict[str, Tree], expected: Callable) -> None:
    """Compare one phase's values and the gradient in the parameters of its network."""
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda p: rng.normal(size=np.shape(p)), params[net])

    def at(step):
        own = jax.tree.map(lambda p, d: np.float64(p) + step * d, params[net], direction)
        return expected({**params, net: own})

    compare(values, at(0.0))
    along = sum(np.sum(s * d) for s, d in zip(*map(jax.tree.leaves, (slope, direction)), strict=True))
    close(along, (at(1e-5)[0] - at(-1e-5)[0]) / 2e-5)
    assert along != 0.0


def same_pictures(actual: np.ndarray, expected: np.ndarray) -> None:
    """The same uint8 images, but for a few pixels that are rounded the other way."""
    assert actual.dtype == np.uint8
    np.testing.assert_allclose(np.float64(actual), expected, atol=1.0)
    assert np.mean(actual != expected) < 0.02


CAPTION = Caption("toy", "toys", 1)


def trained(variables: Variables, path: Path, data: dict | None = None) -> Trained:
    """What figures take."""
    variables = jax.tree.map(np.asarray, variables)
    workdir, spec = Workdir(path), DataSpec(SHAPE, NAMES)
    return Trained(variables, workdir, spec, lambda n: take(data, n), CAPTION, lambda: None)


def at_step(key: jax.Array, step: int = 0) -> Context:
    """The context of a loss."""
    return Context(key, np.int32(step))


def record(monkeypatch, module, *names: str) -> dict[str, tuple]:
    """Put a recorder in place of the functions of a module that write figures: {path's name: arguments after it}."""
    seen = {}
    for name in names:
        monkeypatch.setattr(module, name, lambda path, *arguments: seen.update({path.name: arguments}))
    return seen
