"""The check that every table of networks makes of a config's keys."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn

from gm_jax.errors import UserError, nearest

GIVEN = ("parent", "name")  # fields of every Flax module, which no config sets


def accepted(modules: Iterable[type[nn.Module]], given: Iterable[str]) -> dict[str, Any]:
    """Return the fields of Flax modules that a config may set, all but those that the code gives, and their defaults.

    The default of a field that has none is `dataclasses.MISSING`.
    """
    fields = [field for module in modules for field in dataclasses.fields(module)]
    return {field.name: field.default for field in fields if field.name not in (*given, *GIVEN)}


def check_keywords(model: str, keywords: Mapping[str, Any], known: Mapping[str, Any], group: str = "") -> None:
    """Check the keys and the values' types that a config sets for the model called `model`.

    `known` has the default of each keyword, whose type is asked for; `group` is a prefix in messages.

    Raises:
        UserError: the model has no such keyword, or its value is of another type.
    """
    names = [f"{group}{name}" for name in known]
    for keyword, value in keywords.items():
        name = f"{group}{keyword}"
        if keyword not in known:
            raise UserError(f"model {model} has no key model.{name}{nearest(name, names)}: it has {', '.join(names)}")
        if not _fits(value, known[keyword]):
            raise UserError(f"model.{name}={value!r} must be like its default, {known[keyword]!r}")
        if keyword == "dropout" and not 0.0 <= value < 1.0:
            raise UserError(f"model.{name}={value} is not in [0, 1)")


def _fits(value: Any, default: Any) -> bool:
    """Return whether a value is of a default's type; an int is a float, too, and no default says nothing.

    An int is a size or a count: it is at least 1, or 0 where that is the default.
    """
    if isinstance(default, list | tuple):
        element = default[0] if default else 1
        return isinstance(value, list | tuple) and all(_fits(v, element) for v in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return (isinstance(value, bool) and isinstance(default, bool)) or default in (None, dataclasses.MISSING)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, int):
        return isinstance(value, int) and value >= min(default, 1)
    return not isinstance(default, str) or isinstance(value, str)
