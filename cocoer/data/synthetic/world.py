"""One image of the demo world from its seed: plan the people, paint the scene, draw the people, then light and noise.

Every image has its own generator, seeded by (seed, dataset and split, index). So image 7 of a split is the same
whether 8 or 8,000 images are made, and no split repeats another.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cocoer.boxes import Box
from cocoer.data.decode import DEMO_MARK
from cocoer.data.synthetic.body import Figure, draw_body, draw_ground, height_below, sample_figure
from cocoer.data.synthetic.emotions import (
    PersonPlan,
    WorldOptions,
    archetype_pool,
    captions,
    pick_archetype,
    plan_person,
)
from cocoer.data.synthetic.expression import sample_expression
from cocoer.data.synthetic.face import sample_looks
from cocoer.data.synthetic.pen import Pen, Point
from cocoer.data.synthetic.posture import sample_posture
from cocoer.data.synthetic.scene import Scene, paint_foreground, sample_scene

SIZES = ((400, 300), (420, 280), (448, 336), (480, 320), (320, 240), (360, 270), (300, 320))
OVERSAMPLE = 2
_MIN_VISIBLE = 12.0
"""Smallest side in pixels of a head box that is kept; smaller faces cannot be seen."""


@dataclass(frozen=True)
class ImagePlan:
    """An image before it is drawn: the scene's archetype and its people."""

    scene: str
    people: tuple[PersonPlan, ...]


@dataclass(frozen=True)
class Person:
    """One drawn person. Boxes are [x1, y1, x2, y2] in pixels, inside the image; body boxes are whole numbers."""

    plan: PersonPlan
    body_xyxy: Box
    head_xyxy: Box
    captions: tuple[str, ...]


@dataclass(frozen=True)
class DrawnImage:
    """A drawn image: RGB image and its people, left to right."""

    image: Image.Image
    people: tuple[Person, ...]
    scene_words: str


def _generator(seed: int, split: str, index: int, options: WorldOptions, part: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{options.dataset}/{split}/{part}".encode()), index])


def png_mark() -> PngInfo:
    """The comment of a drawn image, for Pillow to write into a PNG (of a JPEG it writes `info` itself)."""
    mark = PngInfo()
    mark.add_text("comment", DEMO_MARK)
    return mark


def plan_image(seed: int, split: str, index: int, options: WorldOptions, max_people: int = 4) -> ImagePlan:
    """Who is in image `index` of a split; drawing nothing. `max_people` shortens the list and changes no person in it."""
    rng = _generator(seed, split, index, options, "plan")
    scene = pick_archetype(rng, archetype_pool(options.dataset))
    count = (
        1 if options.dataset == "caers" else 1 + int(rng.choice(len(options.people_weights), p=options.people_weights))
    )
    people = tuple(plan_person(rng, scene, options) for _ in range(count))
    return ImagePlan(scene, people[: max(1, max_people)])


def draw_image(seed: int, split: str, index: int, options: WorldOptions, max_people: int = 4) -> DrawnImage:
    """Draw image `index` of a split; the same arguments give the same pixels."""
    plan = plan_image(seed, split, index, options, max_people)
    rng = _generator(seed, split, index, options, "drawing")
    sizes = SIZES if len(plan.people) < 3 else SIZES[:4]  # a crowd needs width
    width, height = sizes[int(rng.integers(len(sizes)))]
    big = (width * OVERSAMPLE, height * OVERSAMPLE)
    canvas = Image.new("RGB", big)
    scene = sample_scene(rng, plan.scene)
    pen = Pen(canvas, unit=float(big[1]))
    scene.paint(pen, rng, width / height)
    slots = _slots(rng, len(plan.people), width / height)
    people = []
    for person, slot in zip(plan.people, slots, strict=True):
        figure = sample_person(rng, person)
        body, head = place_figure(canvas, rng, figure, slot, scene)
        people.append(Person(person, body, head, tuple(captions(person, scene.words))))
        if rng.random() < 0.25:
            wide = (body[2] - body[0]) / height
            at = body[0] / height + wide * float(rng.uniform(0.1, 0.9))
            paint_foreground(pen, rng, at, float(rng.uniform(0.7, 1.0)) * body[3] / height, min(0.16, wide * 0.4))
    image = canvas.resize((width, height), Image.Resampling.BOX)
    drawn = _light(rng, image)
    drawn.info["comment"] = DEMO_MARK.encode()  # Pillow writes it into a JPEG
    return DrawnImage(drawn, tuple(people), scene.words)


def _slots(rng: np.random.Generator, count: int, wide: float) -> list[tuple[float, float, float]]:
    """Places (x, top of the head, height of a face) in image heights, the farther (smaller) people first in depth."""
    size = {1: (0.15, 0.27), 2: (0.135, 0.2), 3: (0.12, 0.16), 4: (0.1, 0.14)}[count]
    slots = []
    for i in range(count):
        face = float(rng.uniform(*size)) * (min(1.0, wide / 1.3) if count > 1 else 1.0)
        x = wide * (i + 0.5) / count + float(rng.uniform(-0.06, 0.06)) * wide / count
        x = min(max(x, face * 1.4), wide - face * 1.4)
        slots.append((x, float(rng.uniform(0.06, 0.2)), face))
    return slots


def sample_person(rng: np.random.Generator, person: PersonPlan) -> Figure:
    """What a planned person looks like, with face and posture as its archetypes show them."""
    looks = sample_looks(rng, person.gender, person.age)
    intensity = float(rng.uniform(0.88, 1.08) if person.strong else rng.uniform(0.5, 0.7))
    face = sample_expression(rng, person.archetypes[0], intensity)
    posture = sample_posture(rng, person.archetypes[1], intensity)
    return sample_figure(rng, looks, face, posture, intensity, person.gender, person.age)


def place_figure(
    canvas: Image.Image, rng: np.random.Generator, figure: Figure, slot: tuple[float, float, float], scene: Scene
) -> tuple[Box, Box]:
    """Draw a figure into its slot; body and head boxes in pixels of the final image.

    The feet stand on the ground where they fit; otherwise the lower border cuts the person off.
    """
    x, top, face = slot
    below = height_below(figure) * face
    shoulders = top + face * 1.25
    if shoulders + below < 0.97:  # small enough to stand on the ground
        shoulders = float(rng.uniform(0.88, 0.97)) - below
    unit = face * canvas.height
    origin: Point = (x * canvas.height, shoulders * canvas.height)
    shadow = Image.new("L", canvas.size)
    draw_ground(Pen(canvas, origin, unit), figure, shadow)
    canvas.paste((20, 20, 34), mask=shadow)
    left, upper, right, lower = frame = _frame(canvas, origin, unit, below * canvas.height)
    layer, head_layer = (Image.new("RGBA", (right - left, lower - upper)) for _ in range(2))
    shifted: Point = (origin[0] - left, origin[1] - upper)
    draw_body(Pen(layer, shifted, unit), figure, Pen(head_layer, shifted, unit))
    alpha = layer.getchannel("A")
    colours = layer.convert("RGB")
    if scene.dusk:
        colours = Image.blend(colours, Image.new("RGB", layer.size, (30, 34, 60)), scene.dusk)
    canvas.paste(colours, frame, mask=alpha)
    body, head = alpha.getbbox(), head_layer.getbbox()
    if body is None or head is None:
        raise RuntimeError(f"a person fell outside the image at slot {slot}; the placement rules are wrong")
    k = OVERSAMPLE
    (x1, y1, x2, y2), (hx1, hy1, hx2, hy2) = body, head
    return (
        (float((x1 + left) // k), float((y1 + upper) // k), float(-(-(x2 + left) // k)), float(-(-(y2 + upper) // k))),
        ((hx1 + left) / k, (hy1 + upper) / k, (hx2 + left) / k, (hy2 + upper) / k),
    )


def _frame(canvas: Image.Image, origin: Point, unit: float, below: float) -> tuple[int, int, int, int]:
    """The part of the canvas that a person with the shoulders at `origin` can reach, raised arms and props included.

    All in pixels of the canvas; the feet lie `below` the shoulders.
    """
    (x, y), reach = origin, 2.2 * unit
    return (
        max(0, int(x - reach)),
        max(0, int(y - 3.0 * unit)),
        min(canvas.width, int(x + reach)),
        min(canvas.height, int(y + below + unit)),
    )


def _light(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Brightness, colour cast, contrast and noise, as a camera would add."""
    pixels = np.array(image, dtype=np.float32)
    cast = rng.uniform(0.93, 1.07, 3).astype(np.float32) * np.float32(rng.uniform(0.78, 1.08))
    contrast = np.float32(rng.uniform(0.82, 1.08))
    noise = rng.standard_normal(pixels.shape[:2], dtype=np.float32)[..., None] * np.float32(rng.uniform(0.5, 5.0))
    pixels -= 128.0
    pixels *= contrast
    pixels *= cast
    pixels += 128.0 * cast
    pixels += noise
    return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))
