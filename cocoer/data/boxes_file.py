"""Boxes given by the user: JSON files, `NAME.boxes.json` beside an image, or Python objects.

Accepted for one image: `{"persons": [{"body": [x1, y1, x2, y2], "head": [...], "id": ...}, ...]}`, or the bare list.
Accepted for many: the same under the image's name (`{"a.jpg": {"persons": [...]}, "b.jpg": [...]}`).
Names that other detectors use are understood: `bbox` or `person` for body, `face` for head, `track` for id; and so is a
result that `cocoer predict` wrote. Boxes are xyxy in pixels of the image after EXIF rotation. COCO's instances files and result
lists are read by their keys (`coco_boxes`), and there alone a bbox is [x, y, width, height]. Label Studio's
rectangles are read too (`label_studio_boxes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Number
from pathlib import Path
from typing import Any

from cocoer.boxes import Box, as_box
from cocoer.data.coco_boxes import coco_person, is_coco_entry, number_in, read_coco
from cocoer.data.inputs import VIDEO_SUFFIXES
from cocoer.data.label_studio_boxes import read_label_studio
from cocoer.data.people import complete_boxes
from cocoer.errors import BoxesError
from cocoer.files import parse_json, read_file
from cocoer.outputs import PersonBoxes

BODY_KEYS = ("body", "bbox", "person_box", "person")
HEAD_KEYS = ("head", "face")
TRACK_KEYS = ("id", "track", "track_id")

_WANTED = 'wanted JSON like {"persons": [{"body": [x1, y1, x2, y2], "head": [x1, y1, x2, y2]}]}'

_LEAST_INSIDE = 0.5
"""Share of a given box that must lie in the image; detectors go a little over the border, boxes of another scale far."""

LARGEST_FILE = 512 * 1024 * 1024


def read_boxes_file(path: str | Path) -> Any:
    """The JSON in a boxes file. Raises BoxesError for a missing, unreadable, too large or malformed file."""
    path = Path(path)
    try:
        return parse_boxes(read_file(path, LARGEST_FILE), f"boxes file {path}")
    except FileNotFoundError:
        raise BoxesError(f"boxes file {path}: no such file; {_WANTED}") from None
    except OSError as err:
        raise BoxesError(f"boxes file {path}: cannot be read: {err.strerror or err}") from None


def parse_boxes(data: bytes, where: str) -> Any:
    """The JSON of boxes, Label Studio's put into ours. where: begins the message. Raises BoxesError."""
    try:
        tree = parse_json(data.decode("utf-8-sig"))
        if tree is None:
            raise BoxesError("wanted a JSON object or a list, got null")
        return read_label_studio(tree)
    except BoxesError as err:
        raise BoxesError(f"{where}: {err}") from None
    except (ValueError, MemoryError) as err:
        raise BoxesError(f"{where}: is not JSON ({err}); {_WANTED}") from None


def boxes_beside(image: Path) -> Path | None:
    """`NAME.boxes.json` beside `NAME.jpg`, if there is one."""
    beside = image.with_name(image.stem + ".boxes.json")
    try:
        if beside.is_symlink() and not beside.resolve().is_relative_to(image.parent.resolve()):
            raise BoxesError(
                f"boxes file {beside}: a link that leads out of its folder, so it is not read; copy the file"
            )
        return beside if beside.is_file() else None
    except OSError:  # a name too long for the file system
        return None


def keys_of(name: str, path: Path | None, numbered: bool = False) -> list[str]:
    """How a boxes file may call an image, the most exact first: the name as given, the path and its ends, the name's stem.

    numbered: the file calls images by COCO's numbers.
    """
    where = Path(path if path is not None else name)
    if numbered:
        number = number_in(where.stem)
        return [number] if number is not None else []
    ends = ["/".join(where.parts[start:]) for start in range(len(where.parts))]
    return list(dict.fromkeys([name, str(where), where.as_posix(), *ends, where.stem]))


def persons_for(
    tree: Any, name: str, path: Path | None = None, frame: int | None = None, numbered: bool = False
) -> list[Any] | None:
    """The persons a boxes file lists for one image, as they are; None where the file does not mention the image.

    name: the image as the user gave it; path: where it is; numbered: as for `keys_of`. A video's frame is `name#frame`.
    Raises BoxesError where the entry is not a list of persons.
    """
    if isinstance(tree, list):
        return tree
    if not isinstance(tree, Mapping):
        raise BoxesError(f"boxes: wanted a JSON object or a list, got {type(tree).__name__}")
    if "persons" in tree:
        return _as_list(tree["persons"], name)
    keys = keys_of(name, path, numbered)
    if frame is not None:
        keys = [f"{key}#{frame}" for key in keys] + [str(frame)]
    for key in keys:
        if key in tree:
            entry = tree[key]
            return _as_list(entry["persons"] if isinstance(entry, Mapping) and "persons" in entry else entry, key)
    return None


def _as_list(entry: Any, name: str) -> list[Any]:
    if not isinstance(entry, list):
        raise BoxesError(f"boxes of {name}: wanted a list of persons, got {type(entry).__name__}")
    return entry


def person_from(raw: Any, width: int, height: int) -> PersonBoxes:
    """One person from what the user gave, checked and cut at the border of the width x height image.

    raw: a `PersonBoxes`, or a mapping with a body, a head or both, and perhaps an id. A missing box is estimated.
    Raises BoxesError that names the box and says what is wrong.
    """
    if isinstance(raw, PersonBoxes):
        return _checked(raw, width, height)
    if not isinstance(raw, Mapping):
        raise BoxesError(f"person: wanted an object with 'body' and 'head', got {type(raw).__name__}: {str(raw)[:60]}")
    if is_coco_entry(raw):
        raw = coco_person(raw)
    if isinstance(raw.get("boxes"), Mapping):  # a person of a result that inference.py wrote
        raw = {"track": raw.get("track"), **_given_only(raw["boxes"])}
    body, head = _box_under(raw, BODY_KEYS, "body"), _box_under(raw, HEAD_KEYS, "head")
    if body is None and head is None:
        raise BoxesError(
            f"person: wanted 'body' or 'head' (or both), got the keys {', '.join(map(str, raw)) or '(none)'}"
        )
    track = next((raw[key] for key in TRACK_KEYS if raw.get(key) is not None), None)
    track = None if track is None else _track(track)
    _check_pixels(body, "body", width, height)
    _check_pixels(head, "head", width, height)
    try:
        return complete_boxes(body, head, width, height, track=track)
    except ValueError as err:
        raise BoxesError(str(err)) from None


def _track(raw: Any) -> str | int:
    """A person's own id: a text, or a whole number of any type (7, 7.0, np.int64(7), a tensor of one). Raises BoxesError."""
    if isinstance(raw, str):
        try:
            raw.encode("utf-8")
        except UnicodeEncodeError:
            raise BoxesError(
                f"person: 'id' wants a text, got one with half a letter in it: {ascii(raw)[:60]}"
            ) from None
        return raw
    if (hasattr(raw, "item") and getattr(raw, "size", None) == 1) or (hasattr(raw, "numel") and raw.numel() == 1):
        raw = raw.item()  # numpy's and torch's numbers
    if isinstance(raw, int | float | Number) and not isinstance(raw, bool):
        try:
            whole: int = int(raw)  # type: ignore[arg-type]  # a complex number has none, and that is caught
            if raw == whole:
                return whole
        except (ValueError, OverflowError, TypeError):  # NaN, infinities, complex numbers
            pass
    raise BoxesError(f"person: 'id' wants a text or a whole number, got {str(raw)[:60]!r}")


def _check_pixels(box: Box | None, name: str, width: int, height: int) -> None:
    """BoxesError for a box that is no box in pixels of this image: shares of 0..1, under a pixel, or mostly outside."""
    if box is None:
        return
    x1, y1, x2, y2 = box
    remedy = f"wanted pixels [x1, y1, x2, y2] of the {width}x{height} image, after EXIF rotation"
    if max(x2, y2) <= 1 and max(width, height) > 1:
        raise BoxesError(f"{name}: {list(box)} looks like shares of the image (0 to 1); {remedy}")
    if min(x2 - x1, y2 - y1) < 1:
        raise BoxesError(f"{name}: {list(box)} is under one pixel wide or high; {remedy}")
    inside = max(0.0, min(x2, width) - max(x1, 0.0)) * max(0.0, min(y2, height) - max(y1, 0.0))
    if 0 < inside < _LEAST_INSIDE * (x2 - x1) * (y2 - y1):
        raise BoxesError(
            f"{name}: most of {list(box)} lies outside the image; {remedy} (is it of a larger or a turned copy, or"
            " [x, y, width, height]?)"
        )


def _given_only(boxes: Mapping[str, Any]) -> dict[str, Any]:
    """The boxes of a written result, without those that were only estimated (they are estimated again)."""
    return {name: boxes.get(name) for name in ("body", "head") if boxes.get(f"{name}_source") != "estimated"}


def _box_under(raw: Mapping[str, Any], keys: tuple[str, ...], name: str) -> Box | None:
    """The box under the first of `keys` that is there and not null."""
    values = next((raw[key] for key in keys if raw.get(key) is not None), None)
    if values is None:
        return None
    if isinstance(values, str | Mapping | bool):
        raise BoxesError(f"{name}: wanted four numbers [x1, y1, x2, y2], got {values!r}")
    try:
        return as_box(values, name)
    except (ValueError, OverflowError) as err:
        raise BoxesError(str(err)) from None


def _checked(person: PersonBoxes, width: int, height: int) -> PersonBoxes:
    """The same person with its boxes checked and cut at the border, sources and scores kept."""
    try:
        body, head = as_box(person.body, "body"), as_box(person.head, "head")
        _check_pixels(body, "body", width, height)
        _check_pixels(head, "head", width, height)
        whole = complete_boxes(body, head, width, height)
    except ValueError as err:
        raise BoxesError(str(err)) from None
    return replace(person, body=whole.body, head=whole.head)


class GivenBoxes:
    """The boxes that the user gave, per input item: from one file for all, or from `NAME.boxes.json` beside the image.

    file: None where no file was named. single: whether the input is one image; only then may the file hold bare persons
    without naming their image. Raises BoxesError for a file that cannot be used.
    """

    def __init__(self, file: str | Path | None, single: bool) -> None:
        self._file, self._single = file, single
        self._tree = None if file is None else read_boxes_file(file)
        self._left_out: Mapping[str, int] = {}
        self._numbered = False
        if (coco := read_coco(self._tree, str(file))) is not None:
            self._tree, self._numbered, self._left_out = coco.people, coco.numbered, coco.left_out
        bare = isinstance(self._tree, list) or (isinstance(self._tree, Mapping) and "persons" in self._tree)
        if bare and not single:
            raise BoxesError(
                f"boxes file {file}: holds the persons of one image, but the input is not one image; "
                'put them under the image\'s name: {"a.jpg": {"persons": [...]}}'
            )
        if self._tree is not None and not isinstance(self._tree, list | Mapping):
            raise BoxesError(f"boxes file {file}: wanted an object or a list, got {type(self._tree).__name__}")
        entries = self._tree if isinstance(self._tree, Mapping) and not bare else {}
        self._owners: dict[str, str | None] = dict.fromkeys(entries)

    def expect(self, name: str, path: Path | None) -> None:
        """Note that the input has this image (or video). Raises BoxesError where an entry could mean two images."""
        if not self._owners:
            return
        where = str(path) if path is not None else name
        for key in self._keys_of(name, path):
            if self._owners[key] not in (None, where):
                raise BoxesError(
                    f"boxes file {self._file}: {key!r} names two images, {self._owners[key]} and {where}; write more of"
                    " their paths"
                )
            self._owners[key] = where

    def _keys_of(self, name: str, path: Path | None) -> list[str]:
        """The entries that name an image, or a video or its frames; the first that there is, and all frames of it."""
        keys = keys_of(name, path, self._numbered)
        if path is not None and path.suffix.lower() in VIDEO_SUFFIXES:
            return [key for key in self._owners if key.rpartition("#")[0] in keys or key in keys or key.isdigit()]
        return [key for key in keys if key in self._owners][:1]

    def check_used(self) -> str:
        """After `expect` of all inputs: what of the file is not used, in words; empty where all is.

        Raises BoxesError where nothing of it is.
        """
        unused = [key for key, owner in self._owners.items() if owner is None]
        if isinstance(self._tree, Mapping) and not self._owners and "persons" not in self._tree:
            raise BoxesError(f"boxes file {self._file}: has no entry")
        if unused and len(unused) == len(self._owners):
            raise BoxesError(
                f"boxes file {self._file}: none of its {len(unused)} entries ({_some(unused)}) names an image of the input; an"
                " entry is called as the image's path, its file name, or its name without the ending"
            )
        said = [f"{count} entries {reason}" for reason, count in self._left_out.items()]
        if unused:
            said.append(f"{len(unused)} of {len(self._owners)} entries name no image of the input ({_some(unused)})")
        return f"boxes file {self._file}: not used: {'; '.join(said)}" if said else ""

    def __call__(self, name: str, path: Path | None, frame: int | None = None) -> list[Any] | None:
        """The persons given for one image, or None.

        Raises BoxesError for a broken entry or file beside the image, and where the file given for one image does not name it.
        """
        if self._tree is not None:
            if (found := persons_for(self._tree, name, path, frame, self._numbered)) is not None:
                return found
            if self._single:
                raise BoxesError(
                    f"boxes file {self._file}: does not mention {name}, only {_some(list(self._owners)) or 'nothing'}"
                )
        beside = boxes_beside(path) if path is not None else None
        if beside is None:
            return None
        return persons_of_one(read_boxes_file(beside), name, path, f"boxes file {beside}", frame)


def persons_of_one(tree: Any, name: str, path: Path | None, where: str, frame: int | None = None) -> list[Any]:
    """The persons that boxes beside an image (or given with it) list for it. where: begins the message. Raises BoxesError."""
    coco = read_coco(tree, where.removeprefix("boxes file "))
    found = persons_for(tree if coco is None else coco.people, name, path, frame, coco is not None and coco.numbered)
    if found is None:
        raise BoxesError(f'{where}: does not mention {name}; wanted {{"persons": [...]}}')
    return found


def _some(keys: Sequence[str], most: int = 3) -> str:
    return ", ".join(map(str, keys[:most])) + (", ..." if len(keys) > most else "")
