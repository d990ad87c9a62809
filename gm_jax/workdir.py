"""A run's folder: its config, run.json, metrics.jsonl; refuses what another config or process writes."""

import contextlib
import fcntl
import functools
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from gm_jax import cluster
from gm_jax.defaults.table import flatten, starting_config
from gm_jax.errors import UserError

# Keys that cannot change the numbers of a run, so that they may differ when it goes on. Where the data lie is such a
# key because what they are is checked by their checksum.
NEUTRAL = ("steps", "log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints", "sampling.",
           "dataset.data_dir", "dataset.folder", "epochs.", "rows", "minutes", "rollbacks")  # fmt: skip


FORMAT = 2  # of what lies in a workdir; it grows when older checkpoints and configs cannot be read any more


def is_neutral(key: str) -> bool:
    """True for a dotted key that may change when a run is resumed."""
    return any(key == name or (name.endswith(".") and key.startswith(name)) for name in NEUTRAL)


def write_json(path: Path, value: Any) -> None:
    """Write JSON through a temporary file, so that a reader or a kill never meets half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(temporary, path)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, after the half one that a kill may have left there."""
    with path.open("a+b") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write(b"\n")
        file.write(line.encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read JSON; None if there is no such file.

    Raises:
        UserError: not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): restore or delete it") from error


class Workdir:
    """The folder of one run; of several processes, one reads and writes there."""

    def __init__(self, path: str | Path, writes: bool = True):
        """Where `writes` is False, what would write does nothing, or writes into a folder that is thrown away."""
        self.path = Path(path).absolute()
        self.writes = writes

    def folder(self, name: str) -> Path:
        """Return a folder in this one, made if it is not there; of a process that does not write, one to throw away.

        So all processes of a job can draw and measure alike.
        """
        folder = (self.path if self.writes else cluster.scratch()) / name
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    @property
    def figures(self) -> Path:
        """The folder of the figures, see `folder`."""
        return self.folder("figures")

    def create(self) -> None:
        """Make the folder and try whether it can be written.

        Raises:
            UserError: it cannot.
        """
        cluster.tell(self._create)

    def _create(self) -> None:
        if not self.writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe.{os.getpid()}"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"cannot write to the workdir {self.path} ({error.strerror}): choose another with --workdir"
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the lock dies with the process, also when it is killed.

        Raises:
            UserError: another process holds it.
        """
        with contextlib.ExitStack() as held:
            cluster.tell(lambda: self._lock(held))
            yield

    def _lock(self, held: contextlib.ExitStack) -> None:
        if not self.writes:
            return
        lock = held.enter_context((self.path / ".lock").open("a"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another process is training in {self.path}: wait for it, or stop it first") from error
        except OSError as error:
            logging.warning(
                "%s: no locks on this storage (%s): see to it that nobody else trains there", self.path, error.strerror
            )
        lock.truncate(0)
        self._owner = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"
        lock.write(self._owner)
        lock.flush()

    def check_owner(self) -> None:
        """Raise UserError if another process has begun to train here since, as it can where storage has no locks."""
        if self.writes and (self.path / ".lock").read_text() != self._owner:
            raise UserError(f"another process has begun to train in {self.path}: this one ends, and saves nothing more")

    def saved_config(self) -> ConfigDict:
        """Return the config that wrote this folder.

        Raises:
            UserError: there is none, or an older gm_jax wrote it.
        """
        config = cluster.tell(self._saved_config)
        for key, value in new_keys(flatten(config)).items():
            *groups, name = key.split(".")
            functools.reduce(lambda group, part: group.setdefault(part, {}), groups, config)[name] = value
        return ConfigDict(config)

    def _saved_config(self) -> dict[str, Any]:
        config = read_json(self.path / "config.json")
        if config is None:
            raise UserError(f"there is no run in {self.path}: train first, or name its folder with --workdir")
        self.check_format()
        return config

    def check(self, config: ConfigDict) -> None:
        """Refuse a config that would change the numbers of the work that lies here.

        Raises:
            UserError: naming the fields that differ.
        """
        cluster.tell(lambda: self._check(config))

    def _check(self, config: ConfigDict) -> None:
        saved = read_json(self.path / "config.json")
        has_work = any(self.checkpoints.glob("[0-9]*")) or read_metrics(self.metrics)
        if saved is not None and has_work:
            self.check_format()
            saved = flatten(saved)
            refuse_changes({**new_keys(saved), **saved}, flatten(config), self.path)

    def check_format(self) -> None:
        """Raise UserError if another gm_jax wrote the run, whose config and checkpoints this one cannot read."""
        record = self.run()
        if record and record.get("format", 1) != FORMAT:
            commit, there = record.get("code", {}).get("commit", "that one's commit"), record.get("format", 1)
            raise UserError(
                f"{self.path} was written by a gm_jax of another format ({there}, now {FORMAT}): check out {commit}, "
                "or train anew with another --workdir"
            )

    def claim(self, config: ConfigDict) -> None:
        """Write config.json, once the config has proved to work."""
        cluster.tell(lambda: self._claim(config))

    def _claim(self, config: ConfigDict) -> None:
        self._check(config)
        if self.writes:
            write_json(self.path / "config.json", json.loads(config.to_json()))

    def update_run(self, **values: Any) -> None:
        """Set keys of run.json."""
        if self.writes:
            write_json(self.path / "run.json", {**self._run(), **values})

    def open_metrics(self, step: int) -> "MetricsFile":
        """Open metrics.jsonl to go on after `step`."""
        return MetricsFile(self.metrics if self.writes else None, step)

    def run(self) -> dict[str, Any]:
        """Return run.json ({} if there is none)."""
        return cluster.tell(self._run)

    def _run(self) -> dict[str, Any]:
        return read_json(self.path / "run.json") or {}


def new_keys(saved: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that a task's configs have by now and a flat one of an earlier day has not, with their defaults.

    Those of the networks are a config's own.
    """
    defaults = flatten(starting_config(saved["task"]))
    return {key: value for key, value in defaults.items() if key not in saved and not key.startswith("model.")}


def refuse_changes(saved: dict[str, Any], config: dict[str, Any], where: Path) -> None:
    """Raise UserError if two flat configs differ in a key that changes the numbers."""
    absent = object()
    changed = [
        f"{key} ({saved.get(key, 'absent')} there, {config.get(key, 'absent')} now)"
        for key in sorted(saved.keys() | config.keys())
        if not is_neutral(key) and saved.get(key, absent) != config.get(key, absent)
    ]
    if changed:
        raise UserError(
            f"{where} was written by another config: {', '.join(changed)}: use those values, or another --workdir"
        )


class MetricsFile:
    """metrics.jsonl: one JSON object a line, {"step", "split", metrics by name}; ends the same however often killed."""

    def __init__(self, path: Path | None, step: int):
        """Open the file and cut it behind `step`: later lines, or half a line, are of work that was lost.

        None: of a process that does not write.
        """
        self._file, kept = None, b""
        if path is None:
            return
        if step and not path.exists():
            logging.warning("%s is gone: it begins anew after step %d, and so do the figures of curves", path, step)
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                        break
                except ValueError:
                    break
                kept += line
        self._file = path.open("ab")
        self._file.truncate(len(kept))

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Append one line."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, "split": split, **metrics}).encode() + b"\n")
        self._file.flush()

    def sync(self) -> None:
        """Put the lines on disk; called before a checkpoint commits."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a metrics.jsonl, not the half one that a kill may leave; [] if there is no such file.

    Raises:
        UserError: a line that is not JSON.
    """
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    try:
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): restore it, or delete it to lose its curves alone") from error
