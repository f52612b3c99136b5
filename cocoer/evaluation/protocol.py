"""`result.json`: one evaluation in one file, with everything needed to verify and repeat it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cocoer.config import Config
from cocoer.data.index import data_lines, is_synthetic
from cocoer.data.loaders import PersonDataset
from cocoer.files import file_sha256
from cocoer.model.checkpoint import Loaded
from cocoer.provenance import git_revision, library_versions, says_synthetic

FORMAT = 1

DEFINITIONS = {
    "mAP": "mean over the classes with a positive person of the non-interpolated average precision (as scikit-learn's)",
    "accuracy": "share of the persons whose most probable class is the true one",
}

_PLACES = ("root", "index", "cache", "embeddings", "workers", "allow_outside")


def result_of(
    numbers: Mapping[str, Any], loaded: Loaded, people: PersonDataset, name: str, command: str, resamples: int
) -> dict[str, Any]:
    """The content of `result.json`, plain values: what was measured (`numbers`), of what, on what, how, by which code.

    people: the evaluated split. name: the row that this result is of. resamples: bootstrap draws; their seed is 0.
    The hash of the data is of the split's index lines and, unless a crop cache takes their place, its images' sizes in bytes.
    """
    config, records = loaded.config, people.records
    found = hashlib.sha256()
    for line in _lines(people):
        found.update(line)
    dataset = config.dataset
    return {
        "format": FORMAT,
        "name": name,
        "synthetic": any("synthetic" in record.extra for record in records)
        or is_synthetic(config.data.index, config.data.root),
        "data": {
            "dataset": dataset.name,
            "title": dataset.title,
            "labels": dataset.labels,
            "classes": list(config.classes),
            "split": numbers["split"],
            "persons": len(records),
            "images": len({record.image for record in records}),
            "sha256": found.hexdigest(),
        },
        "model": {
            "sha256": file_sha256(loaded.path) if loaded.path.is_file() else None,
            "settings": settings_id(config),
            "mode": config.model.mode,
            "seed": config.run.seed,
            "selected_on": numbers["weights"]["selected_on"],
            "trained_on_synthetic": says_synthetic(loaded.metadata),
        },
        "metric": config.metric,
        "definition": DEFINITIONS[config.metric],
        "interval": {"level": 0.95, "kind": "bootstrap", "resamples": resamples, "seed": 0},
        "command": command,
        "versions": library_versions(),
        "revision": git_revision(),
        "numbers": dict(numbers),
    }


def _lines(people: PersonDataset) -> Any:
    if people.cache is None:
        return data_lines(people.records, people.root, people.allow_outside)
    return (record.to_line().encode() for record in people.records)


def settings_id(config: Config) -> str:
    """A hash of everything that a training's outcome depends on but its seed and where files lie: same settings, same hash."""
    tree = asdict(config)
    data = {key: value for key, value in tree["data"].items() if key not in _PLACES}
    told = {"data": data} | {name: tree[name] for name in ("model", "loss", "optim", "vocabulary_stage")}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]
