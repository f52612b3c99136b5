"""The four questions of the supplement's section 10, from an image and a prediction; wordings come from a YAML file.

`prompt`: the image with the person marked. `multi_level`: the crops of the three levels. `prompt_kappa`: names the first
excluded level and asks to avoid its inconsistent result. `multi_level_kappa`: the crops of the levels that stay, nothing else
changed. Where nothing competed there is nothing to help with, and a kappa variant is its plain one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from PIL import Image, ImageDraw

from cocoer.boxes import touched_pixels
from cocoer.config_checks import places_in
from cocoer.errors import ConfigError, PromptError
from cocoer.names import LEVELS, nearest, spoken
from cocoer.outputs import LEVEL_SOURCES, PersonBoxes, PersonPrediction
from cocoer.weights import places
from cocoer.yaml_file import parse_yaml

VARIANTS: tuple[str, ...] = ("prompt", "multi_level", "prompt_kappa", "multi_level_kappa")

DEFAULT_WORDINGS = places.SHIPPED / "configs" / "vlm_prompts.yaml"

_PLACES = {
    "multi_label": {"labels"}, "single_label": {"labels"}, "multi_level": {"views"}, "kappa": {"level", "inconsistent"},
    "kappa_without_labels": {"level"},
}  # fmt: skip


@dataclass(frozen=True)
class Wordings:
    """What is said; see configs/vlm_prompts.yaml for each key. levels: level name -> how it is called."""

    system: str
    multi_label: str
    single_label: str
    prompt: str
    multi_level: str
    levels: Mapping[str, str]
    kappa: str
    kappa_without_labels: str
    drop: int


@dataclass(frozen=True)
class Question:
    """What is sent for one person and variant: text parts and images (RGB), in order."""

    variant: str
    system: str
    text: str
    images: tuple[Image.Image, ...]


def read_wordings(path: str | Path = DEFAULT_WORDINGS) -> Wordings:
    """The wordings in a YAML file. Raises PromptError for a missing or unknown key, a wrong type or an unknown place."""
    path = Path(path)
    try:
        tree = parse_yaml(path)
    except ConfigError as err:
        raise PromptError(f"{path}: cannot be read as wordings: {err}") from None
    names = [f.name for f in fields(Wordings)]
    if not isinstance(tree, dict):
        raise PromptError(f"{path}: wanted the keys {', '.join(names)}, got {type(tree).__name__}")
    for key in tree:
        if key not in names:
            hint = nearest(str(key), names)
            raise PromptError(f"{path}: unknown key {key!r}" + (f", did you mean {hint!r}?" if hint else ""))
    if missing := [name for name in names if name not in tree]:
        raise PromptError(f"{path}: missing {', '.join(missing)}")
    for name in names:
        if name == "levels":
            _check_levels(tree[name], path)
        elif name == "drop":
            if tree[name] not in (1, 2):
                raise PromptError(f"{path}: drop: wanted 1 or 2, got {tree[name]!r}")
        else:
            _check_text(name, tree[name], path)
    return Wordings(**tree)


def _check_levels(value: object, path: Path) -> None:
    if not isinstance(value, dict) or set(value) != set(LEVELS) or not all(isinstance(v, str) for v in value.values()):
        raise PromptError(f"{path}: levels: wanted a text for each of {', '.join(LEVELS)}, got {value!r}")


def _check_text(name: str, value: object, path: Path) -> None:
    """A text whose places in braces are just those that will be filled in."""
    if not isinstance(value, str):
        raise PromptError(f"{path}: {name}: wanted a text, got {type(value).__name__}")
    wanted, found = _PLACES.get(name, set()), places_in(value)
    if found != wanted:
        got = "braces that say more than a name" if found is None else sorted(found)
        raise PromptError(f"{path}: {name}: wanted the places {sorted(wanted)} in braces, got {got}")


def level_images(image: Image.Image, boxes: PersonBoxes) -> dict[str, Image.Image]:
    """What each level sees, RGB, in the image's own pixels."""
    image = image.convert("RGB")
    head, body = (image.crop(touched_pixels(box, *image.size)) for box in (boxes.head, boxes.body))
    return {"head": head, "body": body, "context": image}


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
    asked = (wordings.multi_label if multi_label else wordings.single_label).format(labels=", ".join(spoken(classes)))
    order = person.competition.exclusion if person.competition else ()
    views = level_images(image, person.boxes)
    marked = _marked(image, person.boxes)

    def of_levels(variant: str, levels: Sequence[str]) -> Question:
        named = "; ".join(wordings.levels[level] for level in levels)
        text = f"{wordings.multi_level.format(views=named)} {asked}"
        return Question(variant, wordings.system, text, tuple(views[level] for level in levels))

    hint = f" {_hint(person, order[0], wordings)}" if order else ""
    stay = [level for level in LEVELS if level not in order[: wordings.drop]]
    return {
        "prompt": Question("prompt", wordings.system, f"{wordings.prompt} {asked}", (marked,)),
        "multi_level": of_levels("multi_level", LEVELS),
        "prompt_kappa": Question("prompt_kappa", wordings.system, f"{wordings.prompt}{hint} {asked}", (marked,)),
        "multi_level_kappa": of_levels("multi_level_kappa", stay),
    }


def _hint(person: PersonPrediction, level: str, wordings: Wordings) -> str:
    """The sentence about the first excluded level and the labels that it alone gives."""
    struck = person.inconsistent[LEVEL_SOURCES[level]]
    if struck:
        return wordings.kappa.format(level=level, inconsistent=", ".join(struck))
    return wordings.kappa_without_labels.format(level=level)
