"""What one look at a file says: size and hash, or why it cannot be used; and how much is looked at."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cocoer.data import files
from cocoer.data.files import FileFacts, available_cores, in_threads, read_facts, scan_files

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8))


def encoded(form: str) -> bytes:
    out = io.BytesIO()
    PHOTO.save(out, form)
    return out.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_whole_file_is_not_decoded_and_one_that_ends_otherwise_is(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of the end, 2 bytes of a JPEG or 8 of a PNG, is looked for in the last 32 bytes: writers pad behind it."""
    decoded: list[int] = []
    real = files.decode_image
    monkeypatch.setattr(files, "decode_image", lambda file: decoded.append(1) or real(file))
    mark = 2 if form == "JPEG" else 8
    path = tmp_path / "a.jpg"
    for padding, times in ((0, 0), (32 - mark, 0), (33 - mark, 1)):
        data = encoded(form) + bytes(padding)
        path.write_bytes(data)
        assert read_facts(path) == FileFacts(16, 24, hashlib.blake2b(data, digest_size=16).hexdigest())
        assert len(decoded) == times


def test_what_cannot_be_used_has_no_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cut.jpg").write_bytes(encoded("JPEG")[:-40])
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "good.png").write_bytes(encoded("PNG"))
    found = scan_files(tmp_path, ["cut.jpg", "folder.jpg", "none.jpg", "../good.png", "good.png"])
    assert [fact.error.partition(":")[0] for fact in found.values()] == [
        "unreadable image", "unreadable file", "missing file", "../good.png", "",
    ]  # fmt: skip
    assert [(f.width, f.height) for f in found.values()] == [(0, 0)] * 4 + [(16, 24)]
    assert [bool(f.content) for f in found.values()] == [True, False, False, False, True]

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "read_file", refuse)
    assert read_facts(tmp_path / "good.png") == FileFacts(error="unreadable file: Permission denied")


def test_results_come_in_order_and_a_bar_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(files, "tqdm", lambda items, **how: given.append(how) or items)
    assert list(in_threads(lambda n: n * n, range(50), "counting")) == [n * n for n in range(50)]
    assert given == [{"total": 50, "desc": "counting", "unit": "image", "delay": 1, "disable": None}]


def test_the_cores_are_those_of_this_process_else_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 4, 5} if pid == 0 else {1}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    for said, wanted in ((7, 7), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda said=said: said)
        assert available_cores() == wanted
