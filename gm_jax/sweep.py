"""Run an experiment over the product of some keys' values, then draw the family: `python -m gm_jax.sweep` (--help).

The family's folder (--workdir, default runs/NAME_sweep) holds a workdir for every member, called after its values as
"model.latent_dim=2,seed=0", where log.txt is what the member printed; sweep.json, which lists the members; figures/.
"""

import dataclasses
import itertools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict

from gm_jax import cli
from gm_jax.errors import UserError
from gm_jax.main import run_main
from gm_jax.processes import Job, run_jobs, share_cores
from gm_jax.workdir import Workdir, read_json, write_json

COLUMNS = 10  # images in a row of the family's figures

flags.DEFINE_multi_string("sweep", [], "KEY=VALUE,VALUE,...: a key of the config and its values; may be given again.")
flags.DEFINE_integer("jobs", 1, "Members that train at once; they share the CPU cores evenly.")
flags.DEFINE_string(
    "shard", "0/1", "I/N: only the members I, I + N, I + 2 N, ... of the product (an array job's share)."
)


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep: its values of the swept keys, and what follows from them."""

    values: dict[str, Any]
    arguments: list[str]  # --config and the overrides, for gm_jax.main
    config: ConfigDict
    overrides: dict[str, Any]
    workdir: Workdir

    @property
    def name(self) -> str:
        """Its values as the name of a folder."""
        return self.workdir.path.name

    def job(self, modes: Sequence[str]) -> Job:
        """Return what runs it in these modes of gm_jax.main, one after another."""
        command = [sys.executable, "-m", "gm_jax.main", *self.arguments, f"--workdir={self.workdir.path}"]
        return Job(self.name, self.workdir.path / "log.txt", [[*command, f"--mode={mode}"] for mode in modes])

    def is_finished(self) -> bool:
        """True if it is trained up to the last step, and evaluated there."""
        from gm_jax.checkpoint import Checkpoints

        evaluation = read_json(self.workdir.path / "evaluation.json") or {}
        newest = Checkpoints(self.workdir.checkpoints).steps()[-1:]
        return newest == [self.config.steps] and evaluation.get("step") == self.config.steps


def parse_sweeps(sweeps: Sequence[str]) -> dict[str, list[str]]:
    """Read ("key=1,2", "other=(1,2),(3,4)") as {key: texts}; commas inside brackets do not separate.

    Raises:
        UserError: nothing is swept, a key twice, or a key that the command line also sets.
    """
    texts: dict[str, list[str]] = {}
    for sweep in sweeps:
        key, _, values = sweep.partition("=")
        key = key.removeprefix("config.")
        if not values:
            raise UserError(f"--sweep {sweep}: give a key and its values, such as --sweep seed=0,1,2")
        if key in texts or key in cli.overrides():
            raise UserError(f"{key} is given twice: sweep it once, and do not set it beside")
        texts[key] = re.split(r",(?![^(\[]*[)\]])", values)
    if not texts:
        raise UserError("sweep what? give --sweep KEY=VALUE,VALUE,..., such as --sweep seed=0,1,2")
    return texts


def make_members(texts: dict[str, list[str]], family: Path) -> list[Member]:
    """Return a member for every combination of the values, the last key's values changing fastest.

    Raises:
        UserError: the config has no such key, a value has another type, or two members are the same.
    """
    members: list[Member] = []
    for combination in itertools.product(*texts.values()):
        arguments = cli.arguments(dict(zip(texts, combination, strict=True)))
        config, overrides = cli.read_config(arguments)
        values = {key: overrides[key] for key in texts}
        name = ",".join(f"{key}={value}" for key, value in values.items()).replace(" ", "")
        if "/" in name:
            raise UserError(f"{name}: a member's folder is called after its values, so they cannot contain '/'")
        if any(name == member.name for member in members):
            raise UserError(f"{name} is given twice: give every value once")
        members.append(Member(values, arguments, config, overrides, Workdir(family / name)))
    return members


def parse_shard(text: str) -> slice:
    """Read "i/n" as the slice that takes every n-th member from the i-th on."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UserError(f"--shard={text} is not I/N with I from 0 to N - 1, such as --shard=0/4")
    return slice(int(match[1]), None, int(match[2]))


def draw_family(experiment: str, family: Path, members: Sequence[Member]) -> None:
    """Draw the members' images row by row, and their evaluations over the swept values."""
    from gm_jax import backend
    from gm_jax.figures.sweep import save_numbers, save_rows
    from gm_jax.run import open_trained

    backend.configure()
    pictures: dict[str, list] = {}
    numbers = []
    for member in members:
        run = open_trained(experiment, member.overrides, member.workdir)
        trained = run.restore("newest")
        for picture, row in run.task.rows(trained, COLUMNS).items():
            reference = [] if row.reference is None else [("original", row.reference)]
            pictures.setdefault(picture, reference).append((member.name, row.images))
        numbers.append((member.values, read_json(member.workdir.path / "evaluation.json")["results"]))
    figures = family / "figures"
    figures.mkdir(exist_ok=True)
    for picture, rows in pictures.items():
        save_rows(figures / f"{picture}.png", rows, trained.caption.plus(picture))
    save_numbers(figures / "numbers.png", numbers, trained.caption.plus("evaluation, ± 2 standard errors"))
    print(f"the family of {len(members)}: {figures}", flush=True)


def claim(experiment: str, family: Path, members: Sequence[Member]) -> None:
    """Write sweep.json; UserError if another sweep wrote it, one of whose members began."""
    Workdir(family).create()
    keys, before = list(members[0].values), read_json(family / "sweep.json")
    began = before is not None and any((family / m["workdir"] / "config.json").exists() for m in before["members"])
    if began and (before["config"], before["keys"]) != (experiment, keys):
        raise UserError(
            f"{family} is a sweep of {before['config']} over {', '.join(before['keys'])}: use another --workdir"
        )
    listed = [{"values": member.values, "workdir": member.name} for member in members]
    write_json(family / "sweep.json", {"config": experiment, "keys": keys, "members": listed})


def main(_) -> int:
    """Check every member before any starts, run those of this shard, and draw the family once all are finished."""
    from gm_jax.run import settle

    options, command = cli.FLAGS, cli.this_command("gm_jax.sweep")
    os.environ.pop("GM_JAX_COMMAND", None)  # the members are not started by launch/sweep.sh
    logging.set_verbosity(logging.WARNING)
    if any(options[name].present for name in ("processes", "process", "coordinator")):
        raise UserError("a sweep trains every member in one process: leave out --processes")
    if options["checkpoint"].present:
        raise UserError("a sweep evaluates and draws the newest checkpoints: leave out --checkpoint")
    experiment = cli.experiment_name()
    family = Path(options.workdir or f"runs/{experiment}_sweep")
    members = make_members(parse_sweeps(options.sweep), family)
    mine, cores = members[parse_shard(options.shard)], share_cores(options.jobs)
    for member in members:
        settle(member.config, member.workdir, member.overrides)
    finished = [member.name for member in members if member.is_finished()]
    claim(experiment, family, members)
    modes = ("train", "evaluate") if options.mode == "train" else (options.mode,)
    jobs = [member.job(modes) for member in mine if options.mode != "train" or member.name not in finished]
    print(f"{len(members)} members in {family}, {len(finished)} finished; running {len(jobs)}", flush=True)
    failed, signal = run_jobs(jobs, cores)
    if signal:
        print(f"stopped. Continue with:\n  {command}", flush=True)
        return 128 + signal
    unfinished = [member.name for member in members if not member.is_finished()]
    if unfinished:
        print(f"the family is drawn when all are finished; not yet: {'; '.join(unfinished)}", flush=True)
    else:
        draw_family(experiment, family, members)
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
