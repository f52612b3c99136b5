"""Pure maths on boxes: xyxy, floats, pixels of whatever frame the caller says. No image, no tensor library but numpy.

A box is [x1, y1, x2, y2] with x to the right and y down; x2 and y2 are the far edges, so the width is x2 - x1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Box = tuple[float, float, float, float]


def as_box(values: Sequence[float] | ArrayLike, name: str = "box") -> Box:
    """Four finite numbers with x1 < x2 and y1 < y2, as floats.

    Raises ValueError that names the box and says what is wrong (count, type, NaN, inverted or empty).
    """
    try:
        numbers = [float(v) for v in np.asarray(values, dtype=np.float64).ravel()]
    except (TypeError, ValueError):
        raise ValueError(f"{name}: wanted four numbers [x1, y1, x2, y2], got {values!r}") from None
    if len(numbers) != 4:
        raise ValueError(f"{name}: wanted four numbers [x1, y1, x2, y2], got {len(numbers)}: {values!r}")
    if not all(math.isfinite(v) for v in numbers):
        raise ValueError(f"{name}: wanted finite numbers, got {numbers}")
    x1, y1, x2, y2 = numbers
    if x2 <= x1 or y2 <= y1:
        raise ValueError(
            f"{name}: wanted x1 < x2 and y1 < y2, got {numbers}; the box is empty or its corners are swapped"
        )
    return x1, y1, x2, y2


def clip_box(box: Box, width: int, height: int, name: str = "box") -> Box:
    """The part of the box that lies inside an image of width x height pixels.

    Raises ValueError where nothing of it does.
    """
    x1, y1, x2, y2 = box
    clipped = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise ValueError(f"{name}: {list(box)} lies outside the image ({width}x{height} pixels)")
    return clipped


def scale_box(box: Box, width: int, height: int, size: int) -> Box:
    """From pixels of a width x height image to pixels of the square `size` x `size` frame the model sees."""
    x1, y1, x2, y2 = box
    return x1 * size / width, y1 * size / height, x2 * size / width, y2 * size / height


def touched_pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels (x1, y1, x2, y2) of a width x height image that the box touches, at least one, as Pillow's crop wants them."""
    x1, y1 = min(max(math.floor(box[0]), 0), width - 1), min(max(math.floor(box[1]), 0), height - 1)
    return x1, y1, max(min(math.ceil(box[2]), width), x1 + 1), max(min(math.ceil(box[3]), height), y1 + 1)


def area(boxes: ArrayLike) -> NDArray[np.float64]:
    """Areas [N] of boxes [N, 4]."""
    b = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])


def intersections(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Areas [N, M] shared by each of first [N, 4] with each of second [M, 4]."""
    a = np.asarray(first, dtype=np.float64).reshape(-1, 4)[:, None]
    b = np.asarray(second, dtype=np.float64).reshape(-1, 4)[None]
    wide = np.clip(np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]), 0, None)
    high = np.clip(np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]), 0, None)
    return wide * high


def iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union [N, M] of first [N, 4] with second [M, 4]; 0 where both boxes are empty."""
    shared = intersections(first, second)
    union = area(first)[:, None] + area(second)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def relative_box(inner: Box, outer: Box) -> Box:
    """`inner` in units of `outer`: (0, 0) is outer's top left corner, (1, 1) its bottom right."""
    w, h = outer[2] - outer[0], outer[3] - outer[1]
    return (inner[0] - outer[0]) / w, (inner[1] - outer[1]) / h, (inner[2] - outer[0]) / w, (inner[3] - outer[1]) / h


def place_relative(relative: Box, outer: Box) -> Box:
    """The inverse of `relative_box`: a box in units of `outer`, back in outer's frame."""
    w, h = outer[2] - outer[0], outer[3] - outer[1]
    return (
        outer[0] + relative[0] * w,
        outer[1] + relative[1] * h,
        outer[0] + relative[2] * w,
        outer[1] + relative[3] * h,
    )
