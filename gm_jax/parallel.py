"""The only place with `pmap`: the device axis, replication, splitting batches, several processes."""

import os
from collections.abc import Callable, Iterable, Iterator
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


def is_writer() -> bool:
    """True in the one process that locks the workdir, writes files and draws figures."""
    return jax.process_index() == 0


def agree(number: int) -> int:
    """Return the largest of all processes' numbers, so that they act on a signal, or on damage, as one."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


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
    """Map `call(state, resident, position, batches) -> (state, metrics)` over the devices; the state is donated.

    `batches` has leaves [steps, batches of a step, local devices, examples a device, ...] (see `split_batches`), and
    `position` is that of `positions`; state, resident data and metrics are the same on all devices.
    """
    return jax.pmap(call, axis_name=AXIS, in_axes=(None, None, 0, 2), out_axes=(None, None), donate_argnums=(0,))


def split_batches(batches: Tree) -> Tree:
    """Split axis 2 of [steps, batches of a step, examples, ...] over the devices of this process."""
    local = jax.local_device_count()
    return jax.tree.map(lambda v: v.reshape(*v.shape[:2], local, v.shape[2] // local, *v.shape[3:]), batches)


def positions(batch_size: int) -> jax.Array:
    """Return the places in the global batch of the examples on each device, int32 [devices, examples a device].

    They travel with the batch: a device's number on the axis says nothing of its process.
    """
    count, devices = batch_size // jax.process_count(), jax.local_device_count()
    own = jax.process_index() * count + np.arange(count, dtype=np.int32)
    sharding = NamedSharding(Mesh(np.asarray(jax.devices()), (AXIS,)), PartitionSpec(AXIS))
    return jax.make_array_from_process_local_data(sharding, own.reshape(devices, count // devices))


def iterate_examples(function: Callable[[Tree, Tree], Tree], batch_size: int) -> Callable[[Tree, Tree], Iterator[Tree]]:
    """Map `function(replicated tree, batch) -> tree of per-example values` over devices, chunk after chunk.

    The result takes (replicated tree, batch with leaves [n, ...]), any n >= 1, and yields NumPy trees whose leaves
    together are [n, ...]; the last chunk is padded with its first example, so the function is compiled once. Several
    processes each do all the work on their own devices.
    """
    devices = jax.local_devices()
    per_device = -(-batch_size // len(devices))
    mapped = jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=devices)

    def split(values: np.ndarray, start: int, count: int) -> np.ndarray:
        part = np.asarray(values[start : start + count])
        full = np.concatenate([part, np.repeat(part[:1], per_device * len(devices) - count, 0)])
        return full.reshape(len(devices), per_device, *full.shape[1:])

    def run(tree: Tree, batch: Tree) -> Iterator[Tree]:
        n, chunk = len(jax.tree.leaves(batch)[0]), per_device * len(devices)
        for start in range(0, n, chunk):
            count = min(chunk, n - start)
            part = jax.tree.map(lambda values, at=(start, count): split(values, *at), batch)
            result = jax.device_get(mapped(tree, part))
            yield jax.tree.map(lambda x, m=count: x.reshape(-1, *x.shape[2:])[:m], result)

    return run


def concatenate(chunks: Iterable[Tree]) -> Tree:
    """Join what `iterate_examples` yields: leaves [n, ...]."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
