"""The ONNX twin of a weights file: the same model exported beside it, which onnxruntime runs faster on a CPU.

`cocoer export --checkpoint W.safetensors` without --output leaves W.onnx beside W.safetensors. The twin holds the SHA-256 of
the weights, so a twin of other or older weights is never taken. Never imports torch by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cocoer.config import Config, change_config, config_from_dict, config_to_dict
from cocoer.errors import CheckpointError, ExportError
from cocoer.export.onnx_file import SUFFIX, OnnxFile
from cocoer.files import file_sha256
from cocoer.weights import places

TWIN_KEY = "weights_sha256"
"""Where a file's metadata names the weights that it was exported from."""


@dataclass(frozen=True)
class Twin:
    """An exported file that takes the place of `weights`, with the config that the caller asked for."""

    file: OnnxFile
    config: Config
    weights: Path


def twin_path(weights: Path) -> Path:
    """The path of a weights file's twin."""
    return weights.with_suffix(SUFFIX)


def open_twin(path: Path, device: str, config: Config | None, overrides: Sequence[str]) -> Twin | None:
    """The twin of a weights file or folder, or None where the weights themselves are to run.

    device: as the user asked. config: takes the place of the stored one, if given; overrides: `--set` over it.
    `inference.backend: auto` takes a twin that fits on a CPU, `torch` never, `onnx` always.
    Raises CheckpointError for `onnx` where there is no twin or it does not fit; the text says how to make one.
    """
    found = places.find(path) or path
    weights = found / "model.safetensors" if found.is_dir() else found
    place = twin_path(weights)
    asked = _asked(config, overrides)
    if asked == "torch" or (asked == "auto" and not (weights.is_file() and place.is_file() and _on_cpu(device))):
        return None
    try:
        return Twin(*_fitting(weights, place, config, overrides), weights)
    except ExportError as err:
        if asked == "auto":
            return None
        raise CheckpointError(
            f"inference.backend: onnx: {err}; `cocoer export --checkpoint {path}` makes one"
        ) from None


def _asked(config: Config | None, overrides: Sequence[str]) -> str:
    """The backend that config and overrides ask for; a stored config never asks for one."""
    base = config if config is not None else Config()
    return change_config(base, [text for text in overrides if text.startswith("inference.backend")]).inference.backend


def _on_cpu(device: str) -> bool:
    if device != "auto":
        return device == "cpu"
    try:
        import torch
    except ImportError:
        return True
    return not torch.cuda.is_available()


def _fitting(weights: Path, place: Path, config: Config | None, overrides: Sequence[str]) -> tuple[OnnxFile, Config]:
    """The twin and the config to run it with. Raises ExportError that names what does not fit."""
    if not place.is_file():
        raise ExportError(f"no exported file {place}")
    file = OnnxFile(place)
    if file.metadata.get(TWIN_KEY) != file_sha256(weights):
        raise ExportError(f"{place} was not exported from {weights} as it is now")
    stored = config_from_dict(file.metadata["config"], f"config in {place}")
    wanted = config if config is not None else change_config(stored, overrides)
    if any(config_to_dict(stored)[part] != config_to_dict(wanted)[part] for part in ("model", "data")):
        raise ExportError(f"{place} holds another model than the config asks for")
    if wanted.inference.precision != "fp32" or wanted.inference.compile or wanted.inference.cuda_graph is True:
        raise ExportError(f"{place} runs in float32 as it is, the config asks for more")
    return file, wanted
