"""Several processes of one job: which one writes, and how all learn what that one knows.

All run the same program on the same config. Process 0 alone locks, reads and writes the workdir; what it finds there,
and what goes wrong with it, it tells to the others. Every function here must be called by all processes alike.
"""

import atexit
import functools
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

import numpy as np
from absl import logging

from gm_jax.errors import UserError

T = TypeVar("T")

PATIENCE = 7 * 24 * 3600  # seconds to wait for what process 0 tells: it ends with that process
PIECE = 2**22  # bytes that are broadcast at once
SAME_MISTAKE = 5  # seconds within which processes that meet the same mistake meet each other


class Member(NamedTuple):
    """This process's place among those of the job, and JAX's service through which they talk."""

    index: int
    count: int
    client: Any = None


_member = Member(0, 1)
_told = 0  # how often something was told
_telling = False


def join(member: Member) -> None:
    """Be this member of a job from now on; all but process 0 speak only of errors."""
    global _member
    _member = member
    if member.index:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (as long as the process lives)
        logging.set_verbosity(logging.ERROR)


def is_writer() -> bool:
    """True in the one process that locks, reads and writes the workdir."""
    return _member.index == 0


@functools.cache
def scratch() -> Path:
    """Return a folder that is thrown away at the end: where the other processes write what process 0 keeps."""
    folder = tempfile.TemporaryDirectory(prefix="gm_jax_")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def index() -> int:
    """The number of this process in the job."""
    return _member.index


def count() -> int:
    """How many processes the job has."""
    return _member.count


def tell(function: Callable[[], T]) -> T:
    """Call a function in process 0 alone; return in all processes what it returned, which is JSON.

    Raises:
        UserError: that the function raised, in all processes.
    """
    global _told, _telling
    if _member.count == 1 or _telling:
        return function()
    _told += 1
    key = f"gm_jax/told/{_told}"
    if not is_writer():
        answer = json.loads(_member.client.blocking_key_value_get(key, PATIENCE * 1000))
        if "mistake" in answer:
            raise UserError(answer["mistake"])
        return answer["value"]
    _telling = True
    try:
        value = function()
    except UserError as error:
        _member.client.key_value_set(key, json.dumps({"mistake": str(error)}))
        raise
    finally:
        _telling = False
    _member.client.key_value_set(key, json.dumps({"value": value}))
    return value


def first(function: Callable[[], T]) -> T:
    """Call a function in process 0, then in the others: they find on disk what it downloaded or decoded."""
    if not is_writer():
        tell(bool)
        return function()
    try:
        return function()
    finally:
        tell(bool)


def check_same(what: str, value: Any) -> None:
    """Raise UserError in a process where a value, which is JSON, is not that of process 0."""
    if tell(lambda: value) != json.loads(json.dumps(value)):
        raise UserError(f"process {_member.index} has {what} other than process 0: give all processes the same")


def broadcast(tree: Any) -> Any:
    """Return process 0's arrays, bit for bit; the others give arrays of the same shapes and types."""
    if _member.count == 1:
        return tree
    import jax
    from jax.experimental import multihost_utils

    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    # As bytes: JAX adds up what the processes give, and -0.0 + 0.0 is 0.0. In equal pieces, so that one program does.
    content = b"".join(x.tobytes() for x in leaves)
    sent = bytearray()
    for start in range(0, len(content), PIECE):
        piece = np.frombuffer(content[start : start + PIECE].ljust(PIECE, b"\0"), np.uint8)
        sent += np.asarray(multihost_utils.broadcast_one_to_all(piece)).tobytes()
    found, begin = [], 0
    for x in leaves:
        found.append(np.frombuffer(sent, x.dtype, x.size, begin).reshape(x.shape))
        begin += x.nbytes
    return jax.tree.unflatten(structure, found)


def hand_out(read: Callable[[], tuple[Any, Any] | None], like: Any) -> tuple[Any, Any] | None:
    """Call `read` in process 0 alone; return in all processes what it found: arrays like those of `like`, and JSON.

    Raises:
        UserError: that `read` raised, in all processes.
    """
    found = None

    def look() -> Any:
        nonlocal found
        found = read()
        return None if found is None else [found[1]]

    about = tell(look)
    if about is None:
        return None
    import jax

    arrays = found[0] if is_writer() else jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    return broadcast(arrays), about[0]


def lost_another(error: Exception) -> bool:
    """True if an error tells of another process's death: a collective's connection broke."""
    return "Connection closed by peer" in str(error) or "Connection reset by peer" in str(error)


def all_fail(message: str) -> bool:
    """True if every process of the job calls this with the same message within some seconds."""
    name = f"gm_jax/mistake/{hashlib.sha256(message.encode()).hexdigest()}"
    try:
        _member.client.wait_at_barrier(name, SAME_MISTAKE * 1000)
    except Exception:  # the service tells everything by one kind of error: that the time is up, or a process gone
        return False
    return True


def leave(status: int, message: str, orderly: bool = True) -> NoReturn:
    """End this process after a failure, with one line; the others of a job, which wait for it, end too.

    Of a mistake that all have made, process 0 alone speaks. Where it cannot be `orderly`, nothing more is written.
    """
    together = orderly and (_member.count == 1 or (status == 2 and all_fail(message)))
    if is_writer() or not together:
        whose = "" if is_writer() else f" (process {_member.index})"
        print(f"gm_jax{whose}: {message}", file=sys.stderr, flush=True)
    if together:
        sys.exit(status)  # leaving JAX's service in good order
    sys.stderr.flush()
    os._exit(status)  # that order would be waited for in vain
