"""The two-stream baselines see body and scene alone, learn everywhere but in CLIP, and are stored and read as any model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_models import ROOT, persons, shake_norms, tiny_config
from training_world import make_world, train

from cocoer.config import load_config
from cocoer.errors import ConfigError
from cocoer.inference.recognizer import Recognizer
from cocoer.model.build import build_cocoer, build_model
from cocoer.model.checkpoint import load_weights
from cocoer.model.objective import total_loss
from cocoer.model.two_stream import TwoStream

PLAIN = ("model.vocabulary.enabled=false", "model.attention.enabled=false")


def made(scene: str) -> TwoStream:
    torch.manual_seed(0)
    model = build_model(tiny_config(f"model.two_stream={scene}", *PLAIN), pretrained=False)
    assert isinstance(model, TwoStream)
    shake_norms(model)
    return model.eval()


@pytest.mark.parametrize("scene", ["backbone", "clip"])
def test_the_answer_is_that_of_body_and_scene(scene: str) -> None:
    model, inputs, others = made(scene), persons(4), persons(4, seed=1)
    with torch.inference_mode():
        answer = model(*inputs)
        for place, seen in ((0, False), (1, True), (2, True), (3, False), (4, False)):
            swapped = [*inputs[:place], others[place], *inputs[place + 1 :]]
            assert torch.allclose(model(*swapped).logits, answer.logits) != seen
        body = model.backbones["body"](inputs[1]).mean((-2, -1))
        context = (
            model.scene.embeddings(inputs[2])[:, 0]
            if model.scene
            else model.backbones["context"](inputs[2]).mean((-2, -1))
        )
        hidden = F.relu(torch.cat([body, context], -1) @ model.join.weight.T + model.join.bias)
        torch.testing.assert_close(answer.logits, hidden @ model.prediction.weight.T + model.prediction.bias)
        one = model(*(x[2:3] for x in inputs))
        torch.testing.assert_close(one.logits, answer.logits[2:3], atol=1e-5, rtol=1e-5)
        folded = made(scene)
        folded.fold()
        torch.testing.assert_close(folded(*inputs).logits, answer.logits, atol=1e-5, rtol=1e-4)
    assert answer.competition is None and answer.vocabulary_logits is None
    assert (model.scene is None) == (scene == "backbone") == ("context" in model.backbones)


@pytest.mark.parametrize("scene", ["backbone", "clip"])
def test_the_loss_reaches_every_weight_but_the_tower(scene: str) -> None:
    model = made(scene).train()
    targets = torch.zeros(4, 26)
    targets[:, :3] = 1
    total_loss(model(*persons(4)), targets, tiny_config().loss, multi_label=True)[0].backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert learned == {name for name, _ in model.named_parameters() if not name.startswith("scene.")}
    if model.scene is not None:
        assert not model.scene.tower.training  # its norms stay as they are


@pytest.mark.parametrize("scene", ["backbone", "clip"])
def test_it_is_trained_stored_and_read_as_any_model(tmp_path: Path, scene: str) -> None:
    world = make_world(tmp_path)
    assert train(world, settings=[f"model.two_stream={scene}", *PLAIN, "run.max_steps=2"]) == 0
    file = tmp_path / "run/best.safetensors"
    (tmp_path / "tower.json").unlink()  # the weights bring the tower's config along
    loaded = load_weights(file)
    assert isinstance(loaded.model, TwoStream) and loaded.config.model.two_stream == scene
    people = [{"body": [6, 2, 40, 38], "head": [14, 3, 28, 15]}]
    (person,) = Recognizer.from_checkpoint(file)(tmp_path / "root/test/000.png", persons=people)
    assert person.status == "ok" and person.competition is None


def test_what_does_not_fit_is_said_and_the_configs_are_two_streams() -> None:
    with pytest.raises(ConfigError, match=r"model.two_stream: 'clip' is body and scene and nothing else"):
        tiny_config("model.two_stream=clip")
    with pytest.raises(ValueError, match="model.two_stream: backbone builds body and scene"):
        build_cocoer(tiny_config("model.two_stream=backbone", *PLAIN))
    base = load_config(ROOT / "configs/emotic.yaml")
    for name, scene in (("two_stream", "backbone"), ("two_stream_clip", "clip")):
        config = load_config(ROOT / f"configs/baselines/{name}.yaml")
        assert config.model.two_stream == scene and config.model.backbone.name == "resnet18"
        assert (config.data, config.loss, config.optim) == (base.data, base.loss, base.optim)
    assert config.model.vocabulary.tower == "ViT-B-16" and base.model.two_stream is None
