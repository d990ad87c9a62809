"""Command line to config: absl flags and ml_collections overrides, every mistake told in one line.

As the libraries come, a misspelt key gives a traceback, a stray argument nothing at all.
"""

import ast
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from gm_jax.defaults import table
from gm_jax.defaults.table import flatten
from gm_jax.errors import UserError, nearest

TOLD = ("", "image_shape", "classes", "outputs", "learned_scale", "axis_name", "name", "parent")  # not by configs

FLAGS = flags.FLAGS
OPEN = {"lock_config": False, "accept_new_attributes": True}  # a network's keyword need not stand in its config
CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment: configs/NAME.py or configs/NAME.py:variant.", **OPEN
)
flags.DEFINE_string("workdir", None, "The run's folder (default: runs/NAME or runs/NAME_variant).")
flags.DEFINE_string("mode", "train", f"One of {', '.join(table.MODES)}, or a further one of the task.")
flags.DEFINE_integer("processes", None, "How many processes share the work; alone: start so many on this machine.")
flags.DEFINE_integer("process", None, "Which of the processes this is, 0 ... processes - 1.")
flags.DEFINE_string("coordinator", None, "HOST:PORT at which process 0 is to be found.")
flags.DEFINE_string("checkpoint", "newest", "For all modes but train: newest, best, or a step.")


def parse(argv: Sequence[str]) -> list[str]:
    """Parse the command line into FLAGS; the `flags_parser` of `absl.app.run`.

    Raises:
        UserError: any mistake on the command line or in the config file's name.
    """
    path = _given(argv, "config")
    if path is not None:
        check_config_file(path)
    with _in_one_line():
        check_keys(FLAGS["config"], argv)
        rest = FLAGS(quote_names(FLAGS["config"], argv))
        config = CONFIG.value  # read at once: the library reports some errors only then
    if len(rest) > 1:
        raise UserError(f"stray argument {rest[1]!r}: values are given as --flag=value, without a space")
    if config is None:
        raise UserError("which experiment? give --config=configs/NAME.py (ddpm_mnist is a good start)")
    known = table.modes(config.task)
    if FLAGS.mode not in known:
        raise UserError(f"--mode={FLAGS.mode} is not one of {', '.join(known)}{nearest(FLAGS.mode, known)}")
    return rest


def check_config_file(path: str) -> None:
    """Raise UserError unless the file is there and valid Python with a `get_config`."""
    name, _, variant = path.partition(":")
    file = Path(name)
    if not file.is_file():
        others = [p.name for p in file.parent.glob("*.py")] if file.parent.is_dir() else []
        raise UserError(f"there is no config file {file}{nearest(file.name, others)}")
    try:
        tree = ast.parse(file.read_text(), str(file))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{file} is not Python: {error}") from error
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if "get_config" not in functions:
        raise UserError(f"{file} is not a config: it has no function get_config")
    if variant and not functions["get_config"].args.args:
        raise UserError(f"{file} has no variants: leave out ':{variant}'")


def check_keys(flag: flags.Flag, argv: Sequence[str]) -> None:
    """Raise UserError for an override of a key that the config file does not have.

    Where `model.name` chooses the networks, any other key passes in `model` or, if it has groups for several networks,
    in these: networks know their keywords. What the code itself tells them is none.
    """
    file = _given(argv, "config")
    if file is None:
        return
    known = list(flatten(flag.parser.parse(file)))
    model = {key.rpartition(".")[0] for key in known if key.startswith("model.") and "model.name" in known}
    groups = model - {"model"} or model
    for argument in argv[1:]:
        name = argument.lstrip("-").partition("=")[0].removeprefix("no") if argument.startswith("-") else ""
        key = name.removeprefix("config.")
        group, _, keyword = key.rpartition(".")
        network = group in groups and keyword not in TOLD
        if name != key and key not in known and not network:
            raise UserError(f"the config has no key {key!r}{nearest(key, known)}")


def experiment_name() -> str:
    """Return the config file's name, with its variant: "ddpm_mnist" or "cnn_cifar10_modern"."""
    file, _, variant = config_flags.get_config_filename(FLAGS["config"]).partition(":")
    return Path(file).stem + (f"_{variant}" if variant else "")


def quote_names(flag: flags.Flag, argv: Sequence[str]) -> list[str]:
    """Return the command line with what is given as a,b for a key of several names in Python's brackets and quotes."""
    file = _given(argv, "config")
    lists = {key for key, value in flatten(flag.parser.parse(file)).items() if isinstance(value, list)} if file else ()

    def quoted(argument: str) -> str:
        name, equals, value = argument.partition("=")
        if not equals or name.lstrip("-").removeprefix("config.") not in lists:
            return argument
        try:
            ast.literal_eval(value)
        except (SyntaxError, ValueError):
            return f"{name}={tuple(value.split(','))!r}"
        return argument

    return [quoted(argument) for argument in argv]


def overrides() -> dict[str, Any]:
    """Return the keys that the command line set, dotted, with their values."""
    return dict(config_flags.get_override_values(FLAGS["config"]))


def arguments(changes: dict[str, str]) -> list[str]:
    """Return the flags --config and --config.key=value of this command line, with `changes`, by dotted key, added."""
    keys = {**overrides(), **changes}
    return [
        f"--config={config_flags.get_config_filename(FLAGS['config'])}",
        *(f"--config.{k}={v}" for k, v in keys.items()),
    ]


def read_config(given: Sequence[str]) -> tuple[ConfigDict, dict[str, Any]]:
    """Return the config that flags --config and --config.key=value describe, and the keys that they set.

    Raises:
        UserError: no such key, or a value of another type.
    """
    argv = [sys.argv[0], *given]
    values = flags.FlagValues()  # apart from FLAGS, which hold this process's own config
    holder = config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=argv, **OPEN)
    with _in_one_line():
        check_keys(values["config"], argv)
        values(quote_names(values["config"], argv))
        return holder.value, dict(config_flags.get_override_values(values["config"]))


def this_command(module: str = "gm_jax.main") -> str:
    """Return the command line that started this process, which runs `module`, without what gm_jax.launcher added."""
    program = os.environ.get("GM_JAX_COMMAND", f"python -m {module}")  # launch/local.sh names itself
    given = sys.argv[1:]
    if any(argument.startswith("--coordinator=localhost:") for argument in given):
        given = [a for a in given if not a.startswith(("--coordinator=", "--process="))]
    return f"{program} {shlex.join(given)}"


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """Turn what the libraries raise about a command line into a UserError."""
    try:
        yield
    except (AttributeError, KeyError, flags.Error) as error:
        raise UserError(str(error).splitlines()[0]) from error


def _given(argv: Sequence[str], name: str) -> str | None:
    """Return the value of --name=value or --name value on a command line."""
    for i, argument in enumerate(argv):
        flag, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == name:
            return value if equals else (argv[i + 1] if i + 1 < len(argv) else None)
    return None
