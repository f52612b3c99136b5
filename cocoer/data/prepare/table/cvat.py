"""CVAT's XML export "CVAT for images": a `box` is one person, its label or one of its attributes the emotion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cocoer.data.prepare.table.rows import Reading, Row, box_in, image_name, known_column, labels_in
from cocoer.errors import AnnotationError
from cocoer.files import open_input


def read_cvat(path: Path, reading: Reading) -> Iterator[Row]:
    """The rows of an export, read by defusedxml (no entities, no external files). Raises AnnotationError.

    labels: the box's label, or with `--columns labels=NAME` its attribute NAME. group: an attribute. split: the image's
    `subset`. An image without a box has its tags as labels, and no body.
    """
    from defusedxml import DefusedXmlException, ElementTree

    try:
        with open_input(path) as file:
            root: Any = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, DefusedXmlException, OSError, ValueError) as err:
        raise AnnotationError(f"{path}: cannot be read as CVAT's XML: {type(err).__name__}: {err}") from None
    if root.tag != "annotations":
        raise AnnotationError(f"{path}: wanted CVAT's XML with <annotations>, got <{root.tag}>")
    if root.find("track") is not None:
        raise AnnotationError(
            f"{path}: is 'CVAT for video'; export the task as 'CVAT for images', so that frames are images"
        )
    attributes = {a.get("name", "") for a in root.iter("attribute") if a.get("name")}
    for key, name in reading.columns.items():
        if key not in ("labels", "group"):
            raise AnnotationError(f"{path}: CVAT says itself what {key} is; leave --columns {key}= out")
        where = f"{path}: --columns {key}={name}"
        known_column(where, name, sorted(attributes), "no such attribute", "The attributes are")
    for image in root.iter("image"):
        name = image.get("name") or ""
        shapes = image.findall("box")
        for number, shape in enumerate(shapes or image.findall("tag"), start=1):
            where = f"image {name} {shape.tag} {number}"
            try:
                yield _row(where, image, shape, reading)
            except ValueError as err:
                yield Row(where, name, fault=str(err))


def _row(where: str, image: Any, shape: Any, reading: Reading) -> Row:
    columns = reading.columns
    values = {a.get("name"): a.text or "" for a in shape.findall("attribute")}
    labels = labels_in(values.get(columns["labels"]) if "labels" in columns else shape.get("label"))
    box = None
    if shape.tag == "box":
        box = box_in([shape.get(key) for key in ("xtl", "ytl", "xbr", "ybr")], "body")
        if float(shape.get("rotation") or 0):
            raise ValueError(f"the box is turned by {shape.get('rotation')} degrees")
    subset = image.get("subset") or ""
    split = "" if subset.casefold() == "default" else subset
    group = values.get(columns["group"], "") if "group" in columns else ""
    return Row(where, image_name(image.get("name")), labels, box, None, split, group)
