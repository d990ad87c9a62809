"""Tensors of PyTorch's files, read without PyTorch and without running anything that a file asks for.

Three formats: what `torch.save` writes (a zip archive, and before PyTorch 1.6 a row of pickles), and the TorchScript
archives of `torch.jit.save`. Each is a pickle beside raw bytes. A pickle may name any function to call; here it gets a
tensor, a container or a module without code, and everything else is refused.
"""

import io
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gm_jax.errors import UserError

MAX_FILE = 2**30  # bytes
MAX_PICKLE = 2**24  # bytes
MAX_PARTS = 10**5  # of the pickled tree
MAX_NAME = 1000  # characters of a dotted name
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")

Fetch = Callable[[str, np.dtype, int], np.ndarray]  # (key, dtype, values) of a storage -> its values


class Kind(NamedTuple):
    """The type of a storage's values."""

    dtype: str


class Storage(NamedTuple):
    """A row of values that lie elsewhere in the file."""

    key: str
    dtype: np.dtype
    size: int  # values


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in values


class Module:
    """What stands for a TorchScript module: its attributes, and no code."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Return the tensors of a state dict or a TorchScript archive by their dotted names.

    Raises UserError, in one line, if the file is too large, damaged or in another format, or if its pickle names
    anything but tensors, containers and TorchScript modules.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE:
            raise UserError(f"{path} has more than {MAX_FILE >> 20} MiB: it is not a file of weights for gm_jax")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): give another file") from error
    try:
        tree, fetch = _open_zip(data) if data.startswith(b"PK") else _open_legacy(data)
        tensors = _named(tree)
        if sum(math.prod(tensor.shape) * tensor.storage.dtype.itemsize for tensor in tensors.values()) > MAX_FILE:
            raise ValueError("tensors larger than any file may be")
        return {name: _values(tensor, fetch) for name, tensor in tensors.items()}
    except _Refused as error:
        raise UserError(f"{path} asks to run or use {error}, which weights need not: do not trust it") from error
    except Exception as error:  # a pickle can be wrong in any way: what it raises is not ours to list
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{path} is damaged or no PyTorch file ({reason}): get it again") from error


class _Refused(Exception):
    """The name of what a pickle must not have."""


class _Unpickler(pickle.Unpickler):
    """Makes tensors, containers and modules without code, whatever else the pickle wants."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a new object each time: a pickle may set the attributes of what it gets."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _tensor(*arguments)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda value, *_: value
        if module == "torch" and name in STORAGES:
            return Kind(STORAGES[name])
        if module == "torch.jit._pickle" and name in LISTS:
            return lambda value, *_: value
        if module == "__torch__" or module.startswith("__torch__."):
            return type("Module", (Module,), {})
        raise _Refused(f"'{module}.{name}'"[:200])

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that a persistent id names; `rest` is an old format's view of another storage."""
        what, kind, key, _, size, *rest = pid
        if what != "storage" or rest not in ([], [None]) or not isinstance(kind, Kind):
            raise ValueError("an unknown kind of storage")
        return Storage(_text(key), np.dtype(kind.dtype), _whole(size))


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without storage")
    return Tensor(storage, _whole(offset), tuple(map(_whole, shape)), tuple(map(_whole, strides)))


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError("a size that is no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\w{1,64}", value, re.ASCII):
        raise ValueError("a storage with a name that could leave the archive")
    return value


def _load(stream: io.BytesIO) -> Any:
    return _Unpickler(stream, encoding="utf-8").load()


def _open_zip(data: bytes) -> tuple[Any, Fetch]:
    """Return the unpickled tree of an archive, and what fetches its storages."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    # The order of bytes is little unless said otherwise; all names lie under one folder, and none is ever extracted.
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}

    def member(name: str, size: int) -> bytes:
        info = members.get(name)
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise ValueError(f"no '{name}' of the right size in the archive")
        return archive.read(info)  # checks the CRC-32

    def fetch(key: str, dtype: np.dtype, size: int) -> np.ndarray:
        return np.frombuffer(member(f"data/{key}", size * dtype.itemsize), dtype, size)

    if "byteorder" in members and member("byteorder", 16) != b"little":
        raise ValueError("big-endian numbers")
    return _load(io.BytesIO(member("data.pkl", MAX_PICKLE))), fetch


def _open_legacy(data: bytes) -> tuple[Any, Fetch]:
    """Likewise for the format before the archives: pickles, then the storages, each behind its number of values."""
    stream = io.BytesIO(data)
    if not data.startswith(b"\x80") or _load(stream) != LEGACY_MAGIC or _load(stream) != LEGACY_PROTOCOL:
        raise ValueError("neither a zip archive nor an old state dict")
    if _load(stream).get("little_endian") is not True:
        raise ValueError("big-endian numbers")
    tree = _load(stream)
    sizes = {tensor.storage.key: tensor.storage for tensor in _named(tree).values()}
    storages = {}
    for key in _load(stream):
        storage = sizes[key]
        if int.from_bytes(stream.read(8), "little") != storage.size:
            raise ValueError(f"storage {key} has another size")
        storages[key] = np.frombuffer(stream.read(storage.size * storage.dtype.itemsize), storage.dtype, storage.size)

    def fetch(key: str, dtype: np.dtype, size: int) -> np.ndarray:
        return storages[key]

    return tree, fetch


def _named(tree: Any) -> dict[str, Tensor]:
    """Return the tensors in dicts and modules by their dotted names."""
    found, left = {}, [("", tree)]
    for _ in range(MAX_PARTS):
        if not left:
            return found
        name, value = left.pop()
        value = value.state if isinstance(value, Module) else value
        if len(name) > MAX_NAME:
            raise ValueError("modules in modules without end")
        if isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, dict):  # the rest are numbers, texts and lists among the attributes of a module
            left += [(f"{name}.{key}" if name else str(key), part) for key, part in reversed(value.items())]
    raise ValueError(f"more than {MAX_PARTS} parts")


def _values(tensor: Tensor, fetch: Fetch) -> np.ndarray:
    """Return a tensor's values; there are no more of them than its storage has."""
    storage, offset, shape, strides = tensor
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > storage.size or (math.prod(shape) and last >= storage.size):
        raise ValueError("a tensor larger than its storage")
    values = fetch(storage.key, storage.dtype, storage.size)
    size = storage.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(values[offset:], shape, [size * n for n in strides], writeable=False)
    return np.array(view)
