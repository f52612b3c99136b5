"""From a config to a model: what the keys change, what is loaded from where, and what cannot be built."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_models import ROOT, persons, tiny_config, tiny_model
from torch import nn

from cocoer.model.build import BlankWeights, build_model
from cocoer.model.clip_tower import build_clip
from cocoer.model.cross_level import NoCrossLevel, PaperCrossLevel
from cocoer.model.describe import blank_model
from cocoer.model.losses import loss_per_person
from cocoer.model.workspaces import LevelLoss, PaperWorkspace, ReleaseWorkspace, build_workspace
from cocoer.names import LEVELS

TOWER = str(ROOT / "configs" / "demo_clip.json")


def tower_file(folder: Path, drop: str = "", extra: bool = False) -> Path:
    torch.manual_seed(5)
    state = build_clip(TOWER, quick_gelu=False, with_text=True).state_dict()
    state = {name: value for name, value in state.items() if not drop or not name.startswith(drop)}
    if extra:
        state |= {"input_resolution": torch.tensor(80), "vocab_size": torch.tensor(3)}  # as in OpenAI's archives
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, folder / "clip.pt")
    return folder / "clip.pt"


def test_clip_weights_and_prompts_are_loaded(tmp_path: Path) -> None:
    path = tower_file(tmp_path, extra=True)
    model = build_model(tiny_config(f"model.vocabulary.weights={path}"))
    assert model.vocabulary is not None
    stored = torch.load(path, weights_only=True)["state_dict"]
    for name, value in model.vocabulary.tower.state_dict().items():
        assert torch.equal(value, stored[f"module.visual.{name}"])
    text = model.vocabulary.text_embeddings
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(26))
    other = build_model(tiny_config(f"model.vocabulary.weights={path}", "model.vocabulary.prompt=a {emotion} face"))
    assert other.vocabulary is not None
    assert not torch.allclose(other.vocabulary.text_embeddings, text)


def test_clip_weights_of_another_tower_are_named(tmp_path: Path) -> None:
    path = tower_file(tmp_path, drop="visual.layer4")
    with pytest.raises(
        ValueError, match=r"do not fit the tower: \d+ keys missing .*visual.layer4.*check model.vocabulary.tower"
    ):
        build_model(tiny_config(f"model.vocabulary.weights={path}"))


def test_frozen_and_trainable_parts() -> None:
    for trained in (True, False):
        model = build_model(tiny_config(f"model.vocabulary.train_alignment={str(trained).lower()}"), pretrained=False)
        still = {name for name, p in model.named_parameters() if not p.requires_grad}
        assert all(name.startswith("vocabulary.tower.") or name == "vocabulary.alignment.weight" for name in still)
        assert ("vocabulary.alignment.weight" in still) != trained


@pytest.mark.parametrize(
    ("setting", "part", "kind"),
    [
        ("model.attention.enabled=false", "cross_level", NoCrossLevel),
        ("model.attention.enabled=true", "cross_level", PaperCrossLevel),
        ("model.coordination.update=two", "workspace", PaperWorkspace),
    ],
)
def test_keys_choose_parts(setting: str, part: str, kind: type) -> None:
    assert isinstance(getattr(blank_model(tiny_config(setting)), part), kind)


def test_the_workspace_follows_mode_and_update() -> None:
    release = ["model.mode=release", "data.image_size=224", "model.coordination.update=release"]
    assert isinstance(build_workspace(tiny_config(*release)), ReleaseWorkspace)
    assert isinstance(build_workspace(tiny_config(*release, "model.competition.enabled=false")), PaperWorkspace)
    assert isinstance(build_workspace(tiny_config(*release[:2])), PaperWorkspace)


@pytest.mark.parametrize("dataset", ["emotic", "caers"])
def test_mean_bce_holds_levels_against_the_pseudo_label_class_by_class(dataset: str) -> None:
    """Loss and refined features of `model.competition.loss: mean_bce`, against torch's own loss and its gradient."""
    changes = ["model.coordination.step_rule=raw", "model.coordination.step=1.0", f"data.dataset={dataset}"]
    model = tiny_model(*changes, "model.competition.loss=mean_bce")
    with torch.no_grad():
        output = model(*persons(3))
    assert output.competition is not None and output.pseudo_label is not None
    for m, level in enumerate(LEVELS):
        head, seen = model.heads[level], output.level_logits[:, m]
        for i in range(3):
            z = output.level_features[i, m]
            weight = head.prediction.weight.detach().clone().requires_grad_()
            logits = F.linear(z, weight, head.prediction.bias)
            torch.testing.assert_close(logits, seen[i], rtol=1e-4, atol=1e-5)
            loss = F.binary_cross_entropy_with_logits(logits, output.pseudo_label[i])
            torch.testing.assert_close(output.competition.losses[i, m], loss, rtol=1e-5, atol=1e-6)
            (gradient,) = torch.autograd.grad(loss, weight)
            ours = torch.outer(output.competition.errors[i, m], z)
            torch.testing.assert_close(ours, gradient, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        plain = tiny_model(*changes)(*persons(3))
    assert torch.equal(plain.level_logits, output.level_logits) and not torch.equal(plain.refined, output.refined)


def test_only_mean_bce_can_be_small_for_a_level_that_is_wrong() -> None:
    """The supplement's Fig. 6 shows 0.28 to 0.36 for a wrong level: less than a cross-entropy can have for a wrong argmax."""
    logits, label = torch.tensor([[0.3, 0.0, -3.0, -3.0, -3.0, -3.0, -3.0]]), F.one_hot(torch.tensor([1]), 7).float()
    assert loss_per_person(logits, label, multi_label=False).item() > math.log(2)
    loss = LevelLoss(tiny_config("data.dataset=caers", "model.competition.loss=mean_bce"))
    mean_bce = loss_per_person(logits, label, loss.class_weights(label), multi_label=loss.binary)
    assert 0.24 < mean_bce.item() < 0.36


def test_without_vocabulary_three_levels_are_fused() -> None:
    model = tiny_model("model.vocabulary.enabled=false")
    with torch.inference_mode():
        output = model(*persons(2))
    assert output.fused_features.shape == (2, 3 * 16)
    assert output.vocabulary_logits is output.pseudo_label is output.competition is None
    assert torch.equal(output.refined, output.level_features)


def test_the_same_seed_gives_the_same_model() -> None:
    first, again, other = tiny_model(seed=1), tiny_model(seed=1), tiny_model(seed=2)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.fusion.layers[2].weight, other.fusion.layers[2].weight)


def test_blank_weights_leave_the_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with BlankWeights():
        layer = nn.Linear(4, 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert not layer.weight.any()


def test_folded_models_take_folded_weights() -> None:
    model = tiny_model()
    assert model.vocabulary is not None
    with torch.inference_mode():
        before = model(*persons(2)).logits
    model.vocabulary.fold()
    other = build_model(tiny_config(), pretrained=False, folded=True).eval()
    other.load_state_dict(model.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(other(*persons(2)).logits, before, rtol=1e-5, atol=1e-5)
