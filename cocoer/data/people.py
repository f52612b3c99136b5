"""Match detected faces to bodies, and estimate the box that is missing; estimates are marked as such.

Pure numpy and scipy, no image. All boxes are xyxy in pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cocoer.boxes import Box, area, clip_box, intersections, iou, place_relative
from cocoer.outputs import PersonBoxes

HEAD_IN_BODY: Box = (0.382, 0.072, 0.617, 0.240)
"""Where a head sits in its body box, in units of the body: the median over the 13,770 EMOTIC training persons for whom
a third-party audit found a face by the published rule (data_formats section 2). Used where no face is found."""

MIN_COVERAGE = 0.6
"""Share of a face that must lie in a body for the two to be one person."""

SAME_FACE_IOU = 0.5
"""A second box of one kind that overlaps this much is the same face."""


_IMPOSSIBLE = 1e6  # costs more than any set of possible pairs can gain, so it is taken only where nothing else is left


@dataclass(frozen=True)
class Detections:
    """What the detectors saw in one image; boxes xyxy in pixels of that image.

    bodies: [N, 4], body_scores: [N]; faces: [M, 4], face_scores: [M]; float64, scores in 0..1, best first.
    """

    bodies: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 4)))
    body_scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    faces: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 4)))
    face_scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


def fit_scores(bodies: ArrayLike, faces: ArrayLike) -> NDArray[np.float64]:
    """How well each face [M, 4] sits on each body [N, 4]: [N, M], higher is better, -inf where they cannot be one person.

    A face can belong to a body that contains at least `MIN_COVERAGE` of its area, and so its centre. Among those the score
    is the covered share, less the distance of the face's centre from where heads are: the middle line, near the top.
    """
    b = np.asarray(bodies, dtype=np.float64).reshape(-1, 4)[:, None]
    f = np.asarray(faces, dtype=np.float64).reshape(-1, 4)[None]
    covered = intersections(b[:, 0], f[0]) / np.maximum(area(f[0]), 1e-9)[None]  # [N, M]
    wide, high = np.maximum(b[..., 2] - b[..., 0], 1e-9), np.maximum(b[..., 3] - b[..., 1], 1e-9)
    x = ((f[..., 0] + f[..., 2]) / 2 - b[..., 0]) / wide  # [N, M], 0..1 inside the body
    y = ((f[..., 1] + f[..., 3]) / 2 - b[..., 1]) / high
    usual_y = (HEAD_IN_BODY[1] + HEAD_IN_BODY[3]) / 2
    score = covered - np.abs(x - 0.5) - 0.75 * np.abs(y - usual_y)
    return np.where(covered >= MIN_COVERAGE, score, -np.inf)


def assign_one_to_one(bodies: ArrayLike, faces: ArrayLike) -> list[int | None]:
    """For each body the index of its face, or None; no face is used twice.

    As many bodies as possible get a face; among those assignments the one with the best total of `fit_scores` is taken.
    """
    scores = fit_scores(bodies, faces)
    chosen: list[int | None] = [None] * scores.shape[0]
    if scores.size == 0:
        return chosen
    if min(scores.shape) == 1:  # one body or one face: the best pair, without half a second of importing scipy
        row, column = (int(i) for i in np.unravel_index(scores.argmax(), scores.shape))
        chosen[row] = column if np.isfinite(scores[row, column]) else None
        return chosen
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.where(np.isfinite(scores), -scores, _IMPOSSIBLE))
    for row, column in zip(rows, columns, strict=True):
        if np.isfinite(scores[row, column]):
            chosen[row] = int(column)
    return chosen


def assign_published(bodies: ArrayLike, faces: ArrayLike) -> list[int | None]:
    """The published inference's rule: the first face whose x range lies in the body's; y is ignored.

    Two people can get the same face. Kept for comparison with the published code (which also rounds to whole pixels).
    """
    b = np.asarray(bodies, dtype=np.float64).reshape(-1, 4)
    f = np.asarray(faces, dtype=np.float64).reshape(-1, 4)
    inside = (f[None, :, 0] >= b[:, None, 0]) & (
        f[None, :, 2] <= b[:, None, 2]
    )  # [N, M]; the x centre then lies inside too
    return [int(row.argmax()) if row.any() else None for row in inside]


Rule = Callable[[ArrayLike, ArrayLike], list["int | None"]]

RULES: dict[str, Rule] = {"one_to_one": assign_one_to_one, "published": assign_published}
"""Named ways to give faces to bodies; `one_to_one` is ours and the default."""


def head_from_body(body: Box, width: int, height: int, relative: Box = HEAD_IN_BODY) -> Box:
    """Where the head of a body most likely is: `relative` in units of the body, at least one pixel, inside the image.

    relative: another data set's median, if it is known.
    """
    return clip_box(_at_least_a_pixel(place_relative(relative, body), width, height), width, height, "estimated head")


def body_from_head(head: Box, width: int, height: int, relative: Box = HEAD_IN_BODY) -> Box:
    """The body in which `head` would sit at `relative`, cut at the image's border. Inverse of `head_from_body`."""
    x1, y1, x2, y2 = relative
    w, h = (head[2] - head[0]) / (x2 - x1), (head[3] - head[1]) / (y2 - y1)
    left, top = head[0] - x1 * w, head[1] - y1 * h
    return clip_box((left, top, left + w, top + h), width, height, "estimated body")


def _at_least_a_pixel(box: Box, width: int, height: int) -> Box:
    """The box, widened to one pixel a side and moved into a width x height image."""
    (x1, y1, x2, y2) = box
    w, h = max(1.0, x2 - x1), max(1.0, y2 - y1)
    left = min(max(0.0, (x1 + x2 - w) / 2), max(0.0, width - w))
    top = min(max(0.0, (y1 + y2 - h) / 2), max(0.0, height - h))
    return left, top, left + w, top + h


def complete_boxes(
    body: Box | None,
    head: Box | None,
    width: int,
    height: int,
    *,
    source: str = "annotated",
    body_score: float | None = None,
    head_score: float | None = None,
    track: str | int | None = None,
) -> PersonBoxes:
    """One person from a body, a head or both: cut at the image's border, the missing one estimated and marked so.

    body, head: pixels of the width x height image. source: of the boxes that are given (`annotated` or `detected`).
    Raises ValueError when both are None or a given box lies outside the image.
    """
    body_source = head_source = source
    body = None if body is None else clip_box(body, width, height, "body")
    head = None if head is None else clip_box(head, width, height, "head")
    if body is None:
        if head is None:
            raise ValueError("a person needs a body box, a head box or both; got neither")
        body, body_source = body_from_head(head, width, height), "estimated"
    elif head is None:
        head, head_source = head_from_body(body, width, height), "estimated"
    return PersonBoxes(body, head, head_source, body_source, head_score, body_score, track)


def _inside(boxes: NDArray[np.float64], width: int, height: int) -> list[bool]:
    """Which boxes are finite, not empty and at least partly inside the image."""
    x1, y1, x2, y2 = boxes.reshape(-1, 4).T
    usable = np.isfinite(boxes.reshape(-1, 4)).all(1) & (x1 < x2) & (y1 < y2)
    return (usable & (x2 > 0) & (y2 > 0) & (x1 < width) & (y1 < height)).tolist()


def _distinct(boxes: NDArray[np.float64], keep: Sequence[bool]) -> list[int]:
    """Indices of the kept boxes, each face once: a box that repeats an earlier (better) one is left out."""
    chosen: list[int] = []
    for index in (i for i, kept in enumerate(keep) if kept):
        if not chosen or iou(boxes[index], boxes[chosen]).max() <= SAME_FACE_IOU:
            chosen.append(index)
    return chosen


def people_from_detections(
    found: Detections, width: int, height: int, rule: str = "one_to_one", keep_bare_faces: bool = True
) -> list[PersonBoxes]:
    """The people of one image, from left to right.

    A body without a face gets an estimated head. A face that no body took becomes a person with an estimated body,
    unless `keep_bare_faces` is off (the published code drops it) or it overlaps a face that was taken.
    rule: a key of `RULES`. Raises ValueError for another one.
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r} for faces and bodies; the rules are: {', '.join(RULES)}")
    bodies = [i for i, ok in enumerate(_inside(found.bodies, width, height)) if ok]
    faces = _distinct(found.faces, _inside(found.faces, width, height))
    chosen = RULES[rule](found.bodies[bodies], found.faces[faces])
    people = []
    for body, position in zip(bodies, chosen, strict=True):
        face = None if position is None else faces[position]
        people.append(_person(found, body, face, width, height))
    if keep_bare_faces:
        taken = {faces[p] for p in chosen if p is not None}
        people += [_person(found, None, face, width, height) for face in faces if face not in taken]
    return sorted(people, key=lambda p: (p.body[0] + p.body[2], p.body[1], p.head[0]))


def _person(found: Detections, body: int | None, face: int | None, width: int, height: int) -> PersonBoxes:
    """One detected person; body and face are indices into `found`, or None."""
    return complete_boxes(
        None if body is None else _as_tuple(found.bodies[body]),
        None if face is None else _as_tuple(found.faces[face]),
        width,
        height,
        source="detected",
        body_score=None if body is None else round(float(found.body_scores[body]), 4),
        head_score=None if face is None else round(float(found.face_scores[face]), 4),
    )


def _as_tuple(row: NDArray[np.float64]) -> Box:
    x1, y1, x2, y2 = (float(v) for v in row)
    return x1, y1, x2, y2
