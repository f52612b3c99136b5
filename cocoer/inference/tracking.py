"""Track people in a video: ids by ByteTrack (Zhang et al. 2022), and probabilities smoothed along each track.

ByteTrack goes by overlap; where people cross, `identities` keeps ids with people by the colours that they wear. All of it works
on results in the order of the frames, after recognition, so nothing else of the pipeline changes. A track's probabilities are an
exponential mean over its frames with the time constant `SMOOTHING_S`; labels follow from the smoothed probabilities; losses and
exclusions stay those of the frame. What was done is stated in each result's `model` under `tracking`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from cocoer.errors import MissingExtra
from cocoer.inference.identities import Identities
from cocoer.inference.predictions import LabelRule
from cocoer.outputs import ImageResult, PersonPrediction

SMOOTHING_S = 0.5
"""Seconds after which a frame's weight in the smoothed probabilities has fallen to 1/e."""

LOST_S = 1.0
"""Seconds for which a person may be hidden and keep the id."""

LEAST_SCORE = 0.5
"""Detections below this only continue a track."""

Probabilities = dict[str, dict[str, float]]


@dataclass
class _State:
    """A track's smoothed probabilities by source and class, and the time at which it was last seen, in seconds."""

    probabilities: Probabilities
    seen: float


class FrameTracker:
    """Ids and smoothing for the frames of one video, given in order.

    rate: frames per second of the video. rule: from probabilities to labels.
    Raises MissingExtra where the package `trackers` is not installed.
    """

    def __init__(self, rate: float, rule: LabelRule) -> None:
        try:
            from trackers import ByteTrackTracker
        except ImportError as err:
            raise MissingExtra("track", err) from None
        self._rate, self._rule = rate, rule
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(30 * LOST_S),
            frame_rate=rate,
            track_activation_threshold=LEAST_SCORE,
            minimum_consecutive_frames=1,
            high_conf_det_threshold=LEAST_SCORE,
        )
        self._identities = Identities()
        self._states: dict[int, _State] = {}

    def __call__(self, result: ImageResult, image: Image.Image) -> ImageResult:
        """The result of the next frame with `track` in its persons' boxes and smoothed probabilities.

        image: the frame, of any size. Somebody new who is not clearly seen has no id yet.
        """
        now = (result.frame or 0) / self._rate
        ids = self._ids(result, image, now)
        persons = tuple(
            self._smoothed(person, ids[place], now) if place in ids else person
            for place, person in enumerate(result.persons)
        )
        self._states = {number: s for number, s in self._states.items() if now - s.seen <= 2 * LOST_S}
        said = {
            "identities": "ByteTrack, ids kept by the colours of the body",
            "smoothing": f"exponential mean over the track, time constant {SMOOTHING_S} s",
        }
        return replace(result, persons=persons, model=dict(result.model) | {"tracking": said})

    def _ids(self, result: ImageResult, image: Image.Image, now: float) -> dict[int, int]:
        """Place in `result.persons` -> id, of those who have one."""
        import supervision

        boxed = [(i, p.boxes) for i, p in enumerate(result.persons) if p.boxes is not None]
        found = supervision.Detections(
            xyxy=np.array([b.body for _, b in boxed], dtype=np.float64).reshape(-1, 4),
            confidence=np.array([_score(b.body_score, b.head_score) for _, b in boxed], dtype=np.float64),
            class_id=np.array([i for i, _ in boxed], dtype=int),
        )
        kept = self._tracker.update(found, timestamp=now)
        if kept.tracker_id is None or kept.class_id is None:
            return {}
        raw = {int(place): int(n) for place, n in zip(kept.class_id, kept.tracker_id, strict=True)}
        raw = {place: n if n >= 0 else -1 - place for place, n in raw.items()}  # no id yet: the colours may know
        sx, sy = image.width / max(1, result.width), image.height / max(1, result.height)
        bodies = {i: (b.body[0] * sx, b.body[1] * sy, b.body[2] * sx, b.body[3] * sy) for i, b in boxed}
        numbers = self._identities(list(raw.values()), [bodies[place] for place in raw], image, now)
        return {place: number for place, number in zip(raw, numbers, strict=True) if number is not None}

    def _smoothed(self, person: PersonPrediction, number: int, now: float) -> PersonPrediction:
        """The person with its track's id and probabilities."""
        assert person.boxes is not None, "only persons with boxes are tracked"
        boxes = replace(person.boxes, track=number if person.boxes.track is None else person.boxes.track)
        if not person.probabilities:
            return replace(person, boxes=boxes)
        before = self._states.get(number)
        new = 1.0 if before is None else 1.0 - math.exp(-max(0.0, now - before.seen) / SMOOTHING_S)
        mixed = {
            source: {name: _mixed(before, source, name, p, new) for name, p in by_name.items()}
            for source, by_name in person.probabilities.items()
        }
        self._states[number] = _State(mixed, now)
        labels: Mapping[str, tuple[str, ...]] = {s: self._rule.labels(s, by_name) for s, by_name in mixed.items()}
        return replace(person, boxes=boxes, probabilities=mixed, labels=labels)


def _score(body: float | None, head: float | None) -> float:
    """The score of a detection; given boxes have 1."""
    return 1.0 if body is None and head is None else max(body or 0.0, head or 0.0)


def _mixed(before: _State | None, source: str, name: str, p: float, new: float) -> float:
    old = p if before is None else before.probabilities.get(source, {}).get(name, p)
    return old + new * (p - old)


Stream = Generator[tuple[ImageResult, Any, Any], None, None]


def track(results: Iterable[tuple[ImageResult, Any, Any]], rule: LabelRule, rate_of: Callable[[str], float]) -> Stream:
    """The stream of `pipeline.predict_many` with the frames of each video tracked; other images pass as they are.

    Every frame brings its image. rate_of: a video's name -> its frames per second.
    """
    name, tracker = "", None
    for result, item, image in results:
        if result.frame is None or image is None:
            yield result, item, image
            continue
        if tracker is None or result.image != name:
            name, tracker = result.image, FrameTracker(rate_of(result.image), rule)
        yield tracker(result, image), item, image
