"""Start several processes of one job on this machine, and end them all when one of them dies."""

import os
import signal
import socket
import subprocess
import sys
import time

from gm_jax.errors import UserError

GRACE = 20  # seconds in which the others may end by themselves
PAUSE = 0.1  # seconds between two looks


def launch(processes: int) -> int:
    """Run this command line in so many processes; return their exit status, or that of the first that failed.

    Signals go on to all. Process i sees the i-th GPU alone.
    """
    if processes < 1:
        raise UserError(f"--processes={processes} is not a number of processes")
    running = start(processes)

    def forward(number: int, _) -> None:
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    old = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return wait(running)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def start(processes: int) -> list[subprocess.Popen]:
    """Start the processes, each in a session of its own: Ctrl-C reaches the launcher alone."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gm_jax.main", *sys.argv[1:], f"--coordinator=localhost:{port}"]
    return [
        subprocess.Popen(
            [*command, f"--process={i}"],
            start_new_session=True,
            env={**os.environ, "JAX_LOCAL_DEVICE_IDS": str(i)},  # read by jax.distributed, for GPUs
        )
        for i in range(processes)
    ]


def wait(running: list[subprocess.Popen]) -> int:
    """Wait until all have ended; after the first failure the others have some time, then they are killed."""
    failed = None
    while True:
        statuses = [process.poll() for process in running]
        if failed is None:
            # Of several at once, one that a signal killed: the others may have ended for its sake.
            failed = min((i for i, status in enumerate(statuses) if status), key=statuses.__getitem__, default=None)
            deadline = time.monotonic() + GRACE
        if None not in statuses:
            break
        if failed is not None and time.monotonic() > deadline:
            for process in running:
                process.kill()
        time.sleep(PAUSE)
    if failed is None:
        return 0
    status = statuses[failed] if statuses[failed] > 0 else 128 - statuses[failed]
    if statuses[failed] < 0 or len(set(statuses)) > 1:  # else they have said why
        died = signal.Signals(-statuses[failed]).name if statuses[failed] < 0 else f"exit status {statuses[failed]}"
        print(
            f"gm_jax: process {failed} of {len(running)} ended with {died}, and so did the job: start it again, and "
            "it goes on from its last checkpoint",
            file=sys.stderr,
            flush=True,
        )
    return status
