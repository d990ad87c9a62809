"""JSON that others may have written, read with suspicion: what is not as it should be is Unreadable, with a reason."""

import json
from pathlib import Path
from typing import Any, TypeVar

Kind = TypeVar("Kind")
REQUIRED = object()
LARGEST = 2**63  # of what counts and times: a number of more digits is none


class Unreadable(Exception):
    """A file of a workdir is not what gm_jax writes; the message says which and why."""


def read_object(path: Path, name: str) -> dict[str, Any]:
    """Return the object that a JSON file holds."""
    try:
        content = json.loads((path / name).read_text())
    except FileNotFoundError as error:
        empty = path.is_dir() and not any(path.iterdir())
        raise Unreadable("an empty folder" if empty else f"no run of gm_jax: it has no {name}") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Unreadable(f"{name} cannot be read ({reason}): restore it, or delete the folder") from error
    if not isinstance(content, dict):
        raise Unreadable(f"{name} is not what gm_jax writes: no object")
    return content


def get(content: Any, file: str, key: str, kind: type[Kind], default: Any = REQUIRED) -> Kind:
    """Return a value of a JSON object, checked; the default where it is absent."""
    value = content.get(key, default) if isinstance(content, dict) else REQUIRED
    strange = value is REQUIRED or not isinstance(value, kind) or isinstance(value, bool)
    if strange or (isinstance(value, int | float) and not -LARGEST <= value <= LARGEST):
        raise Unreadable(f"{file} is not what gm_jax writes: it has no {key}, or a strange one")
    return value


def read_lines(path: Path, name: str) -> tuple[list[Any], list[str]]:
    """Return what the lines of a file hold, None for a damaged one, and what is wrong with the file."""
    try:
        text = (path / name).read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{name} cannot be read ({error.strerror})"]
    return [parse(line) for line in text.split("\n") if line], []


def parse(line: str) -> Any:
    """Return what a JSON text holds; None if it is damaged."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def is_number(value: Any) -> bool:
    """True for a finite number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e300 < value < 1e300


def are_numbers(value: Any) -> bool:
    """True for a finite number, or lists of such, however nested."""
    return all(map(are_numbers, value)) if isinstance(value, list) else is_number(value)
