"""Read boxes from COCO's instances files and result lists; their boxes are [x, y, width, height].

Sources: cocodataset.org, "Data format" and "Results format". Only people are taken: the category called person, or, where a file
names no categories, number 1 (person in COCO), or the only number there is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cocoer.errors import BoxesError

_ONLY_COCO = frozenset({"image_id", "category_id", "iscrowd", "segmentation", "area"})
_PERSON = 1


@dataclass(frozen=True)
class CocoBoxes:
    """people: the persons by image name, bodies xyxy in pixels. numbered: names are image numbers. left_out: reason -> count."""

    people: Mapping[str, list[Any]]
    numbered: bool
    left_out: Mapping[str, int]


def is_coco_entry(raw: Mapping[str, Any]) -> bool:
    """Whether one object is an annotation of COCO, so that its `bbox` is [x, y, width, height]."""
    return "bbox" in raw and bool(_ONLY_COCO & raw.keys())


def coco_person(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The object with its `bbox` as a body, xyxy. Raises BoxesError."""
    estimated = {part for part in ("body", "head") if _attributes(raw).get(f"{part}_source") == "estimated"}
    boxes = {"body": raw["bbox"], "head": raw.get("head_bbox")}  # a head's box is an addition of ours
    kept = {key: value for key, value in raw.items() if key not in {"bbox", "head_bbox", "id"} | _ONLY_COCO}
    return kept | {p: _corners(box) for p, box in boxes.items() if box is not None and p not in estimated}


def _attributes(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    found = raw.get("attributes")
    return found if isinstance(found, Mapping) else {}


def _corners(box: Any) -> list[float]:
    """COCO's box as xyxy. Raises BoxesError."""
    if isinstance(box, str | Mapping) or not isinstance(box, Sequence) or len(box) != 4:
        raise BoxesError(f"bbox: wanted COCO's four numbers [x, y, width, height], got {str(box)[:60]}")
    try:
        x, y, width, height = (float(v) for v in box)
    except (TypeError, ValueError, OverflowError):
        raise BoxesError(f"bbox: wanted COCO's four numbers [x, y, width, height], got {str(box)[:60]}") from None
    if not (width > 0 and height > 0):
        raise BoxesError(f"bbox: wanted COCO's [x, y, width, height] with a width and height above 0, got {list(box)}")
    return [x, y, x + width, y + height]


def read_coco(tree: Any, file: str) -> CocoBoxes | None:
    """The people of a COCO file by image; None for any other JSON. Raises BoxesError for one that cannot be used."""
    if isinstance(tree, Mapping) and {"images", "annotations"} <= tree.keys():
        names = _file_names(tree["images"], file)
        entries, categories = tree["annotations"], tree.get("categories")
    elif isinstance(tree, list) and tree and all(isinstance(raw, Mapping) and "image_id" in raw for raw in tree):
        names, entries, categories = None, tree, None
    else:
        return None
    if not isinstance(entries, list) or not all(isinstance(raw, Mapping) for raw in entries):
        raise BoxesError(f"boxes file {file}: annotations: wanted a list of objects")
    person = _person_category(entries, categories, file)
    people: dict[str, list[Any]] = {name: [] for name in (names or {}).values()}
    left_out: dict[str, int] = {}
    for raw in entries:
        reason = _why_not(raw, person, names)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        name = names[raw["image_id"]] if names is not None else str(raw["image_id"])
        people.setdefault(name, []).append(coco_person(raw))
    numbered = names is None and all(isinstance(raw["image_id"], int) for raw in entries)
    return CocoBoxes(people, numbered, left_out)


def number_in(stem: str) -> str | None:
    """The number that an image's name ends with, as COCO's names do (`COCO_val2014_000000000042` -> `42`); else None."""
    found = re.search(r"(\d+)$", stem)
    return str(int(found.group(1))) if found and len(found.group(1)) <= 18 else None


def _file_names(images: Any, file: str) -> dict[Any, str]:
    """image_id -> file_name."""
    try:
        return {image["id"]: str(image["file_name"]) for image in images}
    except (TypeError, KeyError):
        raise BoxesError(f"boxes file {file}: images: wanted COCO's list of objects with id and file_name") from None


def _person_category(entries: Sequence[Mapping[str, Any]], categories: Any, file: str) -> Any:
    """The category_id of people; None where entries name no category."""
    found = {raw.get("category_id") for raw in entries if isinstance(raw.get("category_id"), int | str)}
    if isinstance(categories, list) and categories:
        named = {str(c.get("name", "")).lower(): c.get("id") for c in categories if isinstance(c, Mapping)}
        if "person" in named:
            return named["person"]
        if len(named) > 1:
            raise BoxesError(
                f"boxes file {file}: wanted a category called person, got {', '.join(sorted(named))[:200]}; leave the others out"
            )
    if len(found) > 1 and _PERSON not in found:
        raise BoxesError(
            f"boxes file {file}: category_id {', '.join(map(str, sorted(found, key=str)))[:100]}: none of them is 1, COCO's"
            " person; keep the people alone"
        )
    return _PERSON if len(found) > 1 else next(iter(found), None)


def _why_not(raw: Mapping[str, Any], person: Any, names: Mapping[Any, str] | None) -> str:
    """Why an entry is left out; empty where it is a person."""
    if person is not None and raw.get("category_id", person) != person:
        return "not people"
    if raw.get("iscrowd"):
        return "crowds"
    if "bbox" not in raw:
        return "without a bbox"
    try:
        unknown = names is not None and raw.get("image_id") not in names
    except TypeError:
        unknown = True
    return "of no image in `images`" if unknown else ""
