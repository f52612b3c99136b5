"""A small data set of somebody's own: five emotions on 40 generated images, and its annotations in every format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

CLASSES = ("calm", "fright", "grief", "joy", "rage")
WIDTH, HEIGHT = 64, 48


@dataclass(frozen=True)
class Annotated:
    """One generated person. body: xyxy, pixels."""

    file: str
    body: tuple[float, float, float, float]
    labels: tuple[str, ...]
    split: str
    video: str


def make_images(folder: Path, count: int = 40, seed: int = 0) -> list[Annotated]:
    """Images of coloured noise with a person-like block; the emotion is the block's colour, so that it can be learned."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(60, 255, (len(CLASSES), 3))
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for i in range(count):
        kind = i % len(CLASSES)
        coarse = rng.integers(0, 120, (6, 8, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)).copy()
        x, y = int(rng.integers(4, 24)), int(rng.integers(2, 10))
        pixels[y : y + 32, x : x + 24] = colours[kind]
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        split = ("train", "train", "train", "val", "test")[(i // len(CLASSES)) % 5]
        body = (float(x), float(y), float(x + 24), float(y + 32))
        out.append(Annotated(f"{i:03d}.png", body, (CLASSES[kind],), split, f"film {i // 10}"))
    return out


def write_csv(people: list[Annotated], path: Path, mark: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, delimiter=mark)
        rows.writerow(["file", "x1", "y1", "x2", "y2", "feeling", "part", "film"])
        rows.writerows([p.file, *p.body, "|".join(p.labels), p.split, p.video] for p in people)


def _objects(people: list[Annotated]) -> list[dict[str, Any]]:
    return [
        {"file": p.file, "box": list(p.body), "feeling": list(p.labels), "part": p.split, "film": p.video}
        for p in people
    ]


def write_jsonl(people: list[Annotated], path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in _objects(people)), encoding="utf-8")


def write_parquet(people: list[Annotated], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_objects(people)), path)


def _xywh(p: Annotated) -> list[float]:
    x1, y1, x2, y2 = p.body
    return [x1, y1, x2 - x1, y2 - y1]


def write_coco(people: list[Annotated], path: Path) -> None:
    images = {p.file: i for i, p in enumerate(people, start=1)}
    names = sorted({label for p in people for label in p.labels})
    content = {
        "images": [
            {
                "id": images[p.file],
                "file_name": p.file,
                "width": WIDTH,
                "height": HEIGHT,
                "split": p.split,
                "film": p.video,
            }
            for p in people
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": 10 * i + j, "image_id": images[p.file], "category_id": names.index(label), "bbox": _xywh(p)}
            for i, p in enumerate(people)
            for j, label in enumerate(p.labels)
        ],
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def write_label_studio(people: list[Annotated], path: Path) -> None:
    tasks = []
    for i, p in enumerate(people, start=1):
        percent = [100 * v / side for v, side in zip(_xywh(p), (WIDTH, HEIGHT, WIDTH, HEIGHT), strict=True)]
        value = dict(zip(("x", "y", "width", "height"), percent, strict=True)) | {"rotation": 0}
        region = {
            "id": f"r{i}", "type": "rectanglelabels", "from_name": "person", "to_name": "image",
            "original_width": WIDTH, "original_height": HEIGHT, "value": value | {"rectanglelabels": list(p.labels)},
        }  # fmt: skip
        address = f"/data/upload/3/1a2b3c4d-{p.file}"
        tasks.append(
            {
                "id": i,
                "data": {"image": address, "part": p.split, "film": p.video},
                "annotations": [{"result": [region]}],
            }
        )
    path.write_text(json.dumps(tasks), encoding="utf-8")


def write_cvat(people: list[Annotated], path: Path) -> None:
    root = ElementTree.Element("annotations")
    for i, p in enumerate(people):
        image = ElementTree.SubElement(root, "image", id=str(i), name=p.file, subset=p.split)
        ends = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(str, p.body), strict=True))
        box = ElementTree.SubElement(image, "box", label="person", **ends)
        for name, text in (("feeling", "|".join(p.labels)), ("film", p.video)):
            ElementTree.SubElement(box, "attribute", name=name).text = text
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


_TABLE = ("image=file", "labels=feeling", "split=part", "group=film")

FORMATS: dict[str, tuple[str, Callable[[list[Annotated], Path], None], tuple[str, ...]]] = {
    "csv": ("people.csv", write_csv, (*_TABLE, "body=x1,y1,x2,y2")),
    "semicolons": ("people.csv", lambda p, path: write_csv(p, path, ";"), (*_TABLE, "body=x1,y1,x2,y2")),
    "tsv": ("people.tsv", lambda p, path: write_csv(p, path, "\t"), (*_TABLE, "body=x1,y1,x2,y2")),
    "jsonl": ("people.jsonl", write_jsonl, (*_TABLE, "body=box")),
    "parquet": ("people.parquet", write_parquet, (*_TABLE, "body=box")),
    "coco": ("people.json", write_coco, ("group=film",)),
    "label-studio": ("people.json", write_label_studio, ("split=part", "group=film")),
    "cvat": ("people.xml", write_cvat, ("labels=feeling", "group=film")),
}
"""Format -> file name, writer, and the `--columns` that read it."""
