"""What is an index of ours, what it says about its images, and what is written over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cocoer.data.index import SIDECAR, check_index_folder, is_synthetic, write_index
from cocoer.errors import IndexFileError

KEYS = dict.fromkeys(("image", "person", "body", "head", "head_source", "split"))
"""What docs/data.md says that every row has; a row may have more."""


@pytest.mark.parametrize("less", sorted(KEYS))
def test_a_file_is_an_index_where_its_first_row_has_every_key_that_rows_have(tmp_path: Path, less: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(KEYS) + "\n")
    check_index_folder(tmp_path)
    path.write_text(json.dumps({key: None for key in KEYS if key != less}) + "\n")
    with pytest.raises(IndexFileError, match="is no part of an index"):
        check_index_folder(tmp_path)


def test_a_sidecar_alone_is_ours_where_it_says_what_was_skipped(tmp_path: Path) -> None:
    write_index(tmp_path, [], {"skipped": {}})
    assert (tmp_path / SIDECAR).read_text() == '{\n "skipped": {}\n}\n'  # one space a level: the lists in it are long
    check_index_folder(tmp_path)
    (tmp_path / SIDECAR).write_text('{"anything": 1}')
    with pytest.raises(IndexFileError, match=rf"{SIDECAR}: is no part of an index"):
        check_index_folder(tmp_path)


def test_a_sidecar_of_the_index_or_the_images_says_that_they_are_synthetic(tmp_path: Path) -> None:
    index, images = tmp_path / "prepared", tmp_path / "drawn" / "images"
    for folder in (index, images / "index"):
        folder.mkdir(parents=True)
    assert not is_synthetic(index) and not is_synthetic(index, images)
    for folder in (index, images, images / "index", images.parent / "index"):
        folder.mkdir(exist_ok=True)
        sidecar = folder / SIDECAR
        sidecar.write_text('{"synthetic": true}')
        assert is_synthetic(index / "train.jsonl", images)
        assert is_synthetic(index) == (folder == index)
        sidecar.write_text('{"synthetic": "perhaps"}')  # true alone says so
        assert not is_synthetic(index, images)
        sidecar.unlink()
