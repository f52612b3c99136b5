"""Frozen result types: the prediction for one person and for one image, explanations, and the tables of studies.

All of them are plain Python, so a report needs no tensor library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cocoer.boxes import Box, touched_pixels
from cocoer.names import LEVELS, STATUSES

if TYPE_CHECKING:
    from PIL.Image import Image

SOURCES: tuple[str, ...] = ("pred", "VI", "head", "body", "ctx")
"""The sources of labels and probabilities in a result, under the published code's names: the fused prediction, the vocabulary
branch, and the three levels."""

SYNTHETIC = "SYNTHETIC DEMONSTRATION: weights trained on drawn scenes; predictions on photographs are meaningless"
"""The warning on every image, page and table whose weights were trained on synthetic data."""

LEVEL_SOURCES: dict[str, str] = {"head": "head", "body": "body", "context": "ctx"}
"""Level name -> the key under which the release writes it."""


EQUAL_LOSSES = 1e-5
"""Competition by agreement, in nats: losses that differ by at most this count as equal, so rounding cannot choose a level."""


@dataclass(frozen=True)
class PersonBoxes:
    """Where a person is, in pixels of the original image (after EXIF rotation), xyxy.

    head_source and body_source: `annotated` (given by the caller or the data set), `detected` or `estimated`.
    score: of the detection, 0..1, or None where the box was not detected.
    track: the caller's own id, passed through unchanged.
    """

    body: Box
    head: Box
    head_source: str = "annotated"
    body_source: str = "annotated"
    head_score: float | None = None
    body_score: float | None = None
    track: str | int | None = None

    def level_images(self, image: Image) -> dict[str, Image]:
        """What each level sees of the person: level name -> part of the image, at least one pixel, in the image's own pixels."""
        head, body = (image.crop(touched_pixels(box, *image.size)) for box in (self.head, self.body))
        return {"head": head, "body": body, "context": image}

    def to_dict(self) -> dict[str, Any]:
        """The boxes as written under `boxes` in a result."""
        return {
            "body": [round(v, 2) for v in self.body],
            "head": [round(v, 2) for v in self.head],
            "body_source": self.body_source,
            "head_source": self.head_source,
            "body_score": self.body_score,
            "head_score": self.head_score,
        }


@dataclass(frozen=True)
class CompetitionRecord:
    """How one person's levels competed (Algorithm 1), as plain numbers.

    losses: L_hier of each level against the pseudo label, in `names.LEVELS` order.
    weights: the simplex weights (lambda) of each round, a level that has left has 0.
    exclusion: level names in the order in which they left, the survivor last; empty where nothing competed.
    delta_norm: Frobenius norm of the direction delta (release: weight plus bias distance).
    rule: the rule that chose the excluded level: `paper`, `agreement`, or the name of a plugin's workspace.
    """

    losses: tuple[float, float, float]
    weights: tuple[tuple[float, float, float], ...]
    exclusion: tuple[str, ...]
    delta_norm: float
    rule: str = "paper"


@dataclass(frozen=True)
class PersonPrediction:
    """The prediction for one person.

    labels: source (see `SOURCES`) -> class names over that source's threshold (multi-label) or the top one (single-label).
    probabilities: source -> class name -> probability in [0, 1].
    status: `ok`; `no_face_estimated` (scored with an estimated head); `equal_readings` (competition by agreement alone: CLIP
    reads all levels alike, so the first excluded level follows from the order head, body, context and carries no information;
    `boxes.head_source` tells whether the head was estimated); `no_pseudo_label` (V-I predicts no class, so the levels cannot be
    compared and there is no exclusion sequence); or `error` (labels and probabilities empty).
    message: empty, or what went wrong and what to do.
    synthetic: the weights were trained on synthetic scenes, so predictions on photographs are meaningless.
    """

    person: int
    labels: Mapping[str, tuple[str, ...]]
    probabilities: Mapping[str, Mapping[str, float]]
    competition: CompetitionRecord | None
    boxes: PersonBoxes | None
    status: str = "ok"
    message: str = ""
    pseudo_label: tuple[str, ...] = ()
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    synthetic: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a status that is not in `names.STATUSES`."""
        if self.status not in STATUSES:
            raise ValueError(f"status: wanted one of {', '.join(STATUSES)}, got {self.status!r}")

    def top(self, count: int = 3, source: str = "pred") -> list[tuple[str, float]]:
        """The most probable classes of a source (see `SOURCES`) with their probabilities, highest first."""
        by_name = self.probabilities.get(source, {})
        return sorted(by_name.items(), key=lambda pair: -pair[1])[:count]

    def ordered(self, source: str) -> tuple[str, ...]:
        """The labels of a source (see `SOURCES`), the most probable first; those without a probability last."""
        by_name = self.probabilities.get(source, {})
        return tuple(sorted(self.labels.get(source, ()), key=lambda name: -by_name.get(name, 0.0)))

    @property
    def emotions(self) -> tuple[str, ...]:
        """The labels of the final answer, the most probable first."""
        return self.ordered("pred")

    @property
    def inconsistent(self) -> dict[str, tuple[str, ...]]:
        """Per level source, the labels that neither the pseudo label nor the final answer shares (struck out in Fig. 5 and 6)."""
        final = {*self.labels.get("pred", ()), *self.pseudo_label}
        return {s: tuple(n for n in self.labels.get(s, ()) if n not in final) for s in LEVEL_SOURCES.values()}

    def to_dict(self) -> dict[str, Any]:
        """What is written as JSON: the release's keys first, then ours. Probabilities are rounded to 6 decimals."""
        out: dict[str, Any] = {"person": self.person}
        if self.boxes is not None and self.boxes.track is not None:
            out["track"] = self.boxes.track
        out |= {source: list(self.labels.get(source, ())) for source in SOURCES}
        record = self.competition
        out["emo_process"] = list(record.exclusion) if record else []
        out["rule"] = record.rule if record else None
        out["probabilities"] = {s: {n: round(p, 6) for n, p in by.items()} for s, by in self.probabilities.items()}
        out["losses"] = {n: round(v, 6) for n, v in zip(LEVELS, record.losses, strict=True)} if record else {}
        out["lambda"] = (
            [{n: round(v, 6) for n, v in zip(LEVELS, row, strict=True)} for row in record.weights] if record else []
        )
        out["delta_norm"] = round(record.delta_norm, 6) if record else None
        out["pseudo_label"] = list(self.pseudo_label)
        out["boxes"] = self.boxes.to_dict() if self.boxes else None
        out["preprocess"] = dict(self.preprocess)
        out["status"] = self.status
        out["message"] = self.message
        out["synthetic"] = self.synthetic
        return out


@dataclass(frozen=True)
class ImageResult:
    """All persons of one image. An image without a person is a result with an empty list, not an error.

    image: the path as the user gave it, or a name the caller chose.
    width, height: pixels after EXIF rotation (0 when unreadable).
    frame: the frame number for a video, else None.
    """

    image: str
    width: int
    height: int
    persons: tuple[PersonPrediction, ...]
    status: str = "ok"
    message: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    frame: int | None = None

    @property
    def synthetic(self) -> bool:
        """Whether the weights were trained on synthetic scenes (see `SYNTHETIC`)."""
        return bool(self.model.get("synthetic")) or any(person.synthetic for person in self.persons)

    def to_dict(self) -> dict[str, Any]:
        """What is written as the image's JSON file."""
        out: dict[str, Any] = {"image": self.image, "width": self.width, "height": self.height}
        if self.frame is not None:
            out["frame"] = self.frame
        out |= {
            "status": self.status,
            "message": self.message,
            "synthetic": self.synthetic,
            "model": dict(self.model),
            "persons": [p.to_dict() for p in self.persons],
        }
        return out


Grid = tuple[tuple[float, ...], ...]
"""A map of g x g cells, row by row."""


@dataclass(frozen=True)
class LevelSaliency:
    """Where a level's backbone looked for one emotion, before and after the coordination (supplement, Fig. 4).

    before, after: Grad-CAM of the level's own logit with theta and with theta~, >= 0, on the crop's g x g cells.
    score_before, score_after: those two logits.
    """

    level: str
    before: Grid
    after: Grid
    score_before: float
    score_after: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values; maps as lists of rows."""
        return {
            "score_before": self.score_before,
            "score_after": self.score_after,
            "before": [list(row) for row in self.before],
            "after": [list(row) for row in self.after],
        }


@dataclass(frozen=True)
class Explanation:
    """Why one person got one emotion: saliency of the three levels, and where head and body look in the context.

    saliency: in `names.LEVELS` order. attention: `head` and `body` -> one map per attention head over the cells of the
    whole image, each summing to 1 over cells and padding; empty for a model without cross-level attention.
    probability: of the fused answer.
    """

    person: int
    emotion: str
    probability: float
    saliency: tuple[LevelSaliency, ...]
    attention: Mapping[str, tuple[Grid, ...]]

    def to_dict(self) -> dict[str, Any]:
        """What is written as JSON."""
        return {
            "person": self.person,
            "emotion": self.emotion,
            "probability": self.probability,
            "saliency": {s.level: s.to_dict() for s in self.saliency},
            "attention": {name: [[list(r) for r in m] for m in maps] for name, maps in self.attention.items()},
        }


@dataclass(frozen=True)
class CaseStudy:
    """One person of a split with its ground truth and the numbers by which cases are sorted (supplement, Fig. 5 and 6).

    key: names the person in the index. result: the image with this person alone. truth: class names.
    loss: of the fused answer against the truth: mean binary cross-entropy over classes, or -log p of the true class.
    conflict: how far the levels are apart: mean over the three pairs of levels and the classes of |p - p'|, 0..1.
    error: labels that are wrong, missing or too many, as a count. remark: what the index knows besides.
    """

    key: str
    result: ImageResult
    truth: tuple[str, ...]
    loss: float
    conflict: float
    error: int
    remark: str = ""

    @property
    def person(self) -> PersonPrediction:
        """The person that the case is about."""
        return self.result.persons[0]

    @property
    def first_excluded(self) -> str | None:
        """The level that left first, None where nothing competed."""
        return (
            self.person.competition.exclusion[0]
            if self.person.competition and self.person.competition.exclusion
            else None
        )


@dataclass(frozen=True)
class TableRow:
    """One figure with its provenance, so that it can be checked and repeated. All values in percent (or percentage points).

    ours: mean over the seeds; None where nothing was measured, and then `note` gives what is missing.
    deviation: sample standard deviation over seeds, None for fewer than two. interval: ends of the 95 % bootstrap interval
    over persons, given for one seed. paper: the published figure and, where given, its deviation over seeds; None where none
    was published; source: who published it. comparable: whether ours and the published figure are of the same data.
    definition: which average precision, or accuracy. selection: the split on which the weights were chosen.
    """

    name: str
    ours: float | None = None
    deviation: float | None = None
    interval: tuple[float, float] | None = None
    paper: float | None = None
    paper_deviation: float | None = None
    source: str = ""
    comparable: bool = True
    seeds: int = 0
    persons: int | None = None
    definition: str = ""
    selection: str = ""
    commit: str = ""
    command: str = ""
    note: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus the published figure, None where either is missing or they are of different data."""
        if self.ours is None or self.paper is None or not self.comparable:
            return None
        return self.ours - self.paper


@dataclass(frozen=True)
class ResultTable:
    """Rows under one heading. key: for file names and links. reference: text and value of a line in the plot, such as chance.

    grid: a matrix of percentages as texts, such as a confusion matrix; first row and first column are its headings.
    missing: what the rows without ours need, said once below the table. quoted: the rows are other people's alone.
    """

    key: str
    title: str
    caption: str
    rows: tuple[TableRow, ...]
    plotted: bool = False
    reference: tuple[str, float] | None = None
    grid: tuple[tuple[str, ...], ...] = ()
    missing: str = ""
    quoted: bool = False


@dataclass(frozen=True)
class ConflictPoint:
    """One figure of the conflict benchmark: mean over trained models, all values in percent.

    measure: `score` (mAP of all persons); `gain` (score minus that of "no update", model by model); `vote_gain` (score of the
    survivors' vote minus that of its control); `first_excluded` (share of the contradicted persons whose contradicting level
    left first); `first_excluded_gain` (minus that with V-I's label).
    rule: an update, late fusion or vote. fusion: FFN2 as `trained` with the model, or `refitted` to the rule.
    label: whose pseudo label. condition: the level that contradicts, `any` = each equally often. share: of contradicted
    persons, 0..1.
    values: one per model. deviation: sample standard deviation, interval: 95 % interval of the mean (Student's t) over models;
    None for one model. persons: all of them, for `first_excluded` the contradicted ones.
    """

    measure: str
    fusion: str
    rule: str
    label: str
    condition: str
    share: float
    values: tuple[float, ...]
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    persons: int


@dataclass(frozen=True)
class StudyPoint:
    """One figure of the agreement study: mean over trainings, all values in percent (or in points of a percent).

    setting: `short` or `long` training. test: on which persons, `_gain` behind it: minus all three levels, `_control`: minus the
    variant's control, training by training. what: the variant, reader or CLIP. condition: which persons, or which level.
    share: of contradicted persons, or the noise on CLIP's readings; None where neither is varied.
    values: one per training. deviation, interval: as in `ConflictPoint`.
    """

    setting: str
    test: str
    what: str
    condition: str
    share: float | None
    values: tuple[float, ...]
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    persons: int
