"""Inputs of the fusion head: the level features under agreement, its controls and the paper's coordination.

Every variant is a function of `Parts` alone, so one pass through backbones, attention and CLIP serves them all.
Letters: B persons, L = 3 levels, d feature size, k classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from cocoer.config import Config
from cocoer.model.agreement import agree, shares_of, vote_label
from cocoer.model.agreement import gated as by_shares
from cocoer.model.competition import compete
from cocoer.model.coordination import UpdateType, coordinate
from cocoer.model.level_head import NUM_LEVELS, HeadParameters, LevelStack
from cocoer.model.losses import competition_weights
from cocoer.model.vocabulary import pseudo_label

SHIPPED_CLIP = "shipped"


@dataclass(frozen=True)
class Parts:
    """What was made of B persons before anything is fused.

    levels: see `LevelStack`. z_t: [B, d], logits_t: [B, k], of the V-I branch. readings: CLIP's name -> cosines [B, L, k].
    heads: of the levels. targets: [B, k]. contradicted: index of the contradicting level, -1 for none, [B].
    chance: a random level, [B].
    """

    levels: LevelStack
    z_t: Tensor
    logits_t: Tensor
    readings: Mapping[str, Tensor]
    heads: HeadParameters
    targets: Tensor
    contradicted: Tensor
    chance: Tensor


class LearnedGate(nn.Module):
    """Slope and threshold of the gate as parameters; they start where the fixed gate is."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.threshold = nn.Parameter(torch.tensor(4.0)), nn.Parameter(torch.tensor(1.0))

    def forward(self, losses: Tensor, exclusion: Tensor) -> Tensor:
        """Shares [B, L]; the parameters get the gradient that they would have if theirs were the only fusion head."""
        slope, threshold = (p.detach() + len(VARIANTS) * (p - p.detach()) for p in (self.slope, self.threshold))
        return shares_of(losses, exclusion, slope, threshold)


Variant = Callable[["Settings", Parts], Tensor]
"""-> level features as the fusion head sees them, [B, L, d]."""


@dataclass(frozen=True)
class Settings:
    """config: of the model. gate: of the variant whose gate is learned."""

    config: Config
    gate: LearnedGate


def without(level: Tensor) -> Tensor:
    """Shares when one level [B] is excluded; -1: none is. [B, L]."""
    gone = torch.arange(NUM_LEVELS, device=level.device) == level.unsqueeze(1)
    return torch.where(gone, 0.0, torch.where((level < 0).unsqueeze(1), 1 / NUM_LEVELS, 1 / (NUM_LEVELS - 1)))


def every_level(_settings: Settings, parts: Parts) -> Tensor:
    """The fusion of the paper without competition and coordination."""
    return parts.levels.z


def gated(_settings: Settings, parts: Parts, clip: str = SHIPPED_CLIP) -> Tensor:
    """The level that agreement excludes counts less, as far as the levels disagree."""
    return by_shares(parts.levels.z, agree(parts.readings[clip]).shares)


def gated_by_level_heads(_settings: Settings, parts: Parts) -> Tensor:
    """The gate without CLIP: the level heads' own logits are the readings."""
    return by_shares(parts.levels.z, agree(parts.levels.logits.detach(), 1.0).shares)


def gated_by_what_was_learned(settings: Settings, parts: Parts) -> Tensor:
    """The same with slope and threshold learned in training."""
    found = agree(parts.readings[SHIPPED_CLIP])
    return by_shares(parts.levels.z, settings.gate(found.losses, found.exclusion))


def gated_at_random(_settings: Settings, parts: Parts) -> Tensor:
    """Control of the gate: as strong as it is, but on a random level."""
    found = agree(parts.readings[SHIPPED_CLIP])
    return by_shares(parts.levels.z, shares_of(found.losses, parts.chance.unsqueeze(1)))


def excluded(_settings: Settings, parts: Parts) -> Tensor:
    """The level that agreement excludes is masked."""
    return by_shares(parts.levels.z, without(agree(parts.readings[SHIPPED_CLIP]).exclusion[:, 0]))


def weighed(_settings: Settings, parts: Parts) -> Tensor:
    """Levels weighted by softmax(-2 loss)."""
    return by_shares(parts.levels.z, torch.softmax(-2.0 * agree(parts.readings[SHIPPED_CLIP]).losses, dim=-1))


def excluded_at_random(_settings: Settings, parts: Parts) -> Tensor:
    """Control: a random level is masked."""
    return by_shares(parts.levels.z, without(parts.chance))


def excluded_by_truth(_settings: Settings, parts: Parts) -> Tensor:
    """Upper bound: the level that is known to contradict is masked; where none does, none is."""
    return by_shares(parts.levels.z, without(parts.contradicted))


def excluded_by_paper(settings: Settings, parts: Parts) -> Tensor:
    """The level that the paper's rule excludes (V-I's pseudo label, losses of the level heads) is masked."""
    return by_shares(parts.levels.z, without(_first_of_paper(settings.config, parts)))


def _label(config: Config, parts: Parts, judge: str) -> Tensor:
    if judge == "truth":
        return parts.targets
    if judge == "vote":
        return vote_label(agree(parts.readings[SHIPPED_CLIP]).vote, multi_label=config.multi_label)
    return pseudo_label(parts.logits_t, config.multi_label, config.model.vocabulary.threshold)


def _first_of_paper(config: Config, parts: Parts) -> Tensor:
    label = _label(config, parts, "vocabulary")
    weights = competition_weights(config.loss.class_weights, label)
    found = compete(parts.levels.z.detach(), parts.heads, label, weights, multi_label=config.multi_label)
    return found.exclusion[:, 0]


def coordinated(
    settings: Settings, parts: Parts, judge: str = "vocabulary", update: UpdateType = "one", by_agreement: bool = False
) -> Tensor:
    """Competition and coordination of Algorithm 1. judge: whose pseudo label. by_agreement: losses and exclusion of agreement."""
    config, levels = settings.config, parts.levels
    label = _label(config, parts, judge)
    weights = competition_weights(config.loss.class_weights, label)
    ruling = agree(parts.readings[SHIPPED_CLIP]) if by_agreement else None
    found = compete(levels.z, parts.heads, label, weights, multi_label=config.multi_label, ruling=ruling)
    spec = config.model.coordination
    return coordinate(
        levels.pre, levels.sq_norm, parts.heads, found, update=update, step_rule=spec.step_rule, step=spec.step
    )


def gated_and_coordinated(settings: Settings, parts: Parts) -> Tensor:
    """Excluded levels are updated towards the vote, then the first to leave counts less as far as the levels disagree."""
    z = coordinated(settings, parts, "vote", "two", by_agreement=True)
    return gated(settings, replace(parts, levels=replace(parts.levels, z=z)))


VARIANTS: dict[str, Variant] = {
    "all": every_level,
    "gate": gated,
    "gate_learned": gated_by_what_was_learned,
    "gate_random": gated_at_random,
    "gate_heads": gated_by_level_heads,
    "exclude": excluded,
    "exclude_random": excluded_at_random,
    "exclude_paper": excluded_by_paper,
    "exclude_truth": excluded_by_truth,
    "weigh": weighed,
    "paper_one": coordinated,
    "vote_one": partial(coordinated, judge="vote", by_agreement=True),
    "vote_two": partial(coordinated, judge="vote", update="two", by_agreement=True),
    "truth_one": partial(coordinated, judge="truth"),
    "gate_vote_two": gated_and_coordinated,
}
"""Every fusion head that is trained; `all` is the paper's model without competition and coordination."""


def variants(clips: Mapping[str, object]) -> dict[str, Variant]:
    """`VARIANTS`, and the gate read by each further CLIP."""
    return VARIANTS | {f"gate_{name}": partial(gated, clip=name) for name in clips}
