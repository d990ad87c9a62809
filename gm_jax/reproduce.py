"""Run what the reports' rows still lack, cheapest first: `launch/reproduce.sh [--rows=W1,H1] [--budget=MINUTES] ...`.

A plan is made from the minutes that the configs expect, rescaled by what runs took here. Each run is trained and
evaluated in processes of its own; after each the pages are built again and the plan is made anew. Start the same
command again after an interruption: what is finished stays, what was begun goes on.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gm_jax import processes
from gm_jax.data import embedded, tfds_source
from gm_jax.data.builders import BUILDERS
from gm_jax.data.sources import find_data_dirs
from gm_jax.errors import UserError, run_command
from gm_jax.report.__main__ import build
from gm_jax.report.collection import collect
from gm_jax.report.jobs import Job
from gm_jax.report.plan import Plan, Planner, Wish
from gm_jax.report.shipped import Experiment
from gm_jax.report.words import minutes

PLATFORMS = {"cpu": "cpu", "gpu": "cuda"}  # what JAX calls them


def absent(experiment: Experiment) -> str:
    """Return why an experiment's data are not to be had; "": they are, or can be downloaded without TensorFlow."""
    name, places = experiment.settings["dataset.name"], find_data_dirs(None)
    if name in embedded.NAMES or name in BUILDERS or tfds_source.find(name, places) is not None:
        return ""
    return f"the data set {name} is not in {' or '.join(map(str, places))} (set TFDS_DATA_DIR)"


def describe(plan: Plan) -> str:
    """Return a plan for people to read."""
    known = "of two CPU cores: no run here says how fast this machine is"
    scale = known if plan.scale is None else f"{plan.scale:.2f} times those that the configs expect, as runs took here"
    lines = [f"{len(plan.jobs)} to run, {minutes(plan.minutes)} of training and evaluation ({scale}):"]
    lines += [f"  {job.name:32s} {minutes(job.minutes):>10s}   {', '.join(job.rows)}" for job in plan.jobs]
    if plan.left_out:
        lines += ["left out:", *(f"  {row:4s} {reason}" for row, reason in plan.left_out)]
    return "\n".join(lines)


def as_process(job: Job, runs: Path) -> processes.Job:
    """Return the command lines of a job, whose output goes into a log beside its run."""
    return processes.Job(job.name, runs / job.log, [[sys.executable, "-m", *c] for c in job.commands])


def reproduce(runs: Path, out: Path, wish: Wish, dry_run: bool, command: str) -> int:
    """Run the plan; return the exit status: 0, 1 if a job failed, or 128 + the signal that came."""
    began, done, failed = time.time(), [], []
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {runs} ({error.strerror}): choose another folder with --runs") from error
    while True:
        spent = (time.time() - began) / 60.0
        budget = None if wish.budget is None else wish.budget - spent
        now = Wish(wish.rows, budget, wish.device, wish.seeds)
        plan = Planner(collect(runs), runs, now, absent).plan(done)
        if dry_run or not done:
            print(describe(plan), flush=True)
        if dry_run or not plan.jobs:
            break
        job = plan.jobs[0]
        lost, signal = processes.run_jobs([as_process(job, runs)], [sorted(os.sched_getaffinity(0))])
        failed += [job] if lost else []
        done.append(job.name)
        print(build(runs, out), flush=True)
        if signal:
            print(f"stopped. Continue with:\n  {command}", flush=True)
            return 128 + signal
    if done:
        print(summary(len(done), failed, plan, (time.time() - began) / 60.0, wish.budget, runs), flush=True)
    return 1 if failed else 0


def summary(count: int, failed: Sequence[Job], plan: Plan, took: float, budget: float | None, runs: Path) -> str:
    """Return what is said at the end: how many jobs ran, which failed, where their logs are, and what is left out."""
    of = "" if budget is None else f" of {minutes(budget)}"
    lines = [f"{count} run in {minutes(took)}{of}, {len(failed)} of them failed"]
    lines += [f"failed: {', '.join(job.rows) or 'no row'}: {job.name}, see {runs / job.log}" for job in failed]
    return "\n".join([*lines, *(f"left out: {row}: {reason}" for row, reason in plan.left_out)])


def main(arguments: list[str]) -> int:
    """Read the command line, and run or show the plan."""
    parser = argparse.ArgumentParser("launch/reproduce.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", help="only these rows of the reports, with commas between them")
    parser.add_argument("--budget", type=float, help="minutes; what does not fit is left out")
    parser.add_argument("--device", choices=tuple(PLATFORMS), help="where to run (what JAX finds)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of each; sweeps are of one (1)")
    parser.add_argument("--dry_run", action="store_true", help="print the plan and run nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the folder of the runs' workdirs (runs)")
    parser.add_argument("--out", type=Path, default=Path("report"), help="the folder of the pages (report)")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or (options.budget is not None and options.budget <= 0):
        raise UserError("--seeds and --budget must be positive")
    if options.device:
        os.environ["JAX_PLATFORMS"] = PLATFORMS[options.device]
    rows = [row for row in options.rows.split(",") if row] if options.rows else None
    wish = Wish(rows, options.budget, options.device, options.seeds)
    command = f"{os.environ.get('GM_JAX_COMMAND', 'python -m gm_jax.reproduce')} {shlex.join(arguments)}"
    return reproduce(options.runs, options.out, wish, options.dry_run, command)


if __name__ == "__main__":
    run_command(main)
