"""One small model per data set, reading and seed; each measured on the same unseen persons. Synthetic scenes only.

Two questions: what becomes of a model that is trained with one or the other rule of update and penalty, and which L_hier
inside the competition excludes the contradicting level more often. Scenes are drawn once, the frozen CLIP tower's embeddings
are kept, and every measurement is a file of its own, so that the same command goes on where it was interrupted.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cocoer.config import Config, change_config, load_config
from cocoer.data.files import available_cores
from cocoer.data.loaders import PersonDataset, build_dataset, build_loader
from cocoer.evaluation.metrics import average_precision, mean_over_classes
from cocoer.inference.predictions import probabilities_of
from cocoer.model.checkpoint import load_weights
from cocoer.model.cocoer import CocoER
from cocoer.model.vocabulary import pseudo_label
from cocoer.model.workspaces import build_workspace
from cocoer.names import LEVELS
from cocoer.provenance import git_revision
from cocoer.runtime import Runtime
from cocoer.studies.conflict.rules import Features, features_of
from cocoer.studies.conflict.world import TRAINED_SHARE, Tree
from cocoer.studies.kept import check_settings, data_places, read_json, stage, write_json
from cocoer.training.embedding_cache import KnownEmbeddings, open_embeddings
from cocoer.training.recognition_stage import LAST_FILE, Sink
from cocoer.training.resume import Start
from cocoer.training.run import fit
from cocoer.training.vocabulary_stage import embed_images

DATASETS: tuple[str, ...] = ("emotic", "caers")
"""In EMOTIC's format, and in CAER-S's."""

LETTER = ("model.coordination.step_rule=raw", "model.coordination.step=1.0", "loss.penalty=mean")

READINGS: Mapping[str, tuple[str, ...]] = {
    "letter": LETTER,
    "letter_sum": (*LETTER, "loss.penalty=sum"),
    "relative": ("model.coordination.step_rule=relative", "model.coordination.step=0.1", "loss.penalty=mean"),
    "release": ("model.coordination.update=release", "model.coordination.step=0.1"),
    "none": (*LETTER, "model.coordination.update=none"),
    "letter_mean_bce": (*LETTER, "model.competition.loss=mean_bce"),
}
"""Name -> what a model is trained with, over the base config. The published code trains with step 0.1."""

IN_BOTH: tuple[str, ...] = ("letter", "letter_mean_bce")
"""The readings that are trained on CAER-S's format too; the others on EMOTIC's alone."""

LOSSES: tuple[str, ...] = ("training", "mean_bce")
"""`model.competition.loss` under which each model is asked, whatever it was trained with."""

_SEED = 7  # of the scenes
NOTE = "synthetic demonstration: trained on drawn scenes for the study of readings, not for photographs"


@dataclass(frozen=True)
class Sizes:
    """How large the study is. train, val, test: persons; image_size: side of a crop in pixels."""

    train: int = 2400
    val: int = 100
    test: int = 1500
    epochs: int = 4
    image_size: int = 48
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back."""
        return asdict(self) | {"seeds": list(self.seeds)}


QUICK = Sizes(train=64, val=20, test=60, epochs=1, image_size=48, seeds=(0, 1))
"""A size that shows that everything runs; its figures mean nothing."""


@dataclass(frozen=True)
class ReadingStudy:
    """Where it lies and how large it is. configs: folder with demo_emotic.yaml and demo_caers.yaml."""

    folder: Path
    sizes: Sizes
    configs: Path

    def tree(self, dataset: str) -> Tree:
        """The scenes in a data set's format."""
        counts = {"train": self.sizes.train, "val": self.sizes.val, "test": self.sizes.test}
        return Tree(self.folder / "scenes" / dataset, counts, _SEED, TRAINED_SHARE, dataset=dataset)

    def config(self, dataset: str, reading: str, seed: int) -> Config:
        """What is trained. Images are not augmented, so that the frozen tower looks at each once."""
        root, sizes = self.tree(dataset).root, self.sizes
        base = [
            *data_places(root, self.folder / "crops"),
            f"data.embeddings={self.folder / 'embeddings' / dataset}", f"data.image_size={sizes.image_size}",
            "data.augment.flip=0", "data.augment.jitter=0", f"optim.epochs={sizes.epochs}",
            f"optim.decay_every={max(1, sizes.epochs * 3 // 4)}", f"run.seed={seed}",
            f"run.dir={self.folder / 'models' / f'{dataset}-{reading}-{seed}'}",
        ]  # fmt: skip
        return load_config(self.configs / f"demo_{dataset}.yaml", [*base, *READINGS[reading]])


def run_study(study: ReadingStudy, runtime: Runtime) -> list[dict[str, Any]]:
    """Do what is not done yet; one result (plain values) per data set, reading and seed.

    Raises ConflictError for results of other settings or damaged ones, and what training raises.
    """
    folder = study.folder
    folder.mkdir(parents=True, exist_ok=True)
    readings = {name: list(changes) for name, changes in READINGS.items()}
    check_settings(folder / "settings.json", {"sizes": study.sizes.to_dict(), "readings": readings})
    with stage(folder, "scenes"):
        for dataset in DATASETS:
            study.tree(dataset).draw(available_cores())
    todo = [(d, r, s) for s in study.sizes.seeds for d in DATASETS for r in (READINGS if d == "emotic" else IN_BOTH)]
    results = []
    for dataset, reading, seed in tqdm(todo, desc="models", disable=None):
        file = folder / "results" / f"{dataset}-{reading}-{seed}.json"
        if not file.is_file():
            with stage(folder, "training and measuring"):
                write_json(file, measured(study, dataset, reading, seed, runtime))
        results.append(read_json(file))
    return results


def measured(study: ReadingStudy, dataset: str, reading: str, seed: int, runtime: Runtime) -> dict[str, Any]:
    """Train one model and ask it about the test persons; its weights (of the last epoch) are not kept."""
    config = study.config(dataset, reading, seed)
    folder = Path(config.run.dir)
    shutil.rmtree(folder, ignore_errors=True)
    done = fit(config, runtime, Start(None, None, ()), Sink(lambda record: None, note=NOTE))
    if done.stopped_by is not None:
        raise KeyboardInterrupt(done.stopped_by)  # a model that is half trained is no result
    model = load_weights(folder / LAST_FILE, runtime.device).model
    assert isinstance(model, CocoER), "the study's configs have no single level"
    people = build_dataset(config.data, "test")
    loader = build_loader(config.data, "test", 64, dataset=people)
    features = features_of(model, loader, runtime, embeddings_of(config, model, people, runtime))
    levels = [record.contradicted_level for record in people.records]
    result = {
        "dataset": dataset,
        "reading": reading,
        "seed": seed,
        "commit": git_revision(),
        "persons": len(people),
        "contradicted": sum(level is not None for level in levels),
        "levels": level_scores(features, config.multi_label),
        "asked": {loss: answers(model, config, features, levels, loss) for loss in LOSSES},
    }
    shutil.rmtree(folder)
    return result


def embeddings_of(config: Config, model: CocoER, people: PersonDataset, runtime: Runtime) -> KnownEmbeddings:
    """The frozen tower's embeddings of the test persons, computed by the first model."""
    branch, data = model.vocabulary, config.data
    assert branch is not None and data.embeddings is not None, "the study's configs have both"

    def compute() -> torch.Tensor:
        loader = build_loader(data, "test", 64, dataset=people)
        return embed_images(branch, loader, [r.key for r in people.records], runtime)[0]

    return open_embeddings(Path(data.embeddings), "test", branch, people, data.image_size, runtime, compute)


def score(probabilities: torch.Tensor, targets: torch.Tensor, multi_label: bool) -> float:
    """mAP, or accuracy for one label a person, 0..1; both tensors [n, k]."""
    if not multi_label:
        return float((probabilities.argmax(1) == targets.argmax(1)).float().mean())
    return mean_over_classes(average_precision(probabilities.numpy(), targets.numpy()))


def level_scores(features: Features, multi_label: bool) -> dict[str, float]:
    """Score of every level by itself, of their mean, of V-I, and of scores that are the class frequencies."""
    by_level = probabilities_of(features.levels.logits, multi_label)  # [n, L, k]
    targets = features.targets
    out = {level: score(by_level[:, i], targets, multi_label) for i, level in enumerate(LEVELS)}
    out["late_fusion"] = score(by_level.mean(1), targets, multi_label)
    out["vocabulary"] = score(probabilities_of(features.logits_t, multi_label), targets, multi_label)
    out["class_frequencies"] = float(targets.mean(0).mean() if multi_label else targets.mean(0).max())
    return out


@torch.inference_mode()
def answers(
    model: CocoER, config: Config, features: Features, contradicted: Sequence[str | None], loss: str
) -> dict[str, float]:
    """What competition and coordination make of the test persons under a `model.competition.loss`.

    score: mAP or accuracy of the fused answer, 0..1; on_contradicted: the same on the persons with a contradicting level;
    first_excluded: share of those whose contradicting level left first;
    hier_loss, hier_loss_first, hier_loss_last: mean L_hier of all levels, of the first excluded and of the survivor.
    """
    workspace = build_workspace(change_config(config, [f"model.competition.loss={loss}"]))
    label = pseudo_label(features.logits_t, config.multi_label, config.model.vocabulary.threshold)
    refined, competition = workspace(features.levels, model.head_parameters(), label)
    logits = model.fusion(torch.cat([refined.flatten(1), features.z_t], dim=1))
    probabilities = probabilities_of(logits, config.multi_label)
    wanted = np.array([-1 if level is None else LEVELS.index(level) for level in contradicted])
    marked = wanted >= 0
    first = competition.exclusion[:, 0].numpy()
    rows = torch.from_numpy(marked)
    shares = {f"first_{level}": float((first == i).mean()) for i, level in enumerate(LEVELS)}
    return {
        "score": score(probabilities, features.targets, config.multi_label),
        "on_contradicted": score(probabilities[rows], features.targets[rows], config.multi_label),
        "first_excluded": float((first == wanted)[marked].mean()),
        "hier_loss": float(competition.losses.mean()),
        "hier_loss_first": float(competition.losses.amax(1).mean()),
        "hier_loss_last": float(competition.losses.amin(1).mean()),
    } | shares
