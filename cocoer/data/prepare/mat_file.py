"""Validate an untrusted MATLAB file (version 5) before scipy reads it: sizes, nesting depth and array classes.

scipy makes an array as large as a header says before it reads the elements, and follows cells in cells with the stack of C; a
file of some kilobytes could ask for any memory or end the program. The format: MathWorks, "MAT-File Format", chapter 1.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

from cocoer.files import read_file

LARGEST = 2**30
"""Bytes that a file may have when it is unpacked; EMOTIC's structs of structs shrink to about a twentieth."""

DEEPEST = 16
"""Structs in cells in structs; EMOTIC has six."""

_PACKED, _MATRIX = 15, 14
_PLAIN = {1: "cell", 2: "struct", 4: "char", **dict.fromkeys(range(6, 16), "numeric")}


def check_mat_file(path: Path, largest: int = LARGEST) -> None:
    """Raises ValueError for a file that asks for more than it holds, is packed too densely, too deep, or holds other kinds.

    NotImplementedError for version 7.3, which is HDF5. What is damaged otherwise is left for scipy to say.
    """
    data = read_file(path, largest)
    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[124:126] in (b"\x00\x02", b"\x02\x00"):
        raise NotImplementedError
    if data[126:128] not in (b"IM", b"MI"):
        raise ValueError("no header of a MAT file of version 5")
    order = "<" if data[126:128] == b"IM" else ">"
    at, size = 128, 0
    while at + 8 <= len(data):
        kind, count = struct.unpack_from(f"{order}II", data, at)
        content = memoryview(data)[at + 8 : at + 8 + count]
        if kind == _PACKED:
            unpacker = zlib.decompressobj()
            plain = unpacker.decompress(content, largest - size + 1)
            size += len(plain)
            if size > largest:
                raise ValueError(f"unpacks to more than {largest:,} bytes")
            _check(memoryview(plain), order)
        else:
            size += count
            _check(memoryview(data)[at : at + 8 + count], order)
        at += 8 + count


def _check(data: memoryview, order: str) -> None:
    """Every matrix in `data`, and in those: no more elements than bytes, no deeper than `DEEPEST`, of a plain kind."""
    tag = struct.Struct(f"{order}II").unpack_from
    waiting = [(0, len(data), 0)]
    while waiting:
        at, end, depth = waiting.pop()
        while at + 8 <= end:
            kind, count = tag(data, at)
            if kind >> 16:  # a small element: its size stands in the upper half, its content in the place of the count
                at += 8
                continue
            start, at = at + 8, at + 8 + count + (-count % 8)
            if start + count > end:
                raise ValueError("an element is longer than what holds it")
            if kind != _MATRIX or count == 0:
                continue
            if depth == DEEPEST:
                raise ValueError(f"more than {DEEPEST} cells or structs inside each other")
            inside = _elements(data, start, start + count, order)
            waiting.append((inside, start + count, depth + 1))


def _elements(data: memoryview, at: int, end: int, order: str) -> int:
    """Check flags and sizes of the matrix that begins at `at`; where what follows its sizes begins."""
    if at + 24 > end:
        raise ValueError("a matrix without its header")
    kind = struct.unpack_from(f"{order}I", data, at + 8)[0] & 0xFF
    if kind not in _PLAIN:
        raise ValueError(f"holds MATLAB's class {kind}; wanted numbers, texts, cells and structs")
    small, count = struct.unpack_from(f"{order}II", data, at + 16)
    if small >> 16 or count % 4 or at + 24 + count > end:
        raise ValueError("a matrix with damaged sizes")
    sizes = struct.unpack_from(f"{order}{count // 4}i", data, at + 24)
    if any(n < 0 for n in sizes) or math.prod(sizes) > end - at:
        raise ValueError(f"a matrix says {' x '.join(map(str, sizes))} and has {end - at:,} bytes")
    return at + 24 + count + (-count % 8)
