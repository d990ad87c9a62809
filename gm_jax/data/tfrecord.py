"""TFRecord files, TFDS's usual format, as a sequence of records: without TensorFlow, every checksum verified.

A record is: its length (uint64), the masked CRC-32C of these eight bytes (uint32), its data, the masked CRC-32C of
the data (uint32), all little-endian. Files hold no index, so one pass over the lengths makes it.
"""

import functools
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_HEADER, _FOOTER = 12, 4  # bytes before and after the data
_BLOCK = 256  # bytes that one row of the checksum's table look-ups takes
_ROWS = 256  # blocks at a time: few enough for the processor's cache
_ALL_ONES = np.array([0x54, 0x64, 0x1F, 0x64], np.uint8)  # bring a CRC-32C from 0 to its initial state 0xFFFFFFFF


class Records:
    """The records of TFRecord files, in the files' order, readable from any thread.

    Raises OSError or ValueError where a file is missing, cut off or damaged.
    """

    def __init__(self, paths: Sequence[Path]):
        self._files = [np.memmap(path, np.uint8, "r") for path in paths]
        self._places = [
            (path.name, file, begin, end)
            for path, file in zip(paths, map(np.asarray, self._files), strict=True)
            for begin, end in _index(path.name, file)
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitems__(self, numbers: Sequence[int]) -> list[bytes]:
        places = [self._places[number] for number in numbers]
        records = [file[begin:end] for _, file, begin, end in places]
        data = [record[_HEADER:-_FOOTER] for record in records]
        stored = [record[8:_HEADER] for record in records] + [record[-_FOOTER:] for record in records]
        wrong = masked_crc32c([record[:8] for record in records] + data) != np.concatenate(stored).view("<u4")
        if wrong.any():
            name, _, begin, _ = places[np.argmax(wrong) % len(places)]
            raise ValueError(f"{name} is damaged at byte {begin}")
        return [part.tobytes() for part in data]


def _index(name: str, file: np.ndarray) -> list[tuple[int, int]]:
    """Return begin and end of every record of a file."""
    places, begin = [], 0
    while begin + _HEADER <= len(file):
        end = begin + _HEADER + struct.unpack_from("<Q", file, begin)[0] + _FOOTER
        places.append((begin, end))
        begin = end
    if begin != len(file):
        raise ValueError(f"{name} is cut off or damaged")
    return places


def masked_crc32c(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return TFRecord's checksum of each part, uint32 [N]; a part is bytes, uint8 [length].

    A CRC is linear over XOR: that of a block is the XOR of what each of its bytes contributes at its distance from
    the end, and zeros in front change nothing. So all blocks of all parts are looked up at once, then joined.
    """
    ends = np.cumsum([-(-(len(part) + len(_ALL_ONES)) // _BLOCK) for part in parts])
    padded = np.zeros(ends[-1] * _BLOCK, np.uint8)
    for part, end in zip(parts, (ends * _BLOCK).tolist(), strict=True):
        begin = end - len(part)
        padded[begin - len(_ALL_ONES) : begin] = _ALL_ONES
        padded[begin:end] = part
    table = _contributions()
    blocks, places = padded.reshape(-1, _BLOCK), np.arange(_BLOCK) * 256
    rows = (places + blocks[i : i + _ROWS] for i in range(0, len(blocks), _ROWS))
    crc = np.concatenate([np.bitwise_xor.reduce(table.ravel().take(row), axis=1) for row in rows])
    begins = np.concatenate([[0], ends[:-1]])
    state = np.zeros(len(parts), np.uint32)
    for place in range(-(ends - begins).max(), 0):  # counted from each part's end
        # The state before a block counts as the block's first four bytes.
        moved = np.bitwise_xor.reduce([table[i].take((state >> 8 * i) & 255) for i in range(4)])
        state = np.where(ends + place < begins, 0, moved ^ crc[ends + place])
    state = ~state
    return ((state >> 15) | (state << 17)) + np.uint32(0xA282EAD8)


@functools.cache
def _contributions() -> np.ndarray:
    """What each value of each byte of a block adds to the CRC-32C, uint32 [block, 256]."""
    last = np.arange(256, dtype=np.uint32)
    for _ in range(8):  # Castagnoli's polynomial, bits reversed
        last = (last >> 1) ^ (last & 1) * np.uint32(0x82F63B78)
    table = [last]
    while len(table) < _BLOCK:  # a byte that one more zero byte follows
        table.append(last[table[-1] & 255] ^ (table[-1] >> 8))
    return np.stack(table[::-1])
