"""What a person of the demo world feels, and which label, cue and words follow from it. Rules only: nothing is drawn.

An *archetype* is one way to feel. It fixes the core labels; a visible attribute (strong or mild expression) adds one
more; a little chance adds the rest. Each of the three levels shows one archetype, and the label always belongs to the
archetype that at least two levels show.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cocoer.datasets import EMOTIC_CLASSES
from cocoer.names import LEVELS

PROMPT = "This photo shows {emotion} emotion."
"""The prompt of the paper, section 3.3."""


@dataclass(frozen=True)
class Archetype:
    """One way to feel: labels, VAD (1..10 at mild and strong), the CAER-S class, how often, and words for a caption."""

    group: str
    core: tuple[str, ...]
    strong: str
    mild: str
    chance: dict[str, float]
    vad: tuple[float, float, float]
    weight: float
    face_words: str
    body_words: str
    caers: str | None = None


ARCHETYPES: dict[str, Archetype] = {
    "joy": Archetype(
        "pleasant", ("Happiness", "Pleasure"), "Excitement", "Engagement", {"Anticipation": 0.12, "Affection": 0.08},
        (8.5, 6.5, 7.0), 1.3, "a smiling", "waving with open arms", "Happy",
    ),
    "affection": Archetype(
        "pleasant", ("Affection", "Sympathy"), "Happiness", "Peace", {"Yearning": 0.12, "Esteem": 0.1},
        (8.0, 4.5, 6.0), 1.0, "a tenderly smiling", "holding something dear", "Happy",
    ),
    "triumph": Archetype(
        "pleasant", ("Excitement", "Confidence"), "Happiness", "Anticipation", {"Engagement": 0.15, "Esteem": 0.08},
        (8.5, 8.5, 8.5), 1.1, "a cheering", "with raised fists", "Happy",
    ),
    "calm": Archetype(
        "pleasant", ("Peace",), "Pleasure", "Disconnection", {"Happiness": 0.12, "Sensitivity": 0.06},
        (7.0, 2.0, 6.5), 1.0, "a relaxed", "at rest", "Neutral",
    ),
    "pride": Archetype(
        "pleasant", ("Confidence", "Esteem"), "Engagement", "Anticipation", {"Pleasure": 0.12},
        (7.5, 5.5, 9.0), 1.1, "a confident", "standing tall", None,
    ),
    "focus": Archetype(
        "mixed", ("Engagement", "Anticipation"), "Confidence", "Yearning", {"Doubt/Confusion": 0.08},
        (5.8, 4.5, 6.5), 1.3, "a concentrated", "busy with a task", "Neutral",
    ),
    "grief": Archetype(
        "low", ("Sadness", "Sensitivity"), "Suffering", "Yearning", {"Disconnection": 0.12, "Sympathy": 0.08},
        (2.2, 3.5, 3.0), 1.0, "a crying", "slumped down", "Sad",
    ),
    "pain": Archetype(
        "low", ("Pain", "Suffering"), "Sadness", "Fatigue", {"Annoyance": 0.1, "Fear": 0.08},
        (2.0, 6.0, 2.8), 0.8, "a hurting", "bent and bandaged", None,
    ),
    "fear": Archetype(
        "tense", ("Fear", "Disquietment"), "Surprise", "Anticipation", {"Suffering": 0.1},
        (2.5, 8.0, 2.5), 0.9, "a frightened", "cowering", "Fear",
    ),
    "anger": Archetype(
        "tense", ("Anger", "Annoyance"), "Disapproval", "Disquietment", {"Pain": 0.05},
        (2.3, 8.0, 7.5), 0.9, "a furious", "with clenched fists", "Anger",
    ),
    "aversion": Archetype(
        "tense", ("Aversion", "Disapproval"), "Annoyance", "Doubt/Confusion", {"Disquietment": 0.1},
        (2.8, 5.5, 5.5), 0.8, "a disgusted", "pushing something away", "Disgust",
    ),
    "surprise": Archetype(
        "mixed", ("Surprise",), "Excitement", "Doubt/Confusion", {"Anticipation": 0.12, "Happiness": 0.08},
        (6.2, 8.0, 4.5), 0.9, "an amazed", "with hands thrown up", "Surprise",
    ),
    "doubt": Archetype(
        "mixed", ("Doubt/Confusion", "Embarrassment"), "Disquietment", "Sensitivity", {"Annoyance": 0.06},
        (4.2, 5.0, 3.2), 0.9, "a puzzled", "scratching the head", None,
    ),
    "fatigue": Archetype(
        "low", ("Fatigue", "Disconnection"), "Annoyance", "Peace", {"Sadness": 0.08},
        (4.0, 1.8, 4.0), 1.0, "a sleepy", "sagging and leaning", None,
    ),
}  # fmt: skip

ARCHETYPE_NAMES: tuple[str, ...] = tuple(ARCHETYPES)
AGES: tuple[str, ...] = ("Kid", "Teenager", "Adult")
GENDERS: tuple[str, ...] = ("Male", "Female")
_AGE_NOUNS = {
    ("Kid", "Male"): "boy", ("Kid", "Female"): "girl", ("Teenager", "Male"): "young man",
    ("Teenager", "Female"): "young woman", ("Adult", "Male"): "man", ("Adult", "Female"): "woman",
}  # fmt: skip


@dataclass(frozen=True)
class PersonPlan:
    """One person before it is drawn.

    archetypes: what head, body and context show, in `names.LEVELS` order. contradicted_level: the one level that shows
    another archetype than the label, or None. vad: (valence, arousal, dominance), whole numbers 1..10.
    """

    archetype: str
    archetypes: tuple[str, str, str]
    contradicted_level: str | None
    strong: bool
    labels: tuple[str, ...]
    vad: tuple[float, float, float]
    gender: str
    age: str


@dataclass(frozen=True)
class WorldOptions:
    """How the world behaves: share of contradicted persons (0..1), the level that contradicts (None: any), dataset."""

    contradicted_share: float = 0.35
    conflict_level: str | None = None
    dataset: str = "emotic"
    people_weights: tuple[float, ...] = field(default=(0.56, 0.32, 0.08, 0.04))

    def __post_init__(self) -> None:
        if not 0.0 <= self.contradicted_share <= 1.0:
            raise ValueError(f"contradicted_share: wanted a share from 0 to 1, got {self.contradicted_share}")
        if self.conflict_level is not None and self.conflict_level not in LEVELS:
            raise ValueError(f"conflict_level: wanted one of {', '.join(LEVELS)}, got {self.conflict_level!r}")
        if self.dataset not in ("emotic", "caers"):
            raise ValueError(f"dataset: wanted 'emotic' or 'caers', got {self.dataset!r}")


def archetype_pool(dataset: str) -> tuple[str, ...]:
    """The archetypes a dataset has a label for: all of them for EMOTIC, those with a class for CAER-S."""
    return tuple(n for n, a in ARCHETYPES.items() if dataset == "emotic" or a.caers is not None)


def clearly_different(name: str, dataset: str = "emotic") -> tuple[str, ...]:
    """Archetypes of another group whose core labels (and, for CAER-S, class) differ from those of `name`."""
    mine = ARCHETYPES[name]
    return tuple(
        other
        for other in archetype_pool(dataset)
        if ARCHETYPES[other].group != mine.group
        and not set(ARCHETYPES[other].core) & set(mine.core)
        and (dataset == "emotic" or ARCHETYPES[other].caers != mine.caers)
    )


def pick_archetype(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    """One of the names, each as often as its weight says."""
    weights = np.array([ARCHETYPES[n].weight for n in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def _labels(rng: np.random.Generator, archetype: Archetype, strong: bool) -> tuple[str, ...]:
    found = set(archetype.core)
    if rng.random() < 0.92:  # the visible attribute decides almost always: a perfect viewer stays below 100
        found.add(archetype.strong if strong else archetype.mild)
    found |= {label for label, chance in archetype.chance.items() if rng.random() < chance}
    return tuple(name for name in EMOTIC_CLASSES if name in found)


def _vad(rng: np.random.Generator, archetype: Archetype, strong: bool) -> tuple[float, float, float]:
    pull = 1.0 if strong else 0.7  # a mild expression lies nearer to the middle of the scale
    values = 5.5 + pull * (np.array(archetype.vad) - 5.5) + rng.normal(0.0, 0.5, 3)
    v, a, d = np.clip(np.rint(values), 1, 10)
    return float(v), float(a), float(d)


def plan_person(rng: np.random.Generator, scene: str, options: WorldOptions) -> PersonPlan:
    """One person in a scene that shows archetype `scene`.

    A contradicted person has exactly one level that shows a clearly different archetype. Where that level is the
    context, the scene stays and the person feels something else, so people of one image can share a scene.
    """
    archetype, shown, level = scene, [scene, scene, scene], None
    if rng.random() < options.contradicted_share:
        level = options.conflict_level or LEVELS[int(rng.integers(3))]
        others = clearly_different(scene, options.dataset)
        other = pick_archetype(rng, others)
        if level == "context":
            archetype, shown = other, [other, other, scene]
        else:
            shown[LEVELS.index(level)] = other
    strong = bool(rng.random() < 0.5)
    meaning = ARCHETYPES[archetype]
    labels = (meaning.caers,) if options.dataset == "caers" and meaning.caers else _labels(rng, meaning, strong)
    return PersonPlan(
        archetype=archetype,
        archetypes=(shown[0], shown[1], shown[2]),
        contradicted_level=level,
        strong=strong,
        labels=labels,
        vad=_vad(rng, meaning, strong),
        gender=GENDERS[int(rng.integers(2))],
        age=AGES[int(rng.choice(3, p=(0.2, 0.2, 0.6)))],
    )


def captions(plan: PersonPlan, scene_words: str) -> list[str]:
    """One prompt a label, then a free description of what is visible (the contradicting cue included)."""
    head, body, _ = plan.archetypes
    who = _AGE_NOUNS[plan.age, plan.gender]
    free = f"{ARCHETYPES[head].face_words} {who} {ARCHETYPES[body].body_words} {scene_words}"
    return [PROMPT.format(emotion=label) for label in plan.labels] + [free]
