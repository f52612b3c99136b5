"""From the name of weights to what a recogniser is made of: an exported file, the twin beside the weights, or the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cocoer.calibration import Calibration, calibration_of
from cocoer.config import Config, change_config
from cocoer.errors import ConfigError
from cocoer.export.onnx_file import SUFFIX, open_exported
from cocoer.export.twin import open_twin
from cocoer.files import file_sha256
from cocoer.provenance import says_synthetic


@dataclass(frozen=True)
class Parts:
    """The arguments of `Recognizer`, by its names for them. model: a model on `device`, or an `OnnxFile`."""

    model: Any
    config: Config
    device: Any
    fitted: Mapping[str, float]
    about: Mapping[str, Any]
    calibration: Calibration | None


def load_parts(path: Path, device: str, config: Config | None, overrides: Sequence[str], verify: bool) -> Parts:
    """Read the weights that `path` names, with the settings that `Recognizer.from_checkpoint` and `from_config` take.

    Raises CheckpointError, ConfigError, ValueError for a device that is not there or a config beside an exported file.
    """
    if path.suffix == SUFFIX:
        if config is not None:
            raise ValueError(f"{path}: an exported file brings its own config; leave the config out")
        file, stored = open_exported(path, overrides, verify)
        about = _about(path, stored, file.metadata, file.checksums)
        return Parts(
            file, stored, "cpu", _fitted(file.metadata, overrides), about, _calibration(path, stored, file.metadata)
        )
    if verify and (twin := open_twin(path, device, config, overrides)):
        metadata = twin.file.metadata
        about = _about(twin.weights, twin.config, metadata, twin.file.checksums) | {"backend": "onnxruntime"}
        calibration = _calibration(twin.weights, twin.config, metadata)
        return Parts(twin.file, twin.config, "cpu", _fitted(metadata, overrides), about, calibration)
    from cocoer.model.zero_shot import load_model  # here: an exported file is read without torch
    from cocoer.runtime import choose_device

    chosen = choose_device(device)
    loaded = load_model(path, chosen, lambda stored: config or change_config(stored, overrides), verify)
    about = _about(loaded.path, loaded.config, loaded.metadata, loaded.checksums)
    calibration = _calibration(loaded.path, loaded.config, loaded.metadata)
    return Parts(loaded.model, loaded.config, chosen, _fitted(loaded.metadata, overrides), about, calibration)


def _fitted(metadata: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, float]:
    """The thresholds per class that were found in training, unless the user set one of their own."""
    explicit = any(text.startswith("inference.thresholds.fused") for text in overrides)
    found: Mapping[str, float] = {} if explicit else (metadata.get("thresholds") or {}).get("classes", {})
    return found


def _calibration(path: Path, config: Config, metadata: Mapping[str, Any]) -> Calibration | None:
    """The calibration in the weights where `inference.calibrated` asks for it. Raises ConfigError where they have none."""
    if not config.inference.calibrated:
        return None
    found = calibration_of(metadata.get("calibration"), f"weights {path}")
    if found is None:
        raise ConfigError(
            f"inference.calibrated: {path} carries no calibration; fit one on the validation split with"
            f" `cocoer calibrate --checkpoint {path} --output calibrated.safetensors`, or set it to false"
        )
    return found


def _about(path: Path, config: Config, metadata: Mapping[str, Any], checksums: str) -> dict[str, Any]:
    """Which weights: name, checksum, data set, mode and what the file says of itself."""
    return {
        "weights": metadata.get("name", path.name),
        "sha256": file_sha256(path),
        "checksums": checksums,
        "dataset": config.data.dataset,
        "mode": metadata.get("mode", config.model.mode),
        "note": str(metadata.get("note", "")),
        "synthetic": says_synthetic(metadata),
    }
