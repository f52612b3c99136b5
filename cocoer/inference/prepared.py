"""Prepare an image for the model: find its people, or check the given boxes, and cut their crops. Needs no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cocoer.config import Config
from cocoer.data.boxes_file import person_from
from cocoer.data.decode import is_demo_image
from cocoer.data.people import people_from_detections
from cocoer.data.transforms import LevelCrops, crop_levels
from cocoer.errors import BoxesError, DetectorError
from cocoer.outputs import PersonBoxes

if TYPE_CHECKING:
    from cocoer.data.detect import PeopleDetector

NOT_FOR_PHOTOGRAPHS = (
    "these detectors are the demonstration's, trained on drawn people only, and this image is not from the demo world; "
    "for photographs run `cocoer setup photos`, or give boxes (--boxes), or pass --detector demo to use them anyway"
)

Persons = Sequence[PersonBoxes | Mapping[str, Any]]
"""Boxes of the people in one image, xyxy in its pixels: see `data.boxes_file`."""


PANORAMA = 3.0
"""Ratio of the longer to the shorter side from which an image counts as a panorama."""

LEAST_SEEN = 224
"""Pixels of the shorter side that the detectors should see: a person half as high then has a head of about 12."""

LEAST_HEAD = 12
"""Pixels of a head that insightface's detectors still find, about."""


@dataclass(frozen=True)
class PreparedPerson:
    """One person of an image: its boxes and their crops; or neither, and what is wrong with the boxes."""

    boxes: PersonBoxes | None
    crops: LevelCrops | None
    fault: str = ""


@dataclass(frozen=True)
class PreparedImage:
    """An image cut up for the model.

    width, height: pixels. persons: in the order of the boxes, or from left to right. detector: what found the people, or None
    where boxes were given. remark: what a reader should know of how they were looked for.
    """

    width: int
    height: int
    persons: tuple[PreparedPerson, ...]
    detector: Mapping[str, str] | None = None
    remark: str = ""

    @property
    def crops(self) -> dict[int, LevelCrops]:
        """The crops of the persons without a fault, by the person's number."""
        return {number: who.crops for number, who in enumerate(self.persons) if who.crops is not None}


def prepare_image(
    image: Image.Image, persons: Persons | None, config: Config, detectors: Callable[[], PeopleDetector]
) -> PreparedImage:
    """The people of an image, as given or detected, each with its three crops. image: RGB, upright.

    detectors: gives them where `persons` is None; may raise MissingWeights or DetectorError. Raises DetectorError too where
    the demonstration's would look at an image that is not from the demo world.
    """
    width, height = image.size
    if persons is not None:
        return PreparedImage(width, height, tuple(_given(image, raw, config) for raw in persons))
    spec, detector = config.inference.detector, detectors()
    if getattr(detector.info, "demo", False) and not (is_demo_image(image) or spec.demo_anywhere):
        raise DetectorError(NOT_FOR_PHOTOGRAPHS)
    found = people_from_detections(detector(np.asarray(image)), width, height, spec.faces_to_bodies)
    people = tuple(PreparedPerson(who, _crops(image, who, config)) for who in found)
    remark = reduced_too_far(width, height, spec.input_size)
    return PreparedImage(width, height, people, detector.info.to_dict(), remark)


def _given(image: Image.Image, raw: PersonBoxes | Mapping[str, Any], config: Config) -> PreparedPerson:
    """A person whose boxes the caller gave."""
    try:
        who = person_from(raw, *image.size)
    except BoxesError as err:
        return PreparedPerson(None, None, str(err))
    return PreparedPerson(who, _crops(image, who, config))


def _crops(image: Image.Image, who: PersonBoxes, config: Config) -> LevelCrops:
    crops = crop_levels(image, who.body, who.head, config.data.image_size)
    if config.inference.channel_order == "rgb":
        return crops
    return replace(crops, pixels=np.ascontiguousarray(crops.pixels[..., ::-1]))


def reduced_too_far(width: int, height: int, side: int) -> str:
    """What to say of an image so long that the detectors, which see its longer side at `side` pixels, miss people in it."""
    long, short = max(width, height), max(1, min(width, height))
    seen = short * side / long
    if long < PANORAMA * short or seen >= LEAST_SEEN:
        return ""
    better = min(4096, 32 * math.ceil(LEAST_SEEN * long / short / 32))
    return (
        f"the image's longer side is {long / short:.1f} times the shorter: the detectors see it reduced to"
        f" {side} x {max(1, round(seen))} pixels and miss people"
        f" with heads below about {math.ceil(LEAST_HEAD * long / side)} pixels of the image;"
        f" --set inference.detector.input_size={better} finds smaller ones"
    )
