"""First stage: omega learns to bring an image's CLIP embedding near the text embeddings of the person's labels.

The tower is frozen and the images are not augmented, so every embedding is computed once and kept in memory; an epoch
is then a matter of seconds. Every process trains the same omega on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from cocoer.config import VocabularyStageConfig
from cocoer.data.batch import Batch, targets_of
from cocoer.errors import NonFiniteLoss
from cocoer.model.vocabulary import VocabularyBranch
from cocoer.runtime import Runtime


def alignment_loss(aligned: Tensor, text: Tensor, targets: Tensor) -> Tensor:
    """Mean over persons of 1 - the mean cosine between the aligned embedding and the texts of the person's labels.

    aligned: [B, e]. text: [k, e], unit norm. targets: [B, k], 0 or 1. A person without labels counts 0.
    """
    cosine = F.normalize(aligned, dim=-1) @ text.T  # [B, k]
    count = targets.sum(1)
    per_person = 1.0 - (cosine * targets).sum(1) / count.clamp_min(1.0)
    return torch.where(count > 0, per_person, 0.0).mean()


@torch.no_grad()
def embed_images(
    branch: VocabularyBranch, batches: Iterable[Batch], order: Sequence[str], runtime: Runtime, progress: bool = False
) -> tuple[Tensor, Tensor]:
    """What `VocabularyBranch.look` gives, [n, e] or [n, L, e], and labels [n, k] of a split, in the given order of keys.

    On this process's device.

    Each process embeds its own batches; every process gets all of them.
    """
    was_training = branch.training
    branch.eval()
    keys: list[str] = []
    rows: list[tuple[Tensor, Tensor]] = []
    for batch in tqdm(batches, desc="embed", leave=False, disable=None if progress and runtime.is_main else True):
        batch = batch.to(runtime.device)
        rows.append((branch.look(batch.head, batch.body, batch.context).cpu(), targets_of(batch)))
        keys.extend(batch.keys)
    branch.train(was_training)
    parts = [part for part in runtime.gather((keys, rows)) if part[0]]
    place = {key: i for i, key in enumerate(key for part, _ in parts for key in part)}
    chosen = torch.tensor([place[key] for key in order])
    embeddings = torch.cat([e for _, part in parts for e, _ in part])[chosen]
    targets = torch.cat([t for _, part in parts for _, t in part])[chosen]
    return embeddings.to(runtime.device), targets.to(runtime.device)


def fit_vocabulary(
    branch: VocabularyBranch,
    embeddings: Tensor,
    targets: Tensor,
    stage: VocabularyStageConfig,
    seed: int,
    log: Callable[[dict[str, Any]], None],
) -> float:
    """Train omega with Adam on embeddings [n, e] and labels [n, k]; returns the last epoch's mean loss.

    The order of persons follows from the seed alone. Raises NonFiniteLoss when the loss is not a number.
    """
    weight = branch.alignment.weight
    trainable = weight.requires_grad
    weight.requires_grad_(True)
    optimizer = torch.optim.Adam([weight], lr=stage.lr)
    generator = torch.Generator().manual_seed(seed)
    mean = float("nan")
    for epoch in range(stage.epochs):
        total = torch.zeros((), dtype=torch.float64, device=embeddings.device)
        order = torch.randperm(len(embeddings), generator=generator).to(embeddings.device)
        for chosen in order.split(stage.batch_size):
            loss = alignment_loss(branch.alignment(embeddings[chosen]), branch.text_embeddings, targets[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach().double() * len(chosen)
        mean = float(total) / len(embeddings)
        if mean != mean:
            raise NonFiniteLoss(
                f"vocabulary stage, epoch {epoch}: the cosine loss is not a number; are the CLIP weights broken?"
            )
        facts = {"step": epoch + 1, "loss": mean, "cosine": 1.0 - mean, "lr": stage.lr}
        log({"kind": "epoch", "stage": "vocabulary"} | facts)
    weight.requires_grad_(trainable)
    return mean
