"""Directories that appear whole or not at all, whoever else writes the same one."""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_DAY = 24 * 3600


def usable(root: Path, size: int) -> bool:
    """Make `root` if need be; whether it can be written and has room (a memory map on a full disk ends the process)."""
    existing = next(path for path in (root, *root.parents) if path.exists())
    # The mode counts for the superuser too: who marks a directory read-only means everybody.
    if not existing.stat().st_mode & 0o222 or not os.access(existing, os.W_OK):
        return False
    if shutil.disk_usage(existing).free < size + 2**20:
        return False
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


@contextlib.contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """Give a temporary directory to write into; when the block ends without an error it replaces `directory`."""
    for left in directory.parent.glob(f".{directory.name}.*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > _DAY:
            shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's 0700 would hide it from other users
        _replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, directory: Path) -> None:
    """Rename `temporary` to `directory`; of two processes the last one wins."""
    while True:
        try:
            os.rename(temporary, directory)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        # A directory cannot replace one that is not empty: move that aside, unless another process just did.
        aside = tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent)
        try:
            os.rename(directory, aside)
        except FileNotFoundError:
            continue
        finally:
            shutil.rmtree(aside, ignore_errors=True)
