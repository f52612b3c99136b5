"""A recogniser that runs an exported .onnx file with onnxruntime, in place of the model (`inference.py --checkpoint m.onnx`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cocoer.config import Config
from cocoer.export.onnx_file import INPUTS, OnnxFile, open_exported
from cocoer.model.agreement import Agreement
from cocoer.model.level_model import ModelOutput


@dataclass(frozen=True)
class ExportedCompetition:
    """The competition's outputs in an exported file; a `competition.Competition`."""

    losses: Tensor
    weights: Tensor
    exclusion: Tensor
    distance: Tensor

    def penalty(self, kind: Literal["mean", "sum"]) -> None:
        """None: an exported file is not trained."""


class ExportedModel(nn.Module):
    """The exported file in the model's place: the same arguments, a `ModelOutput` with what a recogniser reads of it.

    Features are not in the file: their places hold tensors without entries.    side: S, of the crops.
    agrees: whether the rule is agreement.
    """

    def __init__(self, file: OnnxFile, side: int, agrees: bool = False) -> None:
        super().__init__()
        self._agrees = agrees
        self._file = file
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
            competition=ExportedCompetition(
                answer["losses"], answer["lambda"], answer["exclusion"], answer["delta_norm"]
            ),
            agreement=Agreement(_ABSENT, answer["losses"], answer["exclusion"], _ABSENT) if self._agrees else None,
        )


_ABSENT = torch.empty(0)


def load_exported(
    path: str | Path, overrides: Sequence[str] = (), verify: bool = True
) -> tuple[ExportedModel, Config, dict[str, Any]]:
    """The model in an .onnx file, its config with the overrides, and its metadata. Raises as `open_exported` does."""
    file, config = open_exported(path, overrides, verify)
    return as_model(file, config), config, file.metadata


def as_model(file: OnnxFile, config: Config) -> ExportedModel:
    """The open file in the model's place."""
    return ExportedModel(file, config.data.image_size, config.model.competition.rule == "agreement")
