"""The contract between a task and the loop, by a toy that uses all of it; `test_resume` kills it."""

import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from gm_jax import cluster, experiment, parallel
from gm_jax.checkpoint import Checkpoints
from gm_jax.errors import UserError
from gm_jax.interrupt import Interrupt
from gm_jax.portions import own_validation
from gm_jax.run import open_training, together
from gm_jax.stages import Stage
from gm_jax.tasks.task import Source
from gm_jax.train import train
from gm_jax.workdir import MetricsFile, Workdir, read_metrics
from tests.toy_translation import POOL, get_config

ORDER = []  # in which lines came onto the disk and checkpoints were saved


def noting(function, what):
    return lambda self, *given: ORDER.append(what) or function(self, *given)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The trained toy and its last state: six steps of four examples, six of eight."""
    folder, config = Workdir(tmp_path_factory.mktemp("toy")), get_config()
    config.seed, config.optim.ema_decay, config.checkpoint_every, config.keep_checkpoints = 3, 0.9, 2, 3
    run = open_training("toy_translation", config, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsFile, "sync", noting(MetricsFile.sync, "sync"))
        patch.setattr(Checkpoints, "save", noting(Checkpoints.save, "save"))
        assert train(run, "command", began=0.0) == 0
    state, _ = run.checkpoints.restore(12, run.experiment.state_shapes())
    return run, state


def test_a_run_begins_with_its_seed_and_each_stage_steps_with_its_own_phases(toy, monkeypatch):
    run, _ = toy
    monkeypatch.setattr(run.experiment, "initial", lambda key, fitted: jax.random.key_data(key))
    np.testing.assert_array_equal(run.experiment.init_state(), jax.random.key_data(jax.random.key(3)))
    monkeypatch.setattr(experiment, "make_optimizers", lambda config, networks, phases=(), rate=1.0: (networks, phases))
    monkeypatch.setattr(experiment, "make_train_step", lambda *given: given)
    for stage, names in enumerate((["cycle"], ["cycle", "pool"])):
        phases, optimizers, decays, seed = run.experiment.train_step(stage)
        assert [phase.name for phase in phases] == names and seed == 3 and decays == {"ab": 0.9, "ba": 0.9}
        assert optimizers == (("ab", "ba"), phases)  # what a lazy phase says of rates is said of this stage


def test_run_json_says_of_each_source_what_is_trained_on(toy):
    run, _ = toy
    about = run.workdir.run()["dataset"]
    sources = {"a": {"split": "train", "label": 0, "n": 134}, "b": {"split": "train", "label": 1, "n": 137}}
    assert about["trained_on"] == sources
    assert about["best_chosen_by"] == {"examples": "validation", "n": 10, "held_out": 14}


def test_a_second_signal_ends_the_process_at_once():
    """The first is noted; the next, and any after the work, does what it did before."""
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGTERM)
            assert (interrupt.signal, seen) == (signal.SIGTERM, [])
            signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGTERM]
        with Interrupt():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_averages_are_what_is_sampled_and_measured(toy):
    run, state = toy
    for net in ("ab", "ba"):
        trained = run.trained(state).variables.params[net]["kernel"]
        np.testing.assert_array_equal(trained, state.ema[net]["params"]["kernel"])
        assert not np.array_equal(trained, state.params[net]["kernel"])


def test_the_newest_the_best_and_any_kept_checkpoint_are_restored(toy, monkeypatch):
    """As many are kept as asked for; lines of metrics are on the disk before the checkpoint that follows them."""
    run, _ = toy
    assert run.checkpoints.steps() == [6, 8, 10, 12]  # step 6 was the best when step 12 was saved
    monkeypatch.setattr(run.checkpoints, "best_step", lambda: 8)
    assert [run.restore(which).step for which in ("newest", "best", "10")] == [12, 8, 10]
    assert ORDER == ["sync", "save"] * 6


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
    assert sizes == {"a": (134, 14), "b": (137, 15)} and run.held_out == ("validation", 14)
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
            found = split["image"][numbers[name].held_out] if numbers else run.split("test")["image"]
            assert all(np.any(np.all(image == found, (1, 2, 3))) for image in data[name]["image"])
    assert set(run.training()["b"]["label"]) == {1}
    for name, stream in run.sources().items():
        np.testing.assert_array_equal(stream.examples, run.portions[name].trained)


def test_of_every_source_there_are_as_many_examples_as_of_the_smallest():
    sources = {name: {"image": np.arange(n)} for name, n in (("a", 3), ("b", 5))}
    for n, expected in ((None, 3), (2, 2), (9, 3)):
        assert [len(examples["image"]) for examples in together(sources, n).values()] == [expected, expected]


def test_a_source_may_ask_for_several_attributes():
    data = {
        "image": np.zeros((6, 1, 1, 1)),
        "label": np.array([0, 1, 1, 0, 1, 1]),
        "size": np.array([0, 0, 1, 1, 1, 0]),
    }
    np.testing.assert_array_equal(Source("train", "test", {"label": 1, "size": 0}).members(data), [1, 5])
    np.testing.assert_array_equal(Source("train", "test").members(data), np.arange(6))


def test_all_splits_that_are_trained_on_are_compared_on_resume(toy, monkeypatch):
    run, _ = toy
    monkeypatch.setattr(run.task, "sources", lambda: {"a": Source("train", "test"), "b": Source("test", "test")})
    assert run.fingerprint(SimpleNamespace(fingerprint=str.upper)) == "TRAIN+TEST"


def test_an_own_validation_split_is_one_that_no_source_trains_on():
    sources = {"a": Source("train", "test"), "b": Source("val", "test")}
    for sizes, name in ((("train", "validation"), "validation"), (("train", "val"), None), (("train", "test"), None)):
        assert own_validation(SimpleNamespace(sizes=dict.fromkeys(sizes, 9)), sources) == name


def test_stages_follow_the_epochs_of_the_data(tmp_path):
    """137 images in batches of 4 are 36 steps, in calls of two; "b" is the longer source."""
    config = get_config()
    config.epochs = {"border": 1, "steps": 2}
    run = open_training("toy_translation", config, Workdir(tmp_path))
    assert (run.config.steps, run.config.border, run.experiment.stages[1].begin) == (72, 36, 36)


def test_what_cannot_work_is_told_before_anything_is_written(tmp_path):
    """A split that only the figures need, a batch of the second stage that the devices cannot share."""

    def refused(message, stages=None, **changes):
        config, folder = get_config(), Workdir(tmp_path)
        config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
        run = open_training("toy_translation", config, folder)
        run.experiment.stages = stages or run.experiment.stages
        with pytest.raises(UserError, match=message):
            train(run, "command", began=0.0)
        assert not list(tmp_path.iterdir())

    refused("tset", evaluation__split="tset")
    refused("batch_size=3 is not divisible by the 2 devices", [Stage(0, [], 4), Stage(6, [], 3)])


def test_one_process_at_a_time_trains_in_a_folder(toy):
    run, _ = toy
    before = run.workdir.run()
    with run.workdir.locked(), pytest.raises(UserError, match="another process is training in"):
        train(run, "command", began=0.0)
    assert run.workdir.run() == before
    with run.workdir.locked():  # it is free again
        pass


def test_several_processes_know_their_places(monkeypatch):
    np.testing.assert_array_equal(parallel.positions(6), [[0, 1, 2], [3, 4, 5]])
    monkeypatch.setattr(cluster, "_member", cluster.Member(1, 2))
    np.testing.assert_array_equal(parallel.positions(8), [[4, 5], [6, 7]])


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
