"""Checkpoints: what is damaged is never trusted, what is sound is never lost, the best and the newest are kept."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gm_jax import state as states
from gm_jax.checkpoint import Checkpoints
from gm_jax.errors import UserError


def make_state(step: int, width: int = 3) -> states.TrainState:
    variables = {"net": {"params": {"dense": {"kernel": jnp.full((2, width), step, jnp.float32)}}}}
    return states.create(variables, {"net": optax.adam(1e-3)}, {"net": 0.9}).replace(step=jnp.asarray(step, jnp.int32))


def save(directory, steps, scores=None, keep=2):
    checkpoints = Checkpoints(directory, keep=keep, better="min")
    for step in steps:
        loss = (scores or {}).get(step)
        checkpoints.save(step, make_state(step), {"window": {}}, loss)
    checkpoints.close()
    return checkpoints


def test_round_trip_is_exact(tmp_path):
    checkpoints = save(tmp_path, [1])
    restored, meta = checkpoints.restore(1, make_state(0))
    assert jax.tree.structure(restored) == jax.tree.structure(make_state(0))
    jax.tree.map(np.testing.assert_array_equal, restored, jax.device_get(make_state(1)))
    assert meta["window"] == {}


def test_keeps_the_last_two_and_the_best(tmp_path):
    checkpoints = save(tmp_path, [1, 2, 3, 4, 5], scores={1: 0.5, 2: 0.1, 3: 0.3, 4: 0.2})
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoints")
    save(directory, [1, 2])
    return directory


def files_of(directory):
    """Every file of checkpoint 2 that holds content, by its path within."""
    root = directory / "2"
    return sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file() and p.stat().st_size)


@pytest.mark.parametrize("how", ["truncated", "bit flipped", "removed"])
def test_damaged_newest_falls_back(two_checkpoints, tmp_path, how, caplog):
    """Whichever file is hurt, a restore either proves the very same arrays or goes back to the one before."""
    fell_back = 0
    for number, name in enumerate(files_of(two_checkpoints)):
        directory = tmp_path / str(number)
        shutil.copytree(two_checkpoints, directory)
        path = directory / "2" / name
        content = bytearray(path.read_bytes())
        if how == "truncated":
            path.write_bytes(content[: len(content) // 2])
        elif how == "bit flipped":
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        else:
            path.unlink()
        checkpoints = Checkpoints(directory)
        restored, _ = checkpoints.restore_newest(make_state(0))
        step = int(restored.step)
        jax.tree.map(np.testing.assert_array_equal, restored, jax.device_get(make_state(step)))
        if step == 1:
            fell_back += 1
            assert (directory / "2.corrupt").is_dir() and not (directory / "2").exists()
            assert "damaged" in caplog.text and "going on from 1" in caplog.text
            save(directory, [2])  # the next save is really written
            assert int(Checkpoints(directory).restore_newest(make_state(0))[0].step) == 2
    assert fell_back >= 3  # the meta file, the manifest, the arrays


def test_sound_files_with_other_values_are_damaged_too(two_checkpoints, tmp_path):
    """Orbax notices much of what a disk does to its files; only our checksums notice other arrays of the same shape."""
    directory = tmp_path / "c"
    shutil.copytree(two_checkpoints, directory)
    shutil.rmtree(directory / "2" / "state")
    shutil.copytree(directory / "1" / "state", directory / "2" / "state")
    restored, _ = Checkpoints(directory).restore_newest(make_state(0))
    assert int(restored.step) == 1 and (directory / "2.corrupt").is_dir()


def test_every_damaged_checkpoint_of_a_step_is_kept(tmp_path):
    """A step that is hurt again, after it was made anew, does not replace what was moved aside before."""
    for _ in range(3):
        save(tmp_path, [step for step in (1, 2) if not (tmp_path / str(step)).exists()])
        (tmp_path / "2" / "meta" / "metadata").write_text("{}")
        assert int(Checkpoints(tmp_path).restore_newest(make_state(0))[0].step) == 1
    assert {path.name for path in tmp_path.glob("2.*")} == {"2.corrupt", "2.corrupt2", "2.corrupt3"}


def test_all_damaged_is_an_error_and_moves_nothing(two_checkpoints, tmp_path):
    directory = tmp_path / "c"
    shutil.copytree(two_checkpoints, directory)
    for step in (1, 2):
        (directory / str(step) / "meta" / "metadata").write_text("{}")
    with pytest.raises(UserError, match=r"every checkpoint .* is damaged"):
        Checkpoints(directory).restore_newest(make_state(0))
    assert Checkpoints(directory).steps() == [1, 2]


def test_another_model_is_refused_by_name(two_checkpoints):
    with pytest.raises(UserError, match=r"dense/kernel is \(\[2, 3\], 'float32'\) there and \(\[2, 4\], 'float32'\)"):
        Checkpoints(two_checkpoints).restore_newest(make_state(0, width=4))


def test_saving_a_step_twice_is_an_error(tmp_path):
    with pytest.raises(UserError, match="refused to save step 1"):
        save(tmp_path, [2, 1])
