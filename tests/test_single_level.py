"""The one-level baseline sees one level, trains and is stored like any model; the fused pseudo label is what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import ROOT, persons, tiny_config, tiny_model
from training_world import make_world, read, train

from cocoer.config import load_config
from cocoer.errors import ConfigError
from cocoer.inference.recognizer import Recognizer
from cocoer.model.build import build_cocoer, build_model
from cocoer.model.checkpoint import load_weights, read_metadata
from cocoer.model.cocoer import three_levels
from cocoer.model.objective import total_loss
from cocoer.model.single_level import SingleLevel
from cocoer.names import LEVELS

ALONE = ("model.vocabulary.enabled=false", "model.attention.enabled=false")


@pytest.mark.parametrize("level", LEVELS)
def test_a_single_level_looks_at_its_own_crop_alone(level: str) -> None:
    model = tiny_model(f"model.single_level={level}", *ALONE)
    assert isinstance(model, SingleLevel)
    inputs, others = persons(4), persons(4, seed=1)
    own = LEVELS.index(level)
    with torch.inference_mode():
        answer = model(*inputs)
        swapped = [mine if i == own else other for i, (mine, other) in enumerate(zip(inputs, others, strict=True))]
        torch.testing.assert_close(model(*swapped).logits, answer.logits)
        swapped[own] = others[own]
        assert not torch.allclose(model(*swapped).logits, answer.logits)
    for m in range(3):
        torch.testing.assert_close(answer.level_logits[:, m], answer.logits)
    assert answer.competition is None and answer.vocabulary_logits is None
    full = tiny_model()
    assert sum(p.numel() for p in model.parameters()) < 0.4 * sum(p.numel() for p in full.parameters())


def test_the_loss_reaches_every_weight_of_the_level() -> None:
    config = tiny_config("model.single_level=body", *ALONE)
    model = build_model(config, pretrained=False)
    targets = torch.zeros(4, 26)
    targets[:, :3] = 1
    total_loss(model(*persons(4)), targets, config.loss, multi_label=True)[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_single_level_is_trained_stored_and_read_as_any_model(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    settings = ["model.single_level=head", *ALONE, "run.max_steps=2"]
    assert train(world, settings=settings) == 0
    file = tmp_path / "run/best.safetensors"
    loaded = load_weights(file)
    assert isinstance(loaded.model, SingleLevel) and loaded.model.level == "head"
    assert read_metadata(file)["metrics"]["selected_on"] == "val"
    recognizer = Recognizer.from_checkpoint(file)
    (person,) = recognizer(tmp_path / "root/test/000.png", persons=[{"body": [6, 2, 40, 38], "head": [14, 3, 28, 15]}])
    assert person.status == "ok" and person.competition is None
    assert person.probabilities["head"] == person.probabilities["pred"]


def test_what_does_not_fit_a_single_level_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.single_level: 'head' has no other level to attend to"):
        tiny_config("model.single_level=head")
    model = tiny_model("model.single_level=context", *ALONE)
    with pytest.raises(ValueError, match=r"wanted a checkpoint .* with three levels, got SingleLevel"):
        three_levels(model)
    with pytest.raises(ValueError, match="model.single_level: context builds one level; wanted a config of three"):
        build_cocoer(tiny_config("model.single_level=context", *ALONE))
    with pytest.raises(ValueError, match=r"head crops: wanted \[2, 3, 80, 80\]"):
        model(torch.zeros(1, 3, 80, 80), *persons(2)[1:])


@pytest.mark.parametrize("level", LEVELS)
def test_the_baselines_are_one_level_of_the_papers_model(level: str) -> None:
    config = load_config(ROOT / "configs/baselines" / f"{level}_only.yaml")
    base = load_config(ROOT / "configs/emotic.yaml")
    assert config.model.single_level == level and config.optim == base.optim and config.loss == base.loss
    assert config.data == base.data and config.run.dir == f"outputs/baselines/{level}_only"


def test_the_fused_pseudo_label_is_that_of_the_answer_without_update() -> None:
    paper, fused = tiny_model(), tiny_model("model.competition.pseudo_label=fused")
    still = tiny_model("model.coordination.update=none")
    fused.load_state_dict(paper.state_dict())
    still.load_state_dict(paper.state_dict())
    inputs = persons(8)
    with torch.inference_mode():
        theirs, ours, plain = paper(*inputs), fused(*inputs), still(*inputs)
    torch.testing.assert_close(theirs.pseudo_label, (theirs.vocabulary_logits.sigmoid() > 0.3).float())
    torch.testing.assert_close(ours.pseudo_label, (plain.logits.sigmoid() > 0.3).float())
    assert not torch.equal(theirs.pseudo_label, ours.pseudo_label)
    torch.testing.assert_close(theirs.level_logits, ours.level_logits)
    assert not torch.equal(theirs.competition.losses, ours.competition.losses)


def test_by_default_the_vocabulary_judges() -> None:
    assert tiny_config().model.competition.pseudo_label == "vocabulary"
    assert load_config(ROOT / "configs/baselines/fused_pseudo_label.yaml").model.competition.pseudo_label == "fused"


def test_no_gradient_flows_through_the_fused_pseudo_label(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    model = build_model(read(world, "model.competition.pseudo_label=fused"), pretrained=False)
    crops = [torch.randn(2, 3, 32, 32) for _ in range(3)]
    output = model(*crops, torch.tensor([[1.0, 1, 9, 9]] * 2), torch.tensor([[0.0, 0, 20, 30]] * 2))
    assert output.pseudo_label is not None and not output.pseudo_label.requires_grad
    output.logits.sum().backward()
    assert next(iter(model.fusion.parameters())).grad is not None
