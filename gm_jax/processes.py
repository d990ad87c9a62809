"""Run command lines beside each other, each on its share of the CPU cores, until all are done or a signal comes."""

import concurrent.futures
import os
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gm_jax.errors import UserError
from gm_jax.interrupt import Interrupt


class Job(NamedTuple):
    """Commands that are run one after another, as long as they succeed.

    Attributes:
        name: what messages call it.
        log: the file to which their output is appended.
        commands: each a list of arguments, the program first.
    """

    name: str
    log: Path
    commands: list[list[str]]


def share_cores(processes: int) -> list[list[int]]:
    """Return the CPU cores of each of so many processes; UserError if there are not enough."""
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= processes <= len(cores):
        raise UserError(f"--jobs={processes} is not from 1 to {len(cores)}, the number of CPU cores")
    share = len(cores) // processes
    return [cores[i * share : (i + 1) * share] for i in range(processes)]


def run_jobs(jobs: Sequence[Job], cores: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Run jobs, as many at once as there are lists of `cores`; return how many failed, and the signal that came or 0.

    On SIGTERM or Ctrl-C the running commands get SIGTERM, and no others are started.
    """
    runner, shares = _Runner(), queue.SimpleQueue()
    for share in cores:
        shares.put(share)

    def start_thread() -> None:
        os.sched_setaffinity(0, shares.get())  # of this thread, and so of the processes that it starts

    failed = 0
    with Interrupt() as interrupt, concurrent.futures.ThreadPoolExecutor(len(cores), initializer=start_thread) as pool:
        waiting = {pool.submit(runner.run, job) for job in jobs}
        while waiting:
            done, waiting = concurrent.futures.wait(waiting, 0.2, concurrent.futures.FIRST_COMPLETED)
            for failure in filter(None, (future.result() for future in done)):
                failed += 1
                print(f"gm_jax: {failure}", file=sys.stderr, flush=True)
            if interrupt.signal:
                runner.stop()
    return failed, interrupt.signal or 0


class _Runner:
    """Runs jobs, from several threads, until it is stopped."""

    def __init__(self):
        self._running: set[subprocess.Popen] = set()
        self._stopped = False

    def stop(self) -> None:
        """Ask what runs to end, once, and start nothing more."""
        if self._stopped:  # a second signal would end a training at once, unsaved
            return
        self._stopped = True
        for process in tuple(self._running):
            process.terminate()

    def run(self, job: Job) -> str | None:
        """Run a job; return None, or one line that says how it failed."""
        if self._stopped:
            return None
        began = time.time()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{job.name}: started, see {job.log}", flush=True)
        for command in job.commands:
            status = self._call(command, job.log)
            if self._stopped:
                return None
            if status:
                lines = job.log.read_text(errors="replace").splitlines()
                said = next((line for line in reversed(lines) if line.strip()), "nothing")
                return f"{job.name} failed with exit status {status}, saying: {said}"
        print(f"{job.name}: done in {time.time() - began:.0f} s", flush=True)
        return None

    def _call(self, command: list[str], log: Path) -> int:
        """Run a command; return its exit status."""
        with log.open("ab") as file:
            # In a session of its own: Ctrl-C reaches this process alone, which then ends the others in order.
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        self._running.add(process)
        if self._stopped:  # meanwhile
            process.terminate()
        status = process.wait()
        self._running.remove(process)
        return status
