"""Choose a head box for every person and record its source: annotated, detected, or estimated from the body.

Rule (docs/data.md#head-boxes): a candidate is used when it has four finite numbers, is not empty,
touches the image, is at least 2 pixels wide and high, is no larger than the body, and has its centre in the body. Every other
person gets an estimate: the median place of a head in its body over this data set's own training persons. All of it is counted.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cocoer.boxes import Box, area, as_box, clip_box, relative_box
from cocoer.data.people import HEAD_IN_BODY, RULES, Detections, head_from_body
from cocoer.errors import HeadFileError
from cocoer.files import open_table, parse_json, read_lines
from cocoer.names import HEAD_SOURCES

MIN_SIDE = 2.0
"""Pixels. The smallest head box that EMOTIC's authors drew is 5 x 9."""

MIN_FOR_MEDIAN = 30
"""With fewer usable heads in train, the published median of EMOTIC serves for the estimate."""


@dataclass(frozen=True)
class Candidate:
    """What is known of one person's head before it is judged. box: xyxy in pixels, or None where nothing is known."""

    box: tuple[float, ...] | None = None
    source: str = "estimated"
    score: float | None = None


@dataclass(frozen=True)
class Head:
    """The head that is used. problem: why a candidate was not, or "" (`absent` where there was none)."""

    box: Box
    source: str
    score: float | None
    problem: str


def judge_head(candidate: Candidate, body: Box, width: int, height: int) -> tuple[Box | None, str]:
    """The candidate's box inside the image, or None and why not: the rule at the top of this file."""
    if candidate.box is None or not any(candidate.box):
        return None, "absent"
    try:
        box = as_box(candidate.box)
    except ValueError:
        return None, "not a box"
    try:
        box = clip_box(box, width, height)
    except ValueError:
        return None, "outside the image"
    if min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
        return None, "too small"
    if area(box)[0] > area(body)[0]:
        return None, "larger than the body"
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if not (body[0] <= x <= body[2] and body[1] <= y <= body[3]):
        return None, "outside the body"
    return box, ""


def choose_heads(
    candidates: Sequence[Candidate],
    bodies: Sequence[Box],
    sizes: Sequence[tuple[int, int]],
    splits: Sequence[str],
) -> tuple[list[Head], dict[str, Any]]:
    """A head for each of N persons, and the statistics for the sidecar.

    bodies: inside their images, pixels. sizes: (width, height) of the images. splits: the median is taken over `train` alone,
    so that nothing of val or test reaches it.
    """
    judged = [judge_head(c, b, *size) for c, b, size in zip(candidates, bodies, sizes, strict=True)]
    places = [
        relative_box(box, body)
        for (box, _), body, split in zip(judged, bodies, splits, strict=True)
        if box is not None and split == "train"
    ]
    enough = len(places) >= MIN_FOR_MEDIAN
    median = np.median(np.array(places), axis=0) if enough else np.array(HEAD_IN_BODY)
    relative = as_box([round(float(v), 4) for v in median], "median head")
    heads = []
    for candidate, (box, problem), body, size in zip(candidates, judged, bodies, sizes, strict=True):
        if box is None:
            heads.append(Head(head_from_body(body, *size, relative), "estimated", None, problem))
        else:
            heads.append(Head(box, candidate.source, candidate.score, ""))
    return heads, {
        "relative_box_of_estimates": list(relative),
        "relative_box_from": f"median of {len(places)} heads of train" if enough else "published median of EMOTIC",
        "sources": shares((split, head.source) for head, split in zip(heads, splits, strict=True)),
        "estimated_because": dict(sorted(Counter(h.problem for h in heads if h.problem).items())),
    }


def shares(sources: Iterable[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """From (split, source) of each person: how many boxes of a split come from where, and their share of it."""
    pairs = list(sources)
    counts, totals = Counter(pairs), Counter(split for split, _ in pairs)
    return {
        split: {s: {"persons": counts[split, s], "share": round(counts[split, s] / n, 4)} for s in HEAD_SOURCES}
        for split, n in sorted(totals.items())
    }


def match_faces(bodies: Sequence[Box], found: Detections, rule: str = "one_to_one") -> list[Candidate]:
    """One candidate a body of one image. one_to_one: two people never share a face; published: as the release does it."""
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r} for faces and bodies; the rules are: {', '.join(RULES)}")
    chosen = RULES[rule](np.array(bodies).reshape(-1, 4), found.faces)
    return [
        Candidate() if face is None
        else Candidate(tuple(found.faces[face].tolist()), "detected", round(float(found.face_scores[face]), 4))
        for face in chosen
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------- files of heads

HeadKey = tuple[str, int]
"""(last three parts of the image path, person number): the same in every tree, however it was unzipped."""


def head_key(image: str, person: int) -> HeadKey:
    """The key under which a file of heads and an index meet: `mscoco/images/x.jpg`, person 0."""
    return "/".join(image.replace("\\", "/").split("/")[-3:]), person


def read_head_file(path: Path) -> dict[HeadKey, Candidate]:
    """Head boxes of a .csv (columns image, person, x1, y1, x2, y2 and, if known, score) or .jsonl file.

    A line of .jsonl has `image`, `person`, `head` ([x1, y1, x2, y2] or null) and, if known, `head_source` and `head_score`; any
    person index is such a file. Whether a box makes sense is judged later, and counted.
    Raises HeadFileError for a missing file, a missing column, a row that cannot be parsed, or a person given twice.
    """
    readers: Mapping[str, Callable[[Path], list[tuple[HeadKey, Candidate]]]] = {".csv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix not in readers:
        raise HeadFileError(f"{path}: wanted a file of head boxes that ends in {' or '.join(readers)}")
    try:
        rows = readers[path.suffix](path)
    except (OSError, UnicodeDecodeError) as err:
        raise HeadFileError(f"{path}: cannot be read: {err}") from None
    found: dict[HeadKey, Candidate] = {}
    for number, (key, candidate) in enumerate(rows, start=1):
        if key in found:
            raise HeadFileError(f"{path}: entry {number}: person {key[1]} of {key[0]} is given twice")
        found[key] = candidate
    return found


def _csv_rows(path: Path) -> list[tuple[HeadKey, Candidate]]:
    with open_table(path) as file:
        reader = csv.DictReader(file)
        wanted = ("image", "person", "x1", "y1", "x2", "y2")
        missing = [n for n in wanted if n not in (reader.fieldnames or ())]
        if missing:
            raise HeadFileError(f"{path}: wanted the columns {', '.join(wanted)}; missing: {', '.join(missing)}")
        rows = []
        for number, row in enumerate(reader, start=2):
            try:
                box = tuple(float(row[n]) for n in wanted[2:])
                score = float(row["score"]) if row.get("score") else None
                rows.append((head_key(row["image"], int(row["person"])), Candidate(box, "annotated", score)))
            except (TypeError, ValueError) as err:
                raise HeadFileError(f"{path}: row {number}: {err}") from None
        return rows


def _json_rows(path: Path) -> list[tuple[HeadKey, Candidate]]:
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            raw = parse_json(line)
            source = raw.get("head_source", "annotated")
            # An estimate of another run is no knowledge of this head: this run makes its own.
            known = raw["head"] is not None and source != "estimated"
            box = tuple(float(v) for v in raw["head"]) if known else None
            rows.append((head_key(raw["image"], int(raw["person"])), Candidate(box, source, raw.get("head_score"))))
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise HeadFileError(
                f"{path}: row {number}: wanted an object with image, person and head ({type(err).__name__}: {err})"
            ) from None
    return rows
