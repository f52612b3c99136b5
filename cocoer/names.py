"""Class names, level order and the words that results use. Nothing here imports anything of ours, and nothing heavy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

LEVELS: tuple[str, str, str] = ("head", "body", "context")
"""The order of the level axis of every tensor and list."""

HEAD, BODY, CONTEXT = 0, 1, 2

SPLITS: tuple[str, str, str] = ("train", "val", "test")

HEAD_SOURCES: tuple[str, str, str] = ("annotated", "detected", "estimated")

STATUSES: tuple[str, ...] = ("ok", "no_face_estimated", "equal_readings", "no_pseudo_label", "error")


class ClassNames(tuple[str, ...]):
    """The k class names of a data set in the order of the model's outputs: a tuple that knows what else belongs to them.

    multi_label: several labels a person, or exactly one. words: class -> what prompts and questions call it, where that is not
    its name. aliases: other spelling -> class. Equal to any tuple of the same names.
    """

    multi_label: bool
    words: Mapping[str, str]
    aliases: Mapping[str, str]

    def __new__(
        cls,
        names: Iterable[str],
        multi_label: bool = True,
        words: Mapping[str, str] | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> ClassNames:
        """See the class."""
        made = super().__new__(cls, names)
        made.multi_label, made.words, made.aliases = multi_label, dict(words or {}), dict(aliases or {})
        return made


def folded(name: str) -> str:
    """The form in which two spellings of one class agree: no case, no spaces."""
    return "".join(name.split()).casefold()


def spoken(classes: Sequence[str]) -> list[str]:
    """What prompts and questions call the classes, in their order: their words, else their names."""
    words: Mapping[str, str] = getattr(classes, "words", {})
    return [words.get(name, name) for name in classes]


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that looks most like `name`, or None where nothing does; for error messages."""
    choices = list(choices)
    forms = {folded(choice): choice for choice in choices}
    found = difflib.get_close_matches(folded(name), list(forms), n=1, cutoff=0.5)
    return forms[found[0]] if found else None


def canonical_class(name: str, classes: Sequence[str]) -> str:
    """The listed spelling of a class name, whatever its case and spaces ("doubt / confusion" -> "Doubt/Confusion").

    Where `classes` are `ClassNames`, their words and aliases are understood too (CAER-S copies use `Angry` for `Anger`).
    Raises ValueError, with the nearest name and the whole list, for a name that is not a class.
    """
    by_form = {folded(c): c for c in classes}
    if isinstance(classes, ClassNames):
        other = {folded(word): c for c, word in classes.words.items()}
        by_form = other | {folded(alias): c for alias, c in classes.aliases.items()} | by_form
    if folded(name) in by_form:
        return by_form[folded(name)]
    hint = nearest(name, classes)
    raise ValueError(
        f"unknown class {name!r}"
        + (f", did you mean {hint!r}?" if hint else ".")
        + f" The classes are: {', '.join(classes)}"
    )
