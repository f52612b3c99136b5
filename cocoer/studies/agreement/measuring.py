"""Measure one training on unseen persons: plain rows, and the scores of the headline's persons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cocoer.config import DataConfig
from cocoer.data.batch import PersonRecord
from cocoer.data.loaders import PersonDataset, Sample, build_dataset, collate
from cocoer.evaluation.metrics import mean_over_classes, weighted_average_precision
from cocoer.model.agreement import agree, undecided
from cocoer.model.competition import compete
from cocoer.model.losses import competition_weights
from cocoer.model.vocabulary import pseudo_label
from cocoer.names import LEVELS
from cocoer.studies.agreement.training import Trained, parts_of
from cocoer.studies.agreement.variants import SHIPPED_CLIP, Parts
from cocoer.studies.agreement.worlds import DAMAGES, Scenes, contradicted, damaged, minority_labels, random_levels
from cocoer.studies.conflict.world import CONDITIONS, POOLS, SHARES, Mixing, Tree

NOISES: tuple[float, ...] = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Deviation of Gaussian noise on the shipped CLIP's cosines: weaker and weaker readings."""

LATE: tuple[str, ...] = (
    "late_vote",
    "late_vote_all",
    "late_shares",
    "gate_late",
    "late_fusion",
    "clip_whole",
    "clip_late",
    "clip_agree",
)
"""What needs no fusion head of its own: half fused answer and half the two levels that stay, all three (control), or the
levels by their shares, the same for the gate's fused answer; the levels' mean; and three answers of CLIP alone: whole image,
mean of the readings, by shares."""

_BATCH = 64
_DAMAGED = 375
Rows = list[dict[str, Any]]
Scores = NDArray[np.float32]


def mean_ap(scores: Scores, targets: Scores) -> float:
    """Non-interpolated mAP, 0..1; as `metrics.average_precision`, but fast enough for the thousands that are taken."""
    columns = zip(scores.T.astype(np.float64), targets.T.astype(np.float64), strict=True)
    each = [weighted_average_precision(said, true, np.ones((1, len(said))))[0] for said, true in columns]
    return mean_over_classes(np.array(each))


def accuracy(scores: Scores, targets: Scores) -> float:
    """Share of the persons whose most probable class is theirs, 0..1; targets one-hot."""
    return float(np.take_along_axis(targets, scores.argmax(axis=1)[:, None], axis=1).mean())


class Answers:
    """What everything said of the persons of one set, by batches. scores: variant -> [B, k]; readings: reader -> [B, L, k]."""

    def __init__(self) -> None:
        self.scores: dict[str, list[Tensor]] = {}
        self.readings: dict[str, list[Tensor]] = {}
        self.first_of_paper: list[Tensor] = []
        self.targets: list[Tensor] = []

    def add(self, made: Trained, parts: Parts) -> None:
        """One batch."""
        found = agree(parts.readings[SHIPPED_CLIP])
        read = torch.softmax(20.0 * parts.readings[SHIPPED_CLIP], dim=-1)
        config = made.settings.config
        probabilities = torch.sigmoid if config.multi_label else partial(torch.softmax, dim=-1)
        levels = probabilities(parts.levels.logits)
        fused = {name: probabilities(logits) for name, logits in made.logits(parts).items()}
        stays = (found.exclusion[:, :1] != torch.arange(3)).float().unsqueeze(-1) / 2
        shares = found.shares.unsqueeze(-1)
        half = 0.5 * fused["all"]
        late = {
            "late_vote": half + 0.5 * (levels * stays).sum(1),
            "late_vote_all": half + 0.5 * levels.mean(1),
            "late_shares": half + 0.5 * (levels * shares).sum(1),
            "gate_late": 0.5 * fused["gate"] + 0.5 * (levels * shares).sum(1),
            "late_fusion": levels.mean(1),
            "clip_whole": read[:, LEVELS.index("context")],
            "clip_late": read.mean(1),
            "clip_agree": (read * shares).sum(1),
        }
        for name, value in (fused | late).items():
            self.scores.setdefault(name, []).append(value)
        for name, value in parts.readings.items():
            self.readings.setdefault(name, []).append(value)
        label = pseudo_label(parts.logits_t, config.multi_label, config.model.vocabulary.threshold)
        weights = competition_weights(config.loss.class_weights, label)
        competed = compete(parts.levels.z, parts.heads, label, weights, multi_label=config.multi_label)
        self.first_of_paper.append(competed.exclusion[:, 0])
        self.readings.setdefault("level_heads", []).append(
            parts.levels.logits / 20.0
        )  # as the gate of the heads reads them
        self.targets.append(parts.targets)

    def joined(self) -> tuple[dict[str, Scores], dict[str, Tensor], NDArray[np.int64], Scores]:
        """Scores, readings, the paper's first excluded level, targets; of all persons."""
        scores = {name: torch.cat(rows).numpy().astype(np.float32) for name, rows in self.scores.items()}
        readings = {name: torch.cat(rows) for name, rows in self.readings.items()}
        return scores, readings, torch.cat(self.first_of_paper).numpy(), torch.cat(self.targets).numpy()


def batches_of(
    people: PersonDataset, level: int | None = None, damage: str = "", most: int | None = None
) -> Iterator[list[Sample]]:
    """The persons' samples, `_BATCH` at a time, one level damaged where that is asked."""
    count = len(people) if most is None else min(most, len(people))
    for start in range(0, count, _BATCH):
        samples = [people[i] for i in range(start, min(start + _BATCH, count))]
        if level is not None:
            samples = [Sample(damaged(s.crops, level, damage), s.target, s.key) for s in samples]
        yield samples


@torch.inference_mode()
def answers(
    made: Trained, people: PersonDataset, level: int | None = None, damage: str = "", most: int | None = None
) -> Answers:
    """Everything's answers for the persons of a split."""
    known = torch.from_numpy(contradicted(people.records))
    chance = random_levels(len(known), 0)
    out, start = Answers(), 0
    for samples in batches_of(people, level, damage, most):
        rows = slice(start, start + len(samples))
        out.add(made, parts_of(made.model, made.clips, collate(samples), known[rows], chance[rows]))
        start += len(samples)
    return out


def people_of(tree: Tree, cache: Path) -> PersonDataset:
    """The test split of a tree, its crops kept."""
    root = tree.root
    data = DataConfig(
        dataset=tree.dataset, root=str(root), index=str(root / "index"), image_size=80, cache=str(cache / root.name)
    )
    return build_dataset(data, "test")


def measure(made: Trained, scenes: Scenes, cache: Path) -> tuple[Rows, dict[str, NDArray[Any]]]:
    """All rows of one training, values 0..1, and of the headline's persons the scores, targets and contradicting levels."""
    fresh, measured = people_of(scenes.fresh, cache), mean_ap if made.settings.config.multi_label else accuracy
    scores, readings, paper, targets = answers(made, fresh).joined()
    levels = contradicted(fresh.records)
    rows = _headline(scores, targets, levels, measured) + _exclusion("fresh", "any", readings, paper, levels)
    kept: dict[str, NDArray[Any]] = {f"score/{name}": value.astype(np.float16) for name, value in scores.items()}
    kept |= {"targets": targets.astype(np.int8), "contradicted": levels}
    if not scenes.pools:
        return rows, kept
    rows += _strength({n: r for n, r in readings.items() if n != "level_heads"}, targets, levels)
    pools = [people_of(scenes.pools[name], cache) for name in POOLS]
    found = [answers(made, people).joined() for people in pools]
    rows += _shares(found) + _minority(found, [people.records for people in pools])
    for place, (_, read, first, _), people in zip(POOLS[1:], found[1:], pools[1:], strict=True):
        rows += _exclusion("pool", place, read, first, contradicted(people.records))
    rows += _damages(made, pools[0])
    return rows, kept


def _row(
    test: str, what: str, condition: str, value: float, persons: int, share: float | None = None
) -> dict[str, Any]:
    return {"test": test, "what": what, "condition": condition, "share": share, "value": value, "persons": persons}


def _headline(
    scores: Mapping[str, Scores],
    targets: Scores,
    levels: NDArray[np.int64],
    measured: Callable[[Scores, Scores], float],
) -> Rows:
    out: Rows = []
    marked = levels >= 0
    for name, value in scores.items():
        for condition, chosen in (("all", np.ones_like(marked)), ("contradicted", marked), ("others", ~marked)):
            out.append(_row("fresh", name, condition, measured(value[chosen], targets[chosen]), int(chosen.sum())))
    return out


def _exclusion(
    test: str, place: str, readings: Mapping[str, Tensor], paper: NDArray[np.int64], levels: NDArray[np.int64]
) -> Rows:
    """How often the contradicting level leaves first, by the paper's rule and by each CLIP's readings."""
    marked = levels >= 0
    firsts = {"paper": paper} | {name: agree(read).exclusion[:, 0].numpy() for name, read in readings.items()}
    return [
        _row(f"{test}_first_excluded", name, place, float((first == levels)[marked].mean()), int(marked.sum()))
        for name, first in firsts.items()
    ]


def _strength(readings: Mapping[str, Tensor], targets: Scores, levels: NDArray[np.int64]) -> Rows:
    """CLIP alone, as it gets weaker: mAP of each level's reading, of the whole, of what agrees, and who leaves first."""
    out: Rows = []
    generator = torch.Generator().manual_seed(0)
    weaker = {(name, 0.0): read for name, read in readings.items() if name != SHIPPED_CLIP}
    shipped = readings[SHIPPED_CLIP]
    weaker |= {(SHIPPED_CLIP, s): shipped + s * torch.randn(shipped.shape, generator=generator) for s in NOISES}
    marked = levels >= 0
    for (name, noise), read in weaker.items():
        found = agree(read)
        words = torch.softmax(20.0 * read, dim=-1)
        said = {level: words[:, m] for m, level in enumerate(LEVELS)}
        said |= {"clip_late": words.mean(1), "clip_agree": (words * found.shares.unsqueeze(-1)).sum(1)}
        for what, value in said.items():
            score = value.numpy()
            out.append(_row("strength", name, what, mean_ap(score, targets), len(targets), noise))
            out.append(
                _row(
                    "strength_contradicted",
                    name,
                    what,
                    mean_ap(score[marked], targets[marked]),
                    int(marked.sum()),
                    noise,
                )
            )
        right = float((found.exclusion[:, 0].numpy() == levels)[marked].mean())
        out.append(_row("strength_first_excluded", name, "any", right, int(marked.sum()), noise))
        out.append(
            _row("strength_undecided", name, "any", float(undecided(found.losses).float().mean()), len(targets), noise)
        )
    return out


Found = Sequence[tuple[Mapping[str, Scores], Mapping[str, Tensor], NDArray[np.int64], Scores]]


def _shares(found: Found) -> Rows:
    """mAP as the share of contradicted persons grows, at any level and at each."""
    persons = len(found[0][3])
    mixing, everyone = Mixing.of(persons), np.arange(persons)
    targets = np.stack([f[3] for f in found])
    out: Rows = []
    for name in found[0][0]:
        scores = np.stack([f[0][name] for f in found])
        for condition in CONDITIONS:
            for share in SHARES if condition == "any" else (0.7,):
                pool = mixing.pool(condition, share)
                value = mean_ap(scores[pool, everyone], targets[pool, everyone])
                out.append(_row("pool", name, condition, value, persons, share))
    return out


def _minority(found: Found, records: Sequence[Sequence[PersonRecord]]) -> Rows:
    """mAP when the level that stands alone is right and two agree on the wrong thing; contradicted persons of any level."""
    persons = len(found[0][3])
    pool, everyone = Mixing.of(persons).pool("any", 1.0), np.arange(persons)
    targets = np.stack([minority_labels(people) for people in records])[pool, everyone]
    return [
        _row("minority", name, "any", mean_ap(np.stack([f[0][name] for f in found])[pool, everyone], targets), persons)
        for name in found[0][0]
    ]


def _damages(made: Trained, people: PersonDataset) -> Rows:
    """mAP when one level of persons whom nothing contradicts is blurred or occluded, and how often that level leaves first."""
    out: Rows = []
    for damage in DAMAGES:
        for m, level in enumerate(LEVELS):
            scores, readings, paper, targets = answers(made, people, m, damage, _DAMAGED).joined()
            marks = np.full(len(targets), m)
            out += [_row(damage, name, level, mean_ap(value, targets), len(targets)) for name, value in scores.items()]
            out += _exclusion(damage, level, {SHIPPED_CLIP: readings[SHIPPED_CLIP]}, paper, marks)
    return out
