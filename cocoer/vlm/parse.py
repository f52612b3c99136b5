"""Emotion labels parsed from a language model's answer: JSON, lists, sentences, refusals, or text without labels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cocoer.names import canonical_class, spoken

ParseStatus = Literal["ok", "refused", "no_label"]

# Words that models use for a class in place of its name: whichever class the data set has.
_OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "happy": ("Happiness", "Happy"), "happiness": ("Happy",), "joy": ("Happiness", "Happy"), "joyful": ("Happiness", "Happy"),
    "sad": ("Sadness",), "sadness": ("Sad",), "angry": ("Anger",), "afraid": ("Fear",), "fearful": ("Fear",),
    "scared": ("Fear",), "surprised": ("Surprise",), "disgusted": ("Disgust",), "tired": ("Fatigue",), "excited": ("Excitement",),
    "engaged": ("Engagement",), "confident": ("Confidence",), "peaceful": ("Peace",), "embarrassed": ("Embarrassment",),
    "annoyed": ("Annoyance",), "disconnected": ("Disconnection",), "sympathetic": ("Sympathy",), "affectionate": ("Affection",),
}  # fmt: skip

_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i (?:can(?:no|')t|won't|will not|must decline)|as an ai"
    r"|unable to (?:identify|determine|help))",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"(?:\b(?:not|no|nor|never|without|neither|rather than|instead of)|n't)\W+(?:\w+\W+){0,2}$", re.IGNORECASE
)
_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.IGNORECASE | re.DOTALL)
_MOST_TEXT = 20_000


@dataclass(frozen=True)
class Parsed:
    """labels: class names in the order of the answer, none twice. status: `ok`, `refused`, or `no_label` (nothing usable)."""

    labels: tuple[str, ...]
    status: ParseStatus


def parse_labels(text: str, classes: Sequence[str], multi_label: bool = True) -> Parsed:
    """The labels in an answer; only names of `classes` (or common words for them) count, negated ones do not.

    The last JSON list or object that holds labels wins; else the part behind the last "answer:"; else the whole text. For one
    label a person the first label counts. A list of all classes is the question repeated: no label.
    """
    text = _THINKING.sub(" ", text[:_MOST_TEXT].replace("\u2019", "'"))
    found = _from_json(text, classes)
    if found is None:
        tail = re.split(r"\banswer\b\W", text, flags=re.IGNORECASE)[-1]
        found = _in_sentence(tail, classes) or _in_sentence(text, classes)
    if found and len(found) < len(classes):
        return Parsed(tuple(found if multi_label else found[:1]), "ok")
    return Parsed((), "refused" if not found and _REFUSAL.search(text) else "no_label")


def _from_json(text: str, classes: Sequence[str]) -> list[str] | None:
    """Labels of the last JSON value in the text that has any; None where there is none."""
    decoder, best, at = json.JSONDecoder(), None, 0
    while (match := re.compile(r"[\[{]").search(text, at)) is not None:
        try:
            value, at = decoder.raw_decode(text, match.start())
        except (json.JSONDecodeError, RecursionError):
            at = match.start() + 1
            continue
        best = _labels_in(value, classes) or best
    return best


def _labels_in(value: object, classes: Sequence[str]) -> list[str]:
    """Labels among the texts of a JSON value; of an object also keys whose value is true."""
    texts: list[str] = []
    waiting = [value]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, str):
            texts.append(one)
        elif isinstance(one, list):
            waiting = [*one, *waiting]
        elif isinstance(one, dict):
            waiting = [*(k if v is True else v for k, v in one.items()), *waiting]
    return list(dict.fromkeys(label for one in texts for label in _named(one, classes)))


def _named(text: str, classes: Sequence[str]) -> list[str]:
    try:
        return [canonical_class(text.strip(" .\"'*"), classes)]
    except ValueError:
        return _in_sentence(text, classes)


def _in_sentence(text: str, classes: Sequence[str]) -> list[str]:
    """Labels that stand as words in a text, in its order, without negated ones."""
    words = {re.sub(r"\s*/\s*", "/", name.casefold()): name for name in classes}
    for name in classes:
        words |= dict.fromkeys(name.casefold().split("/"), name)  # "doubt", "confusion"
    words |= {word.casefold(): name for word, name in zip(spoken(classes), classes, strict=True)}
    for word, names in _OTHER_WORDS.items():
        for name in names:
            if name in classes:
                words.setdefault(word, name)
    longest_first = sorted(words, key=len, reverse=True)
    pattern = re.compile(r"(?<![\w])(" + "|".join(map(re.escape, longest_first)) + r")(?![\w])", re.IGNORECASE)
    text = re.sub(r"\s*/\s*", "/", text)
    out: dict[str, None] = {}
    for match in pattern.finditer(text):
        clause = re.split(r"[.;:!?\n]|\bbut\b", text[: match.start()])[-1]
        meant = words.get(match[1].casefold())  # None: a dotted capital I matches an i, for instance
        if meant and not _NEGATION.search(clause):
            out.setdefault(meant)
    return list(out)
