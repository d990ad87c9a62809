"""Read what mode export has written. This needs no more of gm_jax than errors; docs/export.md does it without."""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
from safetensors.numpy import load_file

from gm_jax.errors import UserError

FORMAT = 1  # of export.json
INDEX, WEIGHTS, SUFFIX = "export.json", "weights.safetensors", ".jaxexport"
BATCH = "batch"  # the name of the dimension that is open


def load_export(folder: str | Path) -> dict[str, Callable[..., dict[str, np.ndarray]]]:
    """Return the programs of an export by name: each maps its inputs, given by name, to its outputs by name.

    Which these are, `export.json` in the folder says.

    Raises:
        UserError: no export, a damaged one, or one that this JAX cannot read.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is no export ({error}): make one with --mode=export") from error
    version = about.get("format") if isinstance(about, dict) else None
    if version != FORMAT:
        raise UserError(f"{folder} is an export of format {version}, not {FORMAT}: export the run again")
    for part in (about["weights"], *about["programs"].values()):
        file = folder / part["file"]
        if not file.is_file() or digest(file) != part["digest"]:
            raise UserError(f"{file} is damaged or gone: copy the folder again, or export the run again")
    weights = load_file(folder / about["weights"]["file"])
    return {
        name: functools.partial(call, name, part["inputs"], read_program(folder / part["file"], about["jax"]), weights)
        for name, part in about["programs"].items()
    }


def read_program(file: Path, version: str) -> Callable:
    """Return the function (weights, **inputs) in a file, which a version of JAX wrote."""
    try:
        exported = jax.export.deserialize(bytearray(file.read_bytes()))
        exported.mlir_module()  # the newest operations that JAX knows show here
    except Exception as error:  # of many kinds: whatever an unknown format leads the parser to
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{file} was exported by JAX {version} and JAX {jax.__version__} cannot read it ({reason[0]}): install "
            f"jax=={version}, or export the run again"
        ) from error
    return jax.jit(exported.call)


def call(name: str, known: dict[str, Any], function: Callable, weights: dict[str, np.ndarray], **inputs: Any) -> Any:
    """Call a program with inputs of the types that it knows; return NumPy arrays.

    Raises:
        UserError: an input that is not there, that it does not know, or that does not fit.
    """
    if inputs.keys() != known.keys():
        raise UserError(f"the program {name} takes {', '.join(known)}, not {', '.join(inputs) or 'nothing'}")
    given = {key: fitting(f"{name}: {key}", value, known[key]) for key, value in inputs.items()}
    sizes = {key: len(value) for key, value in given.items() if value.ndim}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        told = ", ".join(f"{n} of {key}" for key, n in sizes.items())
        raise UserError(f"the program {name} takes as many of each input, one or more, not {told}")
    return jax.device_get(function(weights, **given))


def fitting(what: str, value: Any, told: dict[str, Any]) -> np.ndarray:
    """Return an input as an array of the type and shape that export.json tells.

    Raises:
        UserError: it has another shape, or the type would change it: images of floats are no grey levels.
    """
    value, dtype, shape = np.asarray(value), np.dtype(told["dtype"]), told["shape"]
    if value.ndim != len(shape) or any(n not in (m, BATCH) for n, m in zip(shape, value.shape, strict=True)):
        raise UserError(f"{what} has the shape {list(value.shape)}, not [{', '.join(map(str, shape))}]")
    found = value.astype(dtype) if value.dtype.kind in "biuf" else None
    if found is None or (dtype.kind in "iu" and not np.array_equal(found, value)):
        raise UserError(f"{what} is {value.dtype} with values that are not {dtype}: {told['meaning']}")
    return found


def digest(file: Path) -> str:
    """Return the checksum of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()[:32]
