"""What each task's file in this folder says of its keys and modes.

A range is an interval such as "[0, 1)" for a number, or the values that a key may have; of a tuple it is of each.
"""

import importlib
import importlib.util
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from gm_jax.defaults import base
from gm_jax.errors import UserError, nearest

Range = str | tuple[str, ...]

MODES = ("train", "sample", "evaluate", "figures", "export")  # of every task


def flatten(config: ConfigDict | dict, prefix: str = "") -> dict[str, Any]:
    """Return {dotted key: value}, with tuples as lists, as JSON has them."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def of_task(task: str, name: str, default: Any) -> Any:
    """Return what `gm_jax/defaults/<task>.py` calls by a name, or the default."""
    module = f"gm_jax.defaults.{task}"
    return getattr(importlib.import_module(module), name, default) if importlib.util.find_spec(module) else default


def starting_config(task: str) -> ConfigDict:
    """Return what the configs of a task start from."""
    make = of_task(task, f"{task}_config", None)
    return make() if make else base.base_config(task)


def ranges(task: str) -> dict[str, Range]:
    """Return the range of each key that has one, for a task of `gm_jax.tasks`."""
    return {**base.RANGES, **of_task(task, "RANGES", {})}


def modes(task: str) -> tuple[str, ...]:
    """Return the modes of a task; keys in a group of a further mode's name are that mode's alone."""
    return (*MODES, *of_task(task, "MODES", ()))


def check_config(config: ConfigDict, known: Mapping[str, Range]) -> None:
    """Refuse values out of their keys' ranges; keys of `optim.<network>` have those of `optim`.

    Raises:
        UserError: naming the key, its value and the range.
    """
    for key, value in flatten(config).items():
        group, _, name = key.rpartition(".")
        general = f"optim.{name}" if group.startswith("optim.") else key
        allowed = known.get(key, known.get(general))
        if value is not None and allowed is not None:
            for each in value if isinstance(value, list) else [value]:
                check_value(key, each, allowed)


def check_value(key: str, value: Any, allowed: Range) -> None:
    """Raise UserError unless a value is in its range."""
    if isinstance(allowed, tuple):
        check_choice(key, value, allowed)
        return
    low, high = map(float, allowed[1:-1].split(","))
    above = value >= low if allowed[0] == "[" else value > low
    below = value <= high if allowed[-1] == "]" else value < high
    if above and below:
        return
    if math.isinf(high):
        least = f"must be at least {low:g}" if allowed[0] == "[" else f"must be above {low:g}"
        raise UserError(f"{key}={value} {'must not be negative' if allowed == '[0, inf)' and value < 0 else least}")
    raise UserError(f"{key}={value} is not in {allowed}")


def check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    """Raise UserError, with the nearest choice, unless a value is one of them."""
    if value not in choices:
        raise UserError(f"{key}={value!r} is not one of {', '.join(choices)}{nearest(value, choices)}")
