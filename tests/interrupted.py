"""gm_jax.main, but the process sends itself a signal: `interrupted.py SIGKILL step 3 --config=...`.

"step N": as soon as step N is logged. "save N": while the checkpoint of step N is being written, in the background.
"""

import os
import signal
import sys

from gm_jax import checkpoint, main, workdir

name, moment, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
del sys.argv[1:4]


def interrupt_after(owner, method: str) -> None:
    original = getattr(owner, method)

    def replaced(self, step, *args):
        original(self, step, *args)
        if step == number:
            os.kill(os.getpid(), getattr(signal, name))

    setattr(owner, method, replaced)


if moment == "save":
    interrupt_after(checkpoint.Checkpoints, "save")
else:
    interrupt_after(workdir.MetricsFile, "write")
main.run_main()
