"""Level features and scores under each rule: no update, type one, type two, the published update, late fusion and votes.

A person goes through backbones, cross-level attention, level heads and the V-I branch once; every rule then starts from what
those gave (`Features`), which is all that competition and coordination read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cocoer import ideas
from cocoer.config import Config, change_config
from cocoer.data.batch import Batch, targets_of
from cocoer.model.cocoer import CocoER, FusionHead
from cocoer.model.coordination import UpdateType
from cocoer.model.level_head import LevelStack
from cocoer.model.losses import class_weights, loss_per_person
from cocoer.model.vocabulary import pseudo_label
from cocoer.model.vote import FUSED_SHARE, survivors_vote
from cocoer.model.workspaces import PaperWorkspace, ReleaseWorkspace, Workspace, build_workspace
from cocoer.runtime import Runtime
from cocoer.training.embedding_cache import KnownEmbeddings

UPDATES: tuple[str, ...] = ("none", "one", "two", "release")


def updates() -> tuple[str, ...]:
    """`UPDATES`, and the workspace rules of plugins."""
    return (*UPDATES, *ideas.added("workspace"))


LATE: tuple[str, ...] = ("late_fusion", "late_fusion_two")
"""Mean of the three levels' probabilities, and of the two that are left when the first excluded level goes."""

VOTES: tuple[str, ...] = ("vote", "vote_three")
"""Type one, with half of the answer from the two levels that stay (`model.competition.vote`); its control, in which all three
levels have that half."""

LABELS: tuple[str, ...] = ("vocabulary", "fused", "true")
"""Whose pseudo label: the V-I branch's (the paper), a first fused answer's (ours), or the ground truth (an upper bound)."""

RELEASE_STEP = 0.1
"""Step of the published code in its training; its inference takes 1.0."""

_REFIT_EPOCHS, _REFIT_BATCH, _REFIT_RATE = 15, 64, 2e-3


@dataclass(frozen=True)
class Features:
    """What a model made of n persons before anything competes, on the CPU.

    levels: see `LevelStack`. z_t: [n, d], logits_t: [n, k], of the V-I branch. targets: [n, k].
    """

    levels: LevelStack
    z_t: Tensor
    logits_t: Tensor
    targets: Tensor


@torch.inference_mode()
def features_of(
    model: CocoER, batches: Iterable[Batch], runtime: Runtime, embeddings: KnownEmbeddings | None = None
) -> Features:
    """One pass over the persons; the model must be in eval mode. Raises ValueError for a model without V-I branch.

    embeddings: of these persons, where the frozen tower need not look again.
    """
    branch = model.vocabulary
    if branch is None:
        raise ValueError("the conflict benchmark wants a model with the V-I branch, which gives the pseudo label")
    parts: list[tuple[Tensor, ...]] = []
    for batch in batches:
        here = batch.to(runtime.device)
        tokens = model.level_tokens(here.head, here.body, here.context)
        levels = model.level_features(model.cross_level(tokens, here.head_xyxy, here.body_xyxy))
        seen = (
            branch(*branch.seen(here.head, here.body, here.context))
            if embeddings is None
            else branch.from_embedding(embeddings.of(batch.keys))
        )
        row = (levels.sq_norm, levels.pre, levels.z, levels.logits, seen.z, seen.logits, targets_of(batch))
        parts.append(tuple(t.float().cpu() for t in row))
    sq_norm, pre, z, logits, z_t, logits_t, targets = (torch.cat(column) for column in zip(*parts, strict=True))
    return Features(LevelStack(sq_norm, pre, z, logits), z_t, logits_t, targets)


class Rules:
    """The rules with one model's weights and config. The model is moved to the CPU, where this is a matter of seconds."""

    def __init__(self, model: CocoER, config: Config) -> None:
        self.model, self.config = model.cpu().eval(), config
        self.heads = model.head_parameters()

    def workspace(self, update: str) -> Workspace:
        """Competition and coordination under `updates()`."""
        made: Workspace
        if update in ideas.added("workspace"):
            made = build_workspace(change_config(self.config, [f"model.coordination.update={update}"]))
        elif update == "release":
            made = ReleaseWorkspace(self.config, RELEASE_STEP)
        else:
            made = PaperWorkspace(self.config, cast("UpdateType", update))
        made.class_counts = self.model.class_counts
        return made

    @torch.inference_mode()
    def label(self, features: Features, name: str) -> Tensor:
        """The pseudo label [n, k] of `LABELS`."""
        if name == "true":
            return features.targets
        plain = torch.cat([features.levels.z.flatten(1), features.z_t], dim=1)
        logits = features.logits_t if name == "vocabulary" else self.model.fusion(plain)
        return pseudo_label(logits, self.config.multi_label, self.config.model.vocabulary.threshold)

    @torch.inference_mode()
    def fused_features(self, features: Features, update: str, label: str) -> tuple[Tensor, NDArray[np.int64]]:
        """z_G [n, 4d] under an update, and the levels in order of leaving, [n, 3]."""
        judged = self.label(features, label)
        refined, competition = self.workspace(update)(features.levels, self.heads, judged)
        return torch.cat([refined.flatten(1), features.z_t], dim=1), competition.exclusion.numpy()

    @torch.inference_mode()
    def scores(
        self, features: Features, rule: str, label: str, fusion: FusionHead | None = None
    ) -> NDArray[np.float32]:
        """Probabilities [n, k] under `updates()`, `LATE` or `VOTES`; fusion: in place of the model's own FFN2."""
        levels = torch.sigmoid(features.levels.logits)  # [n, L, k]
        if rule in (*updates(), *VOTES):
            fused, exclusion = self.fused_features(features, rule if rule in updates() else "one", label)
            logits = (fusion or self.model.fusion)(fused)
            if rule == "vote_three":
                return (FUSED_SHARE * torch.sigmoid(logits) + (1 - FUSED_SHARE) * levels.mean(1)).numpy()
            if rule == "vote":
                order = torch.from_numpy(exclusion)
                logits = survivors_vote(logits, features.levels.logits, order, multi_label=self.config.multi_label)
            return torch.sigmoid(logits).numpy()
        if rule == "late_fusion":
            return levels.mean(1).numpy()
        _, exclusion = self.fused_features(features, "none", label)
        first = torch.from_numpy(exclusion[:, :1]).unsqueeze(-1).expand(-1, 1, levels.shape[-1])
        return ((levels.sum(1) - levels.gather(1, first).squeeze(1)) / 2).numpy()

    def refitted(self, features: Features, update: str, label: str, seed: int) -> FusionHead:
        """FFN2 retrained, from random weights, for what a rule makes of these persons; everything else stays.

        The model's own FFN2 has learned with its own rule alone; this takes that advantage away. The same seed gives the same
        first weights and order for every rule.
        """
        fused = self.fused_features(features, update, label)[0].clone()
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            fusion = FusionHead(fused.shape[1], features.levels.z.shape[-1], features.targets.shape[1])
        optimizer = torch.optim.Adam(fusion.parameters(), _REFIT_RATE, weight_decay=self.config.optim.weight_decay)
        steps = _REFIT_EPOCHS * -(-len(fused) // _REFIT_BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _REFIT_RATE, total_steps=steps)
        targets, rule = features.targets.clone(), self.config.loss.class_weights
        for _ in range(_REFIT_EPOCHS):
            for chosen in torch.randperm(len(fused), generator=generator).split(_REFIT_BATCH):
                weights = class_weights(rule, targets[chosen], targets.sum(0))
                losses = loss_per_person(fusion(fused[chosen]), targets[chosen], weights, multi_label=True)
                optimizer.zero_grad(set_to_none=True)
                losses.mean().backward()
                optimizer.step()
                schedule.step()
        return fusion.eval()
