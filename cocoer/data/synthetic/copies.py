"""Near-duplicates of drawn images, for test sets that share scenes with train and say so.

A copy is a drawn image, changed in one of six ways that photographs of a data set differ in: compressed anew, smaller, lighter,
darker, cut at its borders, or mirrored. Its people keep their labels, and their boxes move with the pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image, ImageOps

from cocoer.boxes import Box, clip_box
from cocoer.data.synthetic.world import Person

_CUT = 0.05


@dataclass(frozen=True)
class Change:
    """One way to change an image. pixels: RGB -> RGB. box: xyxy, width and height of the image before -> xyxy after."""

    name: str
    pixels: Callable[[Image.Image], Image.Image]
    box: Callable[[Box, int, int], Box] = lambda box, width, height: box


def lit(factor: float) -> Callable[[Image.Image], Image.Image]:
    """All colours times a factor."""
    return lambda image: image.point(lambda v: min(255, round(v * factor)))


def compressed(image: Image.Image, quality: int = 20) -> Image.Image:
    """As a JPEG file of this quality shows it."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cut(share: float) -> Callable[[Image.Image], Image.Image]:
    """This share of each axis cut off, half at either end."""
    return lambda image: image.crop(_window(image.width, image.height, share))


def _window(width: int, height: int, share: float) -> tuple[int, int, int, int]:
    x, y = round(width * share / 2), round(height * share / 2)
    return x, y, round(width * (1 - share / 2)), round(height * (1 - share / 2))


def _cut_box(box: Box, width: int, height: int) -> Box:
    left, top, right, bottom = _window(width, height, _CUT)
    moved = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    return clip_box(moved, right - left, bottom - top)


def _mirrored_box(box: Box, width: int, height: int) -> Box:
    return width - box[2], box[1], width - box[0], box[3]


def _halved_box(box: Box, width: int, height: int) -> Box:
    return clip_box((box[0] / 2, box[1] / 2, box[2] / 2, box[3] / 2), width // 2, height // 2)


CHANGES: tuple[Change, ...] = (
    Change("JPEG of quality 20", compressed),
    Change("half the size", lambda image: image.resize((image.width // 2, image.height // 2)), _halved_box),
    Change("brightness x 1.3", lit(1.3)),
    Change("brightness x 0.6", lit(0.6)),
    Change("5 % of each axis cut off", cut(_CUT), _cut_box),
    Change("mirror image", ImageOps.mirror, _mirrored_box),
)


def moved_people(people: tuple[Person, ...], change: Change, width: int, height: int) -> tuple[Person, ...]:
    """The people of an image of this size, with the boxes that they have in its copy."""
    return tuple(
        replace(
            person,
            body_xyxy=change.box(person.body_xyxy, width, height),
            head_xyxy=change.box(person.head_xyxy, width, height),
        )
        for person in people
    )
