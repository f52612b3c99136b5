"""The model: three levels, the vocabulary branch, competition, coordination, fusion (docs/method.md).

Letters: B persons, L=3 levels in `names.LEVELS` order, S crop side in pixels, N tokens, c token channels, d feature size,
k emotions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cocoer.model.agreement import Agreement, AgreementRule, gated, vote_label
from cocoer.model.cross_level import AttentionMaps
from cocoer.model.level_head import HeadParameters, LevelStack
from cocoer.model.level_model import LevelModel, LevelParts, ModelOutput
from cocoer.model.mappings import NetworkStep
from cocoer.model.vocabulary import PseudoLabelRule, VocabularyBranch, VocabularyOutput
from cocoer.model.workspaces import Workspace
from cocoer.names import LEVELS


class FusionHead(nn.Module):
    """FFN2: GELU, LayerNorm, Linear(m, d), GELU, LayerNorm, Linear(d, d), GELU, LayerNorm, Linear(d, k)."""

    def __init__(self, inputs: int, features: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GELU(), nn.LayerNorm(inputs), nn.Linear(inputs, features),
            nn.GELU(), nn.LayerNorm(features), nn.Linear(features, features),
            nn.GELU(), nn.LayerNorm(features), nn.Linear(features, classes),
        )  # fmt: skip

    def forward(self, fused: Tensor) -> Tensor:
        """[B, m] -> [B, k]."""
        return self.layers(fused)


@dataclass(frozen=True)
class Decisions:
    """How the model decides.

    label: makes y_t of logits, and says of whose. vote: outside training, makes the prediction of l_G, level logits, exclusion
    and, with a gate, the levels' shares (`vote.survivors_vote`); None = l_G alone. agreement: competition by agreement on
    CLIP's readings, and its uses; None = the paper's rule.
    """

    label: PseudoLabelRule
    vote: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor] | None = None
    agreement: AgreementRule | None = None


class CocoER(LevelModel):
    """CocoER with its parts handed in; `build.build_model` makes them from a config.

    levels: the parts of the three levels, by name. cross_level: three sets of tokens in, three out.
    vocabulary: the V-I branch or None (ablation). workspace: competition and coordination.
    decisions: how the pseudo label, the exclusion and the final prediction are made.
    """

    def __init__(
        self,
        levels: Mapping[str, LevelParts],
        cross_level: nn.Module,
        vocabulary: VocabularyBranch | None,
        fusion: nn.Module,
        workspace: Workspace,
        decisions: Decisions,
        image_size: int,
    ) -> None:
        super().__init__({level: levels[level] for level in LEVELS}, cross_level, vocabulary, image_size)
        self.fusion = fusion
        self.workspace = workspace
        self.decisions = decisions

    @property
    def class_counts(self) -> Tensor | None:
        """See `LevelModel.class_counts`."""
        return self.workspace.class_counts

    def set_class_counts(self, counts: Tensor | None) -> None:
        """See `LevelModel.set_class_counts`."""
        self.workspace.class_counts = counts

    def level_features(self, tokens: list[Tensor]) -> LevelStack:
        """Tokens of each level, after cross-level attention -> what the level heads make of them."""
        mappings = [self.heads[level].get_submodule("mapping") for level in LEVELS]
        step = None if isinstance(mappings[0], nn.Linear) else NetworkStep(mappings, tokens)
        return LevelStack.of([self.heads[level](x) for level, x in zip(LEVELS, tokens, strict=True)], step)

    def head_parameters(self) -> HeadParameters:
        """Norm and prediction layer of the three level heads, stacked; gradients flow into the heads."""
        heads: list[Any] = [self.heads[level] for level in LEVELS]

        def stacked(get: Callable[[Any], Tensor]) -> Tensor:
            return torch.stack([get(h) for h in heads])

        return HeadParameters(
            prediction_weight=stacked(lambda h: h.prediction.weight),
            prediction_bias=stacked(lambda h: h.prediction.bias),
            norm_weight=stacked(lambda h: h.norm.weight),
            norm_bias=stacked(lambda h: h.norm.bias),
            norm_eps=heads[0].norm.eps,
        )

    def forward(
        self,
        head: Tensor,
        body: Tensor,
        context: Tensor,
        head_xyxy: Tensor,
        body_xyxy: Tensor,
        embedding: Tensor | None = None,
    ) -> ModelOutput:
        """The paper's figure: tokens per level, cross-level attention, level heads, V-I, coordination, fusion.

        head, body, context: [B, 3, S, S], RGB, ImageNet mean and std. head_xyxy, body_xyxy: [B, 4], S x S context frame.
        embedding: what `VocabularyBranch.look` gave where it is known; then the tower does not look.
        """
        self.check_shapes(head, body, context, head_xyxy, body_xyxy)
        tokens = self.level_tokens(head, body, context)  # L x [B, N, c]
        tokens = self.cross_level(tokens, head_xyxy, body_xyxy)  # L x [B, N, c]
        levels = self.level_features(tokens)  # z [B, L, d]
        if self.vocabulary is None:
            return self._without_vocabulary(levels)
        looked = self.vocabulary.look(head, body, context) if embedding is None else embedding
        vocabulary = self.vocabulary.from_embedding(self.vocabulary.own_view(looked))
        rule, vote = self.decisions.agreement, self.decisions.vote
        agreed = rule(self.vocabulary.readings(looked)) if rule else None
        label = self.pseudo_label(levels, vocabulary, agreed)  # [B, k]
        ruling = agreed if rule and rule.excludes else None
        refined, competition = self.workspace(levels, self.head_parameters(), label, ruling)  # [B, L, d]
        shares = agreed.shares if agreed is not None and rule and rule.gates else None
        if shares is not None:
            refined = gated(refined, shares)
        fused = torch.cat([refined.flatten(1).to(vocabulary.z.dtype), vocabulary.z], dim=1)  # [B, 4d]
        logits = self.fusion(fused)  # [B, k]
        if vote is not None and not self.training:
            logits = vote(logits, levels.logits, competition.exclusion, shares)
        return ModelOutput(
            logits=logits,
            level_logits=levels.logits,
            vocabulary_logits=vocabulary.logits,
            pseudo_label=label,
            level_features=levels.z,
            refined=refined,
            fused_features=fused,
            competition=competition,
            agreement=ruling,
        )

    def pseudo_label(self, levels: LevelStack, vocabulary: VocabularyOutput, agreed: Agreement | None = None) -> Tensor:
        """y_t [B, k] of 0 and 1, against which the levels are held; no gradient.

        Of the V-I branch, as in the paper; or, where the model was built with judge `fused`, of a first fused answer without
        any update; or, with judge `agreement`, of the vote of the readings. The V-I branch sees less than the levels do, and a
        wrong label excludes the wrong level.
        """
        if agreed is not None and self.decisions.label.judge == "agreement":
            return vote_label(agreed.vote, multi_label=self.decisions.label.multi_label).to(vocabulary.logits.dtype)
        if self.decisions.label.judge == "vocabulary":
            return self.decisions.label(vocabulary.logits)
        with torch.no_grad():
            first_look = torch.cat([levels.z.flatten(1).to(vocabulary.z.dtype), vocabulary.z], dim=1)  # [B, 4d]
            return self.decisions.label(self.fusion(first_look))

    def attention_maps(
        self, head: Tensor, body: Tensor, context: Tensor, head_xyxy: Tensor, body_xyxy: Tensor
    ) -> AttentionMaps:
        """Where each level's tokens look in the context; arguments as in `forward`.

        Raises ValueError for a model without cross-level attention.
        """
        attention_maps: Callable[..., AttentionMaps] | None = getattr(self.cross_level, "attention_maps", None)
        if attention_maps is None:
            raise ValueError("this model was built without cross-level attention (model.attention.enabled: false)")
        return attention_maps(self.level_tokens(head, body, context), head_xyxy, body_xyxy)

    def _without_vocabulary(self, levels: LevelStack) -> ModelOutput:
        """Ablation without V-I: there is no pseudo label, so no competition, and the plain features are fused."""
        fused = levels.z.flatten(1)  # [B, 3d]
        return ModelOutput(self.fusion(fused), levels.logits, None, None, levels.z, levels.z, fused, None)


def three_levels(model: nn.Module) -> CocoER:
    """The model itself where its three levels compete; ValueError for a single level, CLIP alone or an exported file."""
    if not isinstance(model, CocoER):
        why = getattr(
            model, "without_levels", "an exported file or a single-level baseline has no three levels to look into"
        )
        raise ValueError(
            f"wanted a checkpoint (.safetensors) of a model with three levels, got {type(model).__name__}: {why}"
        )
    return model
