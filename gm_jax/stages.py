"""Stages of training: which phases a step runs, on batches of which size, as a function of the step."""

import bisect
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from gm_jax.errors import UserError
from gm_jax.state import Tree, Variables

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class Context(NamedTuple):
    """What a loss may depend on besides variables and batch.

    Attributes:
        key: of (seed, step, phase, repeat), the same on all devices.
        step: int32, the number of completed steps; warm-ups and fading are functions of it.
        made: what the phase's `make` returned; None: it has none.
    """

    key: jax.Array
    step: jax.Array
    made: Tree = None


class Result(NamedTuple):
    """What a loss returns beside its value.

    Attributes:
        metrics: means over this device's part of the batch, by name.
        model_state: new state of some networks, averaged over the devices then; None: it stays.
        memory: all of the new memory, which must be the same on all devices; None: it stays.
    """

    metrics: Metrics
    model_state: dict[str, Tree] | None = None
    memory: dict[str, Tree] | None = None


class Phase(NamedTuple):
    """One update of one or several networks.

    Attributes:
        name: its noise follows from (seed, step, this name): other phases change nothing about it.
        nets: updated by one joint gradient, each by an optimiser of its own.
        loss: (variables, batch, context) -> (value, result); means over the batch. The batch has {"image", "label",
            ...} and each example's "position" in the global batch; of a task with several sources, one such dictionary
            for each.
        every: run at steps divisible by this only (lazy regularisation).
        repeats: updates in a step, each on a fresh batch (critic steps).
        noise_of: the name of the phase whose noise it draws, too; None: its own.
        make: (variables, batch, context) -> what the loss finds in `context.made`, float arrays such as a generator's
            samples. Phases of one noise that follow each other have the same `make`, and it is computed once.
        makers: the networks on whose parameters that depends. The loss of a phase that updates these, and no other,
            depends on them through what is made alone.
    """

    name: str
    nets: tuple[str, ...]
    loss: Callable[[Variables, Batch, Context], tuple[jax.Array, Result]]
    every: int = 1
    repeats: int = 1
    noise_of: str | None = None
    make: Callable[[Variables, Batch, Context], Tree] | None = None
    makers: tuple[str, ...] = ()


class Stage(NamedTuple):
    """What happens in every step from `begin` on, up to the next stage.

    Attributes:
        begin: the number of steps completed before it.
        phases: the updates of a step, in order; [] trains nothing.
        batch_size: of all devices together.
        fresh: networks whose optimisers start anew with it.
        rate: all learning rates are so many times those of the config.
    """

    begin: int
    phases: Sequence[Phase]
    batch_size: int
    fresh: tuple[str, ...] = ()
    rate: float = 1.0

    @property
    def batches(self) -> int:
        """How many batches one step consumes: as many as the phase with the most repeats."""
        return max((phase.repeats for phase in self.phases), default=1)


def check_stages(stages: Sequence[Stage], steps_per_call: int) -> None:
    """Refuse stages that do not follow each other, or that a call of several steps would cross.

    Raises:
        UserError: saying which.
        ValueError: two phases of a stage have one name, and so the same noise.
    """
    begins = [stage.begin for stage in stages]
    if begins[0] != 0 or begins != sorted(set(begins)):
        raise UserError(f"stages begin at steps {begins}: they should begin at 0 and grow")
    for stage in stages:
        if stage.begin % steps_per_call:
            raise UserError(f"a stage begins at step {stage.begin}, not divisible by steps_per_call={steps_per_call}")
        names = [phase.name for phase in stage.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phases need names of their own, not {names}")


def stage_at(stages: Sequence[Stage], step: int) -> int:
    """Return the number of the stage to which the step after `step` completed ones belongs."""
    return bisect.bisect_right(stages, step, key=lambda stage: stage.begin) - 1


def examples_before(stages: Sequence[Stage], step: int) -> int:
    """Return how many examples of each source the first `step` steps consume."""
    ends = [min(step, end) for end in [*(stage.begin for stage in stages[1:]), step]]
    spans = [(max(end - stage.begin, 0), stage) for stage, end in zip(stages, ends, strict=True)]
    return sum(steps * stage.batch_size * stage.batches for steps, stage in spans)


def stable_hash(name: str) -> np.uint32:
    """Return a number that follows from the name alone, in every process and version."""
    return np.frombuffer(hashlib.blake2b(name.encode(), digest_size=4).digest(), "<u4")[0]
