"""Convert a forward pass to predictions: probabilities, labels over thresholds, and the competition of the levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cocoer.calibration import Calibration
from cocoer.config import Config
from cocoer.ideas import BUILT_IN
from cocoer.names import LEVELS
from cocoer.outputs import EQUAL_LOSSES, LEVEL_SOURCES, CompetitionRecord, PersonBoxes, PersonPrediction

if TYPE_CHECKING:
    from torch import Tensor

    from cocoer.model.level_model import ModelOutput


def judged_exclusion(exclusion: NDArray[np.int64], pseudo_label: NDArray[Any]) -> NDArray[np.int64]:
    """The order of leaving [B, L] of persons whose levels were judged; -1 where the pseudo label [B, k] is empty."""
    return np.where(pseudo_label.any(-1, keepdims=True), exclusion, -1)


@dataclass(frozen=True)
class LabelRule:
    """How probabilities become labels.

    classes: the k names. multi_label: several labels over a threshold, or the one most probable.
    fused, levels, vocabulary: thresholds of the sources. fitted: thresholds of the fused answer per class (found on a
    validation split and kept in the checkpoint), which take the place of `fused` where a class has one.
    calibration: what the fused answer's probabilities go through before they are told, or None. Labels are chosen before it.
    competition: who decides which level leaves, as in `CompetitionRecord`.
    """

    classes: tuple[str, ...]
    multi_label: bool
    fused: float
    levels: float
    vocabulary: float
    fitted: Mapping[str, float] = field(default_factory=dict)
    calibration: Calibration | None = None
    competition: str = "paper"

    @classmethod
    def of(
        cls, config: Config, fitted: Mapping[str, float] | None = None, calibration: Calibration | None = None
    ) -> LabelRule:
        """The rule a config states."""
        limits, update = config.inference.thresholds, config.model.coordination.update
        return cls(
            config.classes,
            config.multi_label,
            limits.fused,
            limits.levels,
            limits.vocabulary,
            dict(fitted or {}),
            calibration,
            config.model.competition.rule if update in BUILT_IN["workspace"] else update,
        )

    def labels(self, source: str, probabilities: Mapping[str, float]) -> tuple[str, ...]:
        """The labels of one source (`pred`, `VI`, `head`, `body`, `ctx`), in class order."""
        return self.labels_of_each(source, np.array([[probabilities[name] for name in self.classes]]))[0]

    def labels_of_each(self, source: str, probabilities: NDArray[np.floating]) -> list[tuple[str, ...]]:
        """The same of B persons at once, probabilities [B, k] in class order."""
        if not self.multi_label:
            return [(self.classes[i],) for i in probabilities.argmax(1).tolist()]
        common = {"pred": self.fused, "VI": self.vocabulary}.get(source, self.levels)
        limits = self.fitted if source == "pred" else {}
        over = probabilities.astype(np.float64) > [limits.get(name, common) for name in self.classes]
        return [tuple(compress(self.classes, row)) for row in over.tolist()]


_NOT_FINITE = "the model gave scores that are not finite numbers; check the weights with `cocoer weights verify`"
_NO_LABEL = "the pseudo label is empty, so the levels cannot be judged and there is no exclusion sequence"
_EQUAL = (
    "CLIP reads all levels alike, so the exclusion sequence is the default order head, body, context and has no meaning"
)


def error_prediction(person: int, message: str, boxes: PersonBoxes | None = None) -> PersonPrediction:
    """The row of a person that could not be scored."""
    return PersonPrediction(person, {}, {}, None, boxes, status="error", message=message)


def placed(
    answer: PersonPrediction, person: int, boxes: PersonBoxes, preprocess: Mapping[str, object]
) -> PersonPrediction:
    """An answer of `answers_of` with the person's number and boxes; the status tells of an estimated head."""
    if answer.status == "error":
        return replace(answer, person=person, boxes=boxes)
    estimated = answer.status == "ok" and boxes.head_source == "estimated"
    status = "no_face_estimated" if estimated else answer.status
    return replace(answer, person=person, boxes=boxes, status=status, preprocess=preprocess)


def probabilities_of(logits: Tensor, multi_label: bool) -> Tensor:
    """Logits [..., k] -> probabilities: sigmoid (multi-label) or softmax; float32."""
    import torch

    return torch.sigmoid(logits.float()) if multi_label else torch.softmax(logits.float(), dim=-1)


@dataclass(frozen=True)
class Scores:
    """What a forward pass says of B persons, as arrays: from the model's tensors, or from an exported file without torch.

    probabilities: source -> [B, k]. pseudo_label: [B, k], 0 or 1. losses [B, L], weights [B, rounds, L], exclusion [B, L] and
    distance [B] of the competition, or None where nothing competed. undecided: [B], whether the levels read alike.
    """

    probabilities: Mapping[str, NDArray[np.float32]]
    pseudo_label: NDArray[Any] | None = None
    competition: Mapping[str, NDArray[Any]] | None = None
    undecided: NDArray[Any] | None = None

    @classmethod
    def of_output(cls, output: ModelOutput, multi_label: bool) -> Scores:
        """Of the model's answer."""
        logits = {"pred": output.logits}
        if output.vocabulary_logits is not None:
            logits["VI"] = output.vocabulary_logits
        logits |= {LEVEL_SOURCES[level]: output.level_logits[:, i] for i, level in enumerate(LEVELS)}
        found, agreement, label = output.competition, output.agreement, output.pseudo_label
        return cls(
            {source: probabilities_of(values, multi_label).cpu().numpy() for source, values in logits.items()},
            None if label is None else label.float().cpu().numpy(),
            None
            if found is None
            else {
                "losses": found.losses.float().cpu().numpy(),
                "weights": found.weights.float().cpu().numpy(),
                "exclusion": found.exclusion.cpu().numpy(),
                "distance": found.distance.float().cpu().numpy(),
            },
            None if agreement is None else agreement.undecided.cpu().numpy(),
        )

    @classmethod
    def of_file(cls, answer: Mapping[str, NDArray[Any]], agrees: bool = False) -> Scores:
        """Of an exported file's answer, by the names in `OUTPUTS`. agrees: whether agreement says who leaves."""
        by_level = {LEVEL_SOURCES[level]: answer["level_probabilities"][:, i] for i, level in enumerate(LEVELS)}
        competition = {name: answer[name] for name in ("losses", "exclusion")}
        competition |= {"weights": answer["lambda"], "distance": answer["delta_norm"]}
        probabilities = {"pred": answer["probabilities"], "VI": answer["vocabulary_probabilities"], **by_level}
        largest = np.sort(answer["losses"], axis=1)[:, ::-1]
        undecided = largest[:, 0] - largest[:, 1] <= EQUAL_LOSSES if agrees else None
        return cls(probabilities, answer["pseudo_label"], competition, undecided)

    @property
    def finite(self) -> NDArray[np.bool_]:
        """[B]: whether all numbers that matter are finite."""
        looked_at = [*self.probabilities.values(), *([self.competition["losses"]] if self.competition else ())]
        return np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in looked_at])


def answers_of(scores: Scores, rule: LabelRule) -> list[PersonPrediction]:
    """One prediction per person of a forward pass, in order, without number and boxes (`placed`).

    Scores that are not finite give an error in its place.
    """
    labels = {source: rule.labels_of_each(source, values) for source, values in scores.probabilities.items()}
    told = {source: values.tolist() for source, values in scores.probabilities.items()}
    persons = len(told["pred"])
    if rule.calibration is not None:
        told["pred"] = rule.calibration(scores.probabilities["pred"], rule.classes).tolist()
    records = _competition_records(scores, persons, rule.competition)
    pseudo = (scores.pseudo_label > 0.5).tolist() if scores.pseudo_label is not None else [()] * persons
    equal = scores.undecided.tolist() if scores.undecided is not None else [False] * persons
    out = []
    for person, good in enumerate(scores.finite.tolist()):
        if not good:
            out.append(error_prediction(person, _NOT_FINITE))
            continue
        chosen = {source: by_person[person] for source, by_person in labels.items()}
        probabilities = {
            source: dict(zip(rule.classes, by_person[person], strict=True)) for source, by_person in told.items()
        }
        label = tuple(compress(rule.classes, pseudo[person]))
        record = records[person]
        silent = record is not None and not record.exclusion
        status, message = (
            ("equal_readings", _EQUAL) if equal[person] else ("no_pseudo_label", _NO_LABEL) if silent else ("ok", "")
        )
        out.append(PersonPrediction(person, chosen, probabilities, record, None, status, message, label))
    return out


def _competition_records(scores: Scores, persons: int, rule: str) -> Sequence[CompetitionRecord | None]:
    """How each person's levels competed; the exclusion is empty where losses were not finite or the pseudo label is empty."""
    found = scores.competition
    if found is None:
        return [None] * persons
    order = found["exclusion"]
    if scores.pseudo_label is not None and scores.undecided is None:  # agreement judges without a pseudo label
        order = judged_exclusion(order, scores.pseudo_label)
    columns = (rows.tolist() for rows in (found["losses"], found["weights"], order, found["distance"]))
    return [
        CompetitionRecord(
            losses=(a, b, c),
            weights=tuple((r[0], r[1], r[2]) for r in rounds),
            exclusion=tuple(LEVELS[i] for i in sequence) if min(sequence) >= 0 else (),
            delta_norm=norm,
            rule=rule,
        )
        for (a, b, c), rounds, sequence, norm in zip(*columns, strict=True)
    ]
