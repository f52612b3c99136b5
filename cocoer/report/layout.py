"""Where labels go: pure geometry in whole pixels, no image and no font, so that tests can look at the boxes alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cocoer.boxes import Box, area, intersections

Size = tuple[int, int]
Plate = tuple[int, int, int, int]
"""A rectangle x1, y1, x2, y2 in pixels of the canvas; x2 and y2 are just outside, so touching plates do not overlap."""


def _around(anchor: Box, head: Box, size: Size, gap: int) -> list[tuple[float, float]]:
    """Top left corners to try for a plate, best first: outside the box, then in its corners, then beside the head."""
    (w, h), (x1, y1, x2, y2), (hx1, hy1, hx2, hy2) = size, anchor, head
    mid_x, mid_y = (x1 + x2 - w) / 2, (y1 + y2 - h) / 2
    outside = [(x1, y1 - h - gap), (x2 + gap, y1), (x1 - w - gap, y1), (x1, y2 + gap), (mid_x, y1 - h - gap)]
    outside += [(x2 - w, y1 - h - gap), (mid_x, y2 + gap), (x2 - w, y2 + gap)]
    outside += [(x2 + gap, mid_y), (x1 - w - gap, mid_y), (x2 + gap, y2 - h), (x1 - w - gap, y2 - h)]
    inside = [(x1 + gap, y2 - h - gap), (x2 - w - gap, y2 - h - gap), (mid_x, y2 - h - gap)]
    inside += [(x1 + gap, y1 + gap), (x2 - w - gap, y1 + gap), (mid_x, mid_y)]
    beside = [(hx2 + gap, hy1), (hx1 - w - gap, hy1), (hx1, hy2 + gap), (hx1, hy1 - h - gap), (hx2 + gap, hy2)]
    return outside + inside + beside


def _everywhere(size: Size, canvas: Plate) -> NDArray[np.float64]:
    """Top left corners of a grid over the canvas, two thirds of a plate apart, for when no place near the box is free."""
    w, h = size
    xs = np.arange(canvas[0], max(canvas[0] + 1, canvas[2] - w + 1), max(1, 2 * w // 3))
    ys = np.arange(canvas[1], max(canvas[1] + 1, canvas[3] - h + 1), max(1, 2 * h // 3))
    return np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(np.float64)


def _distance(plates: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    """Gap in pixels [N] between each plate [N, 4] and a box, 0 where they touch."""
    dx = np.maximum(0, np.maximum(box[0] - plates[:, 2], plates[:, 0] - box[2]))
    dy = np.maximum(0, np.maximum(box[1] - plates[:, 3], plates[:, 1] - box[3]))
    return np.hypot(dx, dy)


def place_plates(
    sizes: Sequence[Size],
    bodies: Sequence[Box],
    heads: Sequence[Box],
    canvas: Plate,
    gap: int = 2,
    anywhere: bool = False,
    last_resort: bool = False,
) -> list[Plate | None]:
    """A place for one label plate per person, so that no two plates overlap and none leaves `canvas`.

    sizes: plate width and height. bodies, heads: boxes in canvas pixels. gap: pixels between a plate and its box.
    anywhere: also try places far from the person (the caller then draws a line to it).
    last_resort: where every free place hides a part of some head, take the one that hides least; else there is none.
    Returns the plates in the given order, None for a person without a free place. Deterministic: persons with the
    smallest boxes choose first, since they have the fewest places; among free places the one that hides least wins.
    """
    placed: dict[int, Plate] = {}
    order = sorted(range(len(sizes)), key=lambda j: (float(area([bodies[j]])[0]), j))
    x1, y1, x2, y2 = canvas
    for i in order:
        w, h = sizes[i]
        if w > x2 - x1 or h > y2 - y1:
            continue
        near = np.array(_around(bodies[i], heads[i], sizes[i], gap))
        others = [box for j, box in enumerate(bodies) if j != i]
        wide = np.concatenate([near, _everywhere(sizes[i], canvas)]) if anywhere else near
        for corners, may_hide in [
            (near, False),
            *([(wide, False)] if anywhere else []),
            *([(wide, True)] if last_resort else []),
        ]:
            corners = np.round(np.clip(corners, (x1, y1), (x2 - w, y2 - h)))
            plates = np.concatenate([corners, corners + np.array([w, h])], axis=1)  # [C, 4]
            hidden = (intersections(plates, heads) / np.maximum(area(heads), 1.0)).max(axis=1)
            cost = 8 * hidden + 0.4 * intersections(plates, [bodies[i]])[:, 0] / (w * h)
            cost += intersections(plates, others).sum(axis=1) / (w * h)
            cost += 20 * _distance(plates, bodies[i]) / np.hypot(x2 - x1, y2 - y1) + 0.004 * np.arange(len(plates))
            if not may_hide:
                cost[hidden > 0] = np.inf
            if placed:
                taken = np.array(list(placed.values()), dtype=np.float64) + np.array([-1, -1, 1, 1])
                cost[intersections(plates, taken).max(axis=1) > 0] = np.inf
            best = int(np.argmin(cost))
            if np.isfinite(cost[best]):
                a, b, c, d = (int(v) for v in plates[best])
                placed[i] = (a, b, c, d)
                break
    return [placed.get(i) for i in range(len(sizes))]


def flow(sizes: Sequence[Size], max_height: int, gap: int) -> tuple[list[Plate], Size]:
    """Cards set in columns from top to bottom, as many columns as they need; one card may be taller than `max_height`.

    Returns the plates, with the first at (0, 0), and the width and height of the whole.
    """
    plates: list[Plate] = []
    x = y = wide = tallest = 0
    for w, h in sizes:
        if y > 0 and y + h > max_height:
            x, y, wide = x + wide + gap, 0, 0
        plates.append((x, y, x + w, y + h))
        y, wide = y + h + gap, max(wide, w)
        tallest = max(tallest, y - gap)
    return plates, (x + wide, tallest)


def flow_below(sizes: Sequence[Size], max_width: int, gap: int) -> tuple[list[Plate], Size]:
    """As `flow`, in the lowest columns whose width together is at most `max_width` (one column where a card is wider)."""
    low = max((h for _, h in sizes), default=0)
    high = sum(h for _, h in sizes) + gap * len(sizes)
    while low < high:
        mid = (low + high) // 2
        if flow(sizes, mid, gap)[1][0] <= max_width:
            high = mid
        else:
            low = mid + 1
    return flow(sizes, high, gap)
