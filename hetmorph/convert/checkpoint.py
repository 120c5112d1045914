"""PyTorch checkpoints without PyTorch, and without running what is in them."""

from __future__ import annotations

import collections
import math
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

_NUMBERS = {
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
_PICKLE = "data.pkl"


def read_checkpoint(path: str | os.PathLike) -> dict:
    """What `torch.save` has written of tensors in dictionaries and lists, the tensors as arrays.

    A checkpoint is a pickle, and a pickle is a program. Of what it may call, only dictionaries and the making of
    tensors are known here; anything else is refused by its name before it is called.

    Args:
        path: path of a file of PyTorch 1.6 or newer, in the format of a zip archive.

    Returns:
        The dictionary of the file, as a rule names to arrays.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is cut off, of another kind, or that wants to call something else.

    Example:
        >>> weights = read_checkpoint("Step_2_final.trch")
    """
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(4)
    if not zipfile.is_zipfile(path):
        cut = start == b"PK\x03\x04"
        what = "is cut off" if cut else "is none, or of a PyTorch before 1.6: torch.save writes it anew"
        raise ValueError(f"{path}: expected a checkpoint of PyTorch; this file {what}")
    try:
        with zipfile.ZipFile(path) as archive:
            found = _unpickled(archive)
    except _Refused as error:
        raise ValueError(f"{path}: {error}; nothing of it was run") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path}: the checkpoint is damaged ({str(error).splitlines()[0]})") from error
    except (pickle.UnpicklingError, MemoryError, AttributeError, LookupError, OverflowError, TypeError) as error:
        raise ValueError(f"{path}: expected tensors in a checkpoint of PyTorch, received {error!r:.200}") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: expected a dictionary of tensors, received a {type(found).__name__}")
    return dict(found)


class _Refused(Exception):
    """A checkpoint that asks for what is not done here."""


class _Storage(NamedTuple):
    """The numbers behind one or several tensors."""

    numbers: np.ndarray


class _Kind(NamedTuple):
    """The type of a storage; a tuple, so that no pickle can change it."""

    name: str


class _Call(tuple):
    """A function that a pickle may call, one of the two that make tensors; a tuple for the same reason."""

    __slots__ = ()

    def __call__(self, *arguments):
        return (_tensor if self == ("_rebuild_tensor_v2",) else _parameter)(*arguments)


def _tensor(storage, offset, size, stride, *_) -> np.ndarray:
    """An array of a storage, which has to hold all of it."""
    if not isinstance(storage, _Storage) or len(size) != len(stride):
        raise _Refused("it makes a tensor of something else than numbers")
    whole = [offset, *size, *stride]
    if not all(isinstance(value, int) and value >= 0 for value in whole):
        raise _Refused(f"it makes a tensor of offset {offset}, size {size} and stride {stride}")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.numbers.size:
        raise _Refused(f"it makes a tensor of {tuple(size)} from {storage.numbers.size} numbers")
    item = storage.numbers.itemsize
    start = storage.numbers[offset:] if math.prod(size) else storage.numbers[:0]
    return np.lib.stride_tricks.as_strided(start, size, [item * step for step in stride], writeable=False).copy()


def _parameter(tensor, *_) -> np.ndarray:
    return tensor


class _Unpickler(pickle.Unpickler):
    """Knows dictionaries and tensors by name, and no other function or class."""

    def __init__(self, file, archive: zipfile.ZipFile, folder: str):
        super().__init__(file, encoding="utf-8")
        self._archive, self._folder, self._storages = archive, folder, {}

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _Call((name,))
        if module == "torch" and name in _NUMBERS:
            return _Kind(name)
        raise _Refused(f"the file wants to call {module}.{name}, which a checkpoint of weights has no need of")

    def persistent_load(self, pid) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], _Kind):
            raise _Refused(f"the file asks for {pid!r:.80}, which is no storage of numbers")
        _, kind, key, _, count = pid
        if key not in self._storages:
            self._storages[key] = self._storage(np.dtype(_NUMBERS[kind.name]), str(key), count)
        return self._storages[key]

    def _storage(self, dtype: np.dtype, key: str, count: int) -> _Storage:
        entry = self._archive.getinfo(f"{self._folder}data/{key}")
        if entry.file_size != count * dtype.itemsize:
            raise _Refused(f"storage {key} has {entry.file_size} bytes instead of {count * dtype.itemsize}")
        return _Storage(np.frombuffer(self._archive.read(entry), dtype))


def _unpickled(archive: zipfile.ZipFile):
    names = archive.namelist()
    pickles = [name for name in names if name == _PICKLE or name.endswith(f"/{_PICKLE}")]
    if len(pickles) != 1:
        raise _Refused(f"expected one {_PICKLE} in a checkpoint of PyTorch, received {names[:5]}")
    folder = pickles[0].removesuffix(_PICKLE)
    order = f"{folder}byteorder"
    if order in names and archive.read(order) != b"little":
        raise _Refused("its numbers are stored with the largest byte first, which is not read here")
    with archive.open(pickles[0]) as file:
        return _Unpickler(file, archive, folder).load()
