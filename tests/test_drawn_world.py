"""The demo world is drawn as it was when the shipped weights were trained on it: shapes, colours, boxes and pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from drawn_world import FILE, IMAGES, row

from cocoer.data.synthetic.emotions import ARCHETYPES, WorldOptions
from cocoer.data.synthetic.expression import EXPRESSIONS
from cocoer.data.synthetic.posture import POSTURES
from cocoer.data.synthetic.scene import SCENES
from cocoer.data.synthetic.world import plan_image

WHAT = ("shapes", "places", "colours", "widths", "boxes", "mean of the pixels", "deviation of the pixels")


@pytest.mark.parametrize("dataset", IMAGES)
def test_every_image_of_the_demo_world_is_drawn_as_it_was(dataset: str) -> None:
    """Boxes and shapes to rounding, pixels to a twentieth of a grey level (another Pillow rounds otherwise)."""
    wanted = np.array(json.loads(FILE.read_text(encoding="utf-8"))[dataset])
    found = np.array([row(dataset, index) for index in range(IMAGES[dataset])])
    allowed = np.array([0, 1e-4, 1e-4, 1e-4, 1e-4, 0.05, 0.05])
    other = [(i, WHAT[j]) for i, j in np.argwhere(np.abs(found - wanted) > allowed)]
    assert other == [], "not drawn as before (image, what)"


def test_the_images_show_every_face_posture_and_scene() -> None:
    plans = [plan_image(0, "train", index, WorldOptions()) for index in range(IMAGES["emotic"])]
    faces, postures = ({p.archetypes[level] for plan in plans for p in plan.people} for level in (0, 1))
    assert faces == set(EXPRESSIONS) and postures == set(POSTURES)
    assert {plan.scene for plan in plans} == set(SCENES) == set(ARCHETYPES)
