"""A server of processes: each is a fork of one that has imported everything, so that it starts in no time.

`python -m tests.forks` reads a JSON list a line, of the processes to start beside each other: "command" (what follows
`python -m`), "environment", "stdout" and "stderr" (files); it answers with their exit statuses, negative for a signal,
when all have ended. The processes are real ones, which signals kill and whose locks die with them, and they end as any
interpreter does.
"""

import gc
import json
import os
import runpy
import signal
import sys

TIMEOUT = 300  # seconds; what hangs gets SIGALRM, and so the status -14

# What a run imports sooner or later. JAX looks for devices, and reads XLA_FLAGS, only when it is first used.
EVERYTHING = (
    "clu.parameter_overview",
    "gm_jax.evaluate",
    "gm_jax.sample",
    "gm_jax.train",
    "grain.python",
    "matplotlib.backends.backend_agg",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.decomposition",
    "sklearn.mixture",
    "tensorboardX",
)


def become(request: dict) -> None:
    """Be, in a forked process, what `python -m` with this command and environment would be."""
    signal.alarm(TIMEOUT)
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    sys.argv = request["command"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def main() -> None:
    """Fork for every request, one line after another."""
    for name in EVERYTHING:
        __import__(name)
    gc.freeze()  # a collection would copy the pages of all that has been imported
    gc.set_threshold(50_000)  # as conftest.py does
    for line in sys.stdin:
        started = []
        for request in json.loads(line):
            started.append(os.fork())
            if not started[-1]:
                become(request)
                return
        statuses = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]
        print(json.dumps(statuses), flush=True)


if __name__ == "__main__":
    main()
