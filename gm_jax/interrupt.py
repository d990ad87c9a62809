"""Signals that ask a long job to end."""

import signal


class Interrupt:
    """Catches SIGTERM and Ctrl-C; what goes on meanwhile asks now and then whether one came."""

    def __init__(self):
        self.signal: int | None = None

    def __enter__(self):
        self._old = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.signal = number
        signal.signal(number, self._old[number])  # the second time it ends the process at once
