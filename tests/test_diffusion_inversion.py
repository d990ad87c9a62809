"""DDIM inversion on data for which the flow from image to noise is known: pixels ~ N(0, SPREAD^2)."""

import itertools

import jax
import numpy as np
import pytest

from gm_jax import random
from gm_jax.samplers.diffusion import Answer
from gm_jax.samplers.processes import Flow, LogNormal
from gm_jax.state import Variables
from gm_jax.tasks import diffusion_inversion as inversion
from tests.toys import NAMES, SHAPE, toy_task, trained

SPREAD = 0.2


def see(params, label, x, level):
    """The best guess E[x_0 | x]; its flow keeps x / sqrt(signal^2 SPREAD^2 + noise^2)."""
    assert label.shape == x.shape[:1]
    gain = level.signal * SPREAD**2 / (level.signal**2 * SPREAD**2 + level.noise**2)
    return Answer(gain * x, 0.0)


def width(levels, i):
    return np.hypot(levels.signal[i] * SPREAD, levels.noise[i])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(100, 156, (4, *SHAPE), np.uint8)


@pytest.mark.parametrize("process", [None, LogNormal(), Flow()], ids=["chain", "edm", "flow"])
def test_inversion_follows_the_flow_and_back(process, images, tmp_path, monkeypatch):
    task = toy_task("ddpm_mnist", NAMES, sampling__inversions=2, sampling__seed=3, diffusion__timesteps=1000)
    task.process, task.see = process or task.process, see
    levels = inversion.levels_to_walk(task.process)
    ratio = levels.noise / levels.signal
    assert np.all(np.diff(ratio) < 0) and ratio[-1] == 0.0 and 0.1 <= ratio[-2] < 0.2 and ratio[0] > 50
    state, seen = trained(Variables({}, {}, {}), tmp_path, {"image": images, "label": np.zeros(4, np.int32)}), []
    monkeypatch.setattr(inversion, "save_interpolation", lambda *given: seen.append(given))
    task.figures()["interpolation"](state)
    ((path, paths, make, caption, ends),) = seen
    assert path.name == "interpolation.png" and "inverted by DDIM" in str(caption)
    np.testing.assert_array_equal(np.concatenate(ends), state.examples(4)["image"])

    x0 = np.float64(state.examples(4)["image"]) / 127.5 - 1
    keys = random.example_keys(jax.random.key(3), np.arange(4))
    start = levels.signal[-2] * x0 + levels.noise[-2] * np.asarray(random.normal(keys, SHAPE))
    noise = (start * width(levels, 0) / width(levels, -2)).reshape(4, -1)
    np.testing.assert_allclose(np.concatenate([paths[:, 0], paths[:, -1]]), noise, rtol=0.08)  # Euler's error
    shrunk = 1.0
    for (a, b), (a_next, b_next) in itertools.pairwise(zip(levels.signal, levels.noise, strict=True)):
        guess = a * SPREAD**2 / (a**2 * SPREAD**2 + b**2)
        shrunk *= a_next * guess + b_next * (1 - a * guess) / b  # Song et al. 2021, eq. 12
    made = np.float64(make(paths[:, 0])).reshape(2, -1) / 127.5 - 1
    np.testing.assert_allclose(made, shrunk * paths[:, 0], atol=0.5 / 127.5 + 1e-4)


def test_no_figure_is_drawn_where_none_is_asked_for():
    assert "interpolation" not in toy_task("ddpm_mnist", NAMES, sampling__inversions=0).figures()
