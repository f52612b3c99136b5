"""The postures that go with each archetype: two or three of each, nearer to plain standing when the feeling is mild.

Units: 1 is the height of a face; the origin is the middle between the shoulders. Hands are (outward, down) from each
shoulder, so a posture reads the same for both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cocoer.data.synthetic.pen import Point


@dataclass(frozen=True)
class Posture:
    """hands: left and right. lean: shoulders move right of the hips. head: offset of the head. tilt: degrees.

    shoulders: raised (positive) or dropped. legs: stand, wide, bent, sit, lotus, jump, kneel. prop: what is held.
    front: hands come in front of the head. fists: closed hands. sink: how much more elbows hang down than stick out.
    """

    left: Point = (0.2, 1.2)
    right: Point = (0.2, 1.2)
    lean: float = 0.0
    head: Point = (0.0, 0.0)
    tilt: float = 0.0
    shoulders: float = 0.0
    legs: str = "stand"
    prop: str = ""
    front: bool = False
    fists: bool = False
    sink: float = 0.35


NEUTRAL = Posture()
POSTURES: dict[str, tuple[Posture, ...]] = {
    "joy": (
        Posture((0.95, -0.85), (0.95, -0.85), tilt=5, legs="stand"),
        Posture((0.7, -0.95), (0.3, 1.0), lean=0.06, tilt=8, prop="balloon"),
    ),
    "affection": (
        Posture((-0.45, 0.75), (-0.35, 0.95), tilt=14, head=(0.06, 0.04), prop="teddy"),
        Posture((-0.35, 0.6), (-0.3, 0.75), tilt=-12, head=(-0.05, 0.04), prop="heart"),
    ),
    "triumph": (
        Posture((0.3, -1.2), (0.3, -1.2), tilt=-4, legs="jump", fists=True),
        Posture((0.4, -1.1), (0.1, 0.95), lean=0.06, tilt=6, legs="wide", prop="trophy", fists=True),
    ),
    "calm": (
        Posture((0.55, 1.15), (0.55, 1.15), legs="lotus"),
        Posture((-0.38, 1.08), (-0.38, 1.12), shoulders=-0.04, legs="sit"),
    ),
    "pride": (
        Posture((0.12, 0.98), (0.12, 0.98), head=(0, -0.07), shoulders=0.03, legs="wide"),
        Posture((-0.7, 0.55), (-0.7, 0.6), head=(0, -0.06), shoulders=0.04, legs="wide"),
    ),
    "focus": (
        Posture((-0.15, 0.72), (-0.15, 0.72), head=(0, 0.1), legs="sit", prop="book"),
        Posture((-0.1, 0.85), (-0.05, 0.85), head=(0.03, 0.1), tilt=5, legs="sit", prop="laptop"),
    ),
    "grief": (
        Posture((-0.32, 1.2), (-0.32, 1.2), head=(0.05, 0.24), tilt=12, shoulders=-0.16, legs="sit"),
        Posture((-0.36, -0.4), (0.1, 1.2), head=(-0.08, 0.2), tilt=-14, shoulders=-0.12, legs="kneel", front=True,
                prop="flower"),
    ),
    "pain": (
        Posture((-0.45, 0.95), (-0.45, 0.95), lean=0.32, head=(0.14, 0.2), tilt=20, shoulders=-0.05, legs="bent",
                prop="bandage"),
        Posture((-0.25, -0.9), (-0.35, 0.75), lean=-0.1, head=(0, 0.08), tilt=-10, legs="stand", prop="sling", front=True),
    ),
    "fear": (
        Posture((0.05, -0.3), (0.05, -0.3), head=(0, 0.14), shoulders=0.14, legs="bent", front=True, sink=2.0),
        Posture((-0.85, 0.2), (-0.85, 0.3), lean=-0.12, head=(0, 0.16), shoulders=0.17, legs="bent"),
    ),
    "anger": (
        Posture((0.25, -0.95), (0.42, 0.9), lean=0.1, head=(0.05, 0.03), legs="wide", fists=True),
        Posture((1.22, 0.1), (0.12, 0.98), lean=-0.12, head=(-0.08, 0.03), legs="wide", fists=True),
    ),
    "aversion": (
        Posture((1.05, 0.25), (-0.34, -0.42), lean=0.28, head=(0.1, 0), tilt=14, front=True),
        Posture((1.1, 0.05), (-1.1, 0.3), lean=0.34, head=(0.16, 0.03), tilt=18, prop="palms", sink=2.0),
    ),
    "surprise": (
        Posture((0.0, -0.42), (0.0, -0.42), head=(0, -0.04), shoulders=0.06, front=True, sink=1.2),
        Posture((1.1, -0.1), (1.1, -0.1), lean=-0.08, head=(0, -0.05), shoulders=0.05, prop="palms"),
    ),
    "doubt": (
        Posture((0.1, -0.98), (0.12, 1.0), tilt=12, head=(0.05, 0.02)),
        Posture((0.72, 0.42), (0.72, 0.42), tilt=-14, shoulders=0.16, prop="palms", sink=4.0),
        Posture((-0.4, -0.16), (-0.75, 0.62), tilt=-10, front=True),
    ),
    "fatigue": (
        Posture((-0.2, -0.2), (-0.3, 1.15), lean=-0.2, head=(-0.12, 0.12), tilt=-24, shoulders=-0.14, legs="sit", front=True),
        Posture((0.05, 1.25), (0.05, 1.25), head=(0.16, 0.18), tilt=30, shoulders=-0.18, legs="sit", prop="cup"),
    ),
}  # fmt: skip


def sample_posture(rng: np.random.Generator, archetype: str, intensity: float) -> Posture:
    """The archetype's posture, nearer to plain standing when mild, mirrored half of the time.

    Arms that rest, legs of any kind and missing props keep the posture from saying everything.
    """
    variants = POSTURES[archetype]
    full = variants[int(rng.integers(len(variants)))]
    share = 1.0 if intensity > 0.75 else float(rng.uniform(0.6, 0.85))

    def towards(low: float, high: float) -> float:
        return low + (high - low) * share + float(rng.normal(0.0, 0.07))

    posture = replace(
        full,
        left=(towards(NEUTRAL.left[0], full.left[0]), towards(NEUTRAL.left[1], full.left[1])),
        right=(towards(NEUTRAL.right[0], full.right[0]), towards(NEUTRAL.right[1], full.right[1])),
        lean=full.lean * share,
        head=(full.head[0] * share, full.head[1] * share),
        tilt=full.tilt * share + float(rng.normal(0.0, 3.0)),
    )
    if full.prop and rng.random() < 0.6:
        posture = replace(posture, prop="palms" if full.prop == "palms" else "")
    if rng.random() < 0.1:  # one arm rests: half of the cue is gone
        posture = replace(posture, left=NEUTRAL.left)
    if rng.random() < 0.2:
        posture = replace(posture, legs=("stand", "wide", "bent", "sit")[int(rng.integers(4))])
    if rng.random() < 0.5:
        posture = replace(
            posture, left=posture.right, right=posture.left, lean=-posture.lean, head=(-posture.head[0], posture.head[1]),
            tilt=-posture.tilt,
        )  # fmt: skip
    return posture
