"""Results in the formats of other programs: Parquet, COCO JSON, Label Studio JSON; each made from `results.jsonl` at the end.

What these files hold of boxes is read back by `--boxes` (`data.boxes_file`), and as annotations by `cocoer prepare table`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cocoer.errors import MissingExtra
from cocoer.files import write_file

Rows = Iterable[Mapping[str, Any]]
"""The rows of a results.jsonl."""

_PROGRAM = "cocoer predict"
"""The mark of a file that may be overwritten."""

COCO, LABEL_STUDIO, PARQUET = "results.coco.json", "results.labelstudio.json", "results.parquet"
PLACES = {"parquet": PARQUET, "coco": COCO, "labelstudio": LABEL_STUDIO}
"""The name that `--format` has for each, and its file."""


def is_own(place: Path) -> bool:
    """Whether a file is one that this module wrote (or empty), and may be overwritten."""
    with place.open("rb") as file:
        start = file.read(4096)
        file.seek(max(0, place.stat().st_size - 65536))
        end = file.read()
    mark = _PROGRAM.encode()
    if place.name == PARQUET:  # the schema stands at the end
        return not start or (start.startswith(b"PAR1") and mark in end)
    return start.strip() in (b"", b"[]") or b'"' + mark + b'"' in start


def write_coco(rows: Rows, place: Path) -> None:
    """COCO JSON: an annotation per person, its body under `bbox` and its head under `head_bbox`, both x, y, width, height.

    `attributes` hold the labels and every emotion's probability; category 1 is `person`. An image that could not be read is
    left out. Raises OutputError.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in rows:
        if row["status"] == "error":
            continue
        name = row["image"] if "frame" not in row else f"{row['image']}#{row['frame']}"
        image = {"id": len(images) + 1, "file_name": name, "width": row["width"], "height": row["height"]}
        images.append(image)
        for person in _with_boxes(row):
            boxes = person["boxes"]
            body = _corner_and_size(boxes["body"])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": 1,
                    "bbox": body,
                    "area": round(body[2] * body[3], 2),
                    "iscrowd": 0,
                    "head_bbox": _corner_and_size(boxes["head"]),
                    "attributes": {
                        "labels": person["pred"],
                        "probabilities": person["probabilities"].get("pred", {}),
                        "body_source": boxes["body_source"],
                        "head_source": boxes["head_source"],
                        "person": person["person"],
                        "synthetic": bool(person.get("synthetic")),
                    },
                }
                | ({} if boxes["body_score"] is None else {"score": boxes["body_score"]})
                | ({"track_id": person["track"]} if "track" in person else {})
            )
    categories = [{"id": 1, "name": "person", "supercategory": ""}]
    _write(
        place,
        {"info": {"description": _PROGRAM}, "images": images, "annotations": annotations, "categories": categories},
    )


def write_label_studio(rows: Rows, place: Path) -> None:
    """Label Studio's JSON: a task per image with predictions; a rectangle `person` and one `head` a person, in percent.

    The emotions of a person are choices of the control `emotion` on its rectangle; the relation of head and person is theirs
    too. Raises OutputError.
    """
    tasks = []
    for number, row in enumerate(rows, start=1):
        if row["status"] == "error":
            continue
        size = {"original_width": row["width"], "original_height": row["height"], "image_rotation": 0}
        result: list[dict[str, Any]] = []
        for person in _with_boxes(row):
            name = f"person{person['person']}"
            has_head = person["boxes"]["head_source"] != "estimated"
            for part, region in (("body", name), ("head", f"{name}head"))[: 1 + has_head]:
                value = _percent(person["boxes"][part], row["width"], row["height"])
                label = "person" if part == "body" else "head"
                result.append(
                    {"id": region, "type": "rectanglelabels", "from_name": "box", "to_name": "image", **size}
                    | {"value": {**value, "rotation": 0, "rectanglelabels": [label]}}
                )
            box = _percent(person["boxes"]["body"], row["width"], row["height"])
            result.append(
                {"id": name, "type": "choices", "from_name": "emotion", "to_name": "image", **size}
                | {"value": {**box, "rotation": 0, "choices": person["pred"]}}
            )
            if has_head:
                result.append({"type": "relation", "from_id": f"{name}head", "to_id": name, "direction": "right"})
        model = row.get("model", {})
        version = f"cocoer {model.get('weights', '')}{', SYNTHETIC' if model.get('synthetic') else ''}".strip()
        tasks.append(
            {
                "id": number,
                "data": {"image": row["image"], "program": _PROGRAM},
                "predictions": [{"model_version": version, "result": result}],
            }
        )
    _write(place, tasks)


def write_parquet(lines: Iterator[Mapping[str, Any]], header: list[str], place: Path) -> None:
    """The table of the CSV with typed columns: text, whole numbers and numbers, empty cells as null.

    Raises MissingExtra without pyarrow, OutputError.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as err:
        raise MissingExtra("table", err) from None
    schema = pyarrow.schema([(name, _arrow_type(pyarrow, name)) for name in header], {"program": _PROGRAM})

    def fill(unfinished: Path) -> None:
        with pyarrow.parquet.ParquetWriter(str(unfinished), schema) as writer:
            part: list[dict[str, Any]] = []
            for line in lines:
                part.append({name: _typed(line.get(name, ""), schema.field(name).type) for name in header})
                if len(part) == 4096:
                    writer.write_table(pyarrow.Table.from_pylist(part, schema))
                    part = []
            writer.write_table(pyarrow.Table.from_pylist(part, schema))

    write_file(place, fill)


def _arrow_type(pyarrow: Any, name: str) -> Any:
    if name in ("frame", "width", "height", "person"):
        return pyarrow.int64()
    number = name.startswith(("p_", "L_hier_")) or name.endswith(("_x1", "_y1", "_x2", "_y2", "_score"))
    return pyarrow.float64() if number else pyarrow.string()


def _typed(cell: Any, kind: Any) -> Any:
    """A cell of the table in its column's type; a caller's own id may be a number in one row and a text in another."""
    if cell == "":
        return None
    return str(cell) if str(kind) == "string" else cell


def _with_boxes(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [person for person in row["persons"] if person["boxes"]]


def _corner_and_size(box: list[float]) -> list[float]:
    """xyxy -> x, y, width, height."""
    x1, y1, x2, y2 = box
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]


def _percent(box: list[float], width: int, height: int) -> dict[str, float]:
    x, y, wide, high = _corner_and_size(box)
    return {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * wide / width, "height": 100 * high / height}


def _write(place: Path, tree: Any) -> None:
    text = json.dumps(tree, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    write_file(place, lambda unfinished: unfinished.write_bytes(text.encode("utf-8", "backslashreplace")))
