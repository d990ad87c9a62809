"""The only place with `pmap`: the device axis, replication, splitting batches; several processes map as one.

Arrays lie on the devices of their own process. What is the same on all devices is so because every process computes
it, and collectives over the axis are all that joins them.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gm_jax import cluster
from gm_jax.errors import UserError
from gm_jax.step import AXIS, gather

Tree = Any


def replicated() -> NamedSharding:
    """The sharding that a pmapped step gives its state: placing it so from the start saves a second compilation."""
    return NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), PartitionSpec())


def replicate(tree: Tree) -> Tree:
    """Copy host arrays to every device of this process."""
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
    `position` is that of `positions`; state, resident data and metrics are the same on all devices. Several processes
    give their batches `with_signal`, and get metrics for `split_signal`.
    """
    axes = dict(axis_name=AXIS, out_axes=(None, None), donate_argnums=(0,))
    if cluster.count() == 1:
        return jax.pmap(call, in_axes=(None, None, 0, 2), **axes)

    def with_agreement(state: Tree, resident: Tree, position: jax.Array, batches: Tree) -> tuple[Tree, Tree]:
        state, metrics = call(state, resident, position, batches[0])
        return state, (metrics, jax.lax.pmax(batches[1], AXIS))

    return jax.pmap(with_agreement, in_axes=(None, None, 0, (2, 0)), **axes)


def with_signal(batches: Tree, signal: int) -> Tree:
    """Return what a mapped train call takes: of several processes, the signal that this one got (or 0), too.

    The call itself finds the largest, so that all know of it after the same step, and none waits for another.
    """
    return batches if cluster.count() == 1 else (batches, np.full(jax.local_device_count(), signal, np.int32))


def split_signal(metrics: Tree) -> tuple[Tree, jax.Array | None]:
    """Return the metrics of a mapped train call, and what its processes have voted, for `agree` once it has ended."""
    return (metrics, None) if cluster.count() == 1 else metrics


def agree(signal: int, vote: jax.Array | None) -> int:
    """Return the signal on which all processes act now: of one, its own; of several, the largest voted for."""
    return signal if cluster.count() == 1 else int(vote or 0)


def split_batches(batches: Tree) -> Tree:
    """Split axis 2 of [steps, batches of a step, examples, ...] over the devices of this process."""
    local = jax.local_device_count()
    return jax.tree.map(lambda v: v.reshape(*v.shape[:2], local, v.shape[2] // local, *v.shape[3:]), batches)


def positions(batch_size: int) -> jax.Array:
    """Return the places in the global batch of the examples on each local device, int32 [devices, examples a device].

    They travel with the batch: a device's number on the axis says nothing of its process.
    """
    count, devices = batch_size // cluster.count(), jax.local_device_count()
    own = cluster.index() * count + np.arange(count, dtype=np.int32)
    sharding = NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), PartitionSpec(AXIS))
    return jax.device_put(own.reshape(devices, count // devices), sharding)


def iterate_examples(function: Callable[[Tree, Tree], Tree], batch_size: int) -> Callable[[Tree, Tree], Iterator[Tree]]:
    """Map `function(replicated tree, batch) -> tree of per-example values` over devices, chunk after chunk.

    The result takes (replicated tree, batch with leaves [n, ...]), any n >= 1, and yields NumPy trees whose leaves
    together are [n, ...]; the last chunk is padded with its first example, so the function is compiled once. Several
    processes share the work: they give the same batch, and each gets all values.
    """
    local, alone = jax.local_devices(), cluster.count() == 1
    devices = len(local) * cluster.count()
    per_device = -(-batch_size // devices)
    own = slice(cluster.index() * len(local), (cluster.index() + 1) * len(local))
    places = np.arange(devices * per_device, dtype=np.int32).reshape(devices, per_device)

    def share(tree: Tree, batch: Tree, place: jax.Array) -> Tree:
        found = function(tree, batch)
        if alone:
            return found
        return jax.tree.map(lambda x: x.reshape(devices, per_device, *x.shape[1:]), gather(found, place))

    mapped = jax.pmap(
        share, AXIS, in_axes=(None, 0, 0), out_axes=0 if alone else None, devices=local if alone else None
    )

    def split(values: np.ndarray, start: int, count: int) -> np.ndarray:
        part = np.asarray(values[start : start + count])
        full = np.concatenate([part, np.repeat(part[:1], per_device * devices - count, 0)])
        return full.reshape(devices, per_device, *full.shape[1:])[own]

    def run(tree: Tree, batch: Tree) -> Iterator[Tree]:
        n, chunk = len(jax.tree.leaves(batch)[0]), per_device * devices
        for start in range(0, n, chunk):
            count = min(chunk, n - start)
            part = jax.tree.map(lambda values, at=(start, count): split(values, *at), batch)
            result = jax.device_get(mapped(tree, part, places[own]))
            yield jax.tree.map(lambda x, m=count: x.reshape(-1, *x.shape[2:])[:m], result)

    return run


def concatenate(chunks: Iterable[Tree]) -> Tree:
    """Join what `iterate_examples` yields: leaves [n, ...]."""
    return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
