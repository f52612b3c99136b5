"""Read EMOTIC's annotation file into plain rows, from any layout of `scipy.io.loadmat`, and find its folders.

Nothing is judged here but what makes a row meaningless: unknown categories and VAD outside 1..10 are refused. Boxes come out
as they stand in the file; `emotic_index` clips, drops and counts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.io import loadmat

from cocoer.data.prepare.mat_file import check_mat_file
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.errors import AnnotationError, listed
from cocoer.names import SPLITS, canonical_class

Release = Literal["pami", "cvpr17"]

MAT_FILES: dict[Release, str] = {"pami": "Annotations.mat", "cvpr17": "CVPR17_Annotations.mat"}
SOURCES: tuple[str, ...] = ("mscoco", "framesdb", "emodb_small", "ade20k")
"""The four image collections; each is a folder of the image root."""

_DEPTH = 4  # unzipping nests folders
_IMAGE_ROOTS = ("emotic", "cvpr_emotic", "emotic/emotic", "cvpr_emotic/cvpr_emotic")


@dataclass(frozen=True)
class RawPerson:
    """One person as annotated. body: the values of the file, any number of them. labels: in the listed spelling.

    vad: None where a value is missing or not finite. head: of the rare layouts that have one. annotators: how many.
    """

    body: tuple[float, ...]
    labels: tuple[str, ...]
    vad: tuple[float, float, float] | None
    annotators: int
    head: tuple[float, ...] | None = None
    gender: str = ""
    age: str = ""


@dataclass(frozen=True)
class RawImage:
    """One image as annotated. name: `folder/filename`. stored_size: first and second stored value, or None."""

    split: str
    name: str
    source: str
    stored_size: tuple[float, float] | None
    persons: tuple[RawPerson, ...]


@dataclass(frozen=True)
class EmoticTree:
    """Where things are. images: the folder that holds mscoco, framesdb ... data_root: what image paths are relative to."""

    release: Release
    annotations: Path
    images: Path
    data_root: Path


# ------------------------------------------------------------------------------------------------ one value of a mat file


def as_list(value: Any) -> list[Any]:
    """What MATLAB calls an array, as a list of its elements, in each of `loadmat`'s layouts.

    Nothing, one and many look alike afterwards: an empty array is [], a bare string, number, struct or dict is [it].
    """
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        return list(value.ravel())
    return list(value) if isinstance(value, list | tuple) else [value]


def text(value: Any) -> str:
    """A char array as a string; "" for an empty one."""
    while isinstance(value, np.ndarray | list):
        elements = as_list(value)
        if not elements:
            return ""
        value = elements[0]
    return str(value).strip()


def numbers(value: Any) -> list[float]:
    """Any nesting of numbers, flat, as floats (unsigned integers would wrap in a subtraction). What is no number is NaN."""
    if isinstance(value, np.ndarray | list | tuple):
        return [n for element in as_list(value) for n in numbers(element)]
    return [_number(value)]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def fields_of(record: Any) -> list[str]:
    """Field names of one struct in each of `loadmat`'s layouts."""
    if isinstance(record, Mapping):
        return [str(k) for k in record]
    if isinstance(record, np.void) and record.dtype.names:
        return list(record.dtype.names)
    return list(getattr(record, "_fieldnames", []))


def get(record: Any, name: str, where: str) -> Any:
    """One field of a struct. Raises AnnotationError that names the place and the fields that are there."""
    names = fields_of(record)
    if name not in names:
        got = ", ".join(names) if names else type(record).__name__
        raise AnnotationError(f"{where}: wanted a struct with the field {name!r}, got {got}")
    return record[name] if isinstance(record, Mapping | np.void) else getattr(record, name)


def optional(record: Any, name: str) -> Any:
    """One field of a struct, or None where it has no such field."""
    return get(record, name, "") if name in fields_of(record) else None


# -------------------------------------------------------------------------------------------------------- the whole file


def load_annotations(path: Path) -> list[RawImage]:
    """All images of an `Annotations.mat`, in file order, train first.

    Raises AnnotationError for a file that is missing, damaged or of MAT version 7.3, and as `read_annotations` does.
    """
    if not path.is_file():
        raise AnnotationError(f"{path}: no such file; it comes with EMOTIC, see docs/data.md")
    try:
        check_mat_file(path)
        content = loadmat(path, squeeze_me=True, struct_as_record=False)
    except NotImplementedError:
        raise AnnotationError(
            f"{path}: wanted a MAT file of version 5, got version 7.3 (HDF5); in MATLAB: load it, then save(..., '-v7')"
        ) from None
    except Exception as err:  # noqa: BLE001 - scipy raises a dozen different classes for damaged files
        raise AnnotationError(
            f"{path}: cannot be read as a MAT file ({type(err).__name__}: {err}); fetch it again"
        ) from None
    return read_annotations(content, path.name)


def read_annotations(content: Mapping[str, Any], name: str = "annotations") -> list[RawImage]:
    """The rows in what `loadmat` returned, in any of its layouts; goes by field names alone.

    Raises AnnotationError for a missing key or field, and one that lists every unknown category and VAD outside 1..10.
    """
    missing = [split for split in SPLITS if split not in content]
    if missing:
        keys = ", ".join(k for k in content if not k.startswith("__")) or "nothing"
        raise AnnotationError(f"{name}: wanted the keys {', '.join(SPLITS)}; {', '.join(missing)} missing, got {keys}")
    faults: list[str] = []
    images = [
        _image(record, split, f"{name}: {split}[{i}]", faults)
        for split in SPLITS
        for i, record in enumerate(as_list(content[split]))
    ]
    if faults:
        raise AnnotationError(f"{name}: {len(faults)} persons with wrong annotations:\n  {listed(faults)}")
    return images


def _image(record: Any, split: str, where: str, faults: list[str]) -> RawImage:
    filename, folder = (text(get(record, n, where)) for n in ("filename", "folder"))
    image = f"{folder}/{filename}".replace("\\", "/").strip("/")
    database = as_list(get(record, "original_database", where))
    source = text(optional(database[0], "name")) if database else ""
    size = [n for s in as_list(optional(record, "image_size")) for f in fields_of(s) for n in numbers(get(s, f, where))]
    persons = []
    for number, person in enumerate(as_list(get(record, "person", where))):
        place = f"{where} {image} person {number}"
        try:
            persons.append(_person(person, split, place))
        except _RowError as err:
            faults.append(f"{place}: {err}")
    return RawImage(
        split, image, source or image.split("/")[0], (size[0], size[1]) if len(size) >= 2 else None, tuple(persons)
    )


class _RowError(Exception):
    """A row whose content is refused, together with all others like it."""


def _person(record: Any, split: str, where: str) -> RawPerson:
    annotations = as_list(get(record, "annotations_categories", where))
    if split == "train":
        named = [name for a in annotations for name in as_list(get(a, "categories", where))]
    else:  # the union over annotators, as published
        named = as_list(get(record, "combined_categories", where))
    rows = as_list(optional(record, "combined_continuous")) or as_list(get(record, "annotations_continuous", where))
    head = optional(record, "head_bbox")
    return RawPerson(
        body=tuple(numbers(get(record, "body_bbox", where))),
        labels=clean_labels([text(n) for n in named]),
        vad=mean_vad([[_first(get(r, n, where)) for n in ("valence", "arousal", "dominance")] for r in rows]),
        annotators=len(annotations),
        head=None if head is None else tuple(numbers(head)),
        gender=_word(record, "gender"),
        age=_word(record, "age"),
    )


def _first(value: Any) -> float:
    found = numbers(value)
    return found[0] if found else math.nan


def _word(record: Any, name: str) -> str:
    """`gender` and `age` are words in the releases; an early layout had structs there, which are left out."""
    value = optional(record, name)
    return "" if any(fields_of(v) for v in as_list(value)) else text(value)


def clean_labels(named: Sequence[str]) -> tuple[str, ...]:
    """Category names in the listed spelling, alphabetical, each once. Raises for a name that is not one of the 26."""
    try:
        found = {canonical_class(name, EMOTIC_CLASSES) for name in named if name.strip()}
    except ValueError as err:
        raise _RowError(str(err)) from None
    return tuple(c for c in EMOTIC_CLASSES if c in found)


def mean_vad(rows: Sequence[Sequence[float]]) -> tuple[float, float, float] | None:
    """The mean over annotators whose three values are finite, or None. Raises for a value outside 1..10."""
    usable = [row for row in rows if len(row) == 3 and all(math.isfinite(v) for v in row)]
    if not usable:
        return None
    for row in usable:
        if min(row) < 1 or max(row) > 10:
            raise _RowError(f"wanted valence, arousal and dominance in 1..10, got {list(row)}")
    v, a, d = (round(sum(column) / len(usable), 4) for column in zip(*usable, strict=True))
    return v, a, d


# ----------------------------------------------------------------------------------------------------------- the folders


def find_tree(root: Path, release: Literal["auto", "pami", "cvpr17"] = "auto") -> EmoticTree:
    """Annotations and images at, below or beside `root`, which may be a level too high or too low.

    auto: the release whose file is there; with both, PAMI. Raises AnnotationError that says what was looked for, and where.
    """
    if not root.is_dir():
        raise AnnotationError(f"--root {root}: no such folder; give the one that holds `emotic` and `Annotations`")
    wanted: list[Release] = ["pami", "cvpr17"] if release == "auto" else [release]
    beside = [
        p / folder
        for p in list(root.resolve().parents)[:2]
        for folder in (".", "Annotations", "Annotations/Annotations")
    ]
    for name in wanted:
        for path in [*_below(root, _DEPTH), *(folder / MAT_FILES[name] for folder in beside)]:
            if path.name == MAT_FILES[name] and path.is_file():
                return _with_images(root, name, path)
    names = " or ".join(MAT_FILES[name] for name in wanted)
    raise AnnotationError(f"--root {root}: wanted {names} in it, {_DEPTH} levels down or beside it; found none")


def _with_images(root: Path, release: Release, annotations: Path) -> EmoticTree:
    """The image root that belongs to an annotation file: named `cvpr...` for CVPR 2017 and otherwise for PAMI."""
    beside = [p / folder for p in list(annotations.resolve().parents)[:3] for folder in _IMAGE_ROOTS]
    found = [p for p in [root, *_below(root, _DEPTH), *beside] if any((p / s / "images").is_dir() for s in SOURCES)]
    if not found:
        folders = ", ".join(f"{s}/images" for s in SOURCES)
        raise AnnotationError(f"--root {root}: found {annotations}, but no folder near it with {folders}")
    matching = [p for p in found if ("cvpr" in p.name.lower()) == (release == "cvpr17")]
    images = (matching or found)[0]
    inside = images.resolve().is_relative_to(root.resolve())
    data_root = root if inside else Path(os.path.commonpath([root.resolve(), images.resolve()]))
    return EmoticTree(release, annotations, images, data_root)


def _below(base: Path, depth: int) -> list[Path]:
    """Files and folders down to `depth` levels, nearest first; folders of images are not walked."""
    level, found = [base], []
    for _ in range(depth):
        entries = [p for folder in level for p in _listing(folder)]
        found += entries
        level = [p for p in entries if p.is_dir() and p.name != "images" and not p.name.startswith(".")]
    return found


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
