"""Predictions for a few persons of a split, for inspection during training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cocoer.config import Config
from cocoer.data.batch import PersonRecord
from cocoer.data.loaders import PersonDataset, collate
from cocoer.inference.predictions import LabelRule, Scores, answers_of, placed
from cocoer.model.level_model import LevelModel
from cocoer.outputs import PersonBoxes, PersonPrediction
from cocoer.runtime import Runtime


@dataclass(frozen=True)
class Example:
    """One person of the index and the model's answer."""

    record: PersonRecord
    prediction: PersonPrediction


Show = Callable[[int, list[Example]], None]
"""Takes the optimizer step and the examples seen at it."""


@torch.inference_mode()
def examples(
    model: LevelModel, people: PersonDataset, config: Config, runtime: Runtime, count: int = 4
) -> list[Example]:
    """Answers for `count` persons spread evenly over the split, in eval mode; the model's mode is restored."""
    chosen = [i * len(people) // min(count, len(people)) for i in range(min(count, len(people)))]
    batch = collate([people[i] for i in chosen]).to(runtime.device)
    training = model.training
    model.eval()
    output = model(batch.head, batch.body, batch.context, batch.head_xyxy, batch.body_xyxy)
    model.train(training)
    out = []
    scores = Scores.of_output(output, config.multi_label)
    for i, answer in zip(chosen, answers_of(scores, LabelRule.of(config)), strict=True):
        record = people.records[i]
        boxes = PersonBoxes(record.body, record.head, head_source=record.head_source)
        out.append(Example(record, placed(answer, record.person, boxes, {})))
    return out
