"""The contract between a task and the loop, by a toy that uses all of it; `test_resume` kills it."""

import jax
import numpy as np
import pytest

from gm_jax.errors import UserError
from gm_jax.run import open_training
from gm_jax.tasks.task import Source
from gm_jax.train import train
from gm_jax.workdir import Workdir, read_metrics
from tests.toy_translation import POOL, get_config


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The trained toy and its last state: six steps of four examples, six of eight."""
    folder = Workdir(tmp_path_factory.mktemp("toy"))
    run = open_training("toy_translation", get_config(), folder)
    assert train(run, "command", began=0.0) == 0
    state, _ = run.checkpoints.restore(12, run.experiment.state_shapes())
    return run, state


def test_a_stage_starts_the_optimisers_anew_that_it_names(toy):
    _, state = toy
    counts = {net: int(state.opt_state[net][0].count) for net in ("ab", "ba")}
    assert counts == {"ab": 6, "ba": 12 + 3}  # the pool's phase updates "ba" at steps 6, 8 and 10


def test_memory_holds_what_the_last_steps_made(toy):
    _, state = toy
    assert state.memory["seen"] == 6 * 4 + 6 * 8
    assert state.memory["pool"].shape == (POOL, 28, 28, 1) and state.memory["pool"].dtype == np.uint8
    assert len(np.unique(state.memory["pool"].reshape(POOL, -1), axis=0)) == POOL


def test_what_is_logged_are_the_means_of_what_was_due(toy):
    run, _ = toy
    first, _, second, third, held_out = read_metrics(run.workdir.metrics)
    assert "unevenness" not in first and "unevenness" in second and "unevenness" in third
    assert held_out["loss"] == pytest.approx(held_out["changed_a"] + held_out["changed_b"])


def test_sources_are_of_unequal_size_and_hold_out_examples_of_their_own(toy):
    run, _ = toy
    sizes = {name: (len(portion.trained), len(portion.held_out)) for name, portion in run.portions.items()}
    assert sizes == {"a": (134, 14), "b": (137, 15)}
    split = run.split("train")
    for number, portion in enumerate(run.portions.values()):
        everything = np.sort(np.concatenate(portion))
        np.testing.assert_array_equal(everything, np.flatnonzero(split["label"] == number))
    validation, examples = run.validation(), run.examples(None)
    for data, numbers in ((validation, run.portions), (examples, None)):
        assert set(data) == {"a", "b"} and len(data["a"]["image"]) == len(data["b"]["image"])
        for number, name in enumerate("ab"):
            assert set(data[name]["label"]) == {number}
            np.testing.assert_array_equal(data[name]["position"], np.arange(len(data[name]["image"])))
            if numbers:
                held_out = split["image"][numbers[name].held_out]
                assert all(np.any(np.all(image == held_out, (1, 2, 3))) for image in data[name]["image"])
    assert set(run.training()["b"]["label"]) == {1}


def test_a_source_may_ask_for_several_attributes():
    data = {
        "image": np.zeros((6, 1, 1, 1)),
        "label": np.array([0, 1, 1, 0, 1, 1]),
        "size": np.array([0, 0, 1, 1, 1, 0]),
    }
    np.testing.assert_array_equal(Source("train", "test", {"label": 1, "size": 0}).members(data), [1, 5])
    np.testing.assert_array_equal(Source("train", "test").members(data), np.arange(6))


def test_stages_that_a_call_would_cross_are_refused(tmp_path):
    config = get_config()
    config.border = 5
    with pytest.raises(UserError, match="a stage begins at step 5, not divisible by steps_per_call=2"):
        open_training("toy_translation", config, Workdir(tmp_path))


def test_every_stage_keeps_the_shape_of_the_state(toy):
    run, _ = toy
    state = jax.eval_shape(run.experiment.initial, jax.random.key(0))
    begun = jax.eval_shape(lambda s: run.experiment.begin(1, s), state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), begun)


def test_of_several_processes_one_writes(tmp_path):
    other = Workdir(tmp_path / "run", writes=False)
    other.create()
    assert not other.path.exists()
    writer = Workdir(tmp_path / "run")
    writer.create()
    with writer.locked(), other.locked():  # the lock is the writer's alone
        writer.claim(get_config())
        before = sorted(tmp_path.rglob("*"))
        other.claim(get_config())
        other.update_run(config="other")
        file = other.open_metrics(0)
        file.write(1, "train", {"loss": 1.0})
        file.sync()
        file.close()
        assert sorted(tmp_path.rglob("*")) == before and writer.run() == {}
