"""Arrays and MATLAB files of anybody: what was written comes back, and no file makes the program take what the file has not."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from cocoer.data.array_file import map_array, read_arrays
from cocoer.data.prepare.emotic import load_annotations
from cocoer.data.prepare.mat_file import DEEPEST, check_mat_file
from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.export import write_emotic
from cocoer.errors import AnnotationError

PLAIN = st.one_of(
    arrays_of.boolean_dtypes(), arrays_of.integer_dtypes(), arrays_of.floating_dtypes(),
    arrays_of.unicode_string_dtypes(max_len=3),
)  # fmt: skip


@given(arrays_of.arrays(PLAIN, arrays_of.array_shapes(min_dims=1, min_side=0, max_side=4)), st.booleans())
def test_arrays_come_back_as_they_were_written(array: NDArray[Any], packed: bool) -> None:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, a=array, b=np.asfortranarray(array))
    found = read_arrays(buffer)  # type: ignore[arg-type]
    for name in ("a", "b"):
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes() and found[name].flags.writeable


def header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    """A .npy file's beginning that promises `shape`."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": kind, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def pack(**members: bytes) -> bytes:
    """A .npz file of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, data in members.items():
            bundle.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def saved(array: NDArray[Any], **how: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **how)
    return buffer.getvalue()


OBJECTS = saved(np.array([{}, []], dtype=object), allow_pickle=True)
LYING = {
    "promises terabytes": header((10**12,)) + bytes(80),
    "promises one more": header((11,)) + bytes(80),
    "overflows": header((2**40, 2**40)) + bytes(80),
    "is negative": header((-1, 8)) + bytes(80),
    "holds objects": OBJECTS,
    "names objects": header((1,), "|O") + bytes(8),
    "is a pickle": pickle.dumps([1]),
    "is no array": b"\x93NUMPY",
    "is empty": b"",
    "has a deep header": b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"(" * 60_000,
    "has dates": saved(np.array(["2024-01-01"], "datetime64[D]")),
}


@pytest.mark.parametrize("kind", LYING)
def test_an_array_that_lies_is_one_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(LYING[kind])
    with pytest.raises(ValueError, match=r"a\.npy: wanted an array"):
        map_array(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", LYING)
def test_a_pack_with_an_array_that_lies_is_one_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(pack(a=LYING[kind]))
    with pytest.raises(ValueError, match=r"a\.npz: wanted arrays"):
        read_arrays(tmp_path / "a.npz")


def test_a_pack_is_measured_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.npz").write_bytes(pack(a=saved(np.zeros(10**5)), b=saved(np.zeros(10**5))))
    assert (tmp_path / "a.npz").stat().st_size < 5_000
    assert read_arrays(tmp_path / "a.npz", 2 * 10**6)["b"].shape == (10**5,)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ValueError, match=r"unpacks to 1,600,256 bytes, more than 1,000,000"):
        read_arrays(tmp_path / "a.npz", 10**6)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(50), b"\x00" * 1000], ids=["empty", "torn", "zeros"])
def test_what_is_no_pack_is_one_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="wanted arrays"):
        read_arrays(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "b.npz")
    (tmp_path / "a.npy").write_bytes(pack(a=saved(np.zeros(3))))
    with pytest.raises(ValueError, match="wanted an array"):
        map_array(tmp_path / "a.npy")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("read", [map_array, read_arrays])
def test_a_pipe_or_device_is_refused_before_it_is_opened(read: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", ""):
        with pytest.raises(ValueError, match="is a folder, pipe or device"):
            read(tmp_path / name)


# ---- MATLAB --------------------------------------------------------------------------------------------------------

BEGIN = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(sort: int, sizes: tuple[int, ...], rest: bytes = b"") -> bytes:
    """miMATRIX of a class with these sizes; rest: what follows the empty name."""
    flags, dims = struct.pack("<II", sort, 0), struct.pack(f"<{len(sizes)}i", *sizes)
    return element(14, element(6, flags) + element(5, dims) + element(1, b"") + rest)


def cells(depth: int) -> bytes:
    inside = matrix(6, (1, 1), element(9, bytes(8)))
    for _ in range(depth):
        inside = matrix(1, (1, 1), inside)
    return inside


def packed(data: bytes) -> bytes:
    return (lambda small: struct.pack("<II", 15, len(small)) + small)(zlib.compress(data, 9))


FORGED: dict[str, Callable[[], bytes]] = {
    "a struct of any size": lambda: matrix(2, (10**9, 1)),
    "a cell of any size": lambda: matrix(1, (2**31 - 1, 2**31 - 1)),
    "a cell of any size in a cell": lambda: matrix(1, (1, 1), matrix(1, (10**9, 1))),
    "numbers of any size": lambda: matrix(6, (10**9, 1), element(9, bytes(8))),
    "negative sizes": lambda: matrix(6, (-5, 1), element(9, bytes(8))),
    "cells without end": lambda: cells(2_000),
    "a sparse matrix": lambda: matrix(5, (10**6, 10**6)),
    "an object": lambda: matrix(3, (1, 1)),
    "a function": lambda: matrix(16, (1, 1)),
    "a matrix without a header": lambda: element(14, bytes(8)),
    "an element longer than its matrix": lambda: matrix(1, (1, 1), struct.pack("<II", 14, 10**6)),
}


@pytest.mark.parametrize("kind", FORGED)
@pytest.mark.parametrize("how", [bytes, packed], ids=["plain", "packed"])
def test_a_forged_matlab_file_is_one_error_before_scipy_reads_it(
    kind: str, how: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Annotations.mat").write_bytes(BEGIN + how(FORGED[kind]()))
    monkeypatch.setattr("cocoer.data.prepare.emotic.loadmat", lambda *_, **__: pytest.fail("handed to scipy"))
    with pytest.raises(AnnotationError, match=r"Annotations\.mat: cannot be read as a MAT file"):
        load_annotations(tmp_path / "Annotations.mat")


def test_a_matlab_file_is_unpacked_no_further_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(BEGIN + packed(matrix(6, (10**7, 1), element(9, bytes(8 * 10**7)))))
    assert path.stat().st_size < 100_000
    check_mat_file(path, 10**8)
    with pytest.raises(ValueError, match=r"unpacks to more than 10,000,000 bytes"):
        check_mat_file(path, 10**7)


def test_what_scipy_and_the_demo_world_write_passes(tmp_path: Path) -> None:
    nested: Any = 1.0
    for _ in range(DEEPEST - 2):
        nested = {"a": nested}
    for compressed in (False, True):
        content = {
            "s": nested,
            "t": "text",
            "n": np.arange(6).reshape(2, 3),
            "e": np.zeros((0, 0)),
            "c": np.array([1, "b"], object),
        }
        savemat(tmp_path / "a.mat", content, do_compression=compressed)
        check_mat_file(tmp_path / "a.mat")
        assert loadmat(tmp_path / "a.mat")["n"].tolist() == [[0, 1, 2], [3, 4, 5]]
    write_emotic(tmp_path / "world", {"train": 2, "val": 1, "test": 1}, 0, WorldOptions(0.3, None), True, 1)
    (mat,) = (tmp_path / "world").rglob("*.mat")
    check_mat_file(mat)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 200, b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", b"\x89HDF\r\n\x1a\n"]
)
def test_other_files_are_said(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "Annotations.mat").write_bytes(content)
    with pytest.raises(AnnotationError, match="version 5"):
        load_annotations(tmp_path / "Annotations.mat")
