"""Train the demo world's small CLIP on its generated captions: a stand-in for OpenAI's, on synthetic scenes only.

A person, seen as head, body or whole image, should agree more with a caption of its own than with another person's (the
contrastive loss of CLIP, Radford et al. 2021); equal captions in a batch count as agreeing. The result is an open_clip model that
`configs/demo_*.yaml` freeze, as the paper freezes CLIP RN50.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cocoer.data.batch import PersonRecord
from cocoer.data.loaders import load_level_crops
from cocoer.data.synthetic.emotions import ARCHETYPES, PROMPT
from cocoer.model.clip_tower import CLIP_MEAN, CLIP_STD, tokenizer_of
from cocoer.names import LEVELS
from cocoer.training.demo.plan import OneCycle, Plan

PROMPT_SHARE = 0.5
"""How often a view's caption is a prompt that names an emotion it shows, rather than a description of what is visible."""

VIEWS = {"head": 0.25, "body": 0.45, "context": 0.3}
"""How often a person is shown as head, body or whole image; close views teach what distant ones are too coarse for."""


def draw_caption(record: PersonRecord, view: str, rng: np.random.Generator) -> str:
    """One caption of what a view shows: a prompt with an emotion that its cue stands for, or a description of the cue.

    Each view speaks of its own cue (face, posture, surroundings): from whole descriptions the tower would learn the
    surroundings, which tell most images of a batch apart. The prompts bring the views of one feeling together, so that the
    sum of a person's three embeddings is a vote.
    """
    made = record.extra["synthetic"]
    cue = ARCHETYPES[made["archetypes"][view]]
    if rng.random() < PROMPT_SHARE:
        return PROMPT.format(emotion=cue.core[int(rng.integers(len(cue.core)))])
    if view == "head":
        return f"{cue.face_words} person"
    if view == "body":
        return f"a person {cue.body_words}"
    return str(made["captions"][-1]).partition(ARCHETYPES[made["archetypes"]["body"]].body_words)[2].strip()


def augmented(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [B, S, S, 3] -> the same, half of them mirrored, each a little brighter or darker."""
    mirrored = np.where(rng.random((len(pixels), 1, 1, 1)) < 0.5, pixels[:, :, ::-1], pixels)
    return np.clip(mirrored * rng.uniform(0.8, 1.2, (len(pixels), 1, 1, 1)), 0, 255).astype(np.uint8)


def to_tower(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, S, S, 3] -> float32 [B, 3, S, S] with CLIP's mean and std."""
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std


def contrastive_loss(images: Tensor, texts: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss for unit-norm images and texts [B, e]; same[i, j] is 1 where text j also describes image i."""
    logits = scale * images @ texts.T
    wanted = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted.T / wanted.T.sum(1, keepdim=True)))


def train(
    clip: Any, records: Sequence[PersonRecord], root: Path, tower: str, plan: Plan, views: Mapping[str, float] = VIEWS
) -> list[float]:
    """Train in place; returns the mean loss of each epoch. views: how often a person is shown as each level, sum 1."""
    rng = np.random.default_rng(plan.seed)
    crops = load_level_crops(records, root, clip.visual.image_size)
    tokenizer = tokenizer_of(tower)
    training = OneCycle(clip.parameters(), plan, plan.epochs * (len(records) // plan.batch_size), weight_decay=0.05)
    means: list[float] = []
    clip.train()
    for epoch in range(plan.epochs):
        losses = []
        whole = len(records) // plan.batch_size * plan.batch_size
        batches = rng.permutation(len(records))[:whole].reshape(-1, plan.batch_size)
        for batch in plan.batches(batches, epoch):
            shown_as = rng.choice(len(LEVELS), size=len(batch), p=[views[level] for level in LEVELS])
            shown = augmented(crops[batch, shown_as], rng)
            captions = [draw_caption(records[i], LEVELS[view], rng) for i, view in zip(batch, shown_as, strict=True)]
            same = torch.tensor([[float(a == b) for b in captions] for a in captions])
            images = F.normalize(clip.encode_image(to_tower(shown)), dim=-1)
            texts = F.normalize(clip.encode_text(tokenizer(captions)), dim=-1)
            loss = contrastive_loss(images, texts, same, clip.logit_scale.exp())
            training.step(loss)
            with torch.no_grad():
                clip.logit_scale.clamp_(max=4.6052)  # 100, as CLIP bounds it
            losses.append(loss.item())
        means.append(float(np.mean(losses)))
        plan.say(epoch, f"loss {means[-1]:.4f}")
    return means
