"""A short film of the demo world: people who cross each other before a scene, with their true boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cocoer.boxes import Box
from cocoer.data.decode import DEMO_MARK
from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.pen import Pen
from cocoer.data.synthetic.scene import sample_scene
from cocoer.data.synthetic.world import OVERSAMPLE, place_figure, plan_image, sample_person

SIZE = (560, 320)


@dataclass(frozen=True)
class FilmFrame:
    """image: RGB. boxes: body and head of each person in pixels, in the order of the persons, the same in every frame."""

    image: Image.Image
    boxes: tuple[tuple[Box, Box], ...]


def draw_film(seed: int, frames: int, people: int = 3, speed: float = 1.0) -> Iterator[FilmFrame]:
    """Frames of a film in which each of up to four people swings across the whole width at a pace of their own.

    Nearer people are larger and hide those behind them. speed: how many times as fast as usual they walk. The same arguments
    give the same pixels.
    """
    options = WorldOptions()
    rng = np.random.default_rng([seed, 4099])
    plan = plan_image(seed, "film", 0, options)
    width, height = SIZE
    backdrop = Image.new("RGB", (width * OVERSAMPLE, height * OVERSAMPLE))
    scene = sample_scene(rng, plan.scene)
    scene.paint(Pen(backdrop, unit=float(backdrop.height)), rng, width / height)
    planned = [plan_image(seed, "film", 1 + i, options).people[0] for i in range(people)]
    figures = [sample_person(rng, person) for person in planned]
    faces = [0.115 + 0.02 * i for i in range(people)]
    paces = rng.permutation([260.0, 320.0, 380.0, 440.0])[:people]  # frames from one side to the other and back
    phases = [i / people for i in range(people)]
    wide = width / height
    for number in range(frames):
        canvas = backdrop.copy()
        boxes = []
        for figure, face, pace, phase in zip(figures, faces, paces, phases, strict=True):
            swing = 0.5 - 0.5 * math.cos(2 * math.pi * (number * speed / pace + phase))
            x = face * 1.4 + swing * (wide - 2.8 * face)
            boxes.append(place_figure(canvas, np.random.default_rng(seed), figure, (x, 0.5 - 2.2 * face, face), scene))
        image = canvas.resize((width, height), Image.Resampling.BOX)
        image.info["comment"] = DEMO_MARK.encode()
        yield FilmFrame(image, tuple(boxes))
