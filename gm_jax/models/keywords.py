"""The check that every table of networks makes of a config's keys."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn

from gm_jax.errors import UserError, nearest

GIVEN = ("parent", "name")  # fields of every Flax module, which no config sets


def accepted(modules: Iterable[type[nn.Module]], given: Iterable[str]) -> list[str]:
    """Return the fields of Flax modules that a config may set: all but those that the code gives them."""
    fields = [field.name for module in modules for field in dataclasses.fields(module)]
    return [name for name in dict.fromkeys(fields) if name not in (*given, *GIVEN)]


def check_keywords(model: str, keywords: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise UserError if the model called `model` has no key of some name."""
    for keyword in keywords:
        if keyword not in known:
            raise UserError(
                f"model {model} has no key model.{keyword}{nearest(keyword, known)}: it has {', '.join(known)}"
            )
