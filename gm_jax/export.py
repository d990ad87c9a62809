"""Mode export: what was trained, as files that need no gm_jax: weights, programs of `jax.export`, a model card.

A program takes the weights as its first argument, so that they are stored once and other tools can read them; what no
program reads (discriminators, pools) stays behind. Seed and number of a sample take the place of keys: sample i of a
seed is that of mode sample. A batch may have any size.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from gm_jax import random
from gm_jax.data.atomic import new_directory
from gm_jax.defaults.base import NOT_OF_A_SAMPLE
from gm_jax.errors import UserError
from gm_jax.exported import BATCH, FORMAT, INDEX, SUFFIX, WEIGHTS, digest
from gm_jax.layers.conv import native_rules
from gm_jax.model_card import CARD, write_card
from gm_jax.program import Input, Program
from gm_jax.run import Run
from gm_jax.state import Variables
from gm_jax.tasks.task import Trained
from gm_jax.workdir import write_json

PLATFORMS = ("cpu", "cuda", "tpu")
ASKED = (*NOT_OF_A_SAMPLE, "label", "words")  # keys of sampling that no program has: whoever calls it says them
KEYS = {  # inputs of programs that draw random numbers
    "number": Input((), "int32", "which sample of the seed: 0, 1, 2, ..."),
    "seed": Input((), "uint32", "one number for the whole batch"),
}


def export(run: Run, checkpoint: str) -> int:
    """Write the folder `export` of a workdir."""
    trained, folder = run.restore(checkpoint), run.workdir.path / "export"
    if run.workdir.writes:
        write_export(run, trained, folder)
        print(f"step {trained.step}: {folder}; begin with its README.md", flush=True)
    return 0


def write_export(run: Run, trained: Trained, folder: Path) -> None:
    """Write weights, programs, export.json and a model card into a folder; an export that is there is replaced.

    Raises:
        UserError: the task has no programs, the folder holds other things, or it cannot be written.
    """
    check_folder(folder)
    programs = run.task.programs()
    if not programs:
        raise UserError(f"the task {run.config.task} has no programs to export")
    arrays, rebuild = by_name(trained.variables)
    read = {name: inputs_read(with_inputs(program, KEYS), rebuild, arrays) for name, program in programs.items()}
    weights = {name: x for name, x in arrays.items() if any(name in weights for weights, _ in read.values())}
    keys = {name: {key: KEYS[key] for key in KEYS if key in inputs} for name, (_, inputs) in read.items()}
    programs = {name: with_inputs(program, keys[name]) for name, program in programs.items()}
    (batch,) = jax.export.symbolic_shape(BATCH)
    lowered = {name: lower(program, rebuild, weights, batch) for name, program in programs.items()}
    with new_directory(folder) as new:
        contiguous = {name: np.array(x, order="C") for name, x in jax.device_get(weights).items()}
        (new / WEIGHTS).write_bytes(save(contiguous))
        about = describe(run, trained)
        about["weights"] = {"file": WEIGHTS, "digest": digest(new / WEIGHTS)}
        for name, exported in lowered.items():
            file = new / f"{name}{SUFFIX}"
            file.write_bytes(exported.serialize())
            about["programs"][name] = {"file": file.name, "digest": digest(file), **tell(programs[name], exported)}
        write_json(new / INDEX, about)
        write_card(new, about, run)


def check_folder(folder: Path) -> None:
    """Raise UserError unless an export can be written as a folder: it takes the place of all that lies there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        there = list(folder.iterdir()) if folder.exists() else []
    except OSError as error:
        raise UserError(f"cannot write an export to {folder} ({error.strerror}): name another folder") from error
    others = sorted(path.name for path in there if path.name not in (INDEX, WEIGHTS, CARD) and path.suffix != SUFFIX)
    if others:
        raise UserError(f"{folder} is not an export alone, it has {others[0]}, which would be lost: name another one")
    if not os.access(folder.parent, os.W_OK):
        raise UserError(f"cannot write an export to {folder} (Permission denied): name another folder")


def by_name(variables: Variables) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], Variables]]:
    """Return the leaves of variables by names such as "params/denoiser/enter/kernel", and the way back.

    On the way back zeros stand for what a function does not read and is not given.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}

    def rebuild(weights: Mapping[str, Any]) -> Variables:
        return tree.unflatten(
            [weights[name] if name in weights else jnp.zeros(np.shape(x), x.dtype) for name, x in named.items()]
        )

    return named, rebuild


def with_inputs(program: Program, inputs: Mapping[str, Input]) -> Program:
    """Return a program with further inputs."""
    return program._replace(inputs={**program.inputs, **inputs})


def lower(
    program: Program, rebuild: Callable, weights: Mapping[str, Any], batch: Any, platforms: Sequence[str] = PLATFORMS
) -> jax.export.Exported:
    """Return a program as StableHLO: (weights by name, **inputs) -> outputs by name, for a size of the batch.

    It is the task's function of one example, mapped over the batch: so its size may be a symbol. Convolutions are XLA's
    own, which every platform has.
    """

    def call(weights: Mapping[str, Any], **inputs: jax.Array) -> dict[str, jax.Array]:
        variables, key = rebuild(weights), jax.random.key(inputs.pop("seed", 0))

        def one(example: dict[str, jax.Array]) -> dict[str, jax.Array]:
            batch = {"position": jnp.int32(0), **example}
            batch["position"] = batch.pop("number", batch["position"])
            batch = jax.tree.map(lambda x: x[None], batch)
            made = program.function(variables, batch, random.example_keys(key, batch["position"]))
            return jax.tree.map(lambda x: x[0], made)

        return jax.vmap(one)(inputs)

    inputs = {name: jax.ShapeDtypeStruct(whole(name, x, batch), x.dtype) for name, x in program.inputs.items()}
    shapes = {name: jax.ShapeDtypeStruct(np.shape(x), x.dtype) for name, x in weights.items()}
    with native_rules(), without_paths():
        return jax.export.export(jax.jit(call), platforms=platforms)(shapes, **inputs)


@contextlib.contextmanager
def without_paths() -> Iterator[None]:
    """Lower without the place of each operation in the code: the paths of this machine are nobody's business."""
    name = "jax_traceback_in_locations_limit"
    limit = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, limit)


def whole(name: str, given: Input, batch: Any) -> tuple:
    """Return the shape of an input for a whole batch."""
    return () if name == "seed" else (batch, *given.shape)


def inputs_read(program: Program, rebuild: Callable, weights: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Return the names of the weights, and of the other inputs, that a program reads."""
    exported = lower(program, rebuild, weights, batch=1, platforms=PLATFORMS[:1])  # with a symbol none is left out
    (weights,), inputs = exported.in_tree.unflatten(range(exported.in_tree.num_leaves))
    kept = set(exported.module_kept_var_idx)
    return tuple({name for name, i in named.items() if i in kept} for named in (weights, inputs))


def describe(run: Run, trained: Trained) -> dict[str, Any]:
    """Return what export.json says of a run."""
    return {
        "format": FORMAT,
        "config": run.name,
        "task": run.config.task,
        "step": trained.step,
        "data": run.spec.name,
        "stand_in": run.spec.stand_in,
        "jax": jax.__version__,
        "platforms": PLATFORMS,
        "sampling": {key: x for key, x in run.config.sampling.to_dict().items() if key not in ASKED},
        "programs": {},
    }


def tell(program: Program, exported: jax.export.Exported) -> dict[str, Any]:
    """Return what export.json says of a program's inputs and outputs."""
    made = exported.out_tree.unflatten(exported.out_avals)
    shapes = {name: [BATCH, *value.shape[1:]] for name, value in made.items()}
    return {
        "inputs": {
            name: {"shape": list(whole(name, x, BATCH)), "dtype": x.dtype, "meaning": x.meaning}
            for name, x in program.inputs.items()
        },
        "outputs": {
            name: {"shape": shapes[name], "dtype": str(value.dtype), "meaning": program.outputs[name]}
            for name, value in made.items()
        },
    }
