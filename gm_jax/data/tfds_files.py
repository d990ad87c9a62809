"""The record files of a prepared TFDS data set: their names, as `dataset_info.json` states them, and their records."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gm_jax.data import tfrecord
from gm_jax.errors import UserError

FORMATS = ("array_record", "tfrecord")  # that gm_jax reads; the first one is taken where a set has both
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class Records(Protocol):
    """Serialised examples with random access."""

    def __len__(self) -> int: ...
    def __getitems__(self, numbers: Sequence[int]) -> Sequence[bytes]: ...


@dataclass(frozen=True)
class Shards:
    """The files of one split in their order, those without examples left out."""

    directory: Path
    paths: tuple[Path, ...]
    size: int  # examples, by `dataset_info.json`
    file_format: str

    def open(self) -> Records:
        """Return the records of all files; UserError if one is missing or damaged, or they are more or fewer."""
        try:
            records = self._records()
        except Exception as error:  # array_record raises many kinds for a missing or damaged file
            raise self.unreadable(error) from error
        if len(records) != self.size:
            raise self.unreadable(f"they hold {len(records)} examples, dataset_info.json says {self.size}")
        return records

    def read(self, records: Records, numbers: Sequence[int]) -> Sequence[bytes]:
        """Return the serialised examples of these `numbers`; UserError if a file is damaged."""
        try:
            return records.__getitems__(numbers)
        except Exception as error:
            raise self.unreadable(error) from error

    def unreadable(self, why: Exception | str) -> UserError:
        """Return the error to raise for damaged files."""
        reason = next(iter(str(why).splitlines()), type(why).__name__)
        names = self.paths[0].name + (f" to {self.paths[-1].name}" if len(self.paths) > 1 else "")
        return UserError(
            f"{names} in {self.directory} cannot be read ({reason}): delete the directory and prepare it again"
        )

    def _records(self) -> Records:
        if self.file_format == "tfrecord":
            return tfrecord.Records(self.paths)
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource([str(path) for path in self.paths])


def choose_format(directory: Path, info: dict, name: str) -> str:
    """Return the format to read a data set in; UserError if it is prepared in none of `FORMATS`."""
    prepared = [info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])]
    for file_format in FORMATS:
        if file_format in prepared:
            return file_format
    raise UserError(
        f"{directory} is prepared as {prepared[0]}, gm_jax reads {' and '.join(FORMATS)}: prepare it again with "
        f"`python -m gm_jax.data.prepare {name} --data_dir=DIR` where DIR is another directory"
    )


def find_shards(directory: Path, info: dict, file_format: str) -> dict[str, Shards]:
    """Return the files of every split that `info`, the content of `dataset_info.json`, states."""
    shards = {}
    for split in info["splits"]:
        lengths = [int(length) for length in split.get("shardLengths", [])]
        count = len(lengths)
        digits = max(5, len(str(count)))
        paths = []
        for i, length in enumerate(lengths):
            name = (split.get("filepathTemplate") or _TEMPLATE).format(
                DATASET=info["name"],
                SPLIT=split["name"],
                FILEFORMAT=file_format,
                SHARD_INDEX=f"{i:0{digits}}",
                NUM_SHARDS=f"{count:0{digits}}",
                SHARD_X_OF_Y=f"{i:0{digits}}-of-{count:0{digits}}",
            )
            paths += [directory / name] * (length > 0)
        shards[split["name"]] = Shards(directory, tuple(paths), sum(lengths), file_format)
    return shards
