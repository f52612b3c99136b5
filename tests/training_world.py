"""A complete training run of a second: a few random images, their index, a tiny config, and the doors to the scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml
from PIL import Image
from programs import load_program

from cocoer.config import Config, load_config
from cocoer.data.batch import PersonRecord
from cocoer.data.index import write_index
from cocoer.datasets import find_dataset
from cocoer.names import LEVELS

ROOT = Path(__file__).resolve().parent.parent

TOWER = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}

SETTINGS: dict[str, Any] = {
    "model": {
        "backbone": {"name": "small", "weights": None, "widths": [4, 8]},
        "tokens": {"patch": 2, "size": 8},
        "attention": {"blocks": 1, "heads": 2, "head_size": 4, "feed_forward": 16},
        "level_head": {"feature_size": 8},
    },
    "optim": {"lr": 1e-3, "batch_size": 4, "epochs": 2, "decay_every": 1, "decay_factor": 0.5},
    "vocabulary_stage": {"epochs": 1, "lr": 1e-3, "batch_size": 8},
}


def make_people(folder: Path, dataset: str, counts: dict[str, int], seed: int = 0) -> list[PersonRecord]:
    """Random 48x40 images, one person each; every third contradicts in one level (as a synthetic scene would say)."""
    rng = np.random.default_rng(seed)
    classes = find_dataset(dataset).class_names
    records = []
    for split, count in counts.items():
        for i in range(count):
            name = f"{split}/{i:03d}.png"
            (folder / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / name)
            chosen = [classes[i % len(classes)]]
            if dataset == "emotic":
                chosen = sorted({*chosen, classes[int(rng.integers(26))], "Engagement"})
            level = LEVELS[i // 3 % 3] if i % 3 == 0 else None
            record = PersonRecord(
                name, 48, 40, 0, (6.0, 2.0, 40.0, 38.0), (14.0, 3.0, 28.0, 15.0), "annotated", tuple(chosen), None, split,
                {"synthetic": {"contradicted_level": level}},
            )  # fmt: skip
            records.append(record)
    return records


def make_world(folder: Path, dataset: str = "emotic", train: int = 18, other: int = 7, **sections: Any) -> Path:
    """Images, index and config below `folder`; returns the config's path. sections: laid over the tiny settings."""
    records = make_people(folder / "root", dataset, {"train": train, "val": other, "test": other})
    write_index(folder / "index", records, {})
    (folder / "tower.json").write_text(json.dumps(TOWER))
    tree = json.loads(json.dumps(SETTINGS))
    tree["run"] = {"dir": str(folder / "run"), "seed": 3}
    tree["data"] = {
        "dataset": dataset, "root": str(folder / "root"), "index": str(folder / "index"), "image_size": 32, "workers": 0,
    }  # fmt: skip
    tree["model"]["vocabulary"] = {"tower": str(folder / "tower.json"), "weights": None}
    for section, values in sections.items():
        tree[section] = tree[section] | values
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def read(path: Path, *overrides: str) -> Config:
    """The config of a world, with overrides."""
    return load_config(path, overrides)


def train(config: Path, *arguments: str, settings: Sequence[str] = (), drawn: bool = False) -> int:
    """`train.py` in this process, on the CPU; its exit code. Images and report, half of a tiny run's time, only if `drawn`."""
    changes = ["--set", *settings] if settings else []
    module = load_program("train")
    with ExitStack() as stack:
        if not drawn:
            stack.enter_context(mock.patch.object(module.RunRecord, "show_people"))
            stack.enter_context(mock.patch.object(module, "write_run_report"))
        code: int = module.main(["--config", str(config), "--device", "cpu", *arguments, *changes])
    return code
