"""The Parquet schema and rows of the data set: one row per image, with its persons nested.

Rows per person could be lost after a crash: an engine may cut a block within an image, and the image's id would then count the
whole image as done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow

from cocoer.names import LEVELS
from cocoer.outputs import SOURCES, ImageResult, PersonPrediction

_TEXTS = pyarrow.list_(pyarrow.string())
_NUMBER = pyarrow.float32()  # what is at most 1
_BOX = pyarrow.list_(pyarrow.float32())


def row_schema(classes: Sequence[str], metadata: Mapping[str, str] | None = None) -> pyarrow.Schema:
    """The columns of the data set. classes: names of the emotions. metadata: of every file."""
    by_class = pyarrow.struct([(name, _NUMBER) for name in classes])
    by_level = pyarrow.struct([(level, pyarrow.float64()) for level in LEVELS])
    boxes = [(name, _BOX) for name in ("body", "head")]
    boxes += [(f"{name}_source", pyarrow.string()) for name in ("body", "head")]
    boxes += [(f"{name}_score", _NUMBER) for name in ("body", "head")]
    person = [
        ("person", pyarrow.int32()),
        ("track", pyarrow.string()),  # the id that came with the boxes
        ("status", pyarrow.string()),
        ("message", pyarrow.string()),
        *((source, _TEXTS) for source in SOURCES),  # labels
        ("emo_process", _TEXTS),  # levels in the order of leaving
        ("probabilities", pyarrow.struct([(source, by_class) for source in SOURCES])),
        ("losses", by_level),
        ("lambda", pyarrow.list_(by_level)),
        ("delta_norm", pyarrow.float64()),
        ("pseudo_label", _TEXTS),
        ("boxes", pyarrow.struct(boxes)),
    ]
    columns = [
        ("id", pyarrow.string()),
        ("uri", pyarrow.string()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("status", pyarrow.string()),  # ok or error
        ("message", pyarrow.string()),
        ("synthetic", pyarrow.bool_()),
        ("persons", pyarrow.list_(pyarrow.struct(person))),
    ]
    return pyarrow.schema(columns, metadata=dict(metadata or {}))


def row_of(identity: str, uri: str, result: ImageResult) -> dict[str, Any]:
    """The row of one image."""
    row = {**result.to_dict(), "id": identity, "uri": uri, "message": _text(result.message)}
    row["persons"] = [_person(person) for person in result.persons]
    return row


def _person(prediction: PersonPrediction) -> dict[str, Any]:
    """A person with its numbers as they are: rounded to six decimals, two runs could differ by a whole unit of the last."""
    person, record = prediction.to_dict(), prediction.competition
    if record is not None:
        person["losses"] = dict(zip(LEVELS, record.losses, strict=True))
        person["lambda"] = [dict(zip(LEVELS, weights, strict=True)) for weights in record.weights]
        person["delta_norm"] = record.delta_norm
    person["probabilities"] = {source: dict(by_name) for source, by_name in prediction.probabilities.items()}
    track = person.get("track")
    empty = {name: person[name] or None for name in ("probabilities", "losses")}
    return {
        **person,
        **empty,
        "track": None if track is None else _text(str(track)),
        "message": _text(person["message"]),
    }


def _text(text: str) -> str:
    """The text without what UTF-8 cannot write (parts of a file's name)."""
    return text.encode("utf-8", "replace").decode("utf-8")
