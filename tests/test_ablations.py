"""Every ablation is one config away, differs from the paper's model in its subject alone, and runs at full size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ROOT

from cocoer.config import Config, ModelConfig, config_to_dict, load_config
from cocoer.model.describe import blank_model
from cocoer.weights.catalog import CATALOG

FILES = sorted(path for kind in ("ablations", "studies") for path in (ROOT / "configs" / kind).glob("*.yaml"))
BASE = load_config(ROOT / "configs" / "emotic.yaml")
CAERS = load_config(ROOT / "configs" / "caers.yaml")
SUBJECTS: dict[str, set[str]] = {
    "update": {"model.coordination.update"},
    "mapping": {"model.level_head.mapping"},
    "backbone": {"model.backbone.name"},
    "tower": {"model.vocabulary.tower"},
    "size": {
        "model.tokens.size",
        "model.attention.head_size",
        "model.attention.feed_forward",
        "model.level_head.feature_size",
    },
    "alpha": {"loss.alpha"},
    "betas": {f"loss.beta_{m}" for m in ("head", "body", "context", "vocabulary", "fused")},
    "losses": {f"loss.beta_{m}" for m in ("head", "body", "context", "vocabulary", "fused")} | {"loss.alpha"},
    "patch": {"model.tokens.patch"},
    "relative": {"model.coordination.step_rule", "model.coordination.step"},
    "penalty": {"loss.penalty"},
    "mean": {"model.competition.loss"},
    "without": {"model.attention.enabled", "model.vocabulary.enabled", "model.competition.enabled"},
}
"""What an ablation of each family may change."""

AS_IN_THE_PAPERS_MODEL = {
    "update_one", "mapping_linear", "caers_update_one", "caers_mapping_linear", "backbone_resnet50", "tower_rn50", "patch_2",
    "size_1024_256", "alpha_0.1", "betas_balanced", "losses_all",
}  # fmt: skip


def leaves(tree: dict[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{place}{key}.") if isinstance(value, dict) else {f"{place}{key}": value}
    return found


def changes(config: Config) -> set[str]:
    full = BASE if config.data.dataset == "emotic" else CAERS
    base, own = leaves(config_to_dict(full)), leaves(config_to_dict(config))
    return {key for key in own if own[key] != base[key]}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_an_ablation_changes_its_subject_and_writes_to_its_own_folder(path: Path) -> None:
    config = load_config(path)
    changed = changes(config) - {"run.dir"}
    assert changed <= SUBJECTS[path.stem.removeprefix("caers_").split("_")[0]]
    assert bool(changed) != (path.stem in AS_IN_THE_PAPERS_MODEL)
    assert config.run.dir == f"outputs/{path.parent.name}/{path.stem}"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert f"#   python train.py --config configs/{path.parent.name}/{path.name}" in lines
    assert f"base: ../{config.data.dataset}.yaml" in lines


def test_all_of_the_papers_ablations_are_there() -> None:
    found = {path.stem: load_config(path) for path in FILES}
    assert len({config.run.dir for config in found.values()}) == len(FILES)
    configs = list(found.values())
    assert {c.model.coordination.update for c in configs} == {"one", "two", "none"}
    assert {c.model.level_head.mapping for c in configs} == {"linear", "resnet50", "vit"}
    assert {c.model.backbone.name for c in configs} == {"vgg16", "densenet161", "resnet50", "resnet101", "resnet152"}
    assert {c.model.vocabulary.tower for c in configs} == {"RN50", "RN50x16", "RN50x64", "ViT-B-16", "ViT-B-32"}
    assert {c.model.tokens.patch for c in configs} == {2, 3, 4}
    assert {"without_attention", "without_vocabulary", "without_competition"} <= set(found)


def test_every_ablation_has_its_weights_in_the_catalog() -> None:
    places = {entry.place for entry in CATALOG}
    for path in FILES:
        model = load_config(path).model
        assert f"checkpoints/imagenet/{model.backbone.name}.pth" in places
        assert f"checkpoints/clip/{model.vocabulary.tower}.pt" in places


def architectures() -> list[Path]:
    """The first file of each architecture; losses and kinds of update leave it as it is."""
    first: dict[ModelConfig, Path] = {}
    for path in FILES:
        model = load_config(path).model
        first.setdefault(replace(model, coordination=BASE.model.coordination, competition=BASE.model.competition), path)
    return list(first.values())


@pytest.mark.parametrize("path", architectures(), ids=lambda p: p.stem)
def test_every_ablation_runs_at_full_size(path: Path) -> None:
    config = load_config(path)
    model = blank_model(config)
    crop, box = torch.empty(2, 3, 224, 224, device="meta"), torch.empty(2, 4, device="meta")
    with torch.no_grad():
        output = model(crop, crop, crop, box, box)
    sources = 3 + config.model.vocabulary.enabled
    assert output.logits.shape == (2, len(config.classes))
    assert output.fused_features.shape == (2, sources * config.model.level_head.feature_size)
    if model.vocabulary is not None:
        sizes = {"RN50": 1024, "RN50x16": 768, "RN50x64": 1024, "ViT-B-16": 512, "ViT-B-32": 512}
        assert model.vocabulary.alignment.weight.shape[0] == sizes[config.model.vocabulary.tower]
    tokens = {2: 16, 3: 9, 4: 4}[config.model.tokens.patch]
    assert model.tokens["head"].num_tokens == tokens
