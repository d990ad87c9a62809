"""Batches as a pure function of (seed, step), read through Grain.

The examples form one endless stream: epoch after epoch, each in the order of its own permutation. Batch number s holds
the examples [s * batch_size, (s + 1) * batch_size) of that stream, so batches cross epoch borders, nothing is dropped,
and a resumed run needs no position but its step.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

RESIDENT_BYTES = 2**30  # a split up to this size is copied to the devices once


@functools.lru_cache(maxsize=4)
def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return the permutation of `size` examples for one epoch, int32 [size]."""
    return np.random.default_rng([seed, epoch]).permutation(size).astype(np.int32)


def choose(size: int, n: int | None) -> np.ndarray:
    """Return the numbers of n of `size` examples, always the same ones, int32; None, or too many: all, in order.

    They come from everywhere: the first n of a folder that is sorted by class would be of one class.
    """
    if n is None or n >= size:
        return np.arange(size, dtype=np.int32)
    return np.random.default_rng(0).permutation(size)[:n].astype(np.int32)


def hold_out(size: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of all but n of `size` examples, and of these n (see `choose`), both int32 and ascending."""
    held_out = np.sort(choose(size, n))
    return np.delete(np.arange(size, dtype=np.int32), held_out), held_out


def batch_indices(size: int, batch_size: int, seed: int, number: int) -> np.ndarray:
    """Return the examples of one batch, int32 [batch_size], out of a data set of `size`."""
    first, last = number * batch_size, (number + 1) * batch_size
    parts = []
    for epoch in range(first // size, (last - 1) // size + 1):
        begin = epoch * size
        parts.append(epoch_order(size, seed, epoch)[max(first - begin, 0) : last - begin])
    return np.concatenate(parts)


def arrays(split: Any) -> dict[str, np.ndarray]:
    """Return a `Split` as a batch has it: "image" uint8 [N, H, W, C], "label" int32 [N] if labelled, attributes."""
    labels = {} if split.labels is None else {"label": split.labels}
    return {"image": split.images, **labels, **split.attributes}


def fits_on_device(data: dict[str, np.ndarray]) -> bool:
    """True if the data are small enough to lie on every device."""
    return sum(array.nbytes for array in data.values()) <= RESIDENT_BYTES


def batches(
    data: dict[str, np.ndarray],
    examples: np.ndarray,
    *,
    batch_size: int,
    seed: int,
    calls: range,
    steps_per_call: int,
    batches_per_step: int,
    resident: bool,
    process: tuple[int, int] = (0, 1),
    transfer: Callable[[dict[str, np.ndarray]], Any] = lambda batch: batch,
) -> Iterator[Any]:
    """Yield what each of the `calls` of the train function consumes, read ahead by threads.

    Batches hold those of the data whose numbers are in `examples` int32 [n]. Leaves are [steps_per_call,
    batches_per_step, batch_size / processes, ...]: "index" always, the examples themselves unless the data are
    `resident` on the devices. `process` is (index, count); each process reads its own slice of every batch. `transfer`
    is applied in the reading threads (splitting over devices, copying to them).
    """
    import grain.python as grain  # here, not above: it takes 0.3 s to import, and sampling does not need it

    share = batch_size // process[1]
    mine = slice(process[0] * share, (process[0] + 1) * share)
    numbers_per_call = steps_per_call * batches_per_step

    def read(call: int) -> Any:
        # All batches of a call at once, as one long batch: small networks take hundreds of them.
        index = examples[batch_indices(len(examples), batch_size * numbers_per_call, seed, call)]
        index = index.reshape(steps_per_call, batches_per_step, batch_size)[..., mine]
        batch = {} if resident else {name: array[index] for name, array in data.items()}
        return transfer({"index": index, **batch})

    source = grain.MapDataset.source(calls).map(read)
    return iter(source.to_iter_dataset(grain.ReadOptions(num_threads=1 if resident else 4, prefetch_buffer_size=4)))
