"""Read boxes from Label Studio's JSON: a rectangle is a body; one labelled `head` and joined to it by a relation is its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cocoer.errors import BoxesError

_HEAD = ("head", "face")


def read_label_studio(tree: Any) -> Any:
    """The persons by image name where `tree` is a list of Label Studio's tasks; any other tree unchanged.

    Of a task the first annotation that was not cancelled counts, else the first prediction. Raises BoxesError for a file that
    cannot be used.
    """
    try:
        if _is_label_studio(tree):
            return {str(task["data"]["image"]): {"persons": _persons_of_task(task)} for task in tree}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as err:
        raise BoxesError(
            f"boxes: not whole as Label Studio's JSON ({type(err).__name__}: {err}); export it again"
        ) from None
    return tree


def _is_label_studio(tree: Any) -> bool:
    return (
        isinstance(tree, Sequence)
        and not isinstance(tree, str)
        and len(tree) > 0
        and all(isinstance(task, Mapping) and isinstance(task.get("data"), Mapping) for task in tree)
    )


def _persons_of_task(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    finished = [a for a in task.get("annotations") or task.get("predictions") or [] if not a.get("was_cancelled")]
    if not finished:
        return []
    parts = finished[0]["result"]
    regions = {part["id"]: part for part in parts if "rectanglelabels" in part.get("value", {})}
    heads = {
        part["to_id"]: part["from_id"]
        for part in parts
        if part.get("type") == "relation" and _label(regions[part["from_id"]]) in _HEAD
    }
    joined = set(heads.values())
    return [
        {"body": _pixels(region)} | ({"head": _pixels(regions[heads[name]])} if name in heads else {})
        for name, region in regions.items()
        if name not in joined and _label(region) not in _HEAD
    ]


def _label(region: Mapping[str, Any]) -> str:
    return str(region["value"]["rectanglelabels"][0]).lower()


def _pixels(region: Mapping[str, Any]) -> list[float]:
    value, width, height = region["value"], region["original_width"], region["original_height"]
    x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
    return [x, y, x + float(value["width"]) * width / 100, y + float(value["height"]) * height / 100]
