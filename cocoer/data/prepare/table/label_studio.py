"""Label Studio's JSON export: tasks with annotations; a labelled rectangle is one person, percent of the image.

Emotions are the labels of the rectangles, or a choice made per rectangle, or (without rectangles) a choice for the whole image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cocoer.data.prepare.table.rows import IMAGE_ENDINGS, Reading, Row, box_in, known_column, text_in
from cocoer.errors import AnnotationError


def read_label_studio(path: Path, tasks: Sequence[Any], reading: Reading) -> Iterator[Row]:
    """The rows of an export. Raises AnnotationError where it is none.

    image: the uploaded file's name, else the file that the task's `data` names (`--columns image=KEY` says which). labels:
    `--columns labels=CONTROL` takes the choices or labels of that control alone. split, group: keys of the task's `data`. Of
    several annotations the ground truth counts, else the first that was not cancelled.
    """
    if not all(isinstance(task, dict) and isinstance(task.get("data"), dict) for task in tasks):
        raise AnnotationError(
            f"{path}: wanted Label Studio's JSON export (a list of tasks with `data` and `annotations`)"
        )
    if wrong := [key for key in ("body", "head") if key in reading.columns]:
        raise AnnotationError(f"{path}: Label Studio's rectangles are the bodies; leave --columns {wrong[0]}= out")
    keys = {key for task in tasks for key in task["data"]}
    for key, name in reading.columns.items():
        what, known = ("control", _controls(tasks)) if key == "labels" else ("key of the tasks' data", keys)
        known_column(f"{path}: --columns {key}={name}", name, sorted(known), f"no such {what}", "There are")
    for number, task in enumerate(tasks, start=1):
        where = f"task {task.get('id', number)}"
        try:
            yield from _rows_of_task(where, task, reading)
        except (KeyError, TypeError, AttributeError) as err:
            yield Row(where, fault=f"not a Label Studio task ({type(err).__name__}: {err})")
        except ValueError as err:
            yield Row(where, fault=str(err))


def _rows_of_task(where: str, task: Mapping[str, Any], reading: Reading) -> Iterator[Row]:
    data, control = task["data"], reading.columns.get("labels")
    image = _image_of(task, reading.columns.get("image"))
    split, group = (text_in(data.get(reading.columns.get(key, key))) for key in ("split", "group"))
    finished = [a for a in task.get("annotations", []) if not a.get("was_cancelled")]
    if not finished:
        yield Row(where, image, fault="no annotation")
        return
    result = next((a for a in finished if a.get("ground_truth")), finished[0])["result"]
    rectangles = {r["id"]: r for r in result if "x" in r["value"] and "width" in r["value"]}
    choices: dict[str, list[str]] = {}
    for part in result:
        chosen = part["value"].get("choices") or part["value"].get("rectanglelabels") or ()
        if control is None or part["from_name"] == control:
            region = part["id"] if part["id"] in rectangles else ""
            kind = f"{'choice' if 'choices' in part['value'] else 'label'} {region}"
            choices.setdefault(kind, []).extend(str(c) for c in chosen)
    for region, part in rectangles.items():
        value = part["value"]
        labels = choices.get(f"choice {region}") or choices.get(f"label {region}") or choices.get("choice ") or []
        fault = f"the rectangle is turned by {value['rotation']} degrees" if value.get("rotation") else ""
        box = box_in([value[key] for key in ("x", "y", "width", "height")], "body")
        place, names = f"{where} region {region}", tuple(dict.fromkeys(labels))
        yield Row(place, image, names, box, None, split, group, "xywh", "percent", fault)
    if not rectangles:
        yield Row(where, image, tuple(dict.fromkeys(choices.get("choice ", []))), None, None, split, group)


def _controls(tasks: Sequence[Any]) -> set[str]:
    results = (r for task in tasks for a in task.get("annotations") or [] for r in a.get("result") or [])
    return {str(r.get("from_name")) for r in results if isinstance(r, dict)}


def _image_of(task: Mapping[str, Any], key: str | None) -> str:
    """The image's file: of a local file its path, of an upload or an address the last part."""
    data = task["data"]
    if key is not None and key not in data:
        raise ValueError(f"--columns image={key}: the task's data has the keys {', '.join(data)}")
    texts = [str(data[key])] if key else [str(v) for v in data.values() if isinstance(v, str)]
    address = next(
        (t for t in texts if key or urlsplit(t).path.lower().endswith(IMAGE_ENDINGS) or "local-files" in t), None
    )
    if address is None:
        raise ValueError("no image in the task's data; say which key it is with --columns image=KEY")
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    if local:
        return unquote(local[0]).replace("\\", "/")
    if parts.scheme or address.startswith("/data/"):
        return PurePosixPath(unquote(parts.path)).name
    return unquote(address).replace("\\", "/")
