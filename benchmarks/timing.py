"""Time several ways of doing the same work in turn, so that a change of the machine's mood hits all of them."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import usage

QUIET = 0.05  # of the machine may others use during a measurement; beyond it, it is taken again ...
AGAIN = 3  # ... so many times at most
PAUSE = 0.1  # seconds before each measurement: the threads of the library before go to sleep


@dataclasses.dataclass
class Way:
    """One way to do some work: `call` starts `steps` steps of it, `wait` takes its result and waits for the end.

    After so many steps, `cycle`, the work repeats (a lazy phase runs at some of them only): whole cycles are timed.
    """

    name: str
    call: Callable[[], Any]
    wait: Callable[[Any], Any] = jax.block_until_ready
    steps: int = 1
    cycle: int = 1


@dataclasses.dataclass
class Timing:
    """Seconds a step, one value a round; or, without a measurement, what is known of it (`note`, `estimate`)."""

    rounds: list[float] = dataclasses.field(default_factory=list)
    steps_per_call: int = 1
    note: str = ""
    estimate: float | None = None
    others: list[float] = dataclasses.field(default_factory=list)  # share of the machine that others used, by round

    def summary(self) -> dict[str, Any]:
        """Return the values with their median and range, or the reason for their absence, for JSON."""
        known = {"steps_per_call": self.steps_per_call, "note": self.note}
        if not self.rounds:
            return {**known, "seconds": None, "estimate": self.estimate}
        return {**known, **spread("seconds", self.rounds), "rounds": self.rounds, "others": self.others}


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the median under `name`, and the smallest and largest value."""
    return {name: float(np.median(values)), "low": float(min(values)), "high": float(max(values))}


def ratios(peer: Timing, ours: Timing) -> dict[str, float] | None:
    """Return the spread of peer / ours over the rounds that both ran; None where either did not run."""
    pairs = [p / o for p, o in zip(peer.rounds, ours.rounds, strict=False)]
    return spread("median", pairs) if pairs else None


def time_calls(way: Way, calls: int) -> float:
    """Return the seconds of one call, over so many calls in a row."""
    time.sleep(PAUSE)
    began = time.perf_counter()
    for _ in range(calls):
        result = way.call()
    way.wait(result)
    return (time.perf_counter() - began) / calls


def round_robin(ways: Sequence[Way], rounds: int, seconds: float, patience: float) -> dict[str, Timing]:
    """Measure all ways in turn, `rounds` times; return their timings by name.

    A measurement takes about `seconds`, or one cycle where that takes longer. A way that would need more than
    `patience` seconds for all its rounds gets fewer, at least one. A measurement that others disturbed is taken again;
    of AGAIN attempts the least disturbed counts.
    """
    plan = {}
    for way in ways:
        time_calls(way, 1)  # the first call fills caches, and may compile
        once = time_calls(way, 1)
        cycle = math.lcm(way.steps, way.cycle) // way.steps  # in calls
        calls = cycle * max(1, round(seconds / once / cycle))
        plan[way.name] = calls, min(rounds, max(1, int(patience / (calls * once))))
    timings = {way.name: Timing(steps_per_call=way.steps) for way in ways}
    for number in range(rounds):
        first = number % len(ways)  # so that no way always follows the same other
        for way in [*ways[first:], *ways[:first]]:
            calls, turns = plan[way.name]
            if number < turns:
                others, elapsed = undisturbed(way, calls)
                timings[way.name].rounds.append(elapsed / way.steps)
                timings[way.name].others.append(others)
    return timings


def undisturbed(way: Way, calls: int) -> tuple[float, float]:
    """Return what others used of the machine, and the seconds of one call, of the least disturbed measurement."""
    attempts = []
    for _ in range(AGAIN):
        before = usage()
        elapsed = time_calls(way, calls)
        attempts.append((usage().others_since(before), elapsed))
        if attempts[-1][0] <= QUIET:
            break
    return min(attempts)


def matrix_product() -> tuple[Way, float]:
    """Return the product of two large float32 matrices, in JAX's default precision, and its FLOPs."""
    size = 8192 if jax.default_backend() == "gpu" else 2048
    x = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(jnp.dot)
    return Way("product", lambda: multiply(x, x)), 2.0 * size**3
