"""The whole agreement study: scenes, trainings and figures; finished parts are kept and not repeated.

One file of figures per setting and seed, `short-N.json`, `long-N.json` or `caers-N.json`, with the scores of the headline's
persons beside it. A page is made of those that are there, however many; the same command goes on with the rest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cocoer.config import Config, load_config
from cocoer.files import file_sha256, write_file, write_text
from cocoer.model.clip_tower import CLIP_MEAN, CLIP_STD, text_embeddings
from cocoer.model.fold_batch_norms import fold_batch_norms
from cocoer.model.vocabulary import ClipReader
from cocoer.model.zero_shot import Tower, load_tower
from cocoer.provenance import git_revision
from cocoer.runtime import Runtime
from cocoer.studies.agreement.measuring import measure
from cocoer.studies.agreement.training import load_trained, save_trained, train
from cocoer.studies.agreement.worlds import Scenes, Sizes, contradicted, persons_of, plan_caers, plan_scenes
from cocoer.studies.kept import data_places, read_json, write_json

FORMAT = 1
DEFAULT_SEEDS = (0, 1, 2, 3, 4)
SETTINGS: tuple[str, ...] = ("short", "long", "caers")
"""Few and many EMOTIC-like persons, and few CAER-S-like ones."""
EPOCHS = {"short": 4, "long": 6, "caers": 4}


@dataclass(frozen=True)
class Study:
    """Where it lies, how large it is, and which trainings are wanted.

    config: of the trainings with EMOTIC's classes; demo_caers.yaml stands beside it. clips: further CLIPs by name, weights
    files; they read along in short trainings alone.
    """

    folder: Path
    sizes: Sizes
    config: Path
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    settings: tuple[str, ...] = SETTINGS
    clips: tuple[tuple[str, Path], ...] = ()

    def resolved(self, setting: str) -> Config:
        """The config of a training."""
        root, epochs = self.scenes(setting).train.root, EPOCHS[setting]
        places = data_places(root, self.folder / "crops")
        alone = ["model.coordination.update=none", "model.competition.enabled=false"]
        file = self.config.with_name("demo_caers.yaml") if setting == "caers" else self.config
        return load_config(file, [*places, *alone, f"optim.epochs={epochs}"])

    def scenes(self, setting: str) -> Scenes:
        """Where its persons are; nothing is drawn."""
        plan = plan_caers if setting == "caers" else plan_scenes
        return plan(self.folder / "scenes", self.sizes)


def readers(study: Study, config: Config) -> dict[str, ClipReader]:
    """The further CLIPs, reading against the config's prompts. Raises CheckpointError for a file that does not fit."""
    out = {}
    for name, file in study.clips:
        tower = Tower(config.model.vocabulary.tower, str(file))
        clip = load_tower(tower)
        text = text_embeddings(clip, tower.name, config.classes, config.model.vocabulary.prompt)
        out[name] = ClipReader(clip.visual, text, (CLIP_MEAN, CLIP_STD)).eval()
        fold_batch_norms(out[name].tower)
    return out


def run_study(study: Study, runtime: Runtime) -> list[dict[str, Any]]:
    """Do what is not done yet, short trainings first; the figures of everything that is done."""
    for setting in study.settings:
        scenes = study.scenes(setting)
        for tree in (scenes.train, scenes.fresh, *scenes.pools.values()):
            tree.draw(1)
        for seed in study.seeds:
            _one(study, setting, seed, runtime)
    return stored(study.folder)


def stored(folder: Path) -> list[dict[str, Any]]:
    """Figures of every training that was measured, short first. Raises ConflictError for a damaged file."""
    out = []
    for setting in SETTINGS:
        for file in sorted(folder.glob(f"{setting}-*.json"), key=lambda path: int(path.stem.rpartition("-")[2])):
            out.append(read_json(file))
    return out


def _one(study: Study, setting: str, seed: int, runtime: Runtime) -> None:
    """One training and its figures, where they are not there."""
    file = study.folder / f"{setting}-{seed}.json"
    if file.is_file():
        return
    config = study.resolved(setting)
    clips = readers(study, config) if setting == "short" else {}
    weights = study.folder / "models" / f"{setting}-{seed}.safetensors"
    scenes = study.scenes(setting)
    start = time.process_time()
    if weights.is_file():
        made = load_trained(weights, config, clips)
    else:
        known: Tensor = torch.from_numpy(contradicted(persons_of(scenes.train, "train")))
        persons = study.sizes.train if setting == "long" else study.sizes.short
        made = train(config, seed, persons, clips, known, runtime)
        save_trained(weights, made, {"setting": setting, "seed": seed})
    trained = time.process_time() - start
    made.model.fold()
    rows, kept = measure(made, scenes, study.folder / "crops")
    arrays = dict[str, Any](kept)
    write_file(file.with_suffix(".npz"), lambda unfinished: np.savez_compressed(unfinished, **arrays))
    facts = {
        "format": FORMAT,
        "setting": setting,
        "seed": seed,
        "sizes": asdict(study.sizes),
        "epochs": config.optim.epochs,
        "clips": {name: file_sha256(path) for name, path in study.clips} if clips else {},
        "gate": {"slope": made.settings.gate.slope.item(), "threshold": made.settings.gate.threshold.item()},
        "weights_sha256": file_sha256(weights),
        "commit": git_revision(),
        "seconds": {"training": trained, "all": time.process_time() - start},
        "rows": rows,
    }
    write_json(file, facts)


def publish_figures(results: Sequence[dict[str, Any]], shipped: Mapping[str, Any], file: Path) -> None:
    """Everything that a page is made of in one file, so that a later run can go on with it (`adopt_figures`)."""
    write_text(file, json.dumps({"trainings": list(results), "shipped": dict(shipped)}, separators=(",", ":")) + "\n")


def adopt_figures(file: Path, folder: Path, sizes: Sizes) -> None:
    """Put published figures of trainings of these sizes into a study's folder, where it has none of its own."""
    published = read_json(file)
    for result in published["trainings"]:
        own = folder / f"{result['setting']}-{result['seed']}.json"
        if result["sizes"] == asdict(sizes) and not own.is_file():
            write_json(own, result)
    for name, evaluation in published["shipped"].items():
        own = folder / "shipped" / name / "evaluation.json"
        if not own.is_file():
            write_json(own, evaluation)


def shipped_evaluations(folder: Path) -> dict[str, Any]:
    """What `cocoer evaluate` wrote of the shipped weights into `folder/shipped/NAME`, by name."""
    files = sorted((folder / "shipped").glob("*/evaluation.json"))
    return {file.parent.name: read_json(file) for file in files}


def facts_of(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page says of the trainings beside their figures: which there are, what they took, what is missing."""
    texts, missing = [], []
    for setting in SETTINGS:
        found = [result for result in results if result["setting"] == setting]
        if found:
            seeds = ", ".join(str(result["seed"]) for result in found)
            minutes = sum(result["seconds"]["all"] for result in found) / 60 / len(found)
            gates = "; ".join(f"{r['gate']['slope']:.2f}, {r['gate']['threshold']:.2f}" for r in found)
            texts.append(
                f"{setting}: seeds {seeds}, {minutes:.1f} CPU minutes each; slope and threshold learned: {gates}"
            )
        if len(found) < len(DEFAULT_SEEDS):
            missing.append(f"{len(DEFAULT_SEEDS) - len(found)} of {len(DEFAULT_SEEDS)} {setting} trainings")
    if not any(result["clips"] for result in results):
        missing.append("CLIPs that are weaker by training instead of noise")
    commits = ", ".join(dict.fromkeys(result["commit"] for result in results))
    return {"trainings": ". ".join(texts) + f". Commit {commits}", "missing": "".join(f"{text}; " for text in missing)}
