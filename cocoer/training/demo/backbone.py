"""Pretrain the demo's small backbone on what single crops show: a stand-in for ImageNet weights, on synthetic scenes only.

One network learns to name the cue (archetype) that a crop of a face, a body or a whole image shows: three groups of
classes, cross-entropy. `configs/demo_*.yaml` start all three levels from it, as the paper starts them from one ImageNet file;
without it the level heads learn to lean on the context before the backbones have learned to read faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cocoer.data.batch import PersonRecord
from cocoer.data.loaders import load_level_crops
from cocoer.data.synthetic.emotions import ARCHETYPE_NAMES
from cocoer.data.transforms import normalise
from cocoer.model.backbone import Backbone
from cocoer.names import LEVELS
from cocoer.training.demo.plan import OneCycle, Plan


def load_crops(records: Sequence[PersonRecord], root: Path, side: int) -> tuple[NDArray[np.uint8], Tensor]:
    """Every crop, uint8 [3 P, side, side, 3], and its class [3 P]: level times archetype."""
    crops = load_level_crops(records, root, side)
    cues = [record.extra["synthetic"]["archetypes"] for record in records]
    shown = np.array(
        [[ARCHETYPE_NAMES.index(c[m]) + len(ARCHETYPE_NAMES) * j for j, m in enumerate(LEVELS)] for c in cues]
    )
    return crops.reshape(-1, side, side, 3), torch.from_numpy(shown.reshape(-1))


def train(backbone: Backbone, crops: NDArray[np.uint8], shown: Tensor, plan: Plan) -> list[float]:
    """Train in place with a throw-away classifier; returns the share of right answers of each epoch, in training."""
    order = torch.Generator().manual_seed(plan.seed)
    classes = len(LEVELS) * len(ARCHETYPE_NAMES)
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * backbone.channels, classes))
    network = nn.Sequential(backbone, classifier).to(memory_format=torch.channels_last).train()
    steps = plan.epochs * -(-len(shown) // plan.batch_size)
    training = OneCycle(network.parameters(), plan, steps, weight_decay=0.05, rise=0.3)
    shares: list[float] = []
    for epoch in range(plan.epochs):
        right = 0
        batches = torch.randperm(len(shown), generator=order).split(plan.batch_size)
        for batch in plan.batches(batches, epoch):
            images = normalise(crops[batch.numpy()])
            mirrored = torch.rand(len(images), 1, 1, 1, generator=order) < 0.5
            images = torch.where(mirrored, images.flip(-1), images).to(memory_format=torch.channels_last)
            logits = network(images)
            training.step(F.cross_entropy(logits, shown[batch], label_smoothing=0.05))
            right += int((logits.argmax(1) == shown[batch]).sum())
        shares.append(right / len(shown))
        plan.say(epoch, f"{100 * shares[-1]:.1f} % of the crops named rightly (training)")
    return shares
