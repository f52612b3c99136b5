"""Run a model over a split and gather the predictions of all processes, each person exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cocoer.data.batch import Batch, targets_of
from cocoer.errors import ScoreError
from cocoer.inference.predictions import judged_exclusion, probabilities_of
from cocoer.model.level_model import ModelOutput
from cocoer.names import LEVELS
from cocoer.outputs import LEVEL_SOURCES
from cocoer.runtime import Runtime, autocast

Scores = NDArray[np.float32]

LATE_FUSION = "late_fusion"
"""A further source: the mean of the three levels' probabilities, without training."""


_COMPETED = ("losses", "weights", "exclusion", "delta_norm", "pseudo_label")


@dataclass(frozen=True)
class Evaluation:
    """n persons of a split, in the order of the index.

    targets: [n, k]. probabilities: source (`outputs.SOURCES`, and `late_fusion`) -> [n, k].
    losses: L_hier per level [n, 3]; weights: lambda [n, rounds, 3]; exclusion: level indices, first to leave first [n, 3], -1
    for a person whose pseudo label is empty, against which no level can be judged;
    delta_norm: [n]; pseudo_label: [n, k]. Those five are None where nothing competed.
    """

    keys: tuple[str, ...]
    targets: Scores
    probabilities: Mapping[str, Scores]
    losses: Scores | None = None
    weights: Scores | None = None
    exclusion: NDArray[np.int64] | None = None
    delta_norm: Scores | None = None
    pseudo_label: Scores | None = None

    def __len__(self) -> int:
        return len(self.keys)


def probabilities(output: ModelOutput, multi_label: bool) -> dict[str, Tensor]:
    """Probabilities [B, k] of every source that the model has, float32: sigmoid, or softmax for one label a person."""
    logits = {LEVEL_SOURCES[level]: output.level_logits[:, m] for m, level in enumerate(LEVELS)}
    logits["pred"] = output.logits
    if output.vocabulary_logits is not None:
        logits["VI"] = output.vocabulary_logits
    out = {name: probabilities_of(value, multi_label) for name, value in logits.items()}
    out[LATE_FUSION] = torch.stack([out[source] for source in LEVEL_SOURCES.values()]).mean(0)
    return out


def _columns(output: ModelOutput, multi_label: bool) -> dict[str, NDArray[Any]]:
    """Everything that is kept of one batch, by name, as numpy arrays with B rows."""
    columns = {f"p/{name}": value for name, value in probabilities(output, multi_label).items()}
    competition = output.competition
    if competition is not None and output.pseudo_label is not None:
        columns |= {
            "losses": competition.losses.float(),
            "weights": competition.weights.float(),
            "exclusion": competition.exclusion,
            "delta_norm": competition.distance.float(),
            "pseudo_label": output.pseudo_label.float(),
        }
    rows = {name: value.cpu().numpy() for name, value in columns.items()}
    if "exclusion" in rows and output.agreement is None:  # agreement judges without a pseudo label
        rows["exclusion"] = judged_exclusion(rows["exclusion"], rows["pseudo_label"])
    return rows


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    multi_label: bool,
    order: Sequence[str],
    runtime: Runtime,
    precision: str = "fp32",
    progress: bool = False,
) -> Evaluation:
    """Run the model, in eval mode, over this process's batches of a split, and gather all processes' answers.

    order: the keys of the whole split; the result has them in that order. The model's mode is restored afterwards.
    Raises ScoreError when a person of `order` is missing, comes twice, or a foreign one comes.
    """
    training = model.training
    model.eval()
    keys: list[str] = []
    collected: dict[str, list[NDArray[Any]]] = {}
    for batch in tqdm(batches, desc="evaluate", leave=False, disable=None if progress and runtime.is_main else True):
        on_device = batch.to(runtime.device)
        with autocast(runtime.device, precision):
            output = model(on_device.head, on_device.body, on_device.context, on_device.head_xyxy, on_device.body_xyxy)
        keys.extend(batch.keys)
        columns = _columns(output, multi_label) | {"targets": targets_of(batch).numpy()}
        for name, rows in columns.items():
            collected.setdefault(name, []).append(rows)
    model.train(training)
    own = (keys, {name: np.concatenate(parts) for name, parts in collected.items()})
    return _assembled(runtime.gather(own), order)


def _assembled(parts: Sequence[tuple[list[str], dict[str, NDArray[Any]]]], order: Sequence[str]) -> Evaluation:
    """The processes' rows as one `Evaluation` in the given order; ScoreError unless every person is there once."""
    parts = [part for part in parts if part[0]]  # with few persons a process may have had none
    keys = [key for part, _ in parts for key in part]
    row = {key: i for i, key in enumerate(keys)}
    if len(row) != len(keys) or row.keys() != set(order) or len(order) != len(keys):
        wrong = sorted(row.keys() ^ set(order))
        raise ScoreError(
            f"evaluation wanted {len(order)} persons once each, got {len(keys)} answers for {len(row)} persons;"
            f" missing or foreign: {', '.join(wrong[:5]) or 'none'}"
        )
    chosen = [row[key] for key in order]
    columns = {name: np.concatenate([rows[name] for _, rows in parts])[chosen] for name in parts[0][1]}
    return Evaluation(
        keys=tuple(order),
        targets=columns["targets"],
        probabilities={name[2:]: value for name, value in columns.items() if name.startswith("p/")},
        **{name: columns[name] for name in _COMPETED if name in columns},
    )
