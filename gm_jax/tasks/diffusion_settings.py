"""What the config of a diffusion model says of process and sampler."""

import itertools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from gm_jax.errors import UserError, nearest
from gm_jax.samplers import plans
from gm_jax.samplers.processes import Chain, Flow, Level, LogNormal, Process, karras
from gm_jax.samplers.schedules import check_prior, make_schedule
from gm_jax.tasks.task import DataSpec

CONTINUOUS = {"edm": LogNormal, "flow": Flow}  # schedules that are no chain of steps


def combinations(spec: DataSpec, attributes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes that attributes of the data make together, such as "small red circle".

    Raises:
        UserError: the data have no such attribute.
    """
    for name in attributes:
        if name not in spec.attribute_names:
            known = ", ".join(spec.attribute_names) or "none"
            raise UserError(
                f"diffusion.attributes: the data have no '{name}'{nearest(name, spec.attribute_names)}: {known}"
            )
    return tuple(" ".join(values) for values in itertools.product(*(spec.attribute_names[name] for name in attributes)))


def check_interval(interval: Sequence[float]) -> None:
    """Raise UserError unless an interval is empty or has a lower and a higher end, from 0 on."""
    if interval and not (len(interval) == 2 and 0 <= interval[0] < interval[1]):
        raise UserError(f"sampling.guidance_interval={tuple(interval)} is not a low and a high ratio, such as 0.3,5.0")


def make_process(diffusion: ConfigDict) -> Process:
    """Return the process that `config.diffusion` names.

    Raises:
        UserError: a chain with settings that it does not have, or whose end is not noise alone.
    """
    if diffusion.schedule in CONTINUOUS:
        return CONTINUOUS[diffusion.schedule]()
    betas = {key: diffusion[key] for key in ("beta_start", "beta_end")}
    given = {key: beta for key, beta in betas.items() if beta is not None}
    schedule = make_schedule(diffusion.schedule, diffusion.timesteps, **given)
    check_prior(diffusion.schedule, schedule)
    return Chain(schedule)


def check_variance(diffusion: ConfigDict, process: Process) -> None:
    """Raise UserError if a process whose steps have no variance of their own shall learn it."""
    if diffusion.variance == "learned" and not (isinstance(process, Chain) and process.schedule.T > 1):
        raise UserError(
            f"diffusion.variance=learned is for chains of steps, not for diffusion.schedule={diffusion.schedule} with "
            f"diffusion.timesteps={diffusion.timesteps}: use linear, cosine, sigmoid or exploding and two steps or more"
        )


def sampling_steps(process: Process, sampling: ConfigDict) -> int:
    """Return how many steps samples take: those asked for, else all of an ancestral chain and 50 otherwise."""
    if sampling.steps is not None:
        return sampling.steps
    return process.most if sampling.sampler == "ancestral" and isinstance(process, Chain) else min(50, process.most)


def make_plan(process: Process, sampling: ConfigDict, strength: float = 1.0) -> plans.Plan:
    """Return the plan that `config.sampling` asks for, from the first level on that is at most `strength` noise.

    A level is noise / (signal + noise) noise; the last before the clean image is always visited.

    Raises:
        UserError: steps that the process does not have, or a sampler that cannot start where it does.
    """
    steps = sampling_steps(process, sampling)
    levels = karras(process, steps, sampling.rho) if sampling.spacing == "karras" else process.evenly(steps)
    begin = min(int(np.sum(levels.noise > strength * (levels.signal + levels.noise))), steps - 1)
    levels = Level(*(column[begin:] for column in levels))
    if sampling.sampler == "heun":
        return plans.heun(process, levels, sampling.churn)
    if sampling.sampler == "dpm_solver":
        return plans.dpm_solver(levels)
    return plans.ddim(levels, 1.0 if sampling.sampler == "ancestral" else sampling.eta)
