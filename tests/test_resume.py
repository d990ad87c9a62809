"""The signature test: a run killed at any moment and started again ends with the bits of the run never killed."""

import json
import shlex
from typing import NamedTuple

import pytest

from gm_jax.workdir import read_metrics
from tests.test_stylegan import GROWTH
from tests.tiny import CONFIGS, EVERY_GAN_OPTION, ROOT, flags, gm_jax, train_tiny


class Chain(NamedTuple):
    """A run that is killed again and again: what differs from the shrunk config, the (signal, moment, step) of each."""

    changes: dict
    kills: list[tuple[str, str, int]]
    continued: set[int]  # the steps from which the last start may go on; a save may or may not survive its kill


# Metrics windows are half full at a checkpoint, calls make several steps, and evaluations fall between log lines. What
# is not said here is as in test_configs.py: then the programs are the same, too.
CHAINS = {
    "ddpm_mnist": Chain(
        dict(steps=10, log_every=5, checkpoint_every=3, evaluate_every=10),
        [("SIGTERM", "call", 3), ("SIGKILL", "step", 10)],
        {6, 9},
    ),
    # Batch statistics, spectral vectors, a moving average, a lazy phase that skips calls, several critic steps.
    "cgan_mnist:modern": Chain(
        dict(steps=12, steps_per_call=2, log_every=4, checkpoint_every=6, evaluate_every=6)
        | EVERY_GAN_OPTION
        | dict(gan__r1_every=3),
        [("SIGTERM", "call", 6), ("SIGKILL", "save", 12)],
        {8, 12},
    ),
    # Two sources, a joint gradient, a memory, and a border between two stages at step 6, where an optimiser starts
    # anew: killed before the first checkpoint, stopped there, killed soon after, stopped in the first call behind it,
    # killed while the last checkpoint is written.
    "toy_translation": Chain(
        {},
        [
            ("SIGKILL", "step", 4),
            ("SIGTERM", "call", 4),
            ("SIGKILL", "step", 8),
            ("SIGTERM", "call", 6),
            ("SIGKILL", "save", 12),
        ],
        {8, 12},
    ),
    # A fade from 8 to 16 pixels from step 4 on: stopped on the border, killed in the middle of the fade.
    "stylegan_shapes": Chain(
        GROWTH,
        [("SIGTERM", "call", 2), ("SIGKILL", "step", 6)],
        {4, 6},
    ),
    # A pool of ten images in each domain: it holds eight when the run is stopped, and is full at the second kill.
    "cyclegan_shapes": Chain(
        dict(steps=5, log_every=5, checkpoint_every=2, evaluate_every=5),
        [("SIGTERM", "call", 0), ("SIGKILL", "save", 4)],
        {2, 4},
    ),
    # Augmentation, dropout.
    "fnn_cifar10:modern": Chain(
        dict(steps=18, steps_per_call=3, log_every=6, checkpoint_every=9, evaluate_every=9),
        # During the first checkpoint, and between two.
        [("SIGKILL", "save", 9), ("SIGTERM", "call", 12)],
        {15},
    ),
}
STATUS = {"SIGKILL": -9, "SIGTERM": 143}


def sealed(workdir, step):
    """Checksums of params, optimiser state and EMA (every restore verifies them against the arrays), score, window."""
    return json.loads((workdir / "checkpoints" / str(step) / "meta" / "metadata").read_text())["content"]


def arguments(experiment, workdir, changes):
    """The command line of a shrunk config, or of the toy."""
    if experiment in CONFIGS or ":" in experiment:
        return flags(experiment, workdir, **changes)
    return [f"--config={ROOT}/tests/{experiment}.py", f"--workdir={workdir}"]


@pytest.mark.parametrize("experiment", CHAINS)
def test_killed_run_ends_with_the_same_bits(experiment, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    changes, kills, continued = CHAINS[experiment]
    result = gm_jax(*arguments(experiment, whole, changes), devices=2)
    assert result.returncode == 0, result.stderr
    config = json.loads((whole / "config.json").read_text())

    for signal, moment, step in kills:
        script = f"-m tests.interrupted {signal} {moment} {step}"
        result = gm_jax(*arguments(experiment, killed, changes), script=script, devices=2)
        assert result.returncode == STATUS[signal], f"{signal} at {moment} {step}: {result.returncode}\n{result.stderr}"
        if signal == "SIGTERM":
            command = f"python -m gm_jax.main {shlex.join(arguments(experiment, killed, changes))}\n"
            assert f"Continue with:\n  {command}" in result.stdout
            assert (killed / "checkpoints" / str(step + config["steps_per_call"])).is_dir()
    result = gm_jax(*arguments(experiment, killed, changes), devices=2)
    assert result.returncode == 0, result.stderr
    assert json.loads((killed / "run.json").read_text())["starts"][-1]["from_step"] in continued

    assert sealed(whole, config["steps"]) == sealed(killed, config["steps"])
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    lines = [(line["step"], line["split"]) for line in read_metrics(whole / "metrics.jsonl")]
    every = {"train": config["log_every"], "validation": config["evaluate_every"]}
    steps = range(1, config["steps"] + 1)
    assert lines == [(step, split) for step in steps for split in every if step % every[split] == 0]
    figures = [{path.name: path.read_bytes() for path in (run / "figures").iterdir()} for run in (whole, killed)]
    assert figures[0].keys() == figures[1].keys() and figures[0]
    assert [name for name in figures[0] if figures[0][name] != figures[1][name]] == []


def test_a_checkpoint_moves_between_one_and_two_devices(tmp_path, capsys, caplog):
    train_tiny(tmp_path, "fnn_cifar10", steps=2)
    result = gm_jax(*flags("fnn_cifar10", tmp_path, steps=4), devices=1)
    assert result.returncode == 0, result.stderr
    assert "from step 2" in result.stdout
    assert "Another environment" in result.stderr  # the bits may differ, and it says so
    train_tiny(tmp_path, "fnn_cifar10", steps=6)
    assert "from step 4" in capsys.readouterr().out and "Another environment" in caplog.text
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [2, 4, 4, 6]
