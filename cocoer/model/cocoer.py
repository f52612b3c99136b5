"""The model: three levels, the vocabulary branch, competition, coordination, fusion (design section 3).

Letters: B persons, L=3 levels in `names.LEVELS` order, S crop side in pixels, N tokens, c token channels, d feature size,
k emotions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cocoer.model.agreement import Agreement
from cocoer.model.competition import Competition
from cocoer.model.coordination import MappingStep
from cocoer.model.cross_level import AttentionMaps
from cocoer.model.fold_batch_norms import fold_batch_norms
from cocoer.model.level_head import HeadParameters, LevelFeatures, LevelHead
from cocoer.model.mappings import NetworkStep
from cocoer.model.release.coordination import ReleaseCompetition
from cocoer.model.vocabulary import VocabularyBranch, VocabularyOutput
from cocoer.names import LEVELS


@dataclass(frozen=True)
class ModelOutput:
    """Everything one forward pass knows of B persons.

    logits: [B, k], the fused answer l_G (with `model.competition.vote`, outside training, the vote). level_logits: [B, L, k].
    vocabulary_logits, pseudo_label: [B, k], or None without the vocabulary branch. level_features: z [B, L, d];
    refined: z^ [B, L, d]; fused_features: z_G [B, 4d] (3d without V-I).
    competition: losses, simplex weights, exclusion sequence and |delta|^2, or None where nothing competed.
    agreement: how the levels agree by CLIP's readings, or None where the paper's rule chose who leaves.
    """

    logits: Tensor
    level_logits: Tensor
    vocabulary_logits: Tensor | None
    pseudo_label: Tensor | None
    level_features: Tensor
    refined: Tensor
    fused_features: Tensor
    competition: Competition | ReleaseCompetition | Agreement | None
    agreement: Agreement | None = None


@dataclass(frozen=True)
class LevelStack:
    """The three level heads' results side by side: sq_norm [B, L], pre [B, L, d], z [B, L, d], logits [B, L, k].

    mapping_step: how the mappings take a gradient step where they are networks; None for Linears.
    """

    sq_norm: Tensor
    pre: Tensor
    z: Tensor
    logits: Tensor
    mapping_step: MappingStep | None = None

    @classmethod
    def of(cls, levels: list[LevelFeatures]) -> LevelStack:
        """Stack in level order."""
        sq_norm, pre, z, logits = (torch.stack(parts, dim=1) for parts in zip(*levels, strict=True))
        return cls(sq_norm, pre, z, logits)


Workspace = Callable[[LevelStack, HeadParameters, Tensor], tuple[Tensor, Competition | ReleaseCompetition]]
"""(level results, head parameters, pseudo label [B, k]) -> refined features [B, L, d] and how the levels competed."""


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


class CocoER(nn.Module):
    """CocoER with its parts handed in; `build.build_model` makes them from a config.

    backbones, tokens, heads: one module per level, by name. cross_level: three sets of tokens in, three out.
    vocabulary: the V-I branch or None (ablation). workspace: competition and coordination, a plain function.
    label: logits [B, k] -> pseudo label. judge: whose logits, see `pseudo_label`.
    vote: outside training, makes the answer of l_G, level logits and exclusion (`vote.survivors_vote`); None = l_G alone.
    """

    def __init__(
        self,
        backbones: Mapping[str, nn.Module],
        tokens: Mapping[str, nn.Module],
        cross_level: nn.Module,
        heads: Mapping[str, nn.Module],
        vocabulary: VocabularyBranch | None,
        fusion: FusionHead,
        workspace: Workspace,
        label: Callable[[Tensor], Tensor],
        image_size: int,
        judge: Literal["vocabulary", "fused"] = "vocabulary",
        vote: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.backbones = nn.ModuleDict({level: backbones[level] for level in LEVELS})
        self.tokens = nn.ModuleDict({level: tokens[level] for level in LEVELS})
        self.cross_level = cross_level
        self.heads = nn.ModuleDict({level: heads[level] for level in LEVELS})
        self.vocabulary = vocabulary
        self.fusion = fusion
        self.image_size = image_size
        self.workspace = workspace
        self._label = label
        self._judge = judge
        self._vote = vote
        self.fused = False

    def fuse(self) -> None:
        """Fold for inference, in place: batch norms of backbones and CLIP tower into convolutions, V-I's repeated input.

        Outputs stay equal to 1e-5; the memory of the weights shrinks (`cocoer describe --fused` says by how much).
        A fused model can neither be trained nor saved as a checkpoint. Fusing twice changes nothing more.
        Raises ValueError for a model in training mode.
        """
        if self.training:
            raise ValueError("fuse() is for inference: call eval() first; a fused model cannot be trained any more")
        for backbone in self.backbones.values():
            fold_batch_norms(backbone)
        if self.vocabulary is not None:
            fold_batch_norms(self.vocabulary.tower)
            if self.vocabulary.layout == "repeat":
                self.vocabulary.fold()
        self.fused = True

    def train(self, mode: bool = True) -> CocoER:
        """Training or evaluation mode. Raises ValueError for training a fused model, whose batch norms are gone."""
        if mode and self.fused:
            raise ValueError(
                "this model has been fused for inference and cannot be trained; build it anew from its weights"
            )
        return super().train(mode)

    def level_tokens(self, head: Tensor, body: Tensor, context: Tensor) -> list[Tensor]:
        """Crops [B, 3, S, S] -> tokens of each level [B, N, c], in level order, before they look at the context."""
        crops = {"head": head, "body": body, "context": context}
        return [self.tokens[level](self.backbones[level](crops[level])) for level in LEVELS]

    def level_features(self, tokens: list[Tensor]) -> LevelStack:
        """Tokens of each level, after cross-level attention -> what the level heads make of them."""
        levels = LevelStack.of([self.heads[level](x) for level, x in zip(LEVELS, tokens, strict=True)])
        mappings = [self.heads[level].get_submodule("mapping") for level in LEVELS]
        if isinstance(mappings[0], nn.Linear):
            return levels
        return replace(levels, mapping_step=NetworkStep(mappings, tokens))

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
        embedding: the frozen tower's unit-norm embeddings [B, e] where they are known; then the tower does not look.
        """
        self._check(head, body, context, head_xyxy, body_xyxy)
        tokens = self.level_tokens(head, body, context)  # L x [B, N, c]
        tokens = self.cross_level(tokens, head_xyxy, body_xyxy)  # L x [B, N, c]
        levels = self.level_features(tokens)  # z [B, L, d]
        if self.vocabulary is None:
            return self._without_vocabulary(levels)
        vocabulary: VocabularyOutput = (
            self.vocabulary(*self.vocabulary.seen(head, body, context))
            if embedding is None
            else self.vocabulary.from_embedding(embedding)
        )
        label = self.pseudo_label(levels, vocabulary)  # [B, k]
        refined, competition = self.workspace(levels, self.head_parameters(), label)  # [B, L, d]
        fused = torch.cat([refined.flatten(1).to(vocabulary.z.dtype), vocabulary.z], dim=1)  # [B, 4d]
        logits = self.fusion(fused)  # [B, k]
        if self._vote is not None and not self.training:
            logits = self._vote(logits, levels.logits, competition.exclusion)
        return ModelOutput(
            logits=logits,
            level_logits=levels.logits,
            vocabulary_logits=vocabulary.logits,
            pseudo_label=label,
            level_features=levels.z,
            refined=refined,
            fused_features=fused,
            competition=competition,
        )

    def pseudo_label(self, levels: LevelStack, vocabulary: VocabularyOutput) -> Tensor:
        """y_t [B, k] of 0 and 1, against which the levels are held; no gradient.

        Of the V-I branch, as in the paper; or, where the model was built with judge `fused`, of a first fused answer without
        any update. The V-I branch sees less than the levels do, and a wrong label excludes the wrong level.
        """
        if self._judge == "vocabulary":
            return self._label(vocabulary.logits)
        with torch.no_grad():
            first_look = torch.cat([levels.z.flatten(1).to(vocabulary.z.dtype), vocabulary.z], dim=1)  # [B, 4d]
            return self._label(self.fusion(first_look))

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
        """Ablation without V-I: nobody gives a pseudo label, so nothing competes and the plain features are fused."""
        fused = levels.z.flatten(1)  # [B, 3d]
        return ModelOutput(self.fusion(fused), levels.logits, None, None, levels.z, levels.z, fused, None)

    def _check(self, head: Tensor, body: Tensor, context: Tensor, head_xyxy: Tensor, body_xyxy: Tensor) -> None:
        """ValueError that names the tensor, what was wanted and what came."""
        persons, side = context.shape[0], self.image_size
        for name, crop in (("context", context), ("head", head), ("body", body)):
            if tuple(crop.shape) != (persons, 3, side, side):
                raise ValueError(f"{name} crops: wanted [{persons}, 3, {side}, {side}], got {list(crop.shape)}")
        for name, boxes in (("head_xyxy", head_xyxy), ("body_xyxy", body_xyxy)):
            if tuple(boxes.shape) != (persons, 4):
                raise ValueError(f"{name}: wanted [{persons}, 4], got {list(boxes.shape)}")


__all__ = ["CocoER", "FusionHead", "LevelHead", "LevelStack", "ModelOutput", "Workspace"]
