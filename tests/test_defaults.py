"""Keys of the config: ranges as data, epochs that are counted once the data are known, modes of a task."""

import pytest
from ml_collections import ConfigDict

from gm_jax.defaults import base_config, gan_config, set_epochs
from gm_jax.defaults import table as defaults
from gm_jax.defaults.table import flatten
from gm_jax.errors import UserError
from gm_jax.experiment import Experiment
from gm_jax.portions import count_epochs
from gm_jax.run import open_training
from gm_jax.tasks import TASKS, DataSpec
from gm_jax.workdir import Workdir
from tests.tiny import CONFIGS, EXPERIMENTS, load, open_tiny, shrunk

MNIST = DataSpec((28, 28, 1), tuple("0123456789"))


@pytest.mark.parametrize(
    ("experiment", "key", "value", "said"),
    [
        ("ddpm_mnist", "optim.learning_rate", -1e-3, "optim.learning_rate=-0.001 must not be negative"),
        ("ddpm_mnist", "optim.learning_rate", float("nan"), "optim.learning_rate=nan must be at least 0"),
        ("ddpm_mnist", "optim.beta1", 1.0, "optim.beta1=1.0 is not in [0, 1)"),
        ("ddpm_mnist", "sampling.eta", 1.5, "sampling.eta=1.5 is not in [0, 1]"),
        ("ddpm_mnist", "optim.clip_norm", 0.0, "optim.clip_norm=0.0 must be above 0"),
        ("ddpm_mnist", "evaluation.n", 0, "evaluation.n=0 must be at least 1"),
        ("ddpm_mnist", "diffusion.schedule", "cosin", "(did you mean 'cosine'?)"),
        ("cgan_mnist", "optim.generator.learning_rate", -1.0, "optim.generator.learning_rate=-1.0 must not be"),
        ("cgan_mnist", "optim.discriminator.clip_weights", 0.0, "optim.discriminator.clip_weights=0.0 must be above 0"),
        ("stylegan_shapes", "growth.rates", (1.0, -2.0), "growth.rates=-2.0 must be above 0"),
        ("gmm_mnist", "model.components", 0, "model.components=0 must be at least 1"),
        ("naive_bayes_mnist", "model.smoothing", 0.0, "model.smoothing=0.0 must be above 0"),
        ("sparse_autoencoder_mnist:kl", "autoencoder.target_activity", 0.0, "target_activity=0.0 is not in (0, 1)"),
    ],
)
def test_values_out_of_their_range_are_refused_before_training(experiment, key, value, said, tmp_path):
    with pytest.raises(UserError) as told:
        open_tiny(tmp_path, experiment, **{key.replace(".", "__"): value})
    assert said in str(told.value) and str(told.value).startswith(key)
    assert not list(tmp_path.iterdir())


def test_both_ends_of_a_range_are_as_it_is_written():
    for allowed, inside, outside in (
        ("[0, 1)", (0, 0.5), (-0.1, 1)),
        ("(0, 1]", (0.5, 1), (0, 1.1)),
        ("(0, inf)", (1e-9, 1e9), (0, -1)),
        ("[1, inf)", (1, 1e9), (0.9,)),
        (("a", "b"), ("a",), ("c",)),
    ):
        for value in inside:
            defaults.check_value("key", value, allowed)
        for value in outside:
            with pytest.raises(UserError, match=r"^key="):
                defaults.check_value("key", value, allowed)


def test_a_network_has_the_range_of_all_unless_it_has_its_own():
    known = {"optim.rate": "[0, 1]", "optim.critic.rate": "[0, 5]"}
    defaults.check_config(ConfigDict({"optim": {"rate": 1, "critic": {"rate": 4}, "other": {"rate": None}}}), known)
    for optim in ({"rate": 4}, {"critic": {"rate": 6}}, {"other": {"rate": 4}}):
        with pytest.raises(UserError, match=r"^optim\..*rate="):
            defaults.check_config(ConfigDict({"optim": optim}), known)


@pytest.mark.parametrize("task", [*TASKS])
def test_every_range_is_of_a_key_and_holds_for_what_is_shipped(task):
    configs = [load(experiment) for experiment in EXPERIMENTS if load(experiment).task == task]
    if not configs:  # the toy of the tests
        return
    keys = set().union(*(flatten(config) for config in configs))
    assert set(defaults.ranges(task)) <= keys
    for config in configs:
        defaults.check_config(config, defaults.ranges(task))


def counted(config, examples, given=()):
    experiment = Experiment(config, MNIST)
    assert count_epochs(config, experiment, examples, given)
    return {key: flatten(config)[key] for key in flatten(config.epochs)}


def test_epochs_are_of_the_examples_that_are_there():
    config = gan_config()
    config.batch_size, config.steps_per_call = 50, 3
    set_epochs(config, epochs=10, checkpoint_epochs=5, evaluate_epochs=2)
    config.epochs.optim.warmup_steps = 0.5
    # 5,000 examples are 100 batches, rounded up to 102 steps in calls of three.
    expected = {"steps": 1020, "optim.decay_steps": 1020, "log_every": 102, "evaluate_every": 204}
    assert counted(config, 5000) == {**expected, "checkpoint_every": 510, "optim.warmup_steps": 51}
    assert counted(config, 50_000)["steps"] == 10 * 1002
    config.gan.critic_steps = 5  # a step consumes five batches
    assert counted(config, 5000)["log_every"] == 21
    config.steps = 7
    assert counted(config, 5000, given=("steps", "log_every"))["steps"] == 7


def test_no_epochs_leave_all_steps_as_they_are():
    config = base_config("gan")
    assert not count_epochs(config, Experiment(shrunk("gan_mnist"), MNIST), 1000, ())


def test_a_run_counts_the_epochs_of_its_own_data_unless_told_otherwise(tmp_path):
    def steps(overrides=(), **changes):
        config = shrunk("fnn_mnist", **changes)
        config.update_from_flattened_dict(dict(overrides))
        config.epochs = {"steps": 2, "checkpoint_every": 1}
        run = open_training("fnn_mnist", config, Workdir(tmp_path), dict(overrides))
        return run.config.steps, run.config.checkpoint_every

    assert steps(batch_size=10) == (2 * 135, 135)  # 1,500 digits, 150 of them held out
    assert steps(batch_size=10, dataset__validation=0) == (300, 150)
    assert steps({"steps": 8}, batch_size=10) == (8, 135)
    assert steps(batch_size=10, if_embedded={"steps": 12}) == (12, 135)


def test_a_task_may_have_modes_of_its_own(monkeypatch):
    of_all = ("train", "sample", "evaluate", "figures", "export")
    assert defaults.modes("gan") == of_all == defaults.modes("no such task")
    monkeypatch.setattr("gm_jax.defaults.gan.MODES", ("translate",), raising=False)
    assert defaults.modes("gan") == (*of_all, "translate")


def test_every_config_names_its_rows():
    rows = {experiment: tuple(load(experiment).rows) for experiment in EXPERIMENTS}
    assert rows["ddpm_mnist"] == ("D1",) and rows["cgan_mnist:matching"] == ("T8",) and rows["lenet_mnist"] == ()
    table = (CONFIGS["ddpm_mnist"].parent.parent / "docs" / "reports.md").read_text()
    for experiment, ids in rows.items():
        assert all(f"| {row}" in table or f", {row} |" in table for row in ids), experiment
    assert sum(not ids for ids in rows.values()) == 1
