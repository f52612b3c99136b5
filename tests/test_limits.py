"""How much a file of anybody may ask for, and how many faults are listed: at each border and one beyond it."""

from __future__ import annotations

import hashlib
import importlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from cocoer.data import array_file
from cocoer.data.array_file import map_array, read_arrays
from cocoer.data.batch import PersonRecord
from cocoer.data.index import read_records
from cocoer.data.prepare import mat_file
from cocoer.data.prepare.mat_file import check_mat_file
from cocoer.description import SKIPPED
from cocoer.errors import CheckpointError, ConfigError, IndexFileError
from cocoer.model import tower_config
from cocoer.model.tensor_file import read_container, read_tensor_file, write_tensors
from cocoer.model.tower_config import checked_tower, read_tower

TOWER: dict[str, Any] = {"embed_dim": 64, "vision_cfg": {"layers": 2, "width": 64, "patch_size": 8, "image_size": 32},
                         "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}}  # fmt: skip


def tower(part: str, key: str, value: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(TOWER))
    (made[part] if part else made)[key] = value
    return made


@pytest.mark.parametrize(
    ("part", "key", "least", "most"),
    [
        ("", "embed_dim", 1, 8192), ("vision_cfg", "layers", 1, 64), ("vision_cfg", "width", 1, 4096),
        ("vision_cfg", "head_width", 1, 1024), ("vision_cfg", "patch_size", 1, 256), ("vision_cfg", "image_size", 8, 1024),
        ("text_cfg", "context_length", 1, 1024), ("text_cfg", "vocab_size", 1, 1_000_000), ("text_cfg", "width", 1, 4096),
        ("text_cfg", "heads", 1, 64), ("text_cfg", "layers", 1, 64),
    ],
)  # fmt: skip
def test_a_tower_has_sizes_up_to_a_border(part: str, key: str, least: int, most: int) -> None:
    for value in (least, most):
        made = tower(part, key, value)
        assert checked_tower(made, "x.json") == made
    for value in (least - 1, most + 1):
        with pytest.raises(ConfigError, match=key):
            checked_tower(tower(part, key, value), "x.json")


def test_a_towers_lists_and_shares_have_borders_too(tmp_path: Path) -> None:
    cases: list[tuple[str, Any, list[Any]]] = [
        ("layers", [3, 4, 6, 3], [[3, 4, 6], [3, 4, 6, 3, 1]]),
        ("image_size", [32, 64], [[32], [32, 32, 32]]),
        ("mlp_ratio", 16.0, [0.0, 16.5, 17.0]),
    ]
    for key, right, wrong in cases:
        checked_tower(tower("vision_cfg", key, right), "x.json")
        for value in wrong:
            with pytest.raises(ConfigError, match=key):
                checked_tower(tower("vision_cfg", key, value), "x.json")
    text = json.dumps(TOWER)
    file = tmp_path / "tower.json"
    file.write_text(text.ljust(65_536))
    assert read_tower(str(file)) == TOWER
    file.write_text(text.ljust(65_537))
    with pytest.raises(ConfigError, match="at most 65,536 bytes"):
        read_tower(str(file))
    many = {**TOWER, **{f"more{i}": 1 for i in range(6)}}
    with pytest.raises(ConfigError) as told:
        checked_tower(many, "x.json")
    assert [f"more{i}" in str(told.value) for i in range(6)] == [True] * 4 + [False] * 2


def test_what_a_tower_leaves_out_is_what_open_clip_takes_for_it() -> None:
    for ours, theirs in ((tower_config._Vision, CLIPVisionCfg()), (tower_config._Text, CLIPTextCfg())):
        for name, field in ours.model_fields.items():
            assert field.default == getattr(theirs, name), name
    assert checked_tower({"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}, "x") == {
        "embed_dim": 8, "vision_cfg": {}, "text_cfg": {},
    }  # fmt: skip


def test_an_index_lists_ten_faults_and_counts_the_rest(tmp_path: Path) -> None:
    for count in (10, 11, 13):
        (tmp_path / "a.jsonl").write_text("[]\n" * count)
        with pytest.raises(IndexFileError, match=f"{count} faulty rows") as told:
            read_records(tmp_path / "a.jsonl")
        assert str(told.value).count("\n  row ") == 10
        assert (f"and {count - 10} more" in str(told.value)) == (count > 10)


def line(**changes: Any) -> str:
    person: dict[str, Any] = {"image": "a.jpg", "width": 90, "height": 60, "person": 0, "body": [0, 0, 90, 60],
                              "head": [10, 5, 20, 15], "head_source": "detected", "labels": ["Peace"], "vad": None,
                              "split": "test"}  # fmt: skip
    return json.dumps(person | changes)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"body": [0, 0, 90.01, 60.01]}, True),
        ({"body": [0, 0, 90.02, 60]}, False),
        ({"body": [0, 0, 90, 60.02]}, False),
        ({"body": [-0.5, 0, 90, 60]}, False),
        ({"body": [0, -0.5, 90, 60]}, False),
        ({"head": [10, 5, 90.5, 15]}, False),
        ({"width": 1, "height": 1, "body": [0, 0, 1, 1], "head": [0, 0, 0.5, 0.5]}, True),
        ({"width": 0}, False),
        ({"height": 0}, False),
        ({"image": ""}, False),
        ({"image": 3}, False),
        ({"width": 90.0, "person": 2}, True),
        ({"width": 90.5}, False),
        ({"person": True}, False),
        ({"person": 9_999_999}, True),
        ({"person": 10_000_000}, False),
        ({"vad": [1, 2.5, 10]}, True),
        ({"vad": []}, True),
        ({"vad": [1, 2]}, False),
        ({"vad": [1, 2, 3, 4]}, False),
        ({"vad": [1, 2, "3"]}, False),
        ({"vad": "123"}, False),
        ({"vad": [1, 2, 10_000_000]}, False),
        ({"labels": "Peace"}, False),
        ({"labels": [1]}, False),
    ],
)
def test_a_box_of_the_index_may_leave_the_image_by_its_rounding(
    tmp_path: Path, changes: dict[str, Any], fits: bool
) -> None:
    (tmp_path / "a.jsonl").write_text(line(**changes) + "\n")
    if fits:
        (record,) = read_records(tmp_path / "a.jsonl")
        assert isinstance(record, PersonRecord)
    else:
        with pytest.raises(IndexFileError, match="1 faulty rows:\n  row 1"):
            read_records(tmp_path / "a.jsonl")


def test_arrays_may_unpack_to_the_limit_and_hold_numbers_and_texts_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez_compressed(file, a=np.zeros(100), b=np.arange(6).reshape(2, 3))
    size = 128 + 800 + 128 + 48
    assert read_arrays(file, size)["b"].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match=f"unpacks to {size:,} bytes, more than {size - 1:,}"):
        read_arrays(file, size - 1)
    np.savez(
        file,
        f=np.asfortranarray(np.arange(6).reshape(2, 3)),
        s=np.array(["ab", "c"]),
        n=np.array(2.5),
        e=np.empty((0, 4)),
    )
    found = read_arrays(file)
    assert found["f"].tolist() == [[0, 1, 2], [3, 4, 5]] and found["s"].tolist() == ["ab", "c"]
    assert float(found["n"]) == 2.5 and found["e"].shape == (0, 4)
    for bad in (np.array([{}], dtype=object), np.zeros(2, dtype="datetime64[s]"), np.zeros(2, dtype=[("a", "f4")])):
        np.savez(file, a=bad)
        with pytest.raises(ValueError, match="not numbers or texts"):
            read_arrays(file)


def test_two_versions_of_numpys_format_are_read_and_their_headers_believed_to_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    for version, fits in (((1, 0), True), ((2, 0), True), ((3, 0), False)):
        with open(file, "wb") as out:
            np.lib.format.write_array(out, np.arange(3, dtype=np.uint8), version=version)
        if fits:
            assert map_array(file).tolist() == [0, 1, 2]
        else:
            with pytest.raises(ValueError, match=r"version \(3, 0\) of the format"):
                map_array(file)
    np.save(file, np.zeros(2, dtype=[("a", "f4")]))  # a table's row is no number, though it holds no object
    with pytest.raises(ValueError, match="not numbers or texts"):
        map_array(file)
    for shape, said in (
        ((6,), r"says float64 \[6\] and has 40 bytes"),
        ((-1, -5), r"says float64 \[-1, -5\] and has 40"),
    ):
        with open(file, "wb") as out:
            np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
            out.write(bytes(40))
        with pytest.raises(ValueError, match=said):
            map_array(file)


def test_a_mapped_array_is_as_long_as_its_header_says(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, np.arange(10.0))
    assert map_array(file).tolist() == list(range(10))
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"says float64 \[10\] and has 79 bytes"):
        map_array(file)
    file.write_bytes(data.replace(b"(10,)", b"(-1,)"))
    with pytest.raises(ValueError, match="wanted an array"):
        map_array(file)


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind: int, sizes: tuple[int, ...], *inside: bytes) -> bytes:
    flags, dims = element(6, struct.pack("<II", kind, 0)), element(5, struct.pack(f"<{len(sizes)}i", *sizes))
    return element(14, flags + dims + element(1, b"name") + b"".join(inside))


BEGIN = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def cells(depth: int) -> bytes:
    return matrix(1, (1, 1), *([cells(depth - 1)] if depth else []))


def test_a_matlab_file_may_be_as_deep_and_as_full_as_its_borders(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    for depth, fits in ((15, True), (16, False)):
        file.write_bytes(BEGIN + cells(depth))
        if fits:
            check_mat_file(file)
        else:
            with pytest.raises(ValueError, match="more than 16 cells or structs inside each other"):
                check_mat_file(file)
    for kind in range(20):
        file.write_bytes(BEGIN + matrix(kind, (1, 1), element(9, bytes(8))))
        if kind in {1, 2, 4, *range(6, 16)}:
            check_mat_file(file)
        else:
            with pytest.raises(ValueError, match=f"MATLAB's class {kind};"):
                check_mat_file(file)
    inside = 16 + 16 + 16 + 16  # flags, sizes, name, 8 bytes of data: all that the matrix has
    file.write_bytes(BEGIN + matrix(9, (1, inside), element(2, bytes(8))))
    check_mat_file(file)
    file.write_bytes(BEGIN + matrix(9, (1, inside + 1), element(2, bytes(8))))
    with pytest.raises(ValueError, match=f"says 1 x {inside + 1} and has {inside} bytes"):
        check_mat_file(file)


def test_a_matrix_is_as_long_as_its_header_and_its_sizes_are_padded(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    for length in (8, 16, 23):
        file.write_bytes(BEGIN + element(14, struct.pack("<II", 6, 8)[:length] + bytes(max(0, length - 8))))
        with pytest.raises(ValueError, match="a matrix without its header"):
            check_mat_file(file)
    file.write_bytes(BEGIN + matrix(1, (1, 1, 1), matrix(6, (1, 1), element(9, bytes(8)))))  # three sizes: twelve bytes
    check_mat_file(file)
    file.write_bytes(BEGIN + matrix(1, (1, 1, 1), matrix(3, (1, 1))))
    with pytest.raises(ValueError, match="class 3"):
        check_mat_file(file)
    sizes = struct.pack("<II", 5, 12) + struct.pack("<iii", 1, 1, 1) + struct.pack("<I", 40)  # what pads is not read
    file.write_bytes(
        BEGIN + element(14, element(6, struct.pack("<II", 1, 0)) + sizes + element(1, b"n") + matrix(3, (1, 1)))
    )
    with pytest.raises(ValueError, match="class 3"):
        check_mat_file(file)
    bad = element(14, element(6, struct.pack("<II", 6, 0)) + struct.pack("<II", 5, 400) + bytes(8))
    file.write_bytes(BEGIN + bad)
    with pytest.raises(ValueError, match="damaged sizes"):
        check_mat_file(file)


def test_a_matrix_without_sizes_is_for_scipy_to_judge(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    file.write_bytes(BEGIN + element(14, element(6, struct.pack("<II", 6, 0)) + element(5, b"")))
    check_mat_file(file)
    for sizes in (b"1234567", bytes(5)):
        file.write_bytes(BEGIN + element(14, element(6, struct.pack("<II", 6, 0)) + element(5, sizes)))
        with pytest.raises(ValueError, match="damaged sizes"):
            check_mat_file(file)


def packed(content: bytes) -> bytes:
    """An element of a .mat file, packed: its content is not padded."""
    squeezed = zlib.compress(content)
    return struct.pack("<II", 15, len(squeezed)) + squeezed


def test_a_matlab_file_is_unpacked_to_the_limit_and_one_byte_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The byte more tells what is too large; more than that is never asked for."""
    asked: list[int] = []

    class Watched:
        def __init__(self) -> None:
            self.real = zlib_decompressobj()

        def decompress(self, content: memoryview, most: int) -> bytes:
            asked.append(most)
            return self.real.decompress(content, most)

    zlib_decompressobj = zlib.decompressobj
    monkeypatch.setattr(mat_file.zlib, "decompressobj", Watched)
    one = matrix(1, (1, 1), *(matrix(6, (1, 1), element(9, bytes(8))) for _ in range(40)))
    file = tmp_path / "a.mat"
    file.write_bytes(BEGIN + packed(one) + packed(one))
    check_mat_file(file, 2 * len(one))
    assert asked == [2 * len(one) + 1, len(one) + 1] and len(file.read_bytes()) < len(one)
    with pytest.raises(ValueError, match=f"unpacks to more than {2 * len(one) - 1:,} bytes"):
        check_mat_file(file, 2 * len(one) - 1)
    file.write_bytes(BEGIN + one + packed(one) + packed(matrix(3, (1, 1))))  # the bad one last, behind both kinds
    with pytest.raises(ValueError, match="class 3"):
        check_mat_file(file)


@pytest.mark.parametrize(
    ("begin", "wanted"),
    [
        (b"\x89HDF\r\n\x1a\n", NotImplementedError), (bytes(124) + b"\x00\x02IM", NotImplementedError),
        (bytes(124) + b"\x02\x00MI", NotImplementedError), (bytes(124) + b"\x00\x01IM", None),
        (bytes(124) + b"\x01\x00MI", None), (bytes(124) + b"\x00\x01IX", ValueError), (bytes(124) + b"\x00\x01I", ValueError),
        (b"", ValueError),
    ],
)  # fmt: skip
def test_a_matlab_file_says_its_version_in_its_header(
    tmp_path: Path, begin: bytes, wanted: type[Exception] | None
) -> None:
    (tmp_path / "a.mat").write_bytes(begin)
    if wanted is None:
        check_mat_file(tmp_path / "a.mat")
    else:
        with pytest.raises(wanted):
            check_mat_file(tmp_path / "a.mat")


def test_a_matrix_may_be_empty_and_promises_nothing_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    flags, sizes = element(6, struct.pack("<II", 6, 0)), element(5, struct.pack("<ii", 1, 1))
    for good in (
        matrix(6, (0, 0)),
        element(14, flags + sizes + bytes(8)),
        element(14, flags + sizes),
        element(14, b""),
    ):
        file.write_bytes(BEGIN + good)
        check_mat_file(file)
    file.write_bytes(BEGIN + matrix(6, (-1, -5), element(9, bytes(8))))
    with pytest.raises(ValueError, match="says -1 x -5 and has"):
        check_mat_file(file)
    promise = struct.pack("<II", 14, 8)
    for cut in (promise, matrix(1, (1, 1), promise)):
        file.write_bytes(BEGIN + cut)
        with pytest.raises(ValueError, match="an element is longer than what holds it"):
            check_mat_file(file)
    short = struct.pack("<HHi", 5, 1, 4)  # the sizes as a small element, which no writer of matrices uses
    file.write_bytes(BEGIN + element(14, flags + short + bytes(16)))
    with pytest.raises(ValueError, match="damaged sizes"):
        check_mat_file(file)


def test_every_matrix_of_a_matlab_file_is_looked_at(tmp_path: Path) -> None:
    """The bad one stands last: behind another matrix, behind elements of odd sizes, and behind a small element."""
    good, bad = matrix(6, (1, 1), element(9, bytes(8))), matrix(3, (1, 1))
    small, smallest = struct.pack("<HH4s", 1, 4, b"abcd"), struct.pack("<HH4s", 1, 1, b"a")
    file = tmp_path / "a.mat"
    for before in (
        good,
        matrix(6, (1, 3), element(2, b"abc")),
        matrix(1, (1, 1), good, small, smallest, element(1, b"12345"), good),
    ):
        file.write_bytes(BEGIN + before)
        check_mat_file(file)
        file.write_bytes(BEGIN + before + bad)
        with pytest.raises(ValueError, match="class 3"):
            check_mat_file(file)
        file.write_bytes(BEGIN + matrix(1, (1, 2), before, bad))
        with pytest.raises(ValueError, match="class 3"):
            check_mat_file(file)
    swapped = BEGIN[:124] + b"\x01\x00MI"
    file.write_bytes(
        swapped
        + struct.pack(">II", 14, 48)
        + struct.pack(">IIII", 6, 8, 3, 0)
        + struct.pack(">IIii", 5, 8, 1, 1)
        + bytes(16)
    )
    with pytest.raises(ValueError, match="class 3"):
        check_mat_file(file)


def test_weights_have_a_header_up_to_a_border_and_exactly_the_bytes_that_it_says(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    write_tensors(file, {"a": torch.arange(6.0), "b": torch.ones(2, dtype=torch.int64)}, {"note": "x"})
    whole = file.read_bytes()
    assert read_container(file)["note"] == "x"
    for data, said in ((whole[:-1], f"truncated: wanted {len(whole)} bytes, got {len(whole) - 1}"),
                       (whole + b"\x00", f"longer than its header says: wanted {len(whole)} bytes, got {len(whole) + 1}"),
                       (whole[:40], "truncated"), (whole[:9], "9 bytes that are not one"), (b"", "0 bytes that are not one"),
                       (struct.pack("<Q", 2**24 + 1) + b"{" + bytes(20), "header of at most 16,777,216 bytes, got 16,777,217"),
                       (struct.pack("<Q", 2**24) + b"{" + bytes(20), "truncated")):  # fmt: skip
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match=said):
            read_container(file)


def test_weights_without_a_tensor_are_weights_and_what_cannot_be_read_is_said_in_words(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(struct.pack("<Q", 2) + b"{}")  # ten bytes, the smallest file
    assert read_container(file) == {} and read_tensor_file(file).tensors == {}
    write_tensors(file, {}, {"note": "nothing"})
    assert read_tensor_file(file).metadata["note"] == "nothing"
    with pytest.raises(CheckpointError) as told:
        read_container(tmp_path / "none")
    assert str(told.value) == f"weights {tmp_path / 'none'}: cannot be read: No such file or directory"


def test_checksums_are_the_first_half_of_sha256_over_type_shape_and_bytes_and_over_the_description(
    tmp_path: Path,
) -> None:
    """As the shipped weights carry them."""
    file = tmp_path / "w.safetensors"
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_tensors(file, {"a": torch.tensor(numbers), "b": torch.tensor(7)}, {"note": "x"})
    metadata = read_container(file)
    contents = {
        "": b'{"note": "x"}',
        "a": b"torch.float32 [2, 3]\n" + numbers.tobytes(),
        "b": b"torch.int64 []\n" + np.int64(7).tobytes(),
    }
    half = {name: hashlib.sha256(content).hexdigest()[: 64 // 2] for name, content in contents.items()}
    assert json.loads(metadata["checksums"]) == half
    data = file.read_bytes().replace(b'"note":"x"', b'"note":"y"')
    file.write_bytes(data[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=": the description, [ab]: not what was written"):
        read_tensor_file(file)


def test_damaged_weights_name_three_tensors_and_count_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    write_tensors(file, {f"t{i}": torch.full((8,), float(i + 1)) for i in range(5)})
    data = bytearray(file.read_bytes())
    for broken, said in ((1, "t4"), (3, "t2, t3, t4"), (4, "t1, t2, t3 and 1 more"), (5, "t0, t1, t2 and 2 more")):
        changed = bytearray(data)
        for i in range(broken):
            changed[len(data) - 32 * i - 4] ^= 1
        file.write_bytes(changed)
        with pytest.raises(CheckpointError, match=f": {said}: not what was written"):
            read_tensor_file(file)
        assert read_tensor_file(file, verify=False).checksums == SKIPPED
    for broken, said in ((4, "t0, t1, t2, t3;"), (5, "t0, t1, t2, t3 and 1 more;")):
        write_tensors(file, {f"t{i}": torch.full((3,), float("nan") if i < broken else 1.0) for i in range(6)})
        with pytest.raises(CheckpointError, match=f"NaN or infinity in {said}"):
            read_tensor_file(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cocoer.data.array_file.LARGEST", 1_073_741_824), ("cocoer.data.prepare.mat_file.LARGEST", 1_073_741_824),
        ("cocoer.data.prepare.mat_file.DEEPEST", 16), ("cocoer.data.prepare.near_duplicates.BITS", 64),
        ("cocoer.data.prepare.near_duplicates.NEAR", 6), ("cocoer.data.prepare.heads.MIN_SIDE", 2.0),
        ("cocoer.data.prepare.heads.MIN_FOR_MEDIAN", 30), ("cocoer.data.people.MIN_COVERAGE", 0.6),
        ("cocoer.data.people.SAME_FACE_IOU", 0.5), ("cocoer.evaluation.groups.LEAST_PERSONS", 30),
        ("cocoer.evaluation.groups.MOST_GROUPS", 6),
    ],
)  # fmt: skip
def test_a_number_that_the_documentation_states_is_that_number(name: str, value: float) -> None:
    module, _, constant = name.rpartition(".")
    assert getattr(importlib.import_module(module), constant) == value


def test_limits_of_unpacking_are_the_defaults() -> None:
    assert array_file.read_arrays.__defaults__ == (array_file.LARGEST,) and mat_file.check_mat_file.__defaults__ == (
        mat_file.LARGEST,
    )
