"""Orbax checkpoints: asynchronous, checksummed leaf by leaf; damaged ones are moved aside, never trusted.

Every process has the whole state, so of several, process 0 alone saves and restores; `cluster.hand_out` does the rest.

A checkpoint of step N is the folder `checkpoints/N` with two items: `state` (the arrays of `TrainState`) and `meta`
(JSON: a checksum, shape and dtype for every leaf, and what the loop wants to remember). Orbax itself restores a flipped
bit or another shape without a word.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from gm_jax.errors import UserError
from gm_jax.state import TrainState

# Of several processes, only the first calls Orbax, which else makes all wait for each other.
ALONE = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})


class Damaged(Exception):
    """A checkpoint whose content is not what was saved."""


def _digest(data: bytes | np.ndarray) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _leaves(state: TrainState) -> dict[str, Any]:
    """Return the leaves of a state by path, such as "params/denoiser/Conv_0/kernel"."""
    return flax.traverse_util.flatten_dict(flax.serialization.to_state_dict(state), sep="/")


def _describe(leaf: np.ndarray) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "blake2b": _digest(leaf.tobytes())}


def _seal(content: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of JSON content (it is written later, in the background) with its checksum."""
    content = json.loads(json.dumps(content))
    return {"content": content, "blake2b": _digest(json.dumps(content, sort_keys=True).encode())}


class Checkpoints:
    """The checkpoints of one run, in `directory`: the last `keep` and the one with the best score."""

    def __init__(self, directory: Path, keep: int = 2, better: str = "min"):
        """Scores, which `save` is given, are better when they are "min" or "max"."""
        self.directory = directory
        self._keep = keep
        self._better = better
        self._manager: ocp.CheckpointManager | None = None

    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, ascending."""
        if not self.directory.is_dir():
            return []
        return sorted(int(path.name) for path in self.directory.iterdir() if path.name.isdigit())

    def best_step(self) -> int | None:
        """The step with the best score; None if none has been evaluated."""
        scores = {step: self._score(step) for step in self.steps()}
        scores = {step: score for step, score in scores.items() if score is not None}
        return max(scores, key=scores.get) if scores else None

    def save(self, step: int, state: TrainState, meta: dict[str, Any], score: float | None) -> None:
        """Start writing a checkpoint; returns when the arrays are copied, the rest happens in the background.

        `meta` must be JSON; `score` is that of this step's evaluation, or None. Files take their final name only when
        complete, so a run killed while saving keeps the checkpoint before.

        Raises:
            UserError: the checkpoint was not written.
        """
        host = jax.device_get(state)
        content = {
            "step": step,
            "score": None if score is None else float(score),
            "leaves": {path: _describe(np.asarray(leaf)) for path, leaf in _leaves(host).items()},
            **meta,
        }
        saved = self._open().save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(flax.serialization.to_state_dict(host)),
                meta=ocp.args.JsonSave(_seal(content)),
            ),
        )
        if not saved:
            raise UserError(f"Orbax refused to save step {step} in {self.directory}: is another run writing there?")

    def restore(self, step: int, target: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Return the state (NumPy leaves) and the meta of one checkpoint; `target` is a state or its shapes.

        Raises:
            Damaged: unreadable, or its content is not what was saved.
            UserError: it holds other arrays than `target`, so another model wrote it.
        """
        meta = self.read_meta(step)
        _check_same_arrays(step, _leaves(target), meta["leaves"])
        template = flax.serialization.to_state_dict(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), target))
        try:
            handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=ALONE)
            with ocp.Checkpointer(handler, multiprocessing_options=ALONE) as reader:
                # As NumPy, so that a checkpoint from any number and kind of devices restores on any other.
                kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
                tree = reader.restore(
                    self.directory / str(step) / "state", args=ocp.args.PyTreeRestore(template, restore_args=kinds)
                )
        except Exception as error:  # the libraries below raise many kinds for a damaged file
            raise Damaged(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        state = flax.serialization.from_state_dict(target, tree)
        for path, leaf in _leaves(state).items():
            if _describe(np.asarray(leaf)) != meta["leaves"][path]:
                raise Damaged(f"the checksum of {path} differs")
        return state, meta

    def restore_newest(self, target: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Restore the newest sound checkpoint, None if there is none; damaged newer ones become `N.corrupt`.

        Raises:
            UserError: every checkpoint is damaged (then none is moved), or another model wrote it.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, target)
            except Damaged as error:
                damaged[step] = str(error)
                continue
            for bad, reason in damaged.items():
                aside = self._move_aside(bad)
                logging.warning(
                    "checkpoint %d is damaged (%s): moved to %s; going on from %d", bad, reason, aside.name, step
                )
            return restored
        if damaged:
            reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
            raise UserError(
                f"every checkpoint in {self.directory} is damaged ({reasons}): restore one from a backup, or start "
                "anew with another --workdir"
            )
        return None

    def wait(self) -> None:
        """Wait until the last save is on disk; raises what its writing raised."""
        if self._manager is not None:
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait and release Orbax's threads."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def read_meta(self, step: int) -> dict[str, Any]:
        """Return what was saved beside the arrays.

        Raises:
            Damaged: unreadable, or not what was saved.
        """
        try:
            sealed = json.loads((self.directory / str(step) / "meta" / "metadata").read_text())
            intact = sealed == _seal(sealed["content"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(f"its meta file cannot be read: {error}") from error
        if not intact:
            raise Damaged("the checksum of its meta file differs")
        return sealed["content"]

    def _score(self, step: int) -> float | None:
        """Return the score of a checkpoint, signed so that more is better; None if it has none."""
        try:
            value = self.read_meta(step)["score"]
        except Damaged as error:
            logging.warning("Checkpoint %d is damaged: %s", step, error)
            return None
        return None if value is None else (value if self._better == "max" else -value)

    def _move_aside(self, step: int) -> Path:
        path = self.directory / str(step)
        number, aside = 1, path.with_name(f"{step}.corrupt")
        while aside.exists():
            number += 1
            aside = path.with_name(f"{step}.corrupt{number}")
        os.rename(path, aside)
        return aside

    def _open(self) -> ocp.CheckpointManager:
        """Open Orbax's manager at the first save, after damaged checkpoints have been moved aside."""
        if self._manager is None:
            policy = preservation_policy.AnyPreservationPolicy(
                [preservation_policy.LatestN(self._keep), _KeepBest(self)]
            )
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=policy,
                    cleanup_tmp_directories=True,
                    create=False,
                    multiprocessing_options=ALONE,
                ),
                item_names=("state", "meta"),
            )
        return self._manager


class _KeepBest(preservation_policy.PreservationPolicy):
    """Preserve the best checkpoint; the score is read from our own checksummed meta file.

    (`best_fn` with `max_to_keep` would delete the newest checkpoint if it is not among the best.)
    """

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints

    def should_preserve(self, checkpoints, *, context):
        best = self._checkpoints.best_step()
        return [info.step == best for info in checkpoints]


def _check_same_arrays(step: int, wanted: dict[str, Any], saved: dict[str, Any]) -> None:
    """Raise UserError unless the checkpoint holds arrays of the same names, shapes and dtypes."""
    for path in sorted(wanted.keys() | saved.keys()):
        want = (list(wanted[path].shape), str(wanted[path].dtype)) if path in wanted else None
        have = (saved[path]["shape"], saved[path]["dtype"]) if path in saved else None
        if want != have:
            raise UserError(
                f"checkpoint {step} is of another model: {path} is {have or 'absent'} there and {want or 'absent'} in "
                "this config: use the config that wrote it, or another --workdir"
            )
