"""Pickles of anybody: what a file is instead of a checkpoint is said, and what it holds must be plain tensors."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from cocoer.errors import CheckpointError
from cocoer.model.release.safe_pickle import read_pickled, tensors_of


class Foreign:
    """A class of another program."""


class Stranger:
    """And another."""


def refused(path: Path, said: str) -> None:
    with pytest.raises(CheckpointError) as told:
        read_pickled(path, "file")
    assert f"file {path}: {said}" in str(told.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; download it again"),
        (b" " * 127 + b"<html>", "a web page, not the file"),
        (b" " * 128 + b"<html>", "not a PyTorch file"),  # 128 bytes are looked at
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        (b"\x1f\x8b" + bytes(9), "a gzip archive"),
        (b'\x20\0\0\0\0\0\0\0{"a":1}', "a safetensors file; it is converted already"),
        (b'\x20\0\0\0\0\0\0\0\0{"a":1}', "not a PyTorch file"),
        (pickle.dumps({"model": 1}), "a pickle that torch.save did not write"),
        (b"a text that is none of them", "not a PyTorch file"),
        (b"PK\x03\x04" + bytes(30), "truncated at 34 bytes"),
    ],
)  # fmt: skip
def test_what_a_file_is_instead_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    refused(tmp_path / "a.pth", said)


@pytest.mark.parametrize(
    ("count", "said"), [(0, "nothing;"), (5, "m0, m1, m2, m3, m4;"), (6, "m0, m1, m2, m3, m4 ...;")]
)
def test_a_foreign_archive_lists_five_members(tmp_path: Path, count: int, said: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        for i in range(count):
            archive.writestr(f"m{i}", b"0")
    refused(tmp_path / "a.pth", f"a zip archive that holds {said} unpack it first")


def test_a_packed_archive_is_not_opened(tmp_path: Path) -> None:
    """torch.save packs nothing. Of two members that share their bytes the archive holds less than it says: a bomb too."""
    file = tmp_path / "a.pth"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"0" * 9)
        archive.writestr("a/other", b"0" * 9)
    refused(file, "a member is compressed (a/data.pkl), which torch.save never does")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"0" * 9000)
        again = zipfile.ZipInfo("a/other")
        first = archive.infolist()[0]
        again.header_offset, again.CRC = first.header_offset, first.CRC
        again.file_size, again.compress_size = first.file_size, first.compress_size
        archive.filelist.append(again)
        archive.NameToInfo[again.filename] = again
    refused(file, "a member is compressed")


@pytest.mark.parametrize("modern", [True, False])
def test_a_foreign_class_is_named_and_not_read(tmp_path: Path, modern: bool) -> None:
    file = tmp_path / "a.pth"
    torch.save({"model": {}, "opt": [Foreign(), Stranger()]}, file, _use_new_zipfile_serialization=modern)
    names = "test_safe_pickle.Foreign, test_safe_pickle.Stranger" if modern else "test_safe_pickle.Foreign"
    refused(file, f"needs {names}, and reading that could run code")


def test_the_state_is_the_model_entry_or_all_there_is_without_the_wrappers_prefix() -> None:
    plain = {"module.a": torch.ones(2), "b.module.c": torch.ones(3)}
    for content in (plain, {"model": plain, "iter": 3}):
        assert {name: len(t) for name, t in tensors_of(content, "x", "file").items()} == {"a": 2, "b.module.c": 3}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.ones(2)], "under `model`, got list"),
        ({"model": 3, **{f"k{i}": 1 for i in range(6)}}, "got int with the entries model, k0, k1, k2, k3, k4"),
        ({"model": {}}, "got dict with the entries model"),
        ({}, "got dict with the entries "),
        ({"a": torch.ones(2), "b": "text", "c": 3}, "got str under b, c; is this another model's file?"),
        ({1: torch.ones(2)}, "got another thing under 1; is this another model's file?"),
        (dict.fromkeys("abcd", 0), "got int under a, b, c, d; is this another model's file?"),
        (dict.fromkeys("abcde", 0), "got int under a, b, c, d ...; is this another model's file?"),
        ({"a": torch.ones(2, 2).to_sparse()}, "a: wanted a plain tensor, got torch.sparse_coo [2, 2] on cpu"),
        ({"a": torch.empty(2, device="meta")}, "a: wanted a plain tensor, got torch.strided [2] on meta"),
        ({"a": torch.ones(1).expand(2)}, "a: wanted a plain tensor, got torch.strided [2] on cpu"),  # one number, said twice
    ],
)  # fmt: skip
def test_what_holds_no_plain_tensors_is_told(content: Any, said: str) -> None:
    with pytest.raises(CheckpointError) as told:
        tensors_of(content, "x.pth", "file")
    assert str(told.value).endswith(said)
