"""Read untrusted .npy and .npz files: plain numbers and texts only, with sizes checked before anything is unpacked."""

from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cocoer.errors import one_line

LARGEST = 2**30
"""Bytes that the arrays of one .npz may have when they are unpacked; a pack of zeros shrinks a thousandfold."""

_FAULTS = (OSError, ValueError, TypeError, OverflowError, MemoryError, EOFError, zipfile.BadZipFile, NotImplementedError,
           SyntaxError, RecursionError, RuntimeError)  # fmt: skip


def map_array(path: str | Path) -> NDArray[Any]:
    """The array of a .npy file, read-only, left on the disk until it is looked at.

    Raises FileNotFoundError, and ValueError for what is no such file, holds objects, or is shorter than its header says.
    """
    try:
        _refuse_endless(path)
        with open(path, "rb") as file:
            _header(file, os.fstat(file.fileno()).st_size)
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except FileNotFoundError:
        raise
    except _FAULTS as err:
        raise ValueError(f"{path}: wanted an array as numpy.save writes it ({one_line(err)})") from None


def read_arrays(path: str | Path, largest: int = LARGEST) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name, in memory.

    Raises FileNotFoundError, and ValueError for what is no such file, holds objects, unpacks to more than `largest` bytes, or
    holds an array whose header asks for more than its bytes.
    """
    try:
        _refuse_endless(path)
        with zipfile.ZipFile(path) as bundle:
            members = [member for member in bundle.infolist() if member.filename.endswith(".npy")]
            size = sum(member.file_size for member in members)
            if size > largest:
                raise ValueError(f"unpacks to {size:,} bytes, more than {largest:,}")
            return {member.filename.removesuffix(".npy"): _array(bundle.read(member)) for member in members}
    except FileNotFoundError:
        raise
    except (*_FAULTS, zipfile.zlib.error) as err:  # type: ignore[attr-defined]
        raise ValueError(f"{path}: wanted arrays as numpy.savez writes them ({one_line(err)})") from None


def _refuse_endless(path: str | Path) -> None:
    """ValueError for a pipe or a device, which may block or never end."""
    if not hasattr(path, "read") and os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("is a folder, pipe or device")


def _array(data: bytes) -> NDArray[Any]:
    """One array from the bytes of a .npy file."""
    file = io.BytesIO(data)
    shape, kind, by_columns = _header(file, len(data))
    return np.ndarray(shape, kind, data, file.tell(), order="F" if by_columns else "C").copy()


def _header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, kind, and whether columns come first, of a .npy file of `size` bytes; what it says is what it has."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"version {version} of the format")
    shape, by_columns, kind = readers[version](file)
    if kind.hasobject or kind.kind not in "biufcSU":
        raise ValueError(f"holds {kind}, not numbers or texts")
    if any(n < 0 for n in shape) or math.prod(shape) * kind.itemsize > size - file.tell():
        raise ValueError(f"says {kind} {list(shape)} and has {size - file.tell():,} bytes")
    return shape, kind, by_columns
