"""The tensors of a TorchScript archive (OpenAI's CLIP files are such archives), read as data: no TorchScript is run.

`torch.jit.load` runs code of the archive before it hands out a tensor: a module's `__setstate__` may do whatever TorchScript
can, writing files included. Here the pickle that describes the modules is read by an unpickler that knows five kinds of
object and builds inert records of them; the numbers are then taken from the archive's own members.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cocoer.errors import CheckpointError, first_line

_MOST_DESCRIPTION = 64 * 2**20  # bytes of data.pkl; CLIP's RN50 has 0.2 MB
_MOST_NODES = 10_000  # modules; CLIP's RN50 has a few hundred

_STORAGES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class _Storage:
    """Numbers in a member of the archive."""

    dtype: torch.dtype
    member: str
    count: int


@dataclass(frozen=True)
class _Stored:
    """A tensor as the description has it; nothing of it is trusted before `_tensor` has checked it."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class _Module:
    """Stands in for every module of the archive: keeps the attributes that the description gives it."""

    def __init__(self) -> None:
        self.attributes: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Stored:
    return _Stored(storage, offset, size, stride)


def _first(value: Any = None, *_: Any) -> Any:
    return value


class _Reader(pickle._Unpickler):  # in Python, for the C one allocates whatever size the file names
    """Knows torch's tensors, plain lists and the archive's own modules; every other name is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch.jit._pickle" and (name == "restore_type_tag" or name.startswith("build_")):
            return _first
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        raise pickle.UnpicklingError(f"names {module}.{name}, which no archive of plain tensors needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        known = kind == "storage" and isinstance(dtype, torch.dtype) and type(count) is int and count >= 0
        if not known or not isinstance(key, str) or not key.isalnum():
            raise pickle.UnpicklingError(f"wanted a storage, got {str(pid)[:80]}")
        return _Storage(dtype, key, count)


def is_torchscript(path: Path) -> bool:
    """Whether the file is a whole TorchScript archive, such as OpenAI's RN50.pt."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Parameters and buffers of the archive by their names in the module tree, on the CPU, as stored.

    what: how messages call the file ("CLIP weights"). Raises CheckpointError for a damaged or foreign file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(n.removesuffix("constants.pkl") for n in archive.namelist() if n.endswith("/constants.pkl"))
            description = archive.getinfo(f"{root}data.pkl")
            if description.file_size > _MOST_DESCRIPTION:
                raise CheckpointError(f"{what} {path}: its description has {description.file_size:,} bytes")
            module = _Reader(io.BytesIO(archive.read(description))).load()
            found = _collected(module)
            storages: dict[str, Tensor] = {}
            size = path.stat().st_size
            return {name: _tensor(stored, archive, f"{root}data/", storages, size) for name, stored in found.items()}
    except CheckpointError:
        raise
    except Exception as err:  # noqa: BLE001 - a forged description can make an unpickler raise anything
        raise CheckpointError(
            f"{what} {path}: truncated or damaged: {first_line(err)}; download the file again"
        ) from None


def _collected(module: Any) -> dict[str, _Stored]:
    """The tensors below a module, by name. Raises ValueError for a tree that is no module's, or has no end."""
    found: dict[str, _Stored] = {}
    if not isinstance(module, _Module):
        raise ValueError("wanted a module")
    waiting: list[tuple[str, _Module]] = [("", module)]
    for _ in range(_MOST_NODES):
        if not waiting:
            return found
        prefix, node = waiting.pop()
        if not isinstance(node.attributes, Mapping):
            raise ValueError("wanted a module with named attributes")
        for name, value in node.attributes.items():
            if isinstance(value, _Stored):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))
    raise ValueError(f"more than {_MOST_NODES:,} modules")


def _tensor(stored: _Stored, archive: zipfile.ZipFile, folder: str, cache: dict[str, Tensor], most: int) -> Tensor:
    """The checked tensor. Raises ValueError for a place outside its storage, zlib or zipfile errors for a damaged member."""
    storage, offset, size, stride = stored.storage, stored.offset, stored.size, stored.stride
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or any(type(n) is not int or not 0 <= n < 2**62 for n in numbers):
        raise ValueError("a tensor without a storage, or with sizes that are not numbers")
    if len(size) != len(stride) or math.prod(size) > storage.count:
        raise ValueError(f"a tensor of shape {list(size)} over {storage.count} numbers")
    if storage.member not in cache:
        info = archive.getinfo(folder + storage.member)
        if info.file_size > most or info.file_size != storage.count * storage.dtype.itemsize:
            raise ValueError(f"{info.filename} holds {info.file_size:,} bytes, not {storage.count:,} numbers")
        content = bytearray(archive.read(info))
        cache[storage.member] = (
            torch.frombuffer(content, dtype=storage.dtype) if content else torch.tensor([], dtype=storage.dtype)
        )
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.count:
        raise ValueError(f"a tensor that ends at number {last} of {storage.count}")
    return cache[storage.member].as_strided(tuple(size), tuple(stride), offset).clone()
