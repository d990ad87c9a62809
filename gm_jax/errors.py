"""The one exception that stands for a mistake the user can mend."""

import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """A mistake that the user can mend: one line that says what is wrong and what to do.

    `gm_jax.main` prints the message without a traceback and exits with status 2.
    """


def is_full_disk(error: BaseException | None) -> bool:
    """True if an error, or one that it follows from, is of a disk without room, or of a quota that is used up."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def run_command(main: Callable[[list[str]], int]) -> None:
    """Run a command on this process's arguments and exit with its status; a user's mistake is one line, status 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"gm_jax: {error}", file=sys.stderr)
        sys.exit(2)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the known name nearest to `name`, or "" if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
