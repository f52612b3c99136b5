"""Weights with config and metadata in one safetensors file; loading never executes code (docs/training.md#weights-files).

The file's metadata holds one JSON text under `cocoer`: format version, full config, class names, thresholds, preprocess,
library versions, git revision, metrics and a note. A folder stands for the `model.safetensors` in it.
Files are written beside their place, synced and renamed, so a reader sees the old file or the new one and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cocoer.config import Config, check_classes, config_from_dict, config_to_dict
from cocoer.config_checks import reads_levels
from cocoer.description import FORMAT_VERSION, METADATA_KEY, WITHOUT, described
from cocoer.errors import CheckpointError
from cocoer.model.tensor_file import read_container, read_tensor_file, write_tensors
from cocoer.model.tower_config import checked_tower, read_tower
from cocoer.provenance import git_revision, library_versions
from cocoer.weights import places

if TYPE_CHECKING:
    from cocoer.model.level_model import LevelModel

FILE_NAME = "model.safetensors"
_SPARE_NUMBERS = 2**22  # tables that are computed and not stored, and the placeholder of the text tower


@dataclass(frozen=True)
class KeyReport:
    """How a set of tensors fits a model: the names that do not, each with its shapes where they differ."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether every name and shape agrees."""
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        lines = [f"  {kind}: {name}" for kind in ("missing", "unexpected", "misshapen") for name in getattr(self, kind)]
        return "\n".join(lines) if lines else "  every key fits"


@dataclass(frozen=True)
class Loaded:
    """A model with its weights, in eval mode; the config it was built from; and what the file says about itself.

    checksums: whether the content was compared with the file's checksums (`tensor_file`).
    """

    model: LevelModel
    config: Config
    metadata: Mapping[str, Any]
    path: Path
    checksums: str = WITHOUT

    @property
    def thresholds(self) -> Mapping[str, Any]:
        """Thresholds fitted on the selection split: `classes` -> class name -> score; empty where none were stored."""
        found: Mapping[str, Any] = self.metadata.get("thresholds") or {}
        return found


def frozen_tower_keys(model: nn.Module) -> set[str]:
    """Names of the frozen CLIP tower's floating-point tensors in the model's state."""
    prefix = "vocabulary.tower."
    return {
        name for name, tensor in model.state_dict().items() if name.startswith(prefix) and tensor.is_floating_point()
    }


def _described(
    model: nn.Module,
    config: Config,
    metrics: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    note: str,
    synthetic: bool,
) -> dict[str, Any]:
    """What a weights file says about itself, as plain values."""
    counts: Tensor | None = getattr(model, "class_counts", None)
    return {
        "format_version": FORMAT_VERSION,
        "config": config_to_dict(config),
        "classes": list(config.classes),
        "class_counts": None if counts is None else counts.tolist(),
        "thresholds": dict(thresholds),
        "preprocess": {
            "image_size": config.data.image_size,
            "mean_std": "imagenet",
            "channel_order": config.inference.channel_order,
            "vocabulary_normalisation": config.model.vocabulary.normalisation,
        },
        "libraries": library_versions(),
        "git_revision": git_revision(),
        "metrics": dict(metrics),
        "note": note,
        "synthetic": synthetic,
        "tower": _tower_config(config),
    }


def _tower_config(config: Config) -> dict[str, Any] | None:
    """The content of the CLIP tower's own config file, where it is a file, so that weights need no second file."""
    tower = config.model.vocabulary.tower
    used = config.model.vocabulary.enabled or config.model.two_stream == "clip"
    return read_tower(tower) if used and tower.endswith(".json") else None


@contextmanager
def _with_stored_tower(config: Config, metadata: Mapping[str, Any]) -> Iterator[Config]:
    """While active: the config with its tower file as it was when the weights were written, whatever stands there now."""
    stored = metadata.get("tower")
    if stored is None:
        yield config
        return
    text = json.dumps(checked_tower(stored, "the CLIP tower in the weights file"))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / f"tower-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
        scratch.write_text(text, encoding="utf-8")
        vocabulary = replace(config.model.vocabulary, tower=str(scratch))
        yield replace(config, model=replace(config.model, vocabulary=vocabulary))


def save_weights(
    path: str | Path,
    model: nn.Module,
    config: Config,
    *,
    metrics: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    note: str = "",
    synthetic: bool = False,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write the model's state with its description; returns the file (`path`, or model.safetensors where it is a folder).

    metrics: numbers measured with these weights, by name. synthetic: they were trained on synthetic scenes.
    thresholds: `{"classes": {name: score}, ...}` or empty.
    dtype: how the frozen CLIP tower is stored (torch.float16 halves it); loading casts it back. Other tensors keep theirs.
    Raises OutputError where the file cannot be written, CheckpointError for a model that has been folded for inference.
    """
    path = Path(path)
    if getattr(model, "folded", False):
        raise CheckpointError(f"{path}: a folded model has no batch norms left to store; save it before model.fold()")
    path = path / FILE_NAME if path.is_dir() or not path.suffix else path
    tower = frozen_tower_keys(model) if dtype is not None else set()
    tensors = {
        name: tensor.detach().to("cpu", dtype if name in tower else tensor.dtype).contiguous().clone()
        for name, tensor in model.state_dict().items()
    }
    text = json.dumps(_described(model, config, metrics, thresholds, note, synthetic))
    write_tensors(path, tensors, {"format": "pt", METADATA_KEY: text})
    return path


def add_to_description(path: str | Path, target: Path, entries: Mapping[str, Any]) -> None:
    """The same tensors in a file at `target`, with further entries in the description (or others in their place).

    Raises CheckpointError for a file that `load_weights` would not read, OutputError where the new one cannot be written.
    """
    file = find_weights(path)
    content = read_tensor_file(file)
    text = json.dumps(described(content.metadata.get(METADATA_KEY), f"weights {file}") | dict(entries))
    write_tensors(target, content.tensors, {"format": "pt", METADATA_KEY: text})


def find_weights(path: str | Path) -> Path:
    """The weights file that a file or folder name stands for.

    Raises CheckpointError where there is none.
    """
    path = places.find(path) or Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"weights {file}: no such file. Wanted a .safetensors file, or a folder with {FILE_NAME} in it; make one with"
            " `python train.py --config CONFIG`, or see `cocoer weights list` for those that can be fetched"
        )
    return file


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a weights file says about itself, without reading its tensors.

    Raises CheckpointError for a missing, truncated or foreign file and for a format version that is newer than this code.
    """
    file = find_weights(path)
    return described(read_container(file).get(METADATA_KEY), f"weights {file}")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a weights file, on the CPU, in the type in which it is stored. Raises CheckpointError."""
    return read_tensor_file(find_weights(path)).tensors


def _stored_folded(tensors: Mapping[str, Tensor]) -> bool:
    """Whether FFN1 was stored as `VocabularyBranch.fold` leaves it: its first Linear sees one copy of the embedding."""
    widen, alignment = (tensors.get(f"vocabulary.{part}.weight") for part in ("widen", "alignment"))
    return widen is not None and alignment is not None and widen.shape[1:] == alignment.shape[:1]


def compare_keys(model: nn.Module, tensors: Mapping[str, Tensor]) -> KeyReport:
    """Which names and shapes of `tensors` do not fit the model's state."""
    own = model.state_dict()
    return KeyReport(
        missing=tuple(sorted(own.keys() - tensors.keys())),
        unexpected=tuple(sorted(tensors.keys() - own.keys())),
        misshapen=tuple(
            f"{name}: wanted {list(own[name].shape)}, got {list(tensors[name].shape)}"
            for name in sorted(own.keys() & tensors.keys())
            if own[name].shape != tensors[name].shape
        ),
    )


def _with_context_norms(model: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights from when one norm served queries and context: the context gets a copy of it, which answers the same."""
    if any(".norm_context." in name for name in tensors):
        return tensors
    shared = {
        name: name.replace(".norm_context.", ".norm_query.") for name in model.state_dict().keys() - tensors.keys()
    }
    return {name: tensors[old] for name, old in shared.items() if old in tensors} | dict(tensors)


def load_state(model: nn.Module, tensors: Mapping[str, Tensor], where: str = "weights") -> None:
    """Copy tensors into the model, cast to the model's types; weights of an earlier form are brought into today's.

    Raises CheckpointError that lists every missing, unexpected and misshapen key; the model is then unchanged.
    """
    tensors = _with_context_norms(model, tensors)
    report = compare_keys(model, tensors)
    if not report.fits:
        raise CheckpointError(f"{where}: does not fit the model; was it trained with another config?\n{report}")
    with torch.no_grad():
        for name, own in model.state_dict().items():
            own.copy_(tensors[name])


def _check_texts(tensors: Mapping[str, Tensor], stored: str, prompt: str, where: str) -> None:
    """CheckpointError unless the weights hold the text embeddings of the prompt, which agreement reads against."""
    texts = tensors.get("vocabulary.text_embeddings")
    if texts is None or not bool((texts != 0).any(1).all()):
        raise CheckpointError(
            f"{where}: has no text embeddings of its classes, which agreement needs; use weights"
            " that were trained with a CLIP text tower, or model.competition.rule: paper"
        )
    if stored != prompt:
        raise CheckpointError(
            f"{where}: its text embeddings are those of the prompt {stored!r}, got {prompt!r}; leave model.vocabulary.prompt"
            " as it is, or train with the other one"
        )


def load_weights(
    path: str | Path,
    device: torch.device | str = "cpu",
    change: Callable[[Config], Config] | None = None,
    verify: bool = True,
) -> Loaded:
    """The model of a weights file, built from the config in it, in eval mode on `device`.

    change: makes another config of the stored one before the model is built (for instance coordination off).
    verify: compare the content with the checksums in the file; False reads a changed file too, and the result says so.
    No other weights file is read: towers and backbones come from this one. Nothing is built larger than the file's tensors.
    Raises CheckpointError for a missing, truncated, changed, foreign or unfitting file, ConfigError for a config that no
    longer checks.
    """
    from cocoer.model.build import BlankWeights, build_model  # here: metadata can be read without the model's libraries

    file = find_weights(path)
    content = read_tensor_file(file, verify=verify)
    metadata = described(content.metadata.get(METADATA_KEY), f"weights {file}")
    config = config_from_dict(metadata["config"], f"config in {file}")
    config = replace(config, data=replace(config.data, allow_outside=False))  # not the file's to decide
    stored_prompt = config.model.vocabulary.prompt
    config = change(config) if change else config
    check_classes(metadata, config.classes, f"weights {file}")
    tensors, folded = content.tensors, _stored_folded(content.tensors)
    most = _SPARE_NUMBERS + 2 * sum(tensor.numel() for tensor in tensors.values())
    with _with_stored_tower(config, metadata) as complete, BlankWeights(most):
        model = build_model(complete, pretrained=False, folded=folded)
    load_state(model, tensors, f"weights {file}")
    if reads_levels(config.model):
        _check_texts(tensors, stored_prompt, config.model.vocabulary.prompt, f"weights {file}")
    counts = metadata["class_counts"]
    model.set_class_counts(None if counts is None else torch.tensor(counts))
    return Loaded(model.to(device).eval(), config, metadata, file, content.checksums)
