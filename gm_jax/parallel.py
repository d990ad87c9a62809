"""The only place with `pmap`: the device axis, replication, splitting batches, several processes."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gm_jax.errors import UserError
from gm_jax.step import AXIS

Tree = Any


def initialize() -> None:
    """Join the other processes of a cluster job, if this is one (Slurm, Open MPI, or JAX_COORDINATOR_ADDRESS set)."""
    several = any(int(os.environ.get(name, "1")) > 1 for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    if several or "JAX_COORDINATOR_ADDRESS" in os.environ:
        jax.distributed.initialize()


def is_main_process() -> bool:
    """True in the one process that writes files."""
    return jax.process_index() == 0


def replicated() -> NamedSharding:
    """The sharding that a pmapped step gives its state: placing it so from the start saves a second compilation."""
    return NamedSharding(Mesh(np.asarray(jax.devices()), (AXIS,)), PartitionSpec())


def replicate(tree: Tree) -> Tree:
    """Copy host arrays to every device."""
    return jax.device_put(tree, replicated())


def check_batch_size(batch_size: int) -> None:
    """Raise UserError unless the global batch divides over all devices."""
    devices = jax.device_count()
    if batch_size <= 0 or batch_size % devices:
        raise UserError(
            f"batch_size={batch_size} is not divisible by the {devices} devices: set --config.batch_size to a "
            f"multiple of {devices}"
        )


def map_training(call: Callable) -> Callable:
    """Map `call(state, resident, batches) -> (state, metrics)` over the devices; the state is donated.

    `batches` has leaves [steps, batches_per_step, local devices, examples a device, ...] (see `split_batches`); state,
    resident data and metrics are the same on all devices.
    """
    return jax.pmap(call, axis_name=AXIS, in_axes=(None, None, 2), out_axes=(None, None), donate_argnums=(0,))


def split_batches(batches: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Split axis 2 of [steps, batches_per_step, examples, ...] over the devices of this process."""
    local = jax.local_device_count()
    return {k: v.reshape(*v.shape[:2], local, v.shape[2] // local, *v.shape[3:]) for k, v in batches.items()}


def map_examples(function: Callable[[Tree, dict[str, jax.Array]], Tree], batch_size: int) -> Callable:
    """Map `function(replicated tree, batch) -> tree of per-example values` over devices and over chunks of examples.

    The result takes (replicated tree, {name: [n, ...]}) with any n >= 1 and returns NumPy leaves [n, ...]; the last
    chunk is padded with its first example, so the function is compiled once. Several processes each do all the work
    on their own devices.
    """
    devices = jax.local_devices()
    per_device = -(-batch_size // len(devices))
    mapped = jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=devices)

    def run(tree: Tree, batch: dict[str, np.ndarray]) -> Tree:
        n = len(next(iter(batch.values())))
        chunk = per_device * len(devices)
        outputs = []
        for start in range(0, n, chunk):
            part = {name: np.asarray(values[start : start + chunk]) for name, values in batch.items()}
            count = len(next(iter(part.values())))
            full = {k: np.concatenate([v, np.repeat(v[:1], chunk - count, 0)]) for k, v in part.items()}
            split = {k: v.reshape(len(devices), per_device, *v.shape[1:]) for k, v in full.items()}
            result = jax.device_get(mapped(tree, split))
            outputs.append(jax.tree.map(lambda x, m=count: x.reshape(-1, *x.shape[2:])[:m], result))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)

    return run
