"""Competition by agreement (ours, not the paper's): the level that contradicts the others in the vocabulary's words leaves first.

The paper holds every level against a thresholded label through prediction layers whose losses are on different scales. Here
the levels speak one language: frozen CLIP reads the crop of each level against the prompts of the classes, and the levels
are held against what the three readings say together. Nothing is learned and no label of the person is used. Closed form, for all
persons at once, differentiable in the readings.

A rule of competition is a function readings [B, L, k] -> `Agreement`.
Letters: B persons, L = 3 levels in `names.LEVELS` order, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cocoer.model.competition import exclusion_sequence, full_precision, working_dtype
from cocoer.outputs import EQUAL_LOSSES

LABEL_OVER = 2.0
"""A word is a label where it has more than this many times its equal share of a distribution over the vocabulary."""


@dataclass(frozen=True)
class Agreement:
    """What the readings of every person say of its levels; a `competition.Competition`.

    vote: what the three readings say together, probabilities [B, k].
    losses: cross-entropy of each level's reading from the vote, nats, [B, L].
    exclusion: level indices in the order of leaving, survivor last, [B, L] int64. The largest loss leaves first; of losses
    that are equal (see `EQUAL_LOSSES`) the first level in the order head, body, context. -1 where losses are not finite.
    shares: what each level counts, [B, L], sum 1 (see `shares_of`).
    """

    vote: Tensor
    losses: Tensor
    exclusion: Tensor
    shares: Tensor

    @property
    def weights(self) -> Tensor:
        """The shares as a competition's one round of weights, [B, 1, L]."""
        return self.shares.unsqueeze(1)

    @property
    def distance(self) -> Tensor:
        """Length of the direction in which the levels would be updated, [B]: agreement alone has none, so 0."""
        return torch.zeros_like(self.losses[:, 0])

    def penalty(self, kind: Literal["mean", "sum"]) -> None:
        """None: agreement has no direction that a training loss could add."""

    @property
    def undecided(self) -> Tensor:
        """Whom the order of the levels, and not their losses, told who leaves first, [B] bool."""
        return undecided(self.losses)


def agree(readings: Tensor, logit_scale: float = 20.0, slope: float = 4.0, threshold: float = 1.0) -> Agreement:
    """Let the levels of every person compete by agreement.

    readings: [B, L, k], how well each level's crop fits each class: cosines of CLIP's unit-norm embeddings, or any scores.
    logit_scale: one over the temperature of the softmax over the classes; CLIP's own for OpenAI's towers is 100.
    slope, threshold: see `shares_of`.
    A reading is a distribution over the words whether persons have one label or several: what is compared is which words fit
    best. vote = softmax(mean of the scaled readings), loss of a level = - sum of vote log(its reading).
    Raises ValueError for readings of another shape or a scale that is not a positive number.
    """
    if readings.ndim != 3 or readings.shape[1] != 3 or readings.shape[2] < 1:
        raise ValueError(f"readings: wanted [persons, 3 levels, classes], got {list(readings.shape)}")
    if not 0.0 < logit_scale < float("inf"):
        raise ValueError(f"logit_scale: wanted a number above 0, got {logit_scale}")
    with full_precision(readings):
        scores = logit_scale * readings.to(working_dtype(readings))
        vote = torch.softmax(scores.mean(1), dim=1)  # [B, k]
        losses = -(vote.unsqueeze(1) * torch.log_softmax(scores, dim=2)).sum(2)  # [B, L]
        exclusion = exclusion_sequence(losses, EQUAL_LOSSES)
        return Agreement(vote, losses, exclusion, shares_of(losses, exclusion, slope, threshold))


@dataclass(frozen=True)
class AgreementRule:
    """Agreement with a model's settings; see `agree` for the numbers.

    excludes: its losses and exclusion sequence take the place of L_hier's. gates: the fusion sees levels by their shares.
    """

    logit_scale: float = 20.0
    slope: float = 4.0
    threshold: float = 1.0
    excludes: bool = True
    gates: bool = False

    def __call__(self, readings: Tensor) -> Agreement:
        """Readings [B, L, k] -> how the levels agree."""
        return agree(readings, self.logit_scale, self.slope, self.threshold)


def vote_label(vote: Tensor, *, multi_label: bool) -> Tensor:
    """The vote [B, k] as a pseudo label of 0 and 1; no gradient.

    Several labels a person: the words with more than twice their equal share of it. One label: the most probable word.
    """
    vote = vote.detach()
    if multi_label:
        return (vote > LABEL_OVER / vote.shape[1]).to(vote.dtype)
    return F.one_hot(vote.argmax(1), vote.shape[1]).to(vote.dtype)


def gated(features: Tensor, shares: Tensor) -> Tensor:
    """Level features [B, L, d] by what each level counts [B, L], so that equal shares leave them as they are."""
    return features * (shares.shape[1] * shares).unsqueeze(2).to(features.dtype)


def shares_of(
    losses: Tensor, exclusion: Tensor, slope: float | Tensor = 4.0, threshold: float | Tensor = 1.0
) -> Tensor:
    """What each level counts, [B, L], sum 1: the first to leave counts less, as far as the levels disagree.

    losses, exclusion: [B, L]. gap = the largest loss minus the next one, nats: how far one level stands against the others.
    The first to leave counts sigmoid(slope (threshold - gap)) / 3, the others share the rest equally: nearly a third each where
    nothing contradicts, 0, 1/2, 1/2 where one level clearly does. NaN where losses are not finite.
    slope, threshold: numbers, or scalars with gradient.
    """
    first = torch.arange(losses.shape[1], device=losses.device) == exclusion[:, :1]  # [B, L]
    counts = torch.sigmoid(slope * (threshold - gap_of(losses))).unsqueeze(1) / 3.0  # [B, 1]
    finite = torch.isfinite(losses).all(1, keepdim=True)
    return torch.where(finite, torch.where(first, counts, (1.0 - counts) / 2.0), torch.nan)


def gap_of(losses: Tensor) -> Tensor:
    """The largest loss minus the next one: [B, L] -> [B]."""
    largest = losses.topk(2, dim=1).values
    return largest[:, 0] - largest[:, 1]


def undecided(losses: Tensor) -> Tensor:
    """Where the two largest losses are equal (see `EQUAL_LOSSES`): [B, L] -> [B] bool."""
    return gap_of(losses) <= EQUAL_LOSSES
