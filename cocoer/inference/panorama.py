"""Warn about images so elongated that the detectors, which see them reduced, miss people."""

from __future__ import annotations

import math

PANORAMA = 3.0
"""Ratio of the longer to the shorter side from which an image counts as a panorama."""

LEAST_SEEN = 224
"""Pixels of the shorter side that the detectors should see: a person half as high then has a head of about 12."""

LEAST_HEAD = 12
"""Pixels of a head that insightface's detectors still find, about."""


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
