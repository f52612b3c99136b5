"""Which scenes an archetype has, what a caption says of them, and things that stand in front of people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cocoer.data.synthetic import ambient, indoor, outdoor
from cocoer.data.synthetic.pen import Colour, Pen, darker, lighter

Painter = Callable[[Pen, np.random.Generator, float], None]


@dataclass(frozen=True)
class Scene:
    """A painter, its words in a caption, and how much the light of people fades there (0: daylight)."""

    paint: Painter
    words: str
    dusk: float = 0.0


SCENES: dict[str, tuple[Scene, ...]] = {
    "joy": (Scene(outdoor.beach, "on a sunny beach"), Scene(indoor.party, "at a birthday party")),
    "affection": (
        Scene(outdoor.sunset_park, "by a park bench at sunset"),
        Scene(indoor.living_room, "in a cosy living room"),
    ),
    "triumph": (Scene(outdoor.stadium, "in a full stadium"), Scene(outdoor.fireworks, "under fireworks", 0.15)),
    "calm": (Scene(outdoor.lake, "by a still lake"), Scene(outdoor.meadow, "in a flowering meadow")),
    "pride": (
        Scene(indoor.stage, "on a stage in the spotlight"),
        Scene(indoor.top_office, "in an office above the city"),
    ),
    "focus": (Scene(indoor.library, "in a library"), Scene(indoor.office, "at work in an office")),
    "grief": (
        Scene(outdoor.graveyard, "at a graveyard in the rain", 0.12),
        Scene(outdoor.rainy_street, "in a rainy street", 0.12),
    ),
    "pain": (Scene(indoor.hospital, "in a hospital room"), Scene(indoor.ambulance_yard, "beside an ambulance")),
    "fear": (
        Scene(outdoor.dark_forest, "in a dark forest at night", 0.25),
        Scene(outdoor.storm_house, "near a haunted house in a storm", 0.2),
    ),
    "anger": (Scene(outdoor.protest, "between fires at a protest"), Scene(outdoor.traffic_jam, "in a traffic jam")),
    "aversion": (Scene(outdoor.dump, "beside a rubbish heap"), Scene(indoor.dirty_kitchen, "in a filthy kitchen")),
    "surprise": (Scene(indoor.gift_box, "before a bursting gift box"), Scene(indoor.magic_show, "at a magic show")),
    "doubt": (
        Scene(indoor.classroom, "before a blackboard of sums"),
        Scene(outdoor.crossroads, "at a foggy crossroads"),
    ),
    "fatigue": (
        Scene(indoor.bedroom_night, "in a bedroom at night", 0.15),
        Scene(indoor.night_train, "in a half-empty train"),
    ),
}


PLAIN_SHARE = 0.28
"""Share of images whose surroundings are plain, with only a small thing as a cue."""
PLAIN_WORDS = {
    "joy": "near some balloons", "affection": "near an image of a heart", "triumph": "near a bursting rocket",
    "calm": "near a green plant", "pride": "near a medal", "focus": "near a pile of books", "grief": "near a gravestone",
    "pain": "near a first aid box", "fear": "watched by two eyes", "anger": "near a sign that says no",
    "aversion": "near an overflowing bin", "surprise": "near an opening gift", "doubt": "under a question mark",
    "fatigue": "near a late clock",
}  # fmt: skip


def sample_scene(rng: np.random.Generator, archetype: str) -> Scene:
    """One of the archetype's scenes, or a plain one with its cue."""
    if rng.random() < PLAIN_SHARE:
        return Scene(ambient.with_cue(archetype), PLAIN_WORDS[archetype])
    choices = SCENES[archetype]
    return choices[int(rng.integers(len(choices)))]


def paint_foreground(pen: Pen, rng: np.random.Generator, x: float, y: float, size: float) -> None:
    """A bush, box or post about (x, y) that hides a part of the person behind it."""
    kind = int(rng.integers(3))
    tones: tuple[Colour, ...] = ((70, 120, 70), (150, 110, 74), (120, 124, 130))
    colour = tones[kind]
    if kind == 0:
        for dx, dy, r in ((-0.5, 0.1, 0.5), (0.5, 0.15, 0.5), (0.0, -0.15, 0.55)):
            pen.ellipse(x + dx * size, y + dy * size, r * size, r * size, colour)
        pen.ellipse(x - 0.2 * size, y - 0.3 * size, 0.2 * size, 0.16 * size, lighter(colour, 0.2))
    elif kind == 1:
        pen.rect(x - 0.7 * size, y - 0.5 * size, x + 0.7 * size, y + 0.9 * size, colour)
        pen.rect(x - 0.1 * size, y - 0.5 * size, x + 0.1 * size, y + 0.9 * size, lighter(colour, 0.25))
    else:
        pen.rect(x - 0.16 * size, y - 2.2 * size, x + 0.16 * size, y + 2 * size, colour)
        pen.rect(x + 0.06 * size, y - 2.2 * size, x + 0.16 * size, y + 2 * size, darker(colour, 0.2))
