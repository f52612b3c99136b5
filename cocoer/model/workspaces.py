"""Competition and coordination as one step between level heads and fusion, with the settings of a config."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor

from cocoer import ideas
from cocoer.config import Config
from cocoer.model.competition import (
    Competition,
    PaperCompetition,
    Ruling,
    compete,
    exclusion_sequence,
    without_direction,
)
from cocoer.model.coordination import UpdateType, coordinate, coordinated_logits
from cocoer.model.level_head import HeadParameters, LevelStack
from cocoer.model.losses import ClassWeightRule, competition_weights
from cocoer.model.release.coordination import ReleaseCompetition, release_compete, release_coordinate


class Workspace(Protocol):
    """How the levels compete and are updated.

    class_counts: [k] positives of each class in the training split, needed by `loss.class_weights: static` alone.
    """

    class_counts: Tensor | None

    def __call__(
        self, levels: LevelStack, heads: HeadParameters, label: Tensor, ruling: Ruling | None = None
    ) -> tuple[Tensor, Competition]:
        """(level results, head parameters, pseudo label [B, k]) -> refined features [B, L, d], competition.

        ruling: another rule's word on who leaves; ValueError for a workspace that takes none.
        """

    def coordinated_logits(self, refined: Tensor, heads: HeadParameters, competition: Any) -> Tensor:
        """What each level says after the coordination, [B, L, k]; refined and competition as the call returned them."""


class LevelLoss:
    """L_hier of a config: how a person's levels are held against its pseudo label; see `Workspace.class_counts`.

    `model.competition.loss: training` is the training loss of one person: weighted binary cross-entropies summed over the
    classes, or the cross-entropy. `mean_bce` is the mean over the classes of binary cross-entropies, all alike, for one
    label a person too: the supplement's Fig. 6 shows values that a cross-entropy cannot have.
    binary: whether L_hier looks at each class by itself (else softmax over the classes).
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
    """Competition and coordination of Algorithm 1; holds no tensor but the class counts.

    A rule of your own overrides one of `leaving_order` (who leaves), `direction` (how delta is made) and `moved` (how the
    mappings move). Letters: B persons, L = 3 levels in `names.LEVELS` order, k classes, d feature size.
    """

    def __init__(self, config: Config, update: UpdateType = "one") -> None:
        super().__init__(config)
        self._competition = config.model.competition
        self._update: UpdateType = update
        self._step_rule, self._step = config.model.coordination.step_rule, config.model.coordination.step

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self, levels: LevelStack, heads: HeadParameters, label: Tensor, ruling: Ruling | None = None
    ) -> tuple[Tensor, PaperCompetition]:
        """See `Workspace`."""
        weights = self.class_weights(label)
        competition = compete(
            levels.z, heads, label, weights, multi_label=self.binary, biases=self._competition.biases,
            ruling=ruling, order=self.leaving_order,
        )  # fmt: skip
        if not self._competition.enabled:
            competition = without_direction(competition)
        competition = self.direction(competition)
        return self.moved(levels, heads, competition), competition

    def leaving_order(self, losses: Tensor, logits: Tensor) -> Tensor:
        """L_hier [B, L] and level logits [B, L, k] -> level indices in the order of leaving, survivor last, [B, L] int64."""
        return exclusion_sequence(losses)

    def direction(self, competition: PaperCompetition) -> PaperCompetition:
        """The competition with another direction: `coefficients` [B, L] are the c_m of delta = - sum_m c_m err_m z_m'."""
        return competition

    def moved(self, levels: LevelStack, heads: HeadParameters, competition: PaperCompetition) -> Tensor:
        """The refined features z^ [B, L, d], from what the levels gave and how they competed."""
        return coordinate(
            levels.pre,
            levels.sq_norm,
            heads,
            competition,
            update=self._update,
            step_rule=self._step_rule,
            step=self._step,
            mapping=levels.mapping_step,
        )

    def coordinated_logits(self, refined: Tensor, heads: HeadParameters, competition: PaperCompetition) -> Tensor:
        """See `Workspace`: refined features through the updated prediction layer."""
        return coordinated_logits(refined, heads, competition, self._update, self._step_rule, self._step)


class ReleaseWorkspace(LevelLoss):
    """Competition and coordination of the published code (docs/release.md)."""

    def __init__(self, config: Config, step: float) -> None:
        super().__init__(config)
        self._step = step

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self, levels: LevelStack, heads: HeadParameters, label: Tensor, ruling: Ruling | None = None
    ) -> tuple[Tensor, ReleaseCompetition]:
        """See `Workspace`."""
        if ruling is not None:
            raise ValueError("the published update has a competition of its own and takes no other rule's word")
        weights = self.class_weights(label)
        competition = release_compete(levels.z, heads, label, weights, multi_label=self.binary)
        return release_coordinate(levels.pre, levels.sq_norm, heads, competition, step=self._step), competition

    def coordinated_logits(self, refined: Tensor, heads: HeadParameters, competition: ReleaseCompetition) -> Tensor:
        """See `Workspace`: the published direction never reaches the prediction layer, so only the feature is new."""
        return heads.to(refined.dtype).logits(refined)


def build_workspace(config: Config) -> Workspace:
    """The workspace that `model.coordination.update` names; a published one without competition updates nothing."""
    update = config.model.coordination.update
    if update in ideas.added("workspace"):
        own: Workspace = ideas.added("workspace")[update](config)
        return own
    if update != "release":
        return PaperWorkspace(config, cast("UpdateType", update))
    if not config.model.competition.enabled:
        return PaperWorkspace(config, "none")
    return ReleaseWorkspace(config, config.model.coordination.step)
