"""`Annotations.mat` as EMOTIC ships it, from plain rows: field order, nesting and types of the release (MAT v5).

Struct arrays have shape (1, N) with fields in the release's order, cells are (1, K) object arrays, and whole numbers are
stored in the smallest integer type, as MATLAB does. The file's date is fixed, so the same rows give the same bytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from cocoer.files import write_bytes

HEADER = b"MATLAB 5.0 MAT-file, synthetic EMOTIC annotations of the cocoer demo world"
"""The descriptive text of the file; MATLAB and scipy would write the date of the day there."""

Vad = tuple[float, float, float]


@dataclass
class PersonRow:
    """One person. categories and continuous: one entry an annotator; combined ones are for val and test only."""

    body: tuple[float, ...]
    categories: list[tuple[str, ...]]
    continuous: list[Vad]
    combined_categories: tuple[str, ...]
    combined_continuous: Vad
    gender: str
    age: str


@dataclass
class ImageRow:
    """One image. size: the two stored values in stored order (EMOTIC swaps them for emodb_small)."""

    filename: str
    folder: str
    size: tuple[int, int]
    database: str
    info: tuple[int, int] | None = None
    persons: list[PersonRow] = field(default_factory=list)


def _struct(rows: list[dict[str, Any]], names: tuple[str, ...]) -> np.ndarray:
    out = np.empty((1, len(rows)), dtype=[(name, object) for name in names])
    for i, row in enumerate(rows):
        for name in names:
            out[0, i][name] = row[name]
    return out


def _cell(strings: tuple[str, ...]) -> np.ndarray:
    out = np.empty((1, len(strings)), dtype=object)
    for i, text in enumerate(strings):
        out[0, i] = text
    return out


def _numbers(values: tuple[float, ...]) -> np.ndarray:
    """Shape (1, N), in the smallest of uint8, uint16, int16 that holds whole numbers exactly; float64 otherwise."""
    array = np.array([values], dtype=np.float64)
    if np.isfinite(array).all() and (array == np.rint(array)).all():
        for kind in (np.uint8, np.uint16, np.int16):
            if array.min() >= np.iinfo(kind).min and array.max() <= np.iinfo(kind).max:
                return array.astype(kind)
    return array


def _continuous(rows: list[Vad]) -> np.ndarray:
    names = ("valence", "arousal", "dominance")
    return _struct([{n: _numbers((v,)) for n, v in zip(names, row, strict=True)} for row in rows], names)


def _person(row: PersonRow, split: str) -> dict[str, Any]:
    found = {
        "body_bbox": _numbers(row.body),
        "annotations_categories": _struct([{"categories": _cell(c)} for c in row.categories], ("categories",)),
        "annotations_continuous": _continuous(row.continuous),
        "gender": row.gender,
        "age": row.age,
    }
    if split != "train":
        found["combined_categories"] = _cell(row.combined_categories)
        found["combined_continuous"] = _continuous([row.combined_continuous])
    return found


def person_fields(split: str) -> tuple[str, ...]:
    """Field names of a person in file order: five in train, seven in val and test."""
    if split == "train":
        return "body_bbox", "annotations_categories", "annotations_continuous", "gender", "age"
    return (
        "body_bbox", "annotations_categories", "combined_categories", "annotations_continuous", "combined_continuous",
        "gender", "age",
    )  # fmt: skip


def _image(row: ImageRow, split: str) -> dict[str, Any]:
    database: dict[str, Any] = {"name": row.database}
    if row.info is not None:
        ids = {"image_id": _numbers((row.info[0],)), "annotations_id": _numbers((row.info[1],))}
        database["info"] = _struct([ids], ("image_id", "annotations_id"))
    size = {"n_col": _numbers((row.size[0],)), "n_row": _numbers((row.size[1],))}
    return {
        "filename": row.filename,
        "folder": row.folder,
        "image_size": _struct([size], ("n_col", "n_row")),
        "original_database": _struct([database], tuple(database)),
        "person": _struct([_person(p, split) for p in row.persons], person_fields(split)),
    }


def write_annotations(path: Path, splits: dict[str, list[ImageRow]]) -> None:
    """Write `Annotations.mat` with one 1xN struct array a split; the same rows give the same bytes."""
    fields = ("filename", "folder", "image_size", "original_database", "person")
    content = {split: _struct([_image(r, split) for r in rows], fields) for split, rows in splits.items()}
    buffer = io.BytesIO()
    savemat(buffer, content, format="5")
    write_bytes(path, HEADER.ljust(116) + buffer.getvalue()[116:])
