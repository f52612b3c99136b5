"""One call from an image to its people, for a notebook or a script: `cocoer.predict(image)`."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from cocoer.inference.answers import People
from cocoer.inference.recognizer import Recognizer
from cocoer.weights.catalog import DEMO_CHECKPOINT


@lru_cache(maxsize=2)
def _kept(checkpoint: str, device: str, detector: str | None, process: int) -> Recognizer:
    """A recogniser that stays loaded for the next call of `predict` in this process."""
    return Recognizer.from_checkpoint(checkpoint, device, detector=detector)


def predict(
    images: Any,
    persons: Any = None,
    checkpoint: str | Path = DEMO_CHECKPOINT,
    device: str = "auto",
    detector: str | None = None,
) -> People | list[People]:
    """Who feels what in an image or a list of images: `Recognizer.from_checkpoint(checkpoint, device)(images, persons)`.

    The recogniser stays loaded for the next call with the same weights. Default: the synthetic demonstration's weights, which
    know drawn people only. detector: `insightface`, `permissive` or `demo`; None: what goes with the weights.
    Raises as `Recognizer.from_checkpoint` and a recogniser do.
    """
    answer: People | list[People] = _kept(str(checkpoint), device, detector, os.getpid())(images, persons)
    return answer
