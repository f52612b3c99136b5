"""COCO JSON: `images`, `annotations`, `categories`; one annotation is one person, `bbox` (x, y, w, h) the body."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cocoer.data.prepare.table.rows import Reading, Row, box_in, image_name, known_column, labels_in, text_in
from cocoer.errors import AnnotationError

_SPLIT_KEYS = ("split", "subset")


def read_coco(path: Path, content: Mapping[str, Any], reading: Reading) -> Iterator[Row]:
    """The rows of a COCO file. Raises AnnotationError where it is not one.

    labels: the category's name, or with `--columns labels=KEY` what the annotation (or its `attributes`) holds under KEY.
    head: under `head_bbox`, or the KEY given. split, group: keys of the annotation or its image. Annotations of one image
    with the same box are one person with several labels.
    """
    try:
        images = {image["id"]: image for image in content["images"]}
        categories = {c["id"]: str(c["name"]) for c in content.get("categories", [])}
        annotations = list(content["annotations"])
    except (KeyError, TypeError) as err:
        raise AnnotationError(f"{path}: wanted COCO JSON with images, annotations and categories ({err!r})") from None
    _check_keys(path, annotations, images, reading)
    names = set(Counter(categories.get(a.get("category_id"), "") for a in annotations if isinstance(a, dict)))
    if "labels" not in reading.columns and len(names) == 1 and (others := _attribute_names(annotations)):
        raise AnnotationError(
            f"{path}: every annotation is {names.pop()!r}, so the emotion is elsewhere: name its attribute with"
            f" --columns labels=NAME; the attributes are {', '.join(sorted(others))}"
        )
    together: dict[tuple[str, tuple[float, ...] | None], Row] = {}
    for number, annotation in enumerate(annotations, start=1):
        where = f"annotation {annotation.get('id', number)}" if isinstance(annotation, dict) else f"annotation {number}"
        try:
            row = _row(where, annotation, images, categories, reading)
        except (KeyError, TypeError, AttributeError) as err:
            yield Row(where, fault=f"not a COCO annotation ({type(err).__name__}: {err})")
            continue
        except ValueError as err:
            yield Row(where, fault=str(err))
            continue
        known = together.get((row.image, row.body))
        labels = row.labels if known is None else tuple(dict.fromkeys((*known.labels, *row.labels)))
        together[row.image, row.body] = replace(row if known is None else known, labels=labels)
    yield from together.values()


def _row(
    where: str,
    annotation: Mapping[str, Any],
    images: Mapping[Any, Any],
    categories: Mapping[Any, str],
    reading: Reading,
) -> Row:
    if annotation["image_id"] not in images:
        raise ValueError(f"image_id {annotation['image_id']!r} is not among the images")
    image = images[annotation["image_id"]]
    columns = reading.columns
    if "labels" in columns:
        labels = labels_in(_looked_up(annotation, image, columns["labels"]))
    elif annotation.get("category_id") in categories:
        labels = (categories[annotation["category_id"]],)
    else:
        raise ValueError(f"category_id {annotation.get('category_id')!r} is not among the categories")
    split = text_in(_looked_up(annotation, image, columns["split"])) if "split" in columns else ""
    for key in _SPLIT_KEYS if not split and "split" not in columns else ():
        split = split or text_in(image.get(key))
    return Row(
        where,
        image_name(image["file_name"]),
        labels,
        box_in(annotation.get(columns.get("body", "bbox")), "body"),
        box_in(_looked_up(annotation, image, columns.get("head", "head_bbox")), "head"),
        split,
        text_in(_looked_up(annotation, image, columns["group"])) if "group" in columns else "",
        "xywh",
    )


def _looked_up(annotation: Mapping[str, Any], image: Mapping[str, Any], key: str) -> Any:
    """The value under a key of the annotation, its attributes, or its image."""
    places = (annotation, annotation.get("attributes") or {}, image)
    return next((place[key] for place in places if key in place), None)


def _attribute_names(annotations: list[Any]) -> set[str]:
    return {
        key
        for a in annotations
        if isinstance(a, dict) and isinstance(a.get("attributes"), dict)
        for key in a["attributes"]
    }


def _check_keys(path: Path, annotations: list[Any], images: Mapping[Any, Any], reading: Reading) -> None:
    """AnnotationError for a given key that nothing in the file has."""
    known = {key for a in annotations if isinstance(a, dict) for key in a} | _attribute_names(annotations)
    known |= {key for image in images.values() for key in image}
    for key, name in reading.columns.items():
        if key == "image":
            raise AnnotationError(f"{path}: COCO names its images itself (file_name); leave --columns image= out")
        known_column(
            f"{path}: --columns {key}={name}", name, sorted(known), "no annotation has that key", "The keys are"
        )
