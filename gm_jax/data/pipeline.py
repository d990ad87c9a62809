"""Batches as a pure function of (seed, step), read through Grain.

The examples of a source form one endless stream: epoch after epoch, each in the order of its own permutation. A step
takes the next ones of every source, as many as its stage says, so batches cross epoch borders, nothing is dropped, and
a resumed run needs no position but its step.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gm_jax.stages import Stage, examples_before, stable_hash, stage_at

RESIDENT_BYTES = 2**30  # a split up to this size is copied to the devices once


class Stream(NamedTuple):
    """The training examples of one source of data.

    Attributes:
        data: arrays [N, ...] by name, as `arrays` returns them.
        examples: int32 [n], the numbers of those that it takes, each once an epoch.
        resident: they lie on the devices already, so that batches hold their numbers alone.
    """

    data: Mapping[str, np.ndarray]
    examples: np.ndarray
    resident: bool


@functools.lru_cache(maxsize=8)
def epoch_order(size: int, seed: int, source: str, epoch: int) -> np.ndarray:
    """Return the permutation of a source's `size` examples for one epoch, int32 [size]."""
    return np.random.default_rng([seed, stable_hash(source), epoch]).permutation(size).astype(np.int32)


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


def next_examples(size: int, seed: int, source: str, first: int, n: int) -> np.ndarray:
    """Return the examples first ... first + n - 1 of the endless stream out of `size` examples, int32 [n]."""
    parts = []
    for epoch in range(first // size, (first + n - 1) // size + 1):
        begin = epoch * size
        parts.append(epoch_order(size, seed, source, epoch)[max(first - begin, 0) : first + n - begin])
    return np.concatenate(parts)


def arrays(split: Any) -> dict[str, np.ndarray]:
    """Return a `Split` as a batch has it: "image" uint8 [N, H, W, C], "label" int32 [N] if labelled, attributes."""
    labels = {} if split.labels is None else {"label": split.labels}
    return {"image": split.images, **labels, **split.attributes}


def fits_on_device(data: dict[str, np.ndarray]) -> bool:
    """True if the data are small enough to lie on every device."""
    return sum(array.nbytes for array in data.values()) <= RESIDENT_BYTES


def batches(
    sources: Mapping[str, Stream],
    stages: Sequence[Stage],
    *,
    seed: int,
    calls: range,
    steps_per_call: int,
    process: tuple[int, int] = (0, 1),
    transfer: Callable[[dict[str, dict[str, np.ndarray]]], Any] = lambda batch: batch,
) -> Iterator[Any]:
    """Yield what each of the `calls` of the train function consumes, by source, read ahead by threads.

    Leaves are [steps_per_call, batches of a step, batch_size / processes, ...]: "index" always, the examples themselves
    unless they are resident. `process` is (index, count); each process reads its own slice of every batch. `transfer`
    is applied in the reading threads (splitting over devices, copying to them).
    """
    import grain.python as grain  # here, not above: it takes 0.3 s to import, and sampling does not need it

    def read(call: int) -> Any:
        # All batches of a call at once, as one long batch: small networks take hundreds of them.
        first, stage = call * steps_per_call, stages[stage_at(stages, call * steps_per_call)]
        shape, share = (steps_per_call, stage.batches, stage.batch_size), stage.batch_size // process[1]
        before = examples_before(stages, first)
        found = {}
        for name, source in sources.items():
            numbers = next_examples(len(source.examples), seed, name, before, int(np.prod(shape)))
            mine = source.examples[numbers].reshape(shape)[..., process[0] * share : (process[0] + 1) * share]
            own = {} if source.resident else {key: array[mine] for key, array in source.data.items()}
            found[name] = {"index": mine, **own}
        return transfer(found)

    threads = 1 if all(source.resident for source in sources.values()) else 4
    iterable = grain.MapDataset.source(calls).map(read)
    return iter(iterable.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4)))
