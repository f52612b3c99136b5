"""A recogniser that runs an exported .onnx file with onnxruntime, in place of the model (`inference.py --checkpoint m.onnx`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cocoer.config import Config, change_config, config_from_dict, config_to_dict
from cocoer.errors import ExportError
from cocoer.export.onnx_export import INPUTS, OnnxFile
from cocoer.model.checkpoint import check_classes
from cocoer.model.cocoer import ModelOutput
from cocoer.model.competition import Competition
from cocoer.model.release.coordination import ReleaseCompetition

SUFFIX = ".onnx"


class ExportedModel(nn.Module):
    """The exported file in the model's place: the same arguments, a `ModelOutput` with what a recogniser reads of it.

    Inner tensors (features, errors, directions) are not in the file: their places hold tensors without entries.
    published: whether |delta| is the published code's distance. side: S, of the crops.
    """

    def __init__(self, file: OnnxFile, published: bool, side: int) -> None:
        super().__init__()
        self._file = file
        self._published = published
        self._side = side

    def forward(self, head: Tensor, body: Tensor, context: Tensor, head_xyxy: Tensor, body_xyxy: Tensor) -> ModelOutput:
        """Crops [B, 3, S, S] and boxes [B, 4] as `CocoER.forward` takes them. Raises ValueError for other shapes."""
        given = (head, body, context, head_xyxy, body_xyxy)
        for name, tensor in zip(INPUTS, given, strict=True):
            shape = (4,) if name.endswith("xyxy") else (3, self._side, self._side)
            if tuple(tensor.shape) != (context.shape[0], *shape):
                raise ValueError(f"{name}: wanted {[context.shape[0], *shape]}, got {list(tensor.shape)}")
        answer = self._file(*(tensor.cpu() for tensor in given))
        return ModelOutput(
            logits=answer["logits"],
            level_logits=answer["level_logits"],
            vocabulary_logits=answer["vocabulary_logits"],
            pseudo_label=answer["pseudo_label"],
            level_features=_ABSENT,
            refined=_ABSENT,
            fused_features=_ABSENT,
            competition=_competition(answer, self._published),
        )


_ABSENT = torch.empty(0)


def _competition(answer: dict[str, Tensor], published: bool) -> Competition | ReleaseCompetition:
    """What the file says of the competition, in the type of the rule that it follows."""
    losses, weights, exclusion, norm = (answer[name] for name in ("losses", "lambda", "exclusion", "delta_norm"))
    if published:
        return ReleaseCompetition(
            features=_ABSENT,
            errors=_ABSENT,
            losses=losses,
            weights=weights,
            bias_weights=_ABSENT,
            exclusion=exclusion,
            direction=_ABSENT,
            bias_direction=_ABSENT,
            distance=norm,
        )
    return Competition(
        features=_ABSENT,
        errors=_ABSENT,
        losses=losses,
        weights=weights,
        coefficients=weights.sum(1),
        exclusion=exclusion,
        delta_sq_norm=norm.square(),
        biases=False,
    )


def load_exported(path: str | Path, overrides: Sequence[str] = ()) -> tuple[ExportedModel, Config, dict[str, Any]]:
    """The model in an .onnx file, its config with the overrides, and its metadata.

    Only `inference.*` may be overridden: the rest is fixed in the file.
    Raises ExportError for another file or an override of what is fixed, ConfigError for one that does not check.
    """
    file = OnnxFile(path)
    stored = config_from_dict(file.metadata["config"], f"config in {path}")
    config = change_config(stored, overrides)
    fixed, changed = config_to_dict(stored), config_to_dict(config)
    if wrong := [section for section in ("model", "data") if fixed[section] != changed[section]]:
        raise ExportError(
            f"{path}: {' and '.join(wrong)} are fixed in an exported file and cannot be set; change them before the export"
        )
    check_classes(file.metadata, config.classes, f"exported file {path}")
    published = config.model.coordination.update == "release" and config.model.competition.enabled
    return ExportedModel(file, published, config.data.image_size), config, file.metadata
