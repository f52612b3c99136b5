"""Descriptions of anybody, read as data: which names are known, which numbers are believed, and where it ends."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from cocoer.errors import CheckpointError
from cocoer.model import torchscript_tensors as t


def test_an_archive_of_plain_tensors_needs_five_kinds_of_names() -> None:
    find = t._Reader(io.BytesIO()).find_class
    assert find("__torch__.torch.nn", "Conv2d") is t._Module and find("collections", "OrderedDict") is OrderedDict
    assert find("torch", "HalfStorage") is torch.float16 and find("torch", "BoolStorage") is torch.bool
    assert find("torch._utils", "_rebuild_tensor_v2")("s", 1, (2,), (1,), False) == t._Stored("s", 1, (2,), (1,))
    for name in ("restore_type_tag", "build_intlist", "build_tensorlist"):  # lists with the type of what they hold
        assert find("torch.jit._pickle", name)([1], "List[int]") == [1]
    for module, name in (
        ("torch", "load"), ("os", "FloatStorage"), ("torch._utils", "_rebuild_tensor"), ("torch.jit._pickle", "load"),
        ("os", "restore_type_tag"), ("os", "build_intlist"), ("collections", "Counter"), ("os", "OrderedDict"),
    ):  # fmt: skip
        with pytest.raises(
            pickle.UnpicklingError, match=f"names {module}.{name}, which no archive of plain tensors needs"
        ):
            find(module, name)


def test_a_storage_has_a_type_a_place_and_a_count() -> None:
    load = t._Reader(io.BytesIO()).persistent_load
    for count in (0, 6):
        assert load(("storage", torch.float32, "7", "cpu", count)) == t._Storage(torch.float32, "7", count)
    for wrong in (
        ("module", torch.float32, "7", "cpu", 6), ("storage", "float", "7", "cpu", 6), ("storage", torch.float32, 7, "cpu", 6),
        ("storage", torch.float32, "../7", "cpu", 6), ("storage", torch.float32, "7", "cpu", -1),
        ("storage", torch.float32, "7", "cpu", True), ("storage", torch.float32, "7", "cpu", 6.0),
    ):  # fmt: skip
        with pytest.raises(pickle.UnpicklingError, match="wanted a storage, got "):
            load(wrong)
    with pytest.raises(pickle.UnpicklingError) as told:
        load(("storage", torch.float32, "." * 500, "cpu", 6))
    assert len(str(told.value)) == len("wanted a storage, got ") + 80


@pytest.fixture
def archive(tmp_path: Path) -> zipfile.ZipFile:
    """Twelve bytes, three numbers, as member d/0; none in d/1."""
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as made:
        made.writestr("d/0", torch.tensor([1.0, 2.0, 3.0]).numpy().tobytes())
        made.writestr("d/1", b"")
    return zipfile.ZipFile(tmp_path / "a.pt")


def tensor(archive: zipfile.ZipFile, stored: Any, most: int = 10**6) -> torch.Tensor:
    return t._tensor(stored, archive, "d/", {}, most)


THREE = t._Storage(torch.float32, "0", 3)


def test_a_tensor_is_where_its_description_says(archive: zipfile.ZipFile) -> None:
    with archive:
        assert tensor(archive, t._Stored(THREE, 0, (3,), (1,))).tolist() == [1, 2, 3]
        assert tensor(archive, t._Stored(THREE, 0, (3,), (1,)), most=12).tolist() == [1, 2, 3]
        assert tensor(archive, t._Stored(THREE, 2, (1,), (1,))).tolist() == [3]  # its last number
        assert tensor(archive, t._Stored(THREE, 0, (2,), (2,))).tolist() == [1, 3]
        assert tensor(archive, t._Stored(THREE, 1, (1, 2), (2, 1))).tolist() == [[2, 3]]
        nothing = tensor(archive, t._Stored(t._Storage(torch.float16, "1", 0), 0, (0, 3), (3, 1)))
        assert nothing.shape == (0, 3) and nothing.dtype == torch.float16
        cache: dict[str, torch.Tensor] = {}
        for _ in range(2):
            t._tensor(t._Stored(THREE, 0, (1,), (1,)), archive, "d/", cache, 100).zero_()
        assert cache["0"].tolist() == [1, 2, 3]  # read once, and what is handed out is a copy


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (t._Stored("0", 0, (3,), (1,)), "without a storage"),
        (t._Stored(THREE, 0, (-1,), (1,)), "sizes that are not numbers"),
        (t._Stored(THREE, 0, (3,), (True,)), "sizes that are not numbers"),
        (t._Stored(THREE, 2**62, (1,), (1,)), "sizes that are not numbers"),
        (t._Stored(THREE, 2**62 - 1, (1,), (1,)), f"ends at number {2**62 - 1} of 3"),
        (t._Stored(THREE, 0, (3,), (1, 1)), "of shape [3] over 3 numbers"),
        (t._Stored(THREE, 0, (2, 2), (0, 0)), "of shape [2, 2] over 3 numbers"),
        (t._Stored(THREE, 1, (3,), (1,)), "ends at number 3 of 3"),
        (t._Stored(THREE, 0, (2,), (3,)), "ends at number 3 of 3"),
        (t._Stored(t._Storage(torch.float32, "0", 4), 0, (3,), (1,)), "d/0 holds 12 bytes, not 4 numbers"),
        (t._Stored(t._Storage(torch.float16, "0", 3), 0, (3,), (1,)), "d/0 holds 12 bytes, not 3 numbers"),
    ],
)  # fmt: skip
def test_a_tensor_that_is_not_there_is_refused(archive: zipfile.ZipFile, stored: Any, said: str) -> None:
    with archive, pytest.raises(ValueError) as told:
        tensor(archive, stored)
    assert said in str(told.value)


def test_a_member_is_not_larger_than_the_file(archive: zipfile.ZipFile) -> None:
    with archive, pytest.raises(ValueError, match="holds 12 bytes, not 3 numbers"):
        tensor(archive, t._Stored(THREE, 0, (3,), (1,)), most=11)


def test_a_tree_of_modules_has_an_end() -> None:
    def chain(modules: int) -> t._Module:
        root = node = t._Module()
        for _ in range(modules - 1):
            below = t._Module()
            node.attributes = {"a": below, "training": True}
            node = below
        node.attributes = {"w": t._Stored(THREE, 0, (3,), (1,))}
        return root

    assert list(t._collected(chain(3))) == ["a.a.w"]
    assert len(t._collected(chain(9_999))) == 1
    with pytest.raises(ValueError, match="more than 10,000 modules"):
        t._collected(chain(10_000))


@pytest.mark.parametrize("more", [0, 1])
def test_a_description_has_at_most_64_mebibytes(tmp_path: Path, more: int) -> None:
    """By what the archive says of it: nothing so large is unpacked."""
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/constants.pkl", b"")
        archive.writestr("a/data.pkl", b"no pickle")
        archive.getinfo("a/data.pkl").file_size = 64 * 1024 * 1024 + more
    said = "its description has 67,108,865 bytes" if more else "truncated or damaged"
    with pytest.raises(CheckpointError, match=said):
        t.read_torchscript_tensors(tmp_path / "a.pt", "CLIP weights")
