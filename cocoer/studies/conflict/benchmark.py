"""The conflict benchmark: what competition and coordination do as more persons are contradicted by one of their levels.

Scenes are drawn once, one recognition model is trained per seed, and each is measured under every rule, pseudo label, share
and contradicting level. What is done is kept and not done again: scenes by their sidecar, trainings by their last epoch,
measurements by a hash of weights, scenes and settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cocoer.config import Config, config_from_dict, config_to_dict
from cocoer.data.batch import PersonRecord
from cocoer.data.files import available_cores
from cocoer.data.index import read_index
from cocoer.data.loaders import PersonDataset, build_loader
from cocoer.evaluation.metrics import average_precision, mean_over_classes
from cocoer.files import file_sha256
from cocoer.ideas import loaded_plugins
from cocoer.model.checkpoint import load_weights
from cocoer.model.cocoer import FusionHead, three_levels
from cocoer.provenance import git_revision
from cocoer.runtime import Runtime
from cocoer.studies.conflict.rules import LABELS, LATE, VOTES, Features, Rules, features_of, updates
from cocoer.studies.conflict.world import CONDITIONS, POOLS, SHARES, Mixing, Scenes, Sizes, plan_scenes, read_pools
from cocoer.studies.kept import check_settings, data_places, read_json, stage, write_json
from cocoer.training.launch import TrainingRun, seeds_of, train_all

_FORMAT = 2  # of a stored measurement; a change of what is measured raises it
NOTE = "synthetic demonstration: trained on drawn scenes for the conflict benchmark, not for photographs"

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Benchmark:
    """Where it lies and how large it is. config: of the recognition models. overrides: over it, before the benchmark's own."""

    folder: Path
    sizes: Sizes
    config: Path
    overrides: tuple[str, ...] = ()

    @property
    def scenes(self) -> Scenes:
        """The trees, drawn or not."""
        return plan_scenes(self.folder / "scenes", self.sizes)

    @property
    def runs(self) -> list[TrainingRun]:
        """The trainings, one per seed."""
        root, sizes = self.scenes.train.root, self.sizes
        places = data_places(root, self.folder / "crops")
        length = [f"optim.epochs={sizes.epochs}", f"optim.decay_every={max(1, sizes.epochs * 2 // 3)}"]
        run = TrainingRun(self.config, (*self.overrides, *places, *length), NOTE)
        return seeds_of(run, sizes.seeds, self.folder / "models")


def run_benchmark(
    benchmark: Benchmark, runtime: Runtime, device: str = "auto", jobs: int | None = None
) -> dict[str, Any]:
    """Do what is not done yet; everything that was measured, as plain values: facts and the rows of every seed.

    jobs: trainings at a time; default: one per core, on a GPU all of them.
    Raises ConflictError for results of other settings or damaged ones, TrainingError for a training that fails.
    """
    folder = benchmark.folder
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(benchmark)
    check_settings(folder / "settings.json", settings, updated)
    with stage(folder, "scenes"):
        trees = (benchmark.scenes.train, benchmark.scenes.refit, *benchmark.scenes.pools.values())
        for tree in trees:
            tree.draw(available_cores())
    pools = read_pools(benchmark.scenes)
    at_once = jobs or (len(benchmark.sizes.seeds) if runtime.device.type == "cuda" else available_cores())
    with stage(folder, "training"):
        weights = train_all(benchmark.runs, device, min(at_once, len(benchmark.sizes.seeds)))
    seeds = []
    with stage(folder, "measuring"):
        both = zip(benchmark.sizes.seeds, weights, strict=True)
        for seed, file in tqdm(both, desc="models measured", total=len(weights), disable=None):
            seeds.append(measured(benchmark, seed, file, pools, runtime))
    return {
        "synthetic": True,
        "settings": settings,
        "seconds": read_json(folder / "seconds.json"),
        "cores": available_cores(),
        "device": str(runtime.device.type),
        "commit": ", ".join(dict.fromkeys(result["commit"] for result in seeds)),
        "threshold": benchmark.runs[0].config.model.vocabulary.threshold,
        "step": benchmark.runs[0].config.model.coordination.step,
        "seeds": seeds,
    }


def settings_of(benchmark: Benchmark) -> dict[str, Any]:
    """What all results in one folder must have in common: sizes, config, and the files that the models start from."""
    config = benchmark.runs[0].config
    files = {}
    for name in (config.model.backbone.weights, config.model.vocabulary.weights, config.model.vocabulary.tower):
        if name is not None and Path(name).is_file():
            files[name] = file_sha256(Path(name))
    return {"sizes": benchmark.sizes.to_dict(), "config": _what_matters(config), "files": files}


def _what_matters(config: Config) -> dict[str, Any]:
    """The config without what changes no figure."""
    tree = config_to_dict(config)
    del tree["run"], tree["inference"]
    return tree


def updated(before: dict[str, Any]) -> dict[str, Any]:
    """Stored settings with today's config keys: one that was added since has its default in what was begun before."""
    return before | {"config": _what_matters(config_from_dict(before.get("config", {}), "config in settings.json"))}


def measured(
    benchmark: Benchmark, seed: int, weights: Path, pools: Mapping[str, Sequence[PersonRecord]], runtime: Runtime
) -> dict[str, Any]:
    """One model's rows, read from `seed-N.json` where that holds just these, else measured and stored."""
    file = benchmark.folder / f"seed-{seed}.json"
    found = hashlib.sha256(json.dumps([_FORMAT, SHARES, updates(), LATE, VOTES, LABELS, file_sha256(weights)]).encode())
    for tree in (benchmark.scenes.refit, *benchmark.scenes.pools.values()):
        found.update((tree.root / "index" / "test.jsonl").read_bytes())
    for digest in sorted(loaded_plugins().values()):
        found.update(digest.encode())
    identity = found.hexdigest()
    if file.is_file() and (stored := read_json(file)).get("identity") == identity:
        return stored
    loaded = load_weights(weights, runtime.device)
    model = three_levels(loaded.model)

    def seen(records: Sequence[PersonRecord], root: Path) -> Features:
        people = PersonDataset(records, root, loaded.config.classes, loaded.config.data.image_size)
        loader = build_loader(loaded.config.data, "test", 64, dataset=people)
        return features_of(model, loader, runtime)

    by_pool = {name: seen(pools[name], benchmark.scenes.pools[name].root) for name in POOLS}
    refit = benchmark.scenes.refit.root
    extra = seen(read_index(refit / "index", "test", loaded.config.classes), refit)
    rows = measure_rules(Rules(model, loaded.config), by_pool, extra, seed)
    metrics = loaded.metadata["metrics"]
    result = {
        "identity": identity,
        "seed": seed,
        "commit": git_revision(),
        "weights_sha256": file_sha256(weights),
        "selected_on": metrics["selected_on"],
        "epoch": metrics["epoch"],
        "val_mAP": metrics["mAP"],
        "rows": rows,
    }
    write_json(file, result)
    return result


def measure_rules(rules: Rules, pools: Mapping[str, Features], refit: Features, seed: int) -> Rows:
    """Every rule on every mixture of the pools (`POOLS` -> features of the same persons), as plain rows; values 0..1."""
    targets = np.stack([pools[name].targets.numpy() for name in POOLS])  # [4, n, k]
    mixing = Mixing.of(targets.shape[1])
    rows: Rows = []
    anew: dict[tuple[str, str], FusionHead] = {}
    for rule, label in _combinations():
        scores = np.stack([rules.scores(pools[name], rule, label) for name in POOLS])
        rows += _score_rows(scores, targets, mixing, {"fusion": "trained", "rule": rule, "label": label})
        if rule in updates():
            anew[rule, label] = rules.refitted(refit, rule, label, seed)
        if rule not in LATE:
            fusion = anew[rule if rule in updates() else "one", label]
            scores = np.stack([rules.scores(pools[name], rule, label, fusion) for name in POOLS])
            rows += _score_rows(scores, targets, mixing, {"fusion": "refitted", "rule": rule, "label": label})
    for name in LABELS:
        first = np.stack([rules.fused_features(pools[pool], "none", name)[1][:, 0] for pool in POOLS])  # [4, n]
        rows += _exclusion_rows(first, mixing, name)
    return rows


def _combinations() -> list[tuple[str, str]]:
    """(rule, label); the label is empty where none is read."""
    alone = [("none", ""), ("late_fusion", "")]
    return alone + [(r, name) for name in LABELS for r in (*updates()[1:], "late_fusion_two", *VOTES)]


def _mixtures() -> list[tuple[str, float]]:
    """(condition, share); at share 0 all conditions are one."""
    return [("any", 0.0), *((condition, share) for condition in CONDITIONS for share in SHARES if share)]


def _score_rows(
    scores: NDArray[np.float32], targets: NDArray[np.float32], mixing: Mixing, what: Mapping[str, str]
) -> Rows:
    """mAP of scores [4, n, k] at every mixture."""
    everyone = np.arange(targets.shape[1])
    out: Rows = []
    for condition, share in _mixtures():
        pool = mixing.pool(condition, share)
        value = mean_over_classes(average_precision(scores[pool, everyone], targets[pool, everyone]))
        out.append(
            {"measure": "score", **what, "condition": condition, "share": share, "value": value, "persons": len(pool)}
        )
    return out


def _exclusion_rows(first: NDArray[np.int64], mixing: Mixing, label: str) -> Rows:
    """Share of the contradicted persons whose contradicting level left first; first: level index [4, n]."""
    everyone = np.arange(first.shape[1])
    out: Rows = []
    for condition, share in _mixtures():
        pool = mixing.pool(condition, share)
        marked = pool > 0
        if marked.any():
            hits = first[pool, everyone][marked] == pool[marked] - 1
            out.append(
                {"measure": "first_excluded", "fusion": "", "rule": "", "label": label, "condition": condition, "share": share,
                 "value": float(hits.mean()), "persons": int(marked.sum())}
            )  # fmt: skip
    return out
