"""Data sets: class names, label kind, metric, prompt words and published counts, one YAML file each (docs/own_data.md).

`configs/datasets/` holds those that come with cocoer, EMOTIC and CAER-S among them; a user's own file is read the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cocoer.errors import ConfigError, DatasetError
from cocoer.files import read_file
from cocoer.names import SPLITS, ClassNames, folded, nearest
from cocoer.weights import places
from cocoer.yaml_file import parse_yaml

if TYPE_CHECKING:
    from cocoer.config import DataConfig

LabelKind = Literal["multi", "single"]
Metric = Literal["mAP", "accuracy"]

CUSTOM = "custom"
"""The name of a data set that has no file: `data.classes` and `data.labels` say what it is."""

METRIC_OF: dict[LabelKind, Metric] = {"multi": "mAP", "single": "accuracy"}

_FOLDER = places.SHIPPED / "configs" / "datasets"
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, config=_STRICT)
class Published:
    """What others counted. counts: what is counted -> split -> number. labels: split -> persons of each class, in order."""

    counts: dict[str, dict[str, int]] = Field(default_factory=dict)
    labels: dict[str, tuple[int, ...]] = Field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class DatasetEntry:
    """One data set. classes: in the order of the model's outputs, which is part of every checkpoint.

    labels: `multi` = several a person, `single` = exactly one. metric: the headline; it follows from `labels`.
    words: what prompts and questions call a class, where that is not its name. aliases: other spellings -> class.
    published: by release or rule of the split, for comparison with a prepared index.
    """

    name: str
    classes: tuple[str, ...]
    labels: LabelKind
    title: str = ""
    metric: Metric | None = None
    words: dict[str, str] = Field(default_factory=dict)
    aliases: dict[str, str] = Field(default_factory=dict)
    published: dict[str, Published] = Field(default_factory=dict)

    @property
    def multi_label(self) -> bool:
        """Several labels a person."""
        return self.labels == "multi"

    @property
    def class_names(self) -> ClassNames:
        """The classes with what belongs to them."""
        return ClassNames(self.classes, self.multi_label, self.words, self.aliases)


def shipped_datasets() -> tuple[str, ...]:
    """Names of the data sets that come with cocoer."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def find_dataset(name: str | Path) -> DatasetEntry:
    """The data set of this name among those that come with cocoer, or in a .yaml file of that path.

    Raises DatasetError for an unknown name (nearest offered) and for a file that cannot be used.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return read_dataset(path)
    if str(name) in shipped_datasets():
        return _shipped(str(name))
    near = nearest(str(name), shipped_datasets())
    raise DatasetError(
        f"unknown data set {str(name)!r}" + (f", did you mean {near!r}?" if near else ".") + " Wanted one of "
        f"{', '.join(shipped_datasets())}, or the path of a .yaml file as in configs/datasets"
    )


def read_dataset(path: Path) -> DatasetEntry:
    """The data set that a YAML file describes; its name is the file's. Raises DatasetError, every fault a line."""
    try:
        tree = parse_yaml(path)
    except ConfigError as err:
        raise DatasetError(f"{path}: cannot be read as a data set: {err}") from None
    if not isinstance(tree, dict):
        raise DatasetError(f"{path}: wanted a mapping with `classes` and `labels`, got {type(tree).__name__}")
    if isinstance(tree.get("classes"), str):
        tree["classes"] = read_class_list(path.parent / tree["classes"])
    return _checked(tree | {"name": path.stem, "title": tree.get("title") or path.stem}, str(path))


def read_class_list(path: Path) -> list[str]:
    """Class names from a text file, one a line; empty lines and lines that begin with # are ignored. Raises DatasetError."""
    try:
        lines = read_file(path).decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as err:
        raise DatasetError(f"{path}: cannot be read as a list of classes: {err}") from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def dataset_of(data: DataConfig) -> DatasetEntry:
    """The data set of a config: by its name, or as `data.classes`, `data.labels`, `data.words` and `data.aliases` say.

    Raises DatasetError for an unknown name, and for classes that do not belong to a known one.
    """
    if data.classes is None:
        if data.dataset == CUSTOM:
            raise DatasetError("data.classes: `data.dataset: custom` needs the class names, as a list or a file")
        if stray := [key for key in ("labels", "words", "aliases") if getattr(data, key)]:
            raise DatasetError(
                f"data.{stray[0]}: belongs to own classes; `{data.dataset}` has its own (wanted data.classes too)"
            )
        return find_dataset(data.dataset)
    if data.labels is None:
        raise DatasetError("data.labels: own classes want `multi` (several a person) or `single` (exactly one)")
    own = {"name": data.dataset, "title": data.dataset, "classes": data.classes, "labels": data.labels}
    entry = _checked(own | {"words": dict(data.words), "aliases": dict(data.aliases)}, "data")
    known = _shipped(data.dataset) if data.dataset in shipped_datasets() else entry
    if (entry.classes, entry.labels) != (known.classes, known.labels):
        raise DatasetError(
            f"data.classes: with data.labels, these are not {data.dataset}'s; set data.dataset: {CUSTOM}, or both to null"
        )
    return entry


def written_out(entry: DatasetEntry) -> dict[str, Any]:
    """The keys of a config's `data` that describe a data set completely, so that weights need no second file."""
    kept = {"dataset": entry.name, "classes": list(entry.classes), "labels": entry.labels}
    return kept | {"words": dict(entry.words), "aliases": dict(entry.aliases)}


@cache
def _shipped(name: str) -> DatasetEntry:
    return read_dataset(_FOLDER / f"{name}.yaml")


def _checked(tree: Mapping[str, Any], where: str) -> DatasetEntry:
    """The entry of a mapping whose keys, types, class names and numbers agree."""
    try:
        entry = TypeAdapter(DatasetEntry).validate_json(json.dumps(tree))
    except TypeError as err:
        raise DatasetError(f"{where}: a value is of a type that a data set cannot hold: {err}") from None
    except ValidationError as err:
        raise DatasetError(f"{where}: " + "\n".join(_explain(dict(e)) for e in err.errors(include_url=False))) from None
    if faults := [*_class_faults(entry), *_count_faults(entry)]:
        raise DatasetError(f"{where}: " + "\n".join(faults))
    return entry


def _explain(error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        keys = [key for key in DatasetEntry.__dataclass_fields__ if key != "name"]
        near = nearest(place, keys)
        return (
            f"{place}: unknown key" + (f", did you mean {near!r}?" if near else "") + f" Keys here: {', '.join(keys)}"
        )
    wanted = error["msg"].removeprefix("Input should be ")
    hint = " (quote names that YAML takes for numbers or truth values)" if str(error["loc"][0]) == "classes" else ""
    return (
        f"{place}: wanted {wanted}, got {error['input']!r}{hint}" if error["type"] != "missing" else f"{place}: missing"
    )


def _class_faults(entry: DatasetEntry) -> list[str]:
    """Faults of names and spellings; a spelling may stand for one class only."""
    faults = []
    if len(entry.classes) < 2:
        faults.append(
            f"classes: wanted two or more, got {list(entry.classes)}; with one class there is nothing to learn"
        )
    if bad := [c for c in entry.classes if not c.strip() or c != c.strip() or not c.isprintable() or c[0] == "-"]:
        faults.append(f"classes: wanted printable names without spaces at their ends or a leading '-', got {bad}")
    meant: dict[str, str] = {}
    for name in entry.classes:
        other = meant.setdefault(folded(name), name)
        if other is not name:
            faults.append(f"classes: {other!r} and {name!r} differ in case and spaces only")
    for key, spelling, name in (
        *(("words", word, name) for name, word in entry.words.items()),
        *(("aliases", alias, name) for alias, name in entry.aliases.items()),
    ):
        if name not in entry.classes:
            near = nearest(name, entry.classes)
            faults.append(f"{key}: {name!r} is no class" + (f", did you mean {near!r}?" if near else ""))
        elif not spelling.strip():
            faults.append(f"{key}: {name!r} has an empty spelling")
        elif meant.setdefault(folded(spelling), name) != name:
            faults.append(f"{key}: {spelling!r} stands for {meant[folded(spelling)]!r} and for {name!r}")
    if entry.metric not in (None, METRIC_OF[entry.labels]):
        faults.append(f"metric: labels: {entry.labels} is measured by {METRIC_OF[entry.labels]}, got {entry.metric}")
    return faults


def _count_faults(entry: DatasetEntry) -> list[str]:
    """Faults of the published numbers."""
    faults = []
    for release, found in entry.published.items():
        for split in {s for by in found.counts.values() for s in by} | set(found.labels):
            if split not in SPLITS:
                faults.append(f"published.{release}: wanted splits {', '.join(SPLITS)}, got {split!r}")
        faults += [
            f"published.{release}.labels.{split}: wanted {len(entry.classes)} numbers, one a class, got {len(numbers)}"
            for split, numbers in found.labels.items()
            if len(numbers) != len(entry.classes)
        ]
    return faults


EMOTIC_CLASSES: ClassNames = _shipped("emotic").class_names
CAERS_CLASSES: ClassNames = _shipped("caers").class_names
