"""Every shipped config, shrunk, through the real loop and every mode; and what a workdir then holds."""

import json

import numpy as np
import pytest
from PIL import Image

from gm_jax import evaluate, sample
from gm_jax.errors import UserError
from gm_jax.run import open_trained, open_training
from gm_jax.workdir import Workdir, read_metrics
from tests.tiny import CONFIGS, EVERY_GAN_OPTION, EXPERIMENTS, load, open_tiny, shrunk, train_tiny

ONE_PER_TASK = {load(name).task: name for name in reversed(CONFIGS)}  # the first in the alphabet; for gan, cgan_mnist


@pytest.fixture(scope="module", params=EXPERIMENTS)
def trained(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(request.param.replace(":", "_"))
    return request.param, train_tiny(workdir, request.param), Workdir(workdir)


def test_workdir_holds_what_the_contract_says(trained):
    name, run, workdir = trained
    record = json.loads((workdir.path / "run.json").read_text())
    assert record["config"] == name and record["parameters"] and record["starts"][-1]["to_step"] == 4
    assert {"devices", "jax", "xla_flags"} <= record["environment"].keys()
    training = [(2, "train"), (4, "train")] if run.task.phases() else []
    lines = [(line["step"], line["split"]) for line in read_metrics(workdir.metrics)]
    held_out = min(run.config.dataset.validation, record["dataset"]["sizes"]["train"] // 10)
    scored = "validation" if held_out else "seen"
    assert lines == [*training, (4, scored)]
    assert record["dataset"]["best_chosen_by"] == {"examples": scored, "n": 10, "held_out": held_out}
    assert list(workdir.path.glob("events.out.tfevents.*"))
    for figure in run.task.figures():
        assert min(Image.open(workdir.figures / f"{figure}.png").size) > 50
    assert run.checkpoints.steps() == [2, 4]


def test_other_modes(trained):
    name, run, workdir = trained
    opened = open_trained(name, {"sampling.n": 3, "sampling.seed": 5, "evaluation.n": 9}, workdir)
    assert evaluate.evaluate(opened, "newest") == 0
    results = json.loads((workdir.path / "evaluation.json").read_text())["results"]
    assert results and all(result["n"] == 9 and "split" in result and "seed" in result for result in results.values())
    assert all(np.all(np.isfinite(result["value"])) for result in results.values())
    assert sample.figures(opened, "best") == 0
    if opened.task.sample(opened.restore("newest"), 3, 5) is None:
        with pytest.raises(UserError, match="draws no samples"):
            sample.sample(opened, "newest")
        return
    assert sample.sample(opened, "newest") == 0
    images = np.load(workdir.path / "samples.npz")["images"]
    assert images.shape == (3, *run.spec.image_shape) and images.dtype == np.uint8


def test_overrides_that_make_another_model_are_refused(trained):
    name, _, workdir = trained
    with pytest.raises(UserError, match=r"seed=77, but .* was trained with 0"):
        open_trained(name, {"seed": 77}, workdir)


@pytest.mark.parametrize("name", sorted(ONE_PER_TASK.values()))
def test_three_and_three_steps_equal_six(name, tmp_path):
    """Stop and restore within one process; the subprocess test kills a DDPM and a GAN in earnest."""
    options = EVERY_GAN_OPTION if name == ONE_PER_TASK["gan"] else {}
    changes = dict(evaluate_every=3, checkpoint_every=3, log_every=2, **options)
    train_tiny(tmp_path / "halves", name, steps=3, **changes)
    halves = train_tiny(tmp_path / "halves", name, steps=6, **changes)
    whole = train_tiny(tmp_path / "whole", name, steps=6, **changes)
    metas = [run.checkpoints.read_meta(6) for run in (halves, whole)]
    assert metas[0] == metas[1]
    assert halves.workdir.metrics.read_bytes() == whole.workdir.metrics.read_bytes()


def test_divergence_is_told_in_one_line(tmp_path):
    changes = dict(optim__name="sgd", optim__learning_rate=1e30, optim__warmup_steps=0, optim__clip_norm=None)
    with pytest.raises(UserError, match=r"(loss|grad_norm/denoiser) is (nan|inf) at step [1-4]: training has diverged"):
        train_tiny(tmp_path, **changes)
    assert open_tiny(tmp_path, **changes).checkpoints.steps() in ([], [2])


def test_embedded_data_shorten_the_run_unless_the_user_says_otherwise(tmp_path):
    config = shrunk("ddpm_mnist", if_embedded={"steps": 2, "optim": {"decay_steps": 7}})
    run = open_training("ddpm_mnist", config, Workdir(tmp_path), overrides=["steps"])
    assert (run.config.steps, run.config.optim.decay_steps) == (4, 7)
