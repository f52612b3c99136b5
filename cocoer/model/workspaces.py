"""Competition and coordination as one step between level heads and fusion, with the settings of a config."""

from __future__ import annotations

import torch
from torch import Tensor

from cocoer.config import Config
from cocoer.model.cocoer import CocoER, LevelStack
from cocoer.model.competition import Competition, compete, without_direction
from cocoer.model.coordination import coordinate
from cocoer.model.level_head import HeadParameters
from cocoer.model.losses import ClassWeightRule, competition_weights
from cocoer.model.release.coordination import ReleaseCompetition, release_compete, release_coordinate


class LevelLoss:
    """L_hier of a config: how a person's levels are held against its pseudo label.

    `model.competition.loss: training` is the training loss of one person: weighted binary cross-entropies summed over the
    classes, or the cross-entropy. `mean_bce` is the mean over the classes of binary cross-entropies, all alike, for one
    label a person too: the supplement's Fig. 6 shows values that a cross-entropy cannot have.
    binary: whether L_hier looks at each class by itself (else softmax over the classes).
    class_counts: [k] positives of each class in the training split, needed by `loss.class_weights: static` alone.
    """

    def __init__(self, config: Config) -> None:
        mean_bce = config.model.competition.loss == "mean_bce"
        self.binary = config.multi_label or mean_bce
        self.class_counts: Tensor | None = None
        self._rule: ClassWeightRule = "mean" if mean_bce else config.loss.class_weights
        self._negative_weight = config.model.competition.negative_weight

    def class_weights(self, label: Tensor) -> Tensor | None:
        """Class weights for pseudo labels [B, k]: [B, k], or None for a cross-entropy."""
        if not self.binary:
            return None
        return competition_weights(self._rule, label, self.class_counts, self._negative_weight)


class PaperWorkspace(LevelLoss):
    """Competition and coordination of Algorithm 1; holds no tensor but the class counts."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._competition = config.model.competition
        self._coordination = config.model.coordination

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, levels: LevelStack, heads: HeadParameters, label: Tensor) -> tuple[Tensor, Competition]:
        """(level results, head parameters, pseudo label [B, k]) -> refined features [B, L, d], competition."""
        weights = self.class_weights(label)
        competition = compete(levels.z, heads, label, weights, multi_label=self.binary, biases=self._competition.biases)
        if not self._competition.enabled:
            competition = without_direction(competition)
        update = self._coordination.update
        refined = coordinate(
            levels.pre,
            levels.sq_norm,
            heads,
            competition,
            label,
            weights,
            multi_label=self.binary,
            update="none" if update == "release" else update,
            step_rule=self._coordination.step_rule,
            step=self._coordination.step,
            mapping=levels.mapping_step,
        )
        return refined, competition


class ReleaseWorkspace(LevelLoss):
    """Competition and coordination of the published code (design section 4, `release_rule`)."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._step = config.model.coordination.step

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, levels: LevelStack, heads: HeadParameters, label: Tensor) -> tuple[Tensor, ReleaseCompetition]:
        """(level results, head parameters, pseudo label [B, k]) -> refined features [B, L, d], competition."""
        weights = self.class_weights(label)
        competition = release_compete(levels.z, heads, label, weights, multi_label=self.binary)
        return release_coordinate(levels.pre, levels.sq_norm, heads, competition, step=self._step), competition


def build_workspace(config: Config) -> PaperWorkspace | ReleaseWorkspace:
    """The workspace that `model.coordination.update` names; a published one without competition updates nothing."""
    published = config.model.coordination.update == "release" and config.model.competition.enabled
    return ReleaseWorkspace(config) if published else PaperWorkspace(config)


def give_class_counts(model: CocoER, counts: Tensor | None) -> None:
    """Tell the model's L_hier how many positives each class has in the training split, [k]; `static` weights need it."""
    if isinstance(model.workspace, (PaperWorkspace, ReleaseWorkspace)):
        model.workspace.class_counts = counts
