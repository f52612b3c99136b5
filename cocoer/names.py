"""Class names, level order and the words that results use. Nothing here imports anything of ours, and nothing heavy.

The class order is part of every checkpoint: EMOTIC's 26 categories and CAER-S's 7, both alphabetical.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

LEVELS: tuple[str, str, str] = ("head", "body", "context")
"""The order of the level axis of every tensor and list (design section 2)."""

HEAD, BODY, CONTEXT = 0, 1, 2

EMOTIC_CLASSES: tuple[str, ...] = (
    "Affection", "Anger", "Annoyance", "Anticipation", "Aversion", "Confidence", "Disapproval", "Disconnection",
    "Disquietment", "Doubt/Confusion", "Embarrassment", "Engagement", "Esteem", "Excitement", "Fatigue", "Fear",
    "Happiness", "Pain", "Peace", "Pleasure", "Sadness", "Sensitivity", "Suffering", "Surprise", "Sympathy",
    "Yearning",
)  # fmt: skip

CAERS_CLASSES: tuple[str, ...] = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")

CLASSES: dict[str, tuple[str, ...]] = {"emotic": EMOTIC_CLASSES, "caers": CAERS_CLASSES}

SPLITS: tuple[str, str, str] = ("train", "val", "test")

HEAD_SOURCES: tuple[str, str, str] = ("annotated", "detected", "estimated")

STATUSES: tuple[str, ...] = ("ok", "no_face_estimated", "equal_readings", "error")

_CAERS_ALIASES: dict[str, str] = {"angry": "Anger", "happiness": "Happy", "sadness": "Sad"}


def _folded(name: str) -> str:
    """The form in which two spellings of one class agree: no case, no spaces."""
    return "".join(name.split()).casefold()


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that looks most like `name`, or None where nothing does; for error messages."""
    choices = list(choices)
    folded = {_folded(choice): choice for choice in choices}
    found = difflib.get_close_matches(_folded(name), list(folded), n=1, cutoff=0.5)
    return folded[found[0]] if found else None


def canonical_class(name: str, classes: Sequence[str]) -> str:
    """The listed spelling of a class name, whatever its case and spaces ("doubt / confusion" -> "Doubt/Confusion").

    CAER-S copies use `Angry` for `Anger`; that alias is known when `classes` is CAER-S's.
    Raises ValueError, with the nearest name and the whole list, for a name that is not a class.
    """
    by_folded = {_folded(c): c for c in classes}
    if tuple(classes) == CAERS_CLASSES:
        by_folded |= _CAERS_ALIASES
    if _folded(name) in by_folded:
        return by_folded[_folded(name)]
    hint = nearest(name, classes)
    raise ValueError(
        f"unknown class {name!r}"
        + (f", did you mean {hint!r}?" if hint else ".")
        + f" The classes are: {', '.join(classes)}"
    )
