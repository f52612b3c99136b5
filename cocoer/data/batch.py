"""The typed containers between files and model: `PersonRecord` (one line of an index) and `Batch`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from cocoer.boxes import Box, as_box
from cocoer.files import parse_json
from cocoer.names import HEAD_SOURCES, LEVELS, SPLITS

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_MOST_NUMBER = 10_000_000  # pixels of a side, persons of an image


@dataclass(frozen=True)
class PersonRecord:
    """One line of a person index (docs/data.md#the-index).

    image: path relative to the data root, with forward slashes. width, height: pixels after EXIF rotation.
    person: index within the image. body, head: xyxy, pixels of that image, inside it.
    labels: class names. vad: valence, arousal, dominance in 1..10, or None.
    extra: further keys of the line (`head_score`, `synthetic`), kept as they are.
    """

    image: str
    width: int
    height: int
    person: int
    body: Box
    head: Box
    head_source: str
    labels: tuple[str, ...]
    vad: tuple[float, float, float] | None
    split: str
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Names the person uniquely within a data set; file names alone repeat."""
        return f"{self.image}#{self.person}"

    @property
    def contradicted_level(self) -> str | None:
        """The level that contradicts the label, known for synthetic scenes only; None where no level does, and on photographs."""
        level: str | None = (self.extra.get("synthetic") or {}).get("contradicted_level")
        return level

    def to_line(self) -> str:
        """The record as one line of JSON, without the newline."""
        known = {
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "person": self.person,
            "body": [round(v, 2) for v in self.body],
            "head": [round(v, 2) for v in self.head],
            "head_source": self.head_source,
            "labels": list(self.labels),
            "vad": list(self.vad) if self.vad else None,
            "split": self.split,
        }
        return json.dumps(known | dict(self.extra), ensure_ascii=False)

    @classmethod
    def from_line(cls, line: str, where: str = "index") -> PersonRecord:
        """Read one line. Raises ValueError that names the place and the missing or wrong key."""
        try:
            raw = parse_json(line)
        except (ValueError, RecursionError) as err:
            raise ValueError(f"{where}: wanted a JSON object a line, got {line[:60]!r} ({err})") from None
        names = ("image", "width", "height", "person", "body", "head", "head_source", "labels", "vad", "split")
        if not isinstance(raw, dict) or (missing := [n for n in names if n not in raw]):
            raise ValueError(
                f"{where}: a person needs the keys {', '.join(names)}; missing: {missing if isinstance(raw, dict) else 'all'}"
            )
        if raw["head_source"] not in HEAD_SOURCES or raw["split"] not in SPLITS:
            raise ValueError(
                f"{where}: head_source is one of {', '.join(HEAD_SOURCES)} and split one of {', '.join(SPLITS)}; "
                f"got {raw['head_source']!r}, {raw['split']!r}"
            )
        _check_types(raw, where)
        return cls(
            image=raw["image"],
            width=int(raw["width"]),
            height=int(raw["height"]),
            person=int(raw["person"]),
            body=as_box(raw["body"], f"{where}: body"),
            head=as_box(raw["head"], f"{where}: head"),
            head_source=raw["head_source"],
            labels=tuple(raw["labels"]),
            vad=tuple(map(float, raw["vad"])) if raw["vad"] else None,  # type: ignore[arg-type]
            split=raw["split"],
            extra={k: v for k, v in raw.items() if k not in names},
        )


def _check_types(raw: Mapping[str, Any], where: str) -> None:
    """ValueError that names the first key of an index line whose value is of another type, or without reason."""
    if not isinstance(raw["image"], str) or not raw["image"]:
        raise ValueError(f"{where}: image: wanted a path, got {raw['image']!r:.60}")
    for name in ("width", "height", "person"):
        number = raw[name]
        whole = isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < _MOST_NUMBER
        if not whole or number != int(number):
            raise ValueError(f"{where}: {name}: wanted a whole number, got {number!r:.60}")
    if not isinstance(raw["labels"], list) or not all(isinstance(label, str) for label in raw["labels"]):
        raise ValueError(f"{where}: labels: wanted a list of class names, got {raw['labels']!r:.60}")
    drawn = raw.get("synthetic", {})
    if not isinstance(drawn, dict) or drawn.get("contradicted_level") not in (None, *LEVELS):
        raise ValueError(
            f"{where}: synthetic: wanted what the demo world writes, with a level or null, got {drawn!r:.60}"
        )
    vad = raw["vad"]
    numbers = isinstance(vad, list) and all(isinstance(v, int | float) and abs(v) < _MOST_NUMBER for v in vad)
    if vad and (not numbers or len(vad) != 3):
        raise ValueError(f"{where}: vad: wanted three numbers or null, got {vad!r:.60}")


@dataclass(frozen=True)
class Batch:
    """B persons, ready for the model.

    head, body, context: [B, 3, S, S] float32, RGB, ImageNet mean and std (context is the whole image).
    head_xyxy, body_xyxy: [B, 4] float32, in the S x S frame of the context crop.
    targets: [B, k] float32, 0 or 1 (one 1 a row for CAER-S), or None where there is no ground truth.
    keys: the persons' keys, for messages and result files.
    """

    head: Tensor
    body: Tensor
    context: Tensor
    head_xyxy: Tensor
    body_xyxy: Tensor
    targets: Tensor | None
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return self.head.shape[0]

    def to(self, device: torch.device | str, channels_last: bool = False) -> Batch:
        """The same batch on a device, crops optionally channels-last; copies overlap with work where memory is pinned."""
        import torch

        layout = torch.channels_last if channels_last else torch.contiguous_format
        return self._with(
            lambda t: t.to(device, non_blocking=True, memory_format=layout if t.ndim == 4 else torch.preserve_format)
        )

    def pin_memory(self) -> Batch:
        """Page-locked copies, as the loader asks for when a GPU is used."""
        return self._with(lambda t: t.pin_memory())

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with each of its tensors changed."""
        tensors: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "keys"}
        changed: dict[str, Any] = {name: t if t is None else change(t) for name, t in tensors.items()}
        return replace(self, **changed)


def targets_of(batch: Batch) -> Tensor:
    """The batch's labels. Raises ValueError where it has none."""
    if batch.targets is None:
        raise ValueError(
            f"wanted labels, got none in the index for {', '.join(batch.keys[:3])} ...; only `cocoer predict` can do without"
        )
    return batch.targets
