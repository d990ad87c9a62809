"""gm_jax.main, but the process sends itself a signal: `interrupted SIGKILL step 3 --config=...`.

"step N": as soon as step N is logged. "save N": while the checkpoint of step N is being written, in the background.
"call N": while the devices compute the call that comes after step N. "after N": when N milliseconds have gone by.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable

from gm_jax import checkpoint, experiment, main, workdir

name, moment, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
del sys.argv[1:4]


def interrupting(function: Callable, step_of: Callable) -> Callable:
    """Return `function`, which sends the signal as soon as it has returned, if its arguments are of that step."""

    def replaced(*args):
        step = int(step_of(*args))  # first: a call gives its state away
        result = function(*args)
        if step == number:
            os.kill(os.getpid(), getattr(signal, name))
        return result

    return replaced


train_call = experiment.Experiment.train_call
if moment == "save":
    checkpoint.Checkpoints.save = interrupting(checkpoint.Checkpoints.save, lambda self, step, *_: step)
elif moment == "after":
    timer = threading.Timer(number / 1000, os.kill, (os.getpid(), getattr(signal, name)))
    timer.daemon = True
    timer.start()
elif moment == "call":
    experiment.Experiment.train_call = lambda *own: interrupting(train_call(*own), lambda state, *_: state.step)
else:
    workdir.MetricsFile.write = interrupting(workdir.MetricsFile.write, lambda self, step, *_: step)
main.run_main()
