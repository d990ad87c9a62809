"""What run.json says of where a run comes from: command, code, machine, data."""

import functools
import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from gm_jax import __version__
from gm_jax.run import Run
from gm_jax.step import flat
from gm_jax.workdir import FORMAT

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")


def environment() -> dict[str, Any]:
    """Return what the bits of a run depend on besides (config, seed, step)."""
    return {
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
        "cpu_cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "processor": processor(),
        "python": platform.python_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def processor(information: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's name with family and model where Linux tells them: "AMD EPYC (family 25, model 17)"."""
    if not information.exists():
        return platform.processor()
    pairs = (line.partition(":") for line in information.read_text().split("\n\n")[0].splitlines())
    known = {key.strip(): value.strip() for key, _, value in pairs}
    name = known.get("model name") or platform.processor()
    return f"{name} (family {known['cpu family']}, model {known['model']})" if "cpu family" in known else name


def code() -> dict[str, str]:
    """Return the version of gm_jax and, in a clone, the commit; "+" after it: files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):  # no git here: the version must do
        return {"version": __version__}
    commit = {"commit": found.stdout.strip()} if found.returncode == 0 else {}
    return {"version": __version__, **commit}


@functools.cache
def code_digest() -> str:
    """Return a short hash of gm_jax's own files: what is kept to be used again is of this code."""
    found, root = hashlib.blake2b(digest_size=6), Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def describe_start(run: Run, command: str) -> dict[str, Any]:
    """Return what run.json says of the last start."""
    return {
        "format": FORMAT,
        "rows": list(run.config.rows),
        "command": command,
        "overrides": run.overrides,
        "seed": run.config.seed,
        "code": code(),
        "environment": environment(),
    }


def describe_data(run: Run) -> dict[str, Any]:
    """Return what run.json says of the data set that is really used, and of how it is used."""
    dataset, (scored, held_out) = run.dataset, run.held_out
    trained_on = {
        name: {"split": source.split, **source.where, "n": len(run.portions[name].trained)}
        for name, source in run.task.sources().items()
    }
    examples = jax.tree.leaves(run.validation())[0]
    return {
        "name": dataset.name,
        "requested": dataset.requested,
        "origin": dataset.origin,
        "location": dataset.location,
        "stand_in": dataset.stand_in,
        "sizes": dataset.sizes,
        "skipped": list(dataset.skipped),
        "image_shape": list(dataset.image_shape),
        "label_names": list(dataset.label_names),
        "attribute_names": {name: list(values) for name, values in dataset.attribute_names.items()},
        "fingerprint": run.fingerprint(dataset),
        "trained_on": flat(trained_on),
        "best_chosen_by": {"examples": scored, "n": len(examples), "held_out": held_out},
    }
