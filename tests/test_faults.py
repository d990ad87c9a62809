"""What goes wrong around a run: a full disk, images that cannot be read, storage without locks."""

import errno
import gzip
import os
import struct
import subprocess
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gm_jax import workdir
from gm_jax.data import folder
from gm_jax.data.builders import idx
from gm_jax.errors import UserError, is_full_disk
from gm_jax.experiment import Experiment
from gm_jax.workdir import Workdir, read_metrics
from tests.kill_storm import storm
from tests.tiny import flags, gm_jax, train_tiny

FULL = dict(steps=12, log_every=2, checkpoint_every=2, evaluate_every=12, keep_checkpoints=9)


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for a few checkpoints alone; skipped where nobody may mount."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def test_a_full_disk_is_told_and_the_run_goes_on_once_there_is_room(small_disk):
    run = small_disk / "run"
    result = gm_jax(*flags("fnn_cifar10", run, **FULL))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(
        "gm_jax: there is no room left where the run is written: make some"
    )
    sound = sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    assert sound and sound[-1] < 12
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    result = gm_jax(*flags("fnn_cifar10", run, **FULL))
    assert result.returncode == 0 and f"from step {sound[-1]}" in result.stdout, result.stderr
    steps = [(line["step"], line["split"]) for line in read_metrics(run / "metrics.jsonl")]
    assert steps == [*((step, "train") for step in range(2, 13, 2)), (12, "validation")]


def test_a_full_disk_is_recognised_behind_other_errors():
    try:
        try:
            raise OSError(errno.ENOSPC, "no room")
        except OSError as error:
            raise ValueError("something else") from error
    except ValueError as error:
        assert is_full_disk(error)
    assert is_full_disk(ValueError("RESOURCE_EXHAUSTED: ... No space left on device"))
    assert not is_full_disk(OSError(errno.EACCES, "no"))


def test_storage_without_locks_is_warned_about_and_the_later_run_prevails(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(workdir.fcntl, "flock", refuse)
    first, second = Workdir(tmp_path), Workdir(tmp_path)
    with first.locked():
        assert "no locks on this storage" in caplog.text
        first.check_owner()
        with second.locked():
            second.check_owner()
            with pytest.raises(UserError, match="another process has begun to train"):
                first.check_owner()


def test_one_that_finds_the_folder_locked_does_not_take_it(tmp_path):
    first, second = Workdir(tmp_path), Workdir(tmp_path)
    with first.locked():
        with pytest.raises(UserError, match="another process is training"), second.locked():
            pass
        first.check_owner()


def test_images_that_cannot_be_read_are_left_out_on_request_and_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("GM_JAX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "images"
    root.mkdir()
    for i in range(4):
        Image.fromarray(np.full((8, 8, 3), 50 * i, np.uint8)).save(root / f"{i}.png")
    content = (root / "2.png").read_bytes()
    (root / "2.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"2\.png cannot be read"):
        folder.load(root, "mine", None).split("all")
    for _ in range(2):  # the second time it is known
        found = folder.load(root, "mine", None, skip_corrupt=True)
        assert found.skipped == ("2.png",) and found.sizes["all"] == 3
        assert found.split("all").images[:, 0, 0, 0].tolist() == [0, 50, 150]
        assert "1 of 4 images cannot be read and are left out" in caplog.text
        caplog.clear()
    (root / "2.png").write_bytes(content)
    assert folder.load(root, "mine", None, skip_corrupt=True).skipped == ()


def test_a_run_that_diverges_goes_back_with_lower_rates_and_so_does_one_that_was_stopped(tmp_path, caplog, monkeypatch):
    """The fifth step gives NaN, unless the rates are a quarter of the config's."""
    train_step = Experiment.train_step

    def wild(self, stage=0, rate=1.0):
        step = train_step(self, stage, rate)

        def replaced(state, batch):
            after, metrics = step(state, batch)
            bad = (state.step == 4) & (rate > 0.25)
            return after, {**metrics, "loss": jnp.where(bad, jnp.nan, metrics["loss"])}

        return replaced

    monkeypatch.setattr(Experiment, "train_step", wild)
    changes = dict(log_every=3, checkpoint_every=2, evaluate_every=12, keep_checkpoints=9)
    whole = train_tiny(tmp_path / "whole", "fnn_mnist", **changes, steps=9, rollbacks=2)
    rollbacks = [{"metric": "loss", "step": 5, "to": 4}] * 2
    assert whole.workdir.run()["rollbacks"] == rollbacks and whole.checkpoints.read_meta(8)["rollbacks"] == rollbacks
    assert "loss is nan at step 5: training has diverged: going back to step 4, with rates of 0.25" in caplog.text

    with pytest.raises(UserError, match=r"diverged \(gone back 0 times; the last good checkpoint is of step 4\)"):
        train_tiny(tmp_path / "parts", "fnn_mnist", **changes, steps=9)
    for steps in (6, 9):  # it goes on from a step before that at which it diverged, and from one after
        parts = train_tiny(tmp_path / "parts", "fnn_mnist", **changes, steps=steps, rollbacks=2)
    assert whole.checkpoints.read_meta(9) == parts.checkpoints.read_meta(9)
    assert whole.workdir.metrics.read_bytes() == parts.workdir.metrics.read_bytes()

    params = {"kernel": jnp.ones(3)}
    full, half = (whole.experiment.optimizers(0, rate)["classifier"] for rate in (1.0, 0.5))
    moves = [o.update(params, o.init(params), params, step=jnp.int32(5))[0]["kernel"] for o in (full, half)]
    np.testing.assert_allclose(moves[1], moves[0] / 2, rtol=1e-6)
    assert np.all(moves[0] != 0)


def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    """The short form of `python -m tests.kill_storm`."""
    assert storm("fnn_mnist", tmp_path, 1, np.random.default_rng()).total() == 1


def test_an_image_that_would_fill_the_memory_is_refused_by_its_header(tmp_path):
    """A picture of 60 bytes that says it is 40,000 pixels wide and high."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = [struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    with pytest.raises(UserError, match=r"bomb\.png cannot be read \(Image size \(1600000000 pixels\) exceeds limit"):
        folder.load(tmp_path, "mine", 64)


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "MOST", 1000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(2000)))
    with pytest.raises(UserError, match="holds more than 1000 bytes"):
        idx.read_idx(tmp_path / "bomb.gz", 1)
