"""The signature test: a run killed at any moment and started again ends with the bits of the run never killed."""

import json

import numpy as np
import pytest

from tests.tiny import flags, gm_jax

CONFIG = dict(steps=12, log_every=1, checkpoint_every=4, evaluate_every=6)


def leaves(workdir, step):
    """Checksums of params, optimiser state and EMA; every restore verifies them against the arrays."""
    sealed = json.loads((workdir / "checkpoints" / str(step) / "meta" / "metadata").read_text())
    return sealed["content"]["leaves"]


KILLS = {
    # Before the first checkpoint, during the second save, between two with SIGTERM, after that, at the very end.
    "ddpm_mnist": [
        ("SIGKILL", "step", 3),
        ("SIGKILL", "save", 8),
        ("SIGTERM", "step", 7),
        ("SIGKILL", "step", 10),
        ("SIGKILL", "save", 12),
    ],
    "dcgan_mnist:modern": [("SIGTERM", "step", 5), ("SIGKILL", "save", 12)],
}
STATUS = {"SIGKILL": -9, "SIGTERM": 143}


@pytest.mark.parametrize("experiment", KILLS)
def test_killed_run_ends_with_the_same_bits(experiment, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = gm_jax(*flags(experiment, whole, **CONFIG))
    assert result.returncode == 0, result.stderr

    for signal, moment, step in KILLS[experiment]:
        script = f"-m tests.interrupted {signal} {moment} {step}"
        result = gm_jax(*flags(experiment, killed, **CONFIG), script=script)
        assert result.returncode == STATUS[signal], f"{signal} at {moment} {step}: {result.returncode}\n{result.stderr}"
        if signal == "SIGTERM":
            assert "python -m gm_jax.main --config=" in result.stdout
            assert (killed / "checkpoints" / str(step)).is_dir()
    result = gm_jax(*flags(experiment, killed, **CONFIG))
    assert result.returncode == 0, result.stderr

    assert leaves(whole, 12) == leaves(killed, 12)
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    steps = [json.loads(line)["step"] for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 12]
    starts = json.loads((killed / "run.json").read_text())["starts"]
    assert starts[-1]["from_step"] == 8 and len(starts) >= 3

    for workdir in (whole, killed):
        assert gm_jax(*flags(experiment, workdir, **CONFIG), "--mode=sample").returncode == 0
    images = [np.load(workdir / "samples.npz")["images"] for workdir in (whole, killed)]
    np.testing.assert_array_equal(*images)
    assert images[0].dtype == np.uint8 and len(images[0]) == 4


def test_a_checkpoint_moves_between_one_and_two_devices(tmp_path):
    for devices, steps in ((1, 2), (2, 4), (1, 6)):
        result = gm_jax(*flags("ddpm_mnist", tmp_path, steps=steps), devices=devices)
        assert result.returncode == 0, result.stderr
        if steps > 2:
            assert f"from step {steps - 2}" in result.stdout
            assert "Another environment" in result.stderr  # the bits may differ, and it says so
    assert [line["step"] for line in map(json.loads, (tmp_path / "metrics.jsonl").open())] == [2, 4, 4, 6]
