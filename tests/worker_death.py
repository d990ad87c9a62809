"""Kill one of two processes of a job at random moments: `python -m tests.worker_death [--deaths=50]`.

Each time the job must end within a minute, with a status that is not 0 and a line that says why; in the end it must
have the bits of one process with two devices that nothing disturbed.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.kill_storm import CHANGES, content
from tests.tiny import ROOT, flags, gm_jax

NAME = "gan_mnist"
MINUTE = 60


def start(folder: Path, log: Path) -> subprocess.Popen:
    """Start two processes of one job by the launcher."""
    command = [sys.executable, "-m", "gm_jax.main", *flags(NAME, folder, **CHANGES), "--processes=2"]
    environment = {**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=2", "device_count=1")}
    with log.open("w") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)


def children(process: subprocess.Popen) -> list[int]:
    """Return the processes that a process has started, in order."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()] if path.exists() else []


def die(folder: Path, log: Path, after: float, victim: int) -> float | None:
    """Kill one of the two so many seconds after both were started; return how long the job lived on.

    None: they were done already. subprocess.TimeoutExpired: it hangs; AssertionError: it does not say why it ended.
    """
    launcher = start(folder, log)
    while launcher.poll() is None and len(children(launcher)) < 2:
        time.sleep(0.05)
    processes = children(launcher)
    time.sleep(after)
    if launcher.poll() is not None or len(children(launcher)) < 2:
        assert launcher.wait(MINUTE) == 0, log.read_text()
        return None
    os.kill(processes[victim], signal.SIGKILL)
    killed = time.monotonic()
    status, said = launcher.wait(MINUTE), log.read_text().splitlines()[-1]
    assert status == 137 and said.startswith(f"gm_jax: process {victim} of 2 ended with SIGKILL"), (status, said)
    return time.monotonic() - killed


def main() -> None:
    """Kill, and tell the longest time that a job lived on."""
    parser = argparse.ArgumentParser("python -m tests.worker_death", description=__doc__.splitlines()[0])
    parser.add_argument("--deaths", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, lived, number = np.random.default_rng(options.seed), [], 0
    with tempfile.TemporaryDirectory(prefix="gm_jax_deaths_") as name:
        folder = Path(name)
        assert gm_jax(*flags(NAME, folder / "whole", **CHANGES), devices=2).returncode == 0
        began = time.monotonic()
        assert start(folder / "run0", folder / "log.txt").wait(10 * MINUTE) == 0
        seconds = time.monotonic() - began
        while len(lived) < options.deaths:
            run = folder / f"run{number}"
            found = die(run, folder / "log.txt", rng.uniform(0, seconds), int(rng.integers(2)))
            if found is None:
                assert content(run) == content(folder / "whole"), f"{run} has other bits"
                number += 1
            else:
                lived.append(found)
        assert start(run, folder / "log.txt").wait(10 * MINUTE) == 0
        assert content(run) == content(folder / "whole"), f"{run} has other bits"
    print(
        f"{len(lived)} deaths, no hang: all ended within {max(lived):.1f} s, and the restarted job with the same bits"
    )


if __name__ == "__main__":
    from tests import conftest

    conftest.pytest_configure()
    main()
