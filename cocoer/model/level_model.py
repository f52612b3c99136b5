"""The base of every model: a backbone, tokens and a level head per level, and a common output type.

Letters: B persons, L = 3 levels in `names.LEVELS` order, S crop side in pixels, d feature size, k emotions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from cocoer.model.agreement import Agreement
from cocoer.model.competition import Competition
from cocoer.model.fold_batch_norms import fold_batch_norms
from cocoer.model.vocabulary import VocabularyBranch
from cocoer.names import LEVELS


@dataclass(frozen=True)
class ModelOutput:
    """Everything one forward pass knows of B persons.

    logits: [B, k], the fused answer l_G (with `model.competition.vote`, outside training, the vote). level_logits: [B, L, k].
    vocabulary_logits, pseudo_label: [B, k], or None without the vocabulary branch. level_features: z [B, L, d];
    refined: z^ [B, L, d]; fused_features: z_G [B, 4d] (3d without V-I).
    competition: losses, simplex weights, exclusion sequence and distance, or None where nothing competed.
    agreement: how the levels agree by CLIP's readings, or None where the paper's rule chose who leaves.
    """

    logits: Tensor
    level_logits: Tensor
    vocabulary_logits: Tensor | None
    pseudo_label: Tensor | None
    level_features: Tensor
    refined: Tensor
    fused_features: Tensor
    competition: Competition | None
    agreement: Agreement | None = None

    @classmethod
    def of_one(cls, logits: Tensor, features: Tensor) -> ModelOutput:
        """The output of a baseline without competition: logits [B, k] and features [B, d] stand for every level."""
        levels, z = (x.unsqueeze(1).expand(-1, len(LEVELS), -1) for x in (logits, features))  # [B, L, k], [B, L, d]
        return cls(logits, levels, None, None, z, z, features, None)


@dataclass(frozen=True)
class LevelParts:
    """The modules of one level: backbone [B, 3, S, S] -> feature map, tokens -> [B, N, c], head -> `LevelFeatures`."""

    backbone: nn.Module
    tokens: nn.Module
    head: nn.Module


class LevelModel(nn.Module):
    """Base of `CocoER` (three levels that compete) and `SingleLevel` (the baseline of one).

    levels: the parts of each level, by name. cross_level: the levels' tokens in, as many out. image_size: S.
    vocabulary: the V-I branch, or None.
    """

    def __init__(
        self,
        levels: Mapping[str, LevelParts],
        cross_level: nn.Module,
        vocabulary: VocabularyBranch | None,
        image_size: int,
    ) -> None:
        super().__init__()
        self.backbones = nn.ModuleDict({name: parts.backbone for name, parts in levels.items()})
        self.tokens = nn.ModuleDict({name: parts.tokens for name, parts in levels.items()})
        self.cross_level = cross_level
        self.heads = nn.ModuleDict({name: parts.head for name, parts in levels.items()})
        self.vocabulary = vocabulary
        self.image_size = image_size
        self.folded = False

    def fold(self) -> None:
        """Fold for inference, in place: batch norms of backbones and CLIP tower into convolutions, V-I's repeated input.

        Outputs stay equal to 1e-5; the memory of the weights shrinks (`cocoer describe --folded` says by how much).
        A folded model can neither be trained nor saved as a checkpoint. Folding twice changes nothing more.
        Raises ValueError for a model in training mode.
        """
        if self.training:
            raise ValueError("fold() is for inference: call eval() first; a folded model cannot be trained any more")
        for backbone in self.backbones.values():
            fold_batch_norms(backbone)
        if self.vocabulary is not None:
            fold_batch_norms(self.vocabulary.tower)
            if self.vocabulary.layout == "repeat":
                self.vocabulary.fold()
        self.folded = True

    def train(self, mode: bool = True) -> LevelModel:
        """Training or evaluation mode. Raises ValueError for training a folded model, whose batch norms are gone."""
        if mode and self.folded:
            raise ValueError(
                "this model has been folded for inference and cannot be trained; build it again from its weights"
            )
        return super().train(mode)

    @property
    def class_counts(self) -> Tensor | None:
        """Positives of each class in the training split, [k], which `loss.class_weights: static` needs in L_hier."""
        return None

    def set_class_counts(self, counts: Tensor | None) -> None:
        """Tell L_hier the positives of each class, [k]; a model without competition has no L_hier and ignores them."""

    def level_tokens(self, *crops: Tensor) -> list[Tensor]:
        """Crops [B, 3, S, S], one per level in order -> tokens of each, [B, N, c], before they look at the context."""
        named = zip(self.backbones.items(), crops, strict=True)
        return [self.tokens[level](backbone(crop)) for (level, backbone), crop in named]

    def check_shapes(self, head: Tensor, body: Tensor, context: Tensor, head_xyxy: Tensor, body_xyxy: Tensor) -> None:
        """ValueError that names the tensor, what was expected and what was given."""
        persons, side = context.shape[0], self.image_size
        for name, crop in (("context", context), ("head", head), ("body", body)):
            if tuple(crop.shape) != (persons, 3, side, side):
                raise ValueError(f"{name} crops: wanted [{persons}, 3, {side}, {side}], got {list(crop.shape)}")
        for name, boxes in (("head_xyxy", head_xyxy), ("body_xyxy", body_xyxy)):
            if tuple(boxes.shape) != (persons, 4):
                raise ValueError(f"{name}: wanted [{persons}, 4], got {list(boxes.shape)}")
