"""Read CAER-S from disk: class folders in their various spellings, published face lists, and one person per image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cocoer.boxes import Box, area, as_box, clip_box
from cocoer.data.people import (
    HEAD_IN_BODY,
    Detections,
    body_from_head,
    fit_scores,
    head_from_body,
    people_from_detections,
)
from cocoer.datasets import CAERS_CLASSES
from cocoer.errors import CaersError
from cocoer.files import read_lines
from cocoer.names import SPLITS, canonical_class
from cocoer.outputs import PersonBoxes

IMAGES: tuple[str, ...] = (".png", ".jpg", ".jpeg")

_SPLIT_FOLDERS: dict[str, str] = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
_DEPTH = 3
_SHOWN = 10
_MIN_FACE = 2.0  # pixels


@dataclass(frozen=True)
class CaersImage:
    """One image. path: relative to the data root. folder: `train`, `val` or `test`, after the folder it lies in."""

    path: str
    folder: str
    label: str

    @property
    def key(self) -> tuple[str, str, str]:
        """(folder, class, file name): the same whatever the spelling of the folders."""
        return self.folder, self.label, PurePosixPath(self.path).name


def find_caers(root: Path) -> Path:
    """The folder that holds `train` and `test`, at, below or above `root`.

    Raises CaersError that says what was looked for.
    """
    if not root.is_dir():
        raise CaersError(f"--root {root}: no such folder; give the one that holds CAER-S's `train` and `test`")
    level = [root, *list(root.resolve().parents)[:2]]
    for _ in range(_DEPTH):
        for folder in level:
            names = {p.name.casefold() for p in _folders(folder)}
            if {"train", "test"} <= names and any(_split_classes(folder)):
                return folder
        level = [p for folder in level if folder == root or root in folder.parents for p in _folders(folder)]
    raise CaersError(
        f"--root {root}: wanted folders `train` and `test` with class folders in them, {_DEPTH} levels down; found none"
    )


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []


def _split_classes(base: Path) -> list[Path]:
    """Class folders in any split folder, known spellings only."""
    folded = {c.casefold() for c in (*CAERS_CLASSES, "angry")}
    return [
        p
        for s in _folders(base)
        if s.name.casefold() in _SPLIT_FOLDERS
        for p in _folders(s)
        if p.name.casefold() in folded
    ]


def read_tree(base: Path, data_root: Path) -> list[CaersImage]:
    """All images below the class folders, in the order of split, class and name.

    `Angry` is `Anger`, `Train` is `train`. Raises CaersError for an unknown class folder, for two folders of one class (or
    split), and for a tree without images.
    """
    images: list[CaersImage] = []
    splits: dict[str, Path] = {}
    for split_folder in _folders(base):
        split = _SPLIT_FOLDERS.get(split_folder.name.casefold())
        if split is None:
            continue
        if split in splits:
            raise CaersError(
                f"{base}: both {splits[split].name} and {split_folder.name} hold the {split} images; keep one of them"
            )
        splits[split] = split_folder
        classes: dict[str, Path] = {}
        for folder in _folders(split_folder):
            try:
                label = canonical_class(folder.name, CAERS_CLASSES)
            except ValueError as err:
                raise CaersError(f"{folder}: {err}") from None
            if label in classes:
                raise CaersError(
                    f"{split_folder}: both {classes[label].name} and {folder.name} are class {label}; move them into one folder"
                )
            classes[label] = folder
            prefix = Path(os.path.relpath(folder, data_root)).as_posix()
            names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in IMAGES)
            images += [CaersImage(f"{prefix}/{name}", split, label) for name in names]
    if not images:
        raise CaersError(f"{base}: wanted images ({', '.join(IMAGES)}) in class folders, found none")
    return sorted(images, key=lambda i: (SPLITS.index(i.folder), i.label, i.path))


# ------------------------------------------------------------------------------------------------------------ face lists


@dataclass
class FaceList:
    """What the lists of a folder (or one list) say.

    faces: image key -> (split that the list stands for, box or None where its values are no box).
    """

    faces: dict[tuple[str, str, str], tuple[str, tuple[float, ...]]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


def read_face_lists(path: Path, images: Sequence[CaersImage]) -> FaceList:
    """Lists of `class/name,label,x1,y1,x2,y2` (ndkhanh360) or `train/class/name,...` (larrylu0426) lines.

    path: one .txt or .csv, or a folder of them; `train`, `val` or `test` in a file's name says its split. Lists of the val
    split name images of the test folder. Blank lines and CRLF are fine. Rows that name no image of the tree, repeat a
    image, cannot be parsed, or whose label contradicts the folder are counted, named and not used.
    Raises CaersError where a file is missing or hardly a row fits: then the list is for another folder or class order.
    """
    files = sorted(p for p in path.iterdir() if p.suffix in (".txt", ".csv")) if path.is_dir() else [path]
    if not files or not all(p.is_file() for p in files):
        raise CaersError(f"--faces {path}: wanted a face list (.txt or .csv) or a folder of them, found none")
    known = {image.key for image in images}
    out = FaceList()
    for file in files:
        split = next((s for s in SPLITS if s in file.stem.lower()), "")
        out.report[file.name] = _read_list(file, split, known, out)
    return out


def _read_list(file: Path, split: str, known: set[tuple[str, str, str]], out: FaceList) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    named: list[str] = []
    try:
        lines = list(read_lines(file))
    except (OSError, UnicodeDecodeError) as err:
        raise CaersError(f"--faces {file}: cannot be read as a face list ({err}); wanted UTF-8 text") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        counts["rows"] += 1
        fault = _read_row(line, split, known, out, counts)
        if fault:
            counts[fault] += 1
            named.append(f"row {number}: {fault}: {line.strip()[:80]}")
    if counts["rows"] and counts["used"] * 2 < counts["rows"]:
        shown = "\n  ".join(named[:_SHOWN])
        raise CaersError(
            f"{file}: only {counts['used']} of {counts['rows']} rows fit the images; "
            f"wrong list, wrong --root, or other classes:\n  {shown}"
        )
    return dict(counts) | {"not_used": named}


def _read_row(line: str, split: str, known: set[tuple[str, str, str]], out: FaceList, counts: Counter[str]) -> str:
    """Take one row into `out`; returns why not, or ""."""
    name, *values = (v.strip() for v in line.split(","))
    parts = name.replace("\\", "/").strip("/").split("/")
    try:
        label, box = int(values[0]), tuple(float(v) for v in values[1:])
    except (ValueError, IndexError):
        return "cannot be parsed"
    if len(parts) < 2 or len(box) != 4:
        return "cannot be parsed"
    folder = _SPLIT_FOLDERS.get(parts[-3].casefold(), "") if len(parts) > 2 else ""
    try:
        wanted = canonical_class(parts[-2], CAERS_CLASSES)
    except ValueError:
        return "unknown class folder"
    # A list of val names images of the test folder, unless the copy has a val folder of its own.
    tries = [folder] if folder else [split, "test"] if split == "val" else [split]
    key = next((k for f in tries if (k := (f, wanted, parts[-1])) in known), None)
    if key is None:
        return "no such image"
    if not 0 <= label < len(CAERS_CLASSES) or CAERS_CLASSES[label] != wanted:
        return "label contradicts the folder"
    if key in out.faces:
        return "image listed before"
    out.faces[key] = (split or key[0], box)
    counts["used"] += 1
    counts["boxes with a negative value"] += min(box) < 0
    return ""


# ---------------------------------------------------------------------------------------------------------- one person


def choose_person(
    found: Detections | None, listed: tuple[float, ...] | None, width: int, height: int
) -> tuple[PersonBoxes, str]:
    """The one person of an image, and why a listed face was not used ("" where it was, or where there is none).

    A listed face counts first (`annotated`); its body is the detected one that fits it best, else an estimate. Without a
    list: the person with the largest detected face, else the largest body. Without any detection: body and head are
    estimated from the whole image. Boxes are clipped to the image.
    """
    face, fault = _listed_face(listed, width, height)
    if face is not None:
        body = None if found is None else _body_of(face, found)
        score = None if body is None or found is None else round(float(found.body_scores[body]), 4)
        if body is None or found is None:
            return PersonBoxes(body_from_head(face, width, height), face, "annotated", "estimated"), fault
        x1, y1, x2, y2 = (float(v) for v in found.bodies[body])
        return PersonBoxes(clip_box((x1, y1, x2, y2), width, height), face, "annotated", "detected", None, score), fault
    people = [] if found is None else people_from_detections(found, width, height)
    if people:
        return max(people, key=lambda p: (p.head_source == "detected", area(p.head)[0], area(p.body)[0])), fault
    whole: Box = (0.0, 0.0, float(width), float(height))
    return PersonBoxes(whole, head_from_body(whole, width, height, HEAD_IN_BODY), "estimated", "estimated"), fault


def _listed_face(listed: tuple[float, ...] | None, width: int, height: int) -> tuple[Box | None, str]:
    if listed is None:
        return None, ""
    if not any(listed):
        return None, "listed without a face"
    try:
        face = clip_box(as_box(listed), width, height)
    except ValueError:
        return None, "listed face is not a box inside the image"
    if min(face[2] - face[0], face[3] - face[1]) < _MIN_FACE:
        return None, "listed face is too small"
    return face, ""


def _body_of(face: Box, found: Detections) -> int | None:
    """The detected body that the face fits best, or None."""
    if not len(found.bodies):
        return None
    scores = fit_scores(found.bodies, np.array([face]))[:, 0]
    best = int(scores.argmax())
    return best if np.isfinite(scores[best]) else None


def duplicate_report(
    images: Sequence[CaersImage], content: Mapping[str, str], splits: Mapping[str, str]
) -> dict[str, Any]:
    """Byte-identical images: how many repeats there are, in and across splits, and under how many labels.

    content: hash by path. splits: split by path (images that are left out are not in it).
    """
    groups: dict[str, list[CaersImage]] = {}
    for image in images:
        if image.path in splits and content.get(image.path):
            groups.setdefault(content[image.path], []).append(image)
    repeated = [g for g in groups.values() if len(g) > 1]
    pairs: Counter[str] = Counter()
    for group in repeated:
        inside = sorted({splits[i.path] for i in group}, key=SPLITS.index)
        pairs.update(f"{a}/{b}" for n, a in enumerate(inside) for b in inside[n + 1 :])
    return {
        "repeats": sum(len(g) - 1 for g in repeated),
        "contents_across": dict(pairs),
        "contents_with_several_labels": sum(len({i.label for i in g}) > 1 for g in repeated),
        "groups": [[i.path for i in g] for g in repeated],
    }
