"""Every shipped config, shrunk, through the real loop and every mode; and what a workdir then holds."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from gm_jax import evaluate, sample
from gm_jax.errors import UserError
from gm_jax.run import Run, open_trained, open_training
from gm_jax.train import train
from gm_jax.workdir import Workdir, read_metrics
from tests.tiny import EXPERIMENTS, load, open_tiny, shrunk, train_tiny


def network(config: ConfigDict) -> tuple[str, str | None]:
    """Return the task of a config and the kind of its networks."""
    return config.task, config.model.get("name")


def first_of_each(kind: Callable) -> dict:
    """Return for every value of `kind(config)` an experiment: the first in the alphabet."""
    return {kind(load(name)): name for name in reversed(EXPERIMENTS)}


FIRST_OF_TASK = first_of_each(lambda config: config.task)
FIRST_OF_NETWORK = first_of_each(network)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_config_trains_and_one_of_each_network_does_all_else(name, tmp_path):
    """All in one test: training is what takes long."""
    run = open_tiny(tmp_path / "run", name, checkpoint_every=3)
    first = FIRST_OF_NETWORK[network(run.config)]
    if name != first:
        leave_out_what_another_draws(run, open_tiny(tmp_path / "first", first))
    assert train(run, "command", began=0.0) == 0
    check_workdir(name, run)
    if name in FIRST_OF_TASK.values():
        check_that_stopping_changes_nothing(name, run, tmp_path / "stopped")
    if name == first:
        check_other_modes(name, run.workdir)


def leave_out_what_another_draws(run: Run, other: Run) -> None:
    """Let a run draw its samples and those figures alone that another run of the same network does not draw."""
    known = other.task.figures().keys() - {"samples"}
    figures = {name: draw for name, draw in run.task.figures().items() if name not in known}
    run.task.figures = lambda: figures


def check_workdir(name: str, run: Run) -> None:
    """The workdir holds what the contract says."""
    workdir = run.workdir
    record = workdir.run()
    assert record["config"] == name and record["parameters"] and record["starts"][-1]["to_step"] == 4
    assert {"devices", "jax", "xla_flags"} <= record["environment"].keys()
    assert record["rows"] == list(load(name).rows)
    training = [(2, "train"), (4, "train")] if run.task.phases() else []
    lines = [(line["step"], line["split"]) for line in read_metrics(workdir.metrics)]
    held_out = min(run.config.dataset.validation, record["dataset"]["sizes"]["train"] // 10)
    scored = "validation" if held_out else "seen"
    assert lines == [*training, (4, scored)]
    assert record["dataset"]["best_chosen_by"] == {"examples": scored, "n": 10, "held_out": held_out}
    assert list(workdir.path.glob("events.out.tfevents.*"))
    for figure in run.task.figures():
        picture = Image.open(workdir.figures / f"{figure}.png")
        assert min(picture.size) > 50
        assert (picture.text["config"], picture.text["data"], picture.text["step"]) == (name, run.spec.name, "4")
    assert run.checkpoints.steps() == [3, 4]


def check_that_stopping_changes_nothing(name: str, whole: Run, path: Path) -> None:
    """A run that goes on from step 3, in the middle of a window of metrics, ends with the bits of `whole`."""
    shutil.copytree(whole.workdir.path, path, ignore=shutil.ignore_patterns("4", "figures"))
    stopped = train_tiny(path, name, checkpoint_every=3)
    assert [start["from_step"] for start in stopped.workdir.run()["starts"]] == [0, 3]
    metas = [run.checkpoints.read_meta(4) for run in (whole, stopped)]
    assert metas[0] == metas[1]
    assert whole.workdir.metrics.read_bytes() == stopped.workdir.metrics.read_bytes()
    for figure in stopped.workdir.figures.glob("*.png"):
        assert figure.read_bytes() == (whole.workdir.figures / figure.name).read_bytes()


def check_other_modes(name: str, workdir: Workdir) -> None:
    """A trained network is evaluated, draws its figures again, and samples if it can; it stays what it is."""
    opened = open_trained(name, {"sampling.n": 3, "sampling.seed": 5, "evaluation.n": 9}, workdir)
    assert evaluate.evaluate(opened, "newest") == 0
    results = json.loads((workdir.path / "evaluation.json").read_text())["results"]
    assert results and all(result["n"] == 9 and "split" in result and "seed" in result for result in results.values())
    assert all(np.all(np.isfinite(result["value"])) for result in results.values())
    assert all(results[key]["unit"] == unit for key, unit in opened.task.units.items() if key in results)
    drawn = [workdir.figures / f"{figure}.png" for figure in opened.task.figures()]
    shutil.rmtree(workdir.figures)
    assert sample.figures(opened, "best") == 0 and all(path.exists() for path in drawn)
    if opened.task.sample(opened.restore("newest").variables, 3, 5) is None:
        with pytest.raises(UserError, match="draws no samples"):
            sample.sample(opened, "newest")
    else:
        assert sample.sample(opened, "newest") == 0
        images = np.load(workdir.path / "samples.npz")["images"]
        assert images.shape == (3, *opened.spec.image_shape) and images.dtype == np.uint8
    with pytest.raises(UserError, match=r"seed=77, but .* was trained with 0"):
        open_trained(name, {"seed": 77}, workdir)


def test_divergence_is_told_in_one_line_and_never_saved(tmp_path):
    """A checkpoint of every step, and lines of metrics after four only: each looks for itself."""
    changes = dict(optim__name="sgd", optim__learning_rate=1e30, optim__warmup_steps=0, optim__clip_norm=None)
    changes |= dict(log_every=4, checkpoint_every=1, keep_checkpoints=9)
    with pytest.raises(UserError) as told:
        train_tiny(tmp_path, "fnn_mnist", **changes)
    step = re.match(r"(?:loss|grad_norm/\w+) is (?:nan|inf) at step ([1-4]): training has diverged", str(told.value))[1]
    assert open_tiny(tmp_path, "fnn_mnist", **changes).checkpoints.steps() == [*range(1, int(step))]


def test_embedded_data_shorten_the_run_unless_the_user_says_otherwise(tmp_path):
    config = shrunk("ddpm_mnist", if_embedded={"steps": 2, "optim": {"decay_steps": 7}})
    run = open_training("ddpm_mnist", config, Workdir(tmp_path), overrides=["steps"])
    assert (run.config.steps, run.config.optim.decay_steps) == (4, 7)


def test_epochs_become_steps_once_the_data_are_known(tmp_path):
    """Of the 1,350 digits that train; in whole calls, and one at least. What the user gives, or the data, stays."""
    config = shrunk("vae_mnist", if_embedded={"evaluate_every": 25}, steps_per_call=5)
    config.epochs = {
        **dict(steps=3, log_every=1, evaluate_every=1, checkpoint_every=0.001, sampling=dict(n=1)),
        **dict(optim=dict(decay_steps=2, warmup_steps=0.5, hold_steps=1), vae=dict(warmup_steps=1)),
    }
    overrides = {"sampling.n": 9}
    config.sampling.n = 9
    epoch = 170  # the steps of 8 examples each that take 1,350, rounded up to a multiple of 5
    run = open_training("vae_mnist", config, Workdir(tmp_path), overrides)
    assert len(run.portions["images"].trained) == 1350
    assert (run.config.steps, run.config.log_every, run.config.checkpoint_every) == (3 * epoch, epoch, 5)
    assert (run.config.optim.decay_steps, run.config.optim.warmup_steps) == (2 * epoch, epoch // 2)
    assert (run.config.optim.hold_steps, run.config.vae.warmup_steps) == (epoch, epoch)
    assert (run.config.evaluate_every, run.config.sampling.n) == (25, 9)


def test_a_step_of_several_batches_has_more_of_an_epoch(tmp_path):
    config = shrunk("wgan_mnist", gan__critic_steps=5)
    config.epochs = {"steps": 2}
    assert open_training("wgan_mnist", config, Workdir(tmp_path)).config.steps == 2 * 34  # 1,350 / (5 x 8)
