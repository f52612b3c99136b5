"""The four questions of the supplement's section 10, from an image and a prediction; wordings come from a YAML file.

`prompt`: the whole image. `multi_level`: the three levels. `prompt_kappa`: names the first excluded level and asks to avoid its
inconsistent result. `multi_level_kappa`: the levels that stay. Where no level left first there is nothing to help with, and a
kappa variant is its plain one. The wordings are named sets: the paper's own for its two data sets, and ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from cocoer.config_checks import places_in
from cocoer.errors import ConfigError, PromptError
from cocoer.names import LEVELS, nearest, spoken
from cocoer.outputs import LEVEL_SOURCES, PersonBoxes, PersonPrediction
from cocoer.weights import places
from cocoer.yaml_file import parse_yaml

VARIANTS: tuple[str, ...] = ("prompt", "multi_level", "prompt_kappa", "multi_level_kappa")

DEFAULT_WORDINGS = places.SHIPPED / "configs" / "vlm_prompts.yaml"

OURS = "ours"
"""The set that fits any data set."""

_PLACES = {"labels", "question", "views", "level", "inconsistent", "hint"}
_LISTS = {"plain": ("{}", "{}"), "quoted": ("[{}]", "'{}'"), "lower": ("[{}]", "'{}'")}
_LEVEL_NAMES = {"head": "the head", "body": "the body", "context": "the whole image"}


@dataclass(frozen=True)
class Wordings:
    """One set; see configs/vlm_prompts.yaml for each key. levels: level name -> how it is called. order: of the images.

    question: `multi` and `single`, for several labels a person and for one.
    """

    prompt: str
    multi_level: str
    multi_level_kappa: str
    prompt_kappa: str
    hint: str
    hint_without_labels: str = ""
    system: str = ""
    question: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=lambda: dict(_LEVEL_NAMES))
    order: tuple[str, ...] = ("context", "body", "head")
    labels: str = "plain"
    marked: bool = False
    drop: int = 1


@dataclass(frozen=True)
class Question:
    """One question about a person in one variant: text parts and images (RGB), in order."""

    variant: str
    system: str
    text: str
    images: tuple[Image.Image, ...]


def wording_of(dataset: str, sets: Mapping[str, Wordings]) -> str:
    """The set for a data set, where none was chosen: the paper's for the paper's data sets, else `ours`, else the first."""
    return next((name for name in (f"paper_{dataset}", OURS) if name in sets), next(iter(sets)))


def read_wordings(path: str | Path = DEFAULT_WORDINGS, name: str = OURS) -> Wordings:
    """One set of a file. Raises PromptError for a set that the file does not have, and as `read_sets` does."""
    sets = read_sets(path)
    if name not in sets:
        raise PromptError(f"{path}: no wording {name!r}; there are {', '.join(sets)}")
    return sets[name]


def read_sets(path: str | Path = DEFAULT_WORDINGS) -> dict[str, Wordings]:
    """Every set of a YAML file, by name. Raises PromptError for a missing or unknown key, a wrong type or an unknown place."""
    path = Path(path)
    try:
        tree = parse_yaml(path)
    except ConfigError as err:
        raise PromptError(f"{path}: cannot be read as wordings: {err}") from None
    if not isinstance(tree, dict) or not tree or not all(isinstance(part, dict) for part in tree.values()):
        raise PromptError(f"{path}: wanted named sets of wordings, each with the keys {', '.join(_KEYS)}")
    return {str(name): _read_set(tree, str(name), f"{path}: {name}") for name in tree}


def _read_set(tree: Mapping[str, Any], name: str, where: str) -> Wordings:
    own = dict(tree[name])
    base = own.pop("base", None)
    if base is not None:
        if base not in tree or "base" in tree[base] or base == name:
            raise PromptError(f"{where}: base: wanted a set of this file that has no base itself, got {base!r}")
        own = {**tree[base], **own}
    for key in own:
        if key not in _KEYS:
            hint = nearest(str(key), _KEYS)
            raise PromptError(f"{where}: unknown key {key!r}" + (f", did you mean {hint!r}?" if hint else ""))
    if missing := [key for key in _TEXTS if key not in own]:
        raise PromptError(f"{where}: missing {', '.join(missing)}")
    for key in (*_TEXTS, "hint_without_labels", "system"):
        _check_text(key, own.get(key, ""), where)
    questions = own.get("question", {})
    if not isinstance(questions, dict) or set(questions) - {"multi", "single"}:
        raise PromptError(f"{where}: question: wanted texts under multi and single, got {questions!r}")
    for kind, text in questions.items():
        _check_text(f"question.{kind}", text, where)
    levels, order = own.get("levels", _LEVEL_NAMES), own.get("order", list(Wordings.order))
    if (
        not isinstance(levels, dict)
        or set(levels) != set(LEVELS)
        or not all(isinstance(v, str) for v in levels.values())
    ):
        raise PromptError(f"{where}: levels: wanted a text for each of {', '.join(LEVELS)}, got {levels!r}")
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(LEVELS):
        raise PromptError(f"{where}: order: wanted {', '.join(LEVELS)} in some order, got {order!r}")
    for key, choices in (("drop", (1, 2)), ("labels", tuple(_LISTS)), ("marked", (True, False))):
        if own.get(key, getattr(Wordings, key)) not in choices:
            raise PromptError(f"{where}: {key}: wanted {' or '.join(map(str, choices))}, got {own[key]!r}")
    return Wordings(**{**own, "order": tuple(order)})


_KEYS = (*(f.name for f in fields(Wordings)), "base")
_TEXTS = ("prompt", "multi_level", "multi_level_kappa", "prompt_kappa", "hint")


def _check_text(name: str, value: object, where: str) -> None:
    """A text whose places in braces are among those that can be filled in; it may have any of them, or none."""
    if not isinstance(value, str):
        raise PromptError(f"{where}: {name}: wanted a text, got {type(value).__name__}")
    found = places_in(value)
    if found is None or found - _PLACES:
        got = "braces that say more than a name" if found is None else sorted(found - _PLACES)
        raise PromptError(f"{where}: {name}: wanted only the places {sorted(_PLACES)} in braces, got {got}")


def _marked(image: Image.Image, boxes: PersonBoxes) -> Image.Image:
    """A copy of the image with the person's body box in green."""
    marked = image.convert("RGB").copy()
    x1, y1, x2, y2 = boxes.body
    box = (x1, y1, max(x1, min(x2, marked.width) - 1), max(y1, min(y2, marked.height) - 1))
    ImageDraw.Draw(marked).rectangle(box, outline=(0, 255, 0), width=max(2, max(marked.size) // 200))
    return marked


def questions(
    image: Image.Image, person: PersonPrediction, wordings: Wordings, classes: Sequence[str], multi_label: bool
) -> dict[str, Question]:
    """The four variants for one person. image: the image that was scored, any mode.

    Raises ValueError for a person without boxes.
    """
    if person.boxes is None:
        raise ValueError(f"person {person.person}: wanted boxes to ask about, got none ({person.message})")
    order = person.competition.exclusion if person.competition else ()
    views = person.boxes.level_images(image.convert("RGB"))
    plain = _marked(image, person.boxes) if wordings.marked else views["context"]
    filled = _filled(person, wordings, classes, multi_label, order[0] if order else None)

    def of_levels(variant: str, text: str, levels: Sequence[str]) -> Question:
        named = "; ".join(wordings.levels[level] for level in levels)
        shown = tuple(views[level] for level in levels)
        return Question(variant, wordings.system, text.format(**filled, views=named), shown)

    def whole(variant: str, text: str) -> Question:
        return Question(variant, wordings.system, text.format(**filled, views=wordings.levels["context"]), (plain,))

    stay = [level for level in wordings.order if level not in order[: wordings.drop]]
    helped = bool(order)
    return {
        "prompt": whole("prompt", wordings.prompt),
        "multi_level": of_levels("multi_level", wordings.multi_level, wordings.order),
        "prompt_kappa": whole("prompt_kappa", wordings.prompt_kappa if helped else wordings.prompt),
        "multi_level_kappa": of_levels(
            "multi_level_kappa", wordings.multi_level_kappa if helped else wordings.multi_level, stay
        ),
    }


def _filled(
    person: PersonPrediction, wordings: Wordings, classes: Sequence[str], multi_label: bool, level: str | None
) -> dict[str, str]:
    """The values of each placeholder of a text, except the views. level: the first excluded one."""
    around, each = _LISTS[wordings.labels]
    names = [each.format(name) for name in spoken(classes)]
    labels = around.format(", ".join(names))
    struck = person.inconsistent[LEVEL_SOURCES[level]] if level else ()
    known = {
        "labels": labels.lower() if wordings.labels == "lower" else labels,
        "level": level or "", "inconsistent": ", ".join(struck), "question": "", "hint": "",
    }  # fmt: skip
    asked = wordings.question.get("multi" if multi_label else "single", "")
    hint = wordings.hint if struck or not wordings.hint_without_labels else wordings.hint_without_labels
    return known | {"question": asked.format(**known, views=""), "hint": hint.format(**known, views="")}
