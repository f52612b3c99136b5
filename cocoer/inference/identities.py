"""Correct a tracker's ids when people cross, by the colours of their clothes.

A tracker based on overlap alone exchanges ids where two boxes nearly coincide, and gives a new id to a person hidden for long.
Here every id has a colour histogram of the body, updated while the body is not occluded, and frame by frame the ids
of those who are clearly seen are dealt out anew where the colours say so by a margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment

from cocoer.boxes import Box, area, intersections

BINS = 6
"""Steps of each colour channel."""

MARGIN = 0.12
"""How much nearer (in Hellinger distance, 0..1) other colours must be before an id changes hands."""

SAME_PERSON = 0.45
"""Colours farther apart than this are not the same person."""

CLEAR = 0.15
"""Share of a body that another box may cover for the body to count as clearly seen."""

FORGOTTEN_S = 20.0
"""Seconds after which the colours of an absent person are dropped."""


@dataclass
class _Identity:
    """colours: [BINS ** 3], square roots of shares. seen: when last, in seconds."""

    colours: NDArray[np.float64]
    seen: float


class Identities:
    """Raw ids of a tracker -> ids that stay with a person; one for each video."""

    def __init__(self) -> None:
        self._known: dict[int, _Identity] = {}
        self._of_raw: dict[int, int] = {}
        self._next = 1

    def __call__(self, raw: Sequence[int], bodies: Sequence[Box], image: Image.Image, now: float) -> list[int | None]:
        """The id of each person, None for a new person who is not clearly visible yet. raw: the tracker's ids, all different,
        and below 0 for those to whom it gives none yet.
        bodies: boxes in pixels of `image`. now: seconds."""
        if not raw:
            return []
        colours = [colours_of(image, body) for body in bodies]
        clear = clearly_seen(bodies)
        self._known = {n: k for n, k in self._known.items() if now - k.seen < FORGOTTEN_S}
        mapped = [self._of_raw.get(r) for r in raw]
        free = list(self._known)
        cost = np.full((len(raw), len(free) + len(raw)), SAME_PERSON)  # the last columns: somebody new
        for i, number in enumerate(mapped):
            for column, other in enumerate(free):
                apart = distance(colours[i], self._known[other].colours)
                margin = MARGIN if clear[i] else 2 * MARGIN
                cost[i, column] = apart - margin if number == other and apart < SAME_PERSON else apart
        out: list[int | None] = [None] * len(raw)
        for i, column in zip(*linear_sum_assignment(cost), strict=True):
            if column < len(free) and cost[i, column] <= SAME_PERSON:
                out[i] = free[column]
            elif clear[i]:
                out[i] = self._new()
                self._known[out[i]] = _Identity(colours[i], now)
        for i, number in enumerate(out):
            if number is None:
                continue
            if raw[i] >= 0:
                self._of_raw[raw[i]] = number
            known = self._known[number]
            known.seen = now
            if clear[i]:
                known.colours = np.sqrt(0.9 * known.colours**2 + 0.1 * colours[i] ** 2)
        return out

    def _new(self) -> int:
        self._next += 1
        return self._next - 1


def colours_of(image: Image.Image, body: Box) -> NDArray[np.float64]:
    """Square roots of the shares of BINS ** 3 colours in the middle of a body: [BINS ** 3]. The edges are background."""
    x1, y1, x2, y2 = body
    w, h = x2 - x1, y2 - y1
    left, top = max(0, int(x1 + 0.25 * w)), max(0, int(y1 + 0.05 * h))
    right, bottom = max(left + 1, int(x2 - 0.25 * w)), max(top + 1, int(y2 - 0.1 * h))
    pixels = np.asarray(image.convert("RGB").crop((left, top, right, bottom)), dtype=np.int64).reshape(-1, 3)
    bins = (pixels * BINS // 256) @ np.array([BINS * BINS, BINS, 1])
    shares = np.bincount(bins, minlength=BINS**3) / len(bins)
    return np.sqrt(shares)


def distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Hellinger distance of two results of `colours_of`: 0 (the same) to 1 (nothing in common)."""
    return float(np.sqrt(max(0.0, 1.0 - float(first @ second))))


def clearly_seen(bodies: Sequence[Box]) -> list[bool]:
    """Whether no other box covers more than `CLEAR` of a body."""
    shared = intersections(bodies, bodies) / np.maximum(area(bodies), 1e-9)[:, None]
    np.fill_diagonal(shared, 0.0)
    return [bool(v <= CLEAR) for v in shared.max(axis=1)]
