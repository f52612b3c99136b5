"""Load the parts of a recogniser by the name of its weights: an exported file, the exported twin beside them, or the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
        return _parts(file, stored, "cpu", path, file.metadata, file.checksums, overrides)
    if verify and (twin := open_twin(path, device, config, overrides)):
        file = twin.file
        found = _parts(file, twin.config, "cpu", twin.weights, file.metadata, file.checksums, overrides)
        return replace(found, about={**found.about, "backend": "onnxruntime"})
    from cocoer.model.zero_shot import load_model  # here: an exported file is read without torch
    from cocoer.runtime import choose_device

    chosen = choose_device(device)
    loaded = load_model(path, chosen, lambda stored: config or change_config(stored, overrides), verify)
    return _parts(loaded.model, loaded.config, chosen, loaded.path, loaded.metadata, loaded.checksums, overrides)


def _parts(
    model: Any,
    config: Config,
    device: Any,
    path: Path,
    metadata: Mapping[str, Any],
    checksums: str,
    overrides: Sequence[str],
) -> Parts:
    """The parts of weights that are read. fitted: the thresholds that training found, unless the user set one of their own."""
    explicit = any(text.startswith("inference.thresholds.fused") for text in overrides)
    fitted: Mapping[str, float] = {} if explicit else (metadata.get("thresholds") or {}).get("classes", {})
    about = {
        "weights": metadata.get("name", path.name),
        "sha256": file_sha256(path),
        "checksums": checksums,
        "dataset": config.data.dataset,
        "mode": metadata.get("mode", config.model.mode),
        "note": str(metadata.get("note", "")),
        "synthetic": says_synthetic(metadata),
    }
    return Parts(model, config, device, fitted, about, _calibration(path, config, metadata))


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
