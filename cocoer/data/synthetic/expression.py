"""The faces that go with each archetype: two of each, blended with a neutral face when the feeling is mild."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from cocoer.data.synthetic.pen import Colour


@dataclass(frozen=True)
class Expression:
    """A face. Lengths in face heights; brows up is positive, a smile has a positive mouth curve.

    lids: "" open, "happy" arcs up, "asleep" arcs down, "squeezed" shut tight.
    """

    brow_in: float = 0.0
    brow_out: float = 0.0
    brow_skew: float = 0.0
    eye: float = 1.0
    pupil: float = 1.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    curve: float = 0.02
    open: float = 0.0
    width: float = 0.15
    slant: float = 0.0
    wave: float = 0.0
    blush: float = 0.0
    lids: str = ""
    teeth: str = ""
    tongue: bool = False
    tears: bool = False
    sweat: bool = False
    wrinkles: bool = False
    tint: Colour | None = None


EXPRESSIONS: dict[str, tuple[Expression, ...]] = {
    "joy": (
        Expression(brow_in=0.03, brow_out=0.03, curve=0.11, open=0.12, width=0.23, teeth="top", lids="happy", blush=0.25),
        Expression(brow_in=0.03, brow_out=0.02, eye=0.9, curve=0.13, open=0.05, width=0.24, teeth="top", blush=0.2),
    ),
    "affection": (
        Expression(brow_in=0.05, brow_out=-0.03, curve=0.08, width=0.15, lids="asleep", blush=0.75),
        Expression(brow_in=0.06, brow_out=-0.02, eye=0.75, pupil=1.35, gaze_y=0.5, curve=0.09, width=0.16, blush=0.75),
    ),
    "triumph": (
        Expression(brow_in=0.07, brow_out=0.07, eye=1.25, curve=0.07, open=0.26, width=0.2, teeth="top", tongue=True),
        Expression(brow_in=-0.03, brow_out=0.08, curve=0.08, open=0.2, width=0.24, teeth="both", lids="happy"),
    ),
    "calm": (
        Expression(brow_in=0.01, brow_out=0.0, curve=0.05, width=0.15, lids="asleep"),
        Expression(eye=0.5, curve=0.05, width=0.14, gaze_y=0.2),
    ),
    "pride": (
        Expression(brow_in=-0.02, brow_out=0.05, brow_skew=0.05, eye=0.72, curve=0.06, width=0.17, slant=0.05),
        Expression(brow_in=-0.03, brow_out=0.05, eye=0.66, gaze_x=0.5, gaze_y=-0.2, curve=0.08, width=0.19, slant=0.03),
    ),
    "focus": (
        Expression(brow_in=-0.05, brow_out=0.01, eye=0.6, gaze_y=0.75, curve=-0.005, width=0.09),
        Expression(brow_in=-0.06, brow_out=0.0, eye=0.7, gaze_x=0.7, gaze_y=0.45, curve=0.0, width=0.08, slant=0.01),
    ),
    "grief": (
        Expression(brow_in=0.1, brow_out=-0.06, eye=0.7, gaze_y=0.7, curve=-0.08, width=0.15, tears=True),
        Expression(brow_in=0.1, brow_out=-0.06, curve=-0.07, open=0.1, width=0.17, lids="asleep", tears=True),
    ),
    "pain": (
        Expression(brow_in=-0.05, brow_out=-0.05, lids="squeezed", curve=-0.02, open=0.12, width=0.2, teeth="clenched",
                   wrinkles=True),
        Expression(brow_in=0.06, brow_out=-0.05, lids="squeezed", curve=-0.06, open=0.15, width=0.17, wrinkles=True,
                   sweat=True),
    ),
    "fear": (
        Expression(brow_in=0.11, brow_out=0.02, eye=1.45, pupil=0.5, curve=-0.03, open=0.09, width=0.18, wave=0.03,
                   sweat=True, tint=(190, 205, 225)),
        Expression(brow_in=0.12, brow_out=0.0, eye=1.4, pupil=0.5, gaze_x=0.5, curve=-0.05, open=0.14, width=0.16,
                   teeth="clenched", tint=(190, 205, 225)),
    ),
    "anger": (
        Expression(brow_in=-0.12, brow_out=0.08, eye=0.75, pupil=0.8, curve=-0.06, open=0.12, width=0.2, teeth="clenched",
                   tint=(225, 70, 50)),
        Expression(brow_in=-0.12, brow_out=0.08, eye=0.85, pupil=0.7, curve=-0.05, open=0.22, width=0.19, teeth="both",
                   tint=(225, 70, 50)),
    ),
    "aversion": (
        Expression(brow_in=-0.08, brow_out=0.0, eye=0.45, gaze_x=0.8, curve=-0.05, open=0.08, width=0.15, slant=0.05,
                   tongue=True, wrinkles=True, tint=(150, 190, 90)),
        Expression(brow_in=-0.06, brow_out=-0.02, eye=0.4, gaze_x=-0.7, curve=-0.09, width=0.15, slant=-0.06, wave=0.02,
                   wrinkles=True, tint=(150, 190, 90)),
    ),
    "surprise": (
        Expression(brow_in=0.13, brow_out=0.13, eye=1.45, pupil=0.8, curve=0.0, open=0.22, width=0.1),
        Expression(brow_in=0.12, brow_out=0.12, eye=1.35, pupil=0.9, gaze_y=-0.3, curve=0.02, open=0.17, width=0.09),
    ),
    "doubt": (
        Expression(brow_in=0.02, brow_skew=0.13, eye=0.9, gaze_x=0.7, gaze_y=-0.6, curve=-0.01, width=0.13, slant=0.06,
                   wave=0.015, blush=0.9, sweat=True),
        Expression(brow_in=0.07, brow_out=-0.02, brow_skew=0.08, eye=0.85, gaze_x=-0.8, curve=-0.01, width=0.14, wave=0.03,
                   blush=1.0, sweat=True),
    ),
    "fatigue": (
        Expression(brow_in=0.03, brow_out=-0.02, eye=0.3, gaze_y=0.5, curve=-0.02, width=0.12, slant=0.01),
        Expression(brow_in=0.06, brow_out=0.0, curve=0.0, open=0.2, width=0.11, lids="asleep", tongue=True),
    ),
}  # fmt: skip

NEUTRAL = Expression()


def sample_expression(rng: np.random.Generator, archetype: str, intensity: float) -> Expression:
    """The archetype's face between neutral (intensity 0) and full (1), with small differences from person to person."""
    variants = EXPRESSIONS[archetype]
    target = variants[int(rng.integers(len(variants)))]
    values = {}
    for f in fields(Expression):
        low, high = getattr(NEUTRAL, f.name), getattr(target, f.name)
        if isinstance(low, float):
            values[f.name] = low + (high - low) * intensity * float(rng.normal(1.0, 0.12))
    expression = replace(target, **values)
    if rng.random() < 0.5:
        expression = replace(
            expression, gaze_x=-expression.gaze_x, slant=-expression.slant, brow_skew=-expression.brow_skew
        )
    if intensity < 0.75:  # mild: no tears, and teeth and tongue only behind a clearly open mouth
        expression = replace(expression, tears=False, tongue=expression.tongue and expression.open > 0.06)
    return expression
