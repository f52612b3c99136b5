"""Starting from other weights: what fits is taken, class layers begin anew, and backbones may be frozen or learn slowly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_world import make_world, read, train

from cocoer.config import Config, change_config, config_from_dict
from cocoer.errors import CheckpointError, ConfigError
from cocoer.model.backbone import build_backbone
from cocoer.model.build import build_model, load_torchvision
from cocoer.model.checkpoint import load_weights, read_metadata, save_weights
from cocoer.model.fold_batch_norms import fold_batch_norms
from cocoer.training.initial import CLASS_LAYERS, start_from, transfer

MINE = ["data.dataset=custom", "data.classes=[calm, storm, drift]", "data.labels=single"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), "caers", train=8, other=4)


def model_of(config: Config, seed: int) -> Any:
    torch.manual_seed(seed)
    return build_model(config)


def saved(config: Config, path: Path, seed: int = 1) -> Any:
    model = model_of(config, seed)
    save_weights(path, model, config, metrics={}, thresholds={})
    return model


# ---- what is taken ---------------------------------------------------------------------------------------------------


def test_the_list_of_class_layers_is_what_depends_on_the_number_of_classes(world: Path) -> None:
    shapes = []
    for names in ("[a, b, c]", "[a, b, c, d]"):
        config = read(world, "data.dataset=custom", f"data.classes={names}", "data.labels=multi")
        shapes.append({name: tensor.shape for name, tensor in model_of(config, 0).state_dict().items()})
    differ = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    listed = {name for name in shapes[0] if name.startswith(CLASS_LAYERS)}
    assert differ <= listed and listed - differ <= {"vocabulary.narrow.bias"}, "a bias of FFN1 goes with its weight"


def test_the_same_classes_take_everything(world: Path, tmp_path: Path) -> None:
    config = read(world)
    other = saved(config, tmp_path / "w.safetensors")
    model = model_of(config, 2)
    lines = start_from(model, config.classes, str(tmp_path / "w.safetensors"))
    assert len(lines) == 1 and "tensors taken" in lines[0]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize(
    "classes", ["[calm, storm, drift]", "[a, b, c, d, e, f, g]"], ids=["other number", "same number"]
)
def test_other_classes_begin_anew_layer_by_layer(world: Path, tmp_path: Path, classes: str) -> None:
    config = read(world)
    other = saved(config, tmp_path / "w.safetensors")
    mine = change_config(config, [MINE[0], f"data.classes={classes}", MINE[2]])
    model, fresh = model_of(mine, 2), model_of(mine, 2)
    lines = start_from(model, mine.classes, str(tmp_path / "w.safetensors"))
    said = "\n".join(lines)
    for name, tensor in model.state_dict().items():
        if name.startswith(CLASS_LAYERS):
            assert torch.equal(tensor, fresh.state_dict()[name]), f"{name} is the new model's own"
            layer = name.rpartition(".")[0] if name.endswith((".weight", ".bias")) else name
            assert f"{layer}: not loaded (other classes)" in said
        else:
            assert torch.equal(tensor, other.state_dict()[name]), f"{name} is the checkpoint's"
    assert len(lines) == 1 + len(CLASS_LAYERS)


def test_another_tower_or_size_is_said(world: Path, tmp_path: Path) -> None:
    config = read(world)
    saved(config, tmp_path / "w.safetensors")
    wide = change_config(config, ["model.level_head.feature_size=12"])
    said = "\n".join(start_from(model_of(wide, 2), wide.classes, str(tmp_path / "w.safetensors")))
    assert "heads.body.mapping: not loaded (shape [8, " in said
    tower = Path(config.model.vocabulary.tower).read_text().replace('"width": 16', '"width": 24')
    (tmp_path / "tower.json").write_text(tower)
    other = change_config(config, [f"model.vocabulary.tower={tmp_path / 'tower.json'}"])
    model, fresh = model_of(other, 2), model_of(other, 2)
    said = "\n".join(start_from(model, other.classes, str(tmp_path / "w.safetensors")))
    assert "vocabulary.alignment: not loaded (another CLIP tower)" in said
    assert torch.equal(model.vocabulary.alignment.weight, fresh.vocabulary.alignment.weight)
    without = change_config(config, ["model.vocabulary.enabled=false"])
    said = "\n".join(start_from(model_of(without, 2), without.classes, str(tmp_path / "w.safetensors")))
    assert "have no place in this model: " in said and "vocabulary" in said


def test_folded_weights_give_the_same_answers_unfolded(world: Path, tmp_path: Path) -> None:
    config = read(world)
    other = model_of(config, 1).eval()
    embedding = torch.nn.functional.normalize(torch.randn(5, 16), dim=-1)
    wanted = other.vocabulary.from_embedding(embedding).logits
    other.vocabulary.fold()
    save_weights(tmp_path / "w.safetensors", other, config, metrics={}, thresholds={})
    model = model_of(config, 2).eval()
    assert transfer(model, load_weights(tmp_path / "w.safetensors"), config.classes).anew == {}
    torch.testing.assert_close(model.vocabulary.from_embedding(embedding).logits, wanted, rtol=1e-5, atol=1e-6)


def test_nothing_that_fits_is_an_error(world: Path, tmp_path: Path) -> None:
    config = read(world)
    path = tmp_path / "w.safetensors"
    saved(config, path)
    model = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match="not one tensor fits"):
        start_from(model, config.classes, str(path))
    with pytest.raises(CheckpointError, match="no such file"):
        start_from(model, config.classes, str(tmp_path / "none.safetensors"))


# ---- training from it ------------------------------------------------------------------------------------------------


def test_a_run_starts_from_weights_of_other_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make_world(tmp_path / "a", "emotic", train=8, other=4)
    assert train(first, settings=["run.max_steps=1"]) == 0
    second = make_world(tmp_path / "b", "caers", train=8, other=4)
    initial = f"model.initial={tmp_path / 'a/run/best.safetensors'}"
    same = [f"model.vocabulary.tower={tmp_path / 'a/tower.json'}", "optim.backbone_lr=0", "run.max_steps=2"]
    capsys.readouterr()
    assert train(second, settings=[initial, *same]) == 0
    said = capsys.readouterr().err
    assert "fusion.layers.8: not loaded (other classes)" in said and "tensors taken from" in said
    before, after = (load_weights(tmp_path / f"{name}/run/best.safetensors") for name in ("a", "b"))
    assert (len(before.config.classes), len(after.config.classes)) == (26, 7)
    for name, tensor in before.model.state_dict().items():
        if name.startswith("backbones."):
            assert torch.equal(tensor, after.model.state_dict()[name]), f"{name} was frozen, statistics too"
    moved = "heads.body.mapping.weight"
    assert not torch.equal(before.model.state_dict()[moved], after.model.state_dict()[moved])


def test_slow_backbones_move_less(tmp_path: Path) -> None:
    config = make_world(tmp_path, train=8, other=4, optim={"name": "adam", "weight_decay": 0.0})
    start = tmp_path / "start.safetensors"
    saved(read(config), start)
    moved = {}
    for name, extra in (("all", []), ("slow", ["optim.backbone_lr=1e-5"])):
        run = [f"model.initial={start}", f"run.dir={tmp_path / name}", "run.max_steps=1", *extra]
        assert train(config, settings=run) == 0
        after = load_weights(tmp_path / name / "last.safetensors").model.state_dict()
        first = load_weights(start).model.state_dict()
        moved[name] = {
            part: max(float((after[k] - first[k]).abs().max()) for k in first if k.startswith(part) and "running" not in k
                      and "num_batches" not in k)
            for part in ("backbones.", "heads.")
        }  # fmt: skip
    assert moved["all"]["backbones."] == pytest.approx(1e-3, rel=0.1), "Adam's first step is the rate"
    assert moved["slow"]["backbones."] == pytest.approx(1e-5, rel=0.1)
    assert moved["slow"]["heads."] == pytest.approx(moved["all"]["heads."], rel=1e-3)


def test_a_run_from_other_weights_resumes_without_them(tmp_path: Path) -> None:
    config = make_world(tmp_path, train=8, other=4)
    start = tmp_path / "start.safetensors"
    saved(read(config), start)
    assert train(config, settings=[f"model.initial={start}", "optim.epochs=1"]) == 0
    start.unlink()
    assert train(config, "--resume", "latest", settings=[f"model.initial={start}", "optim.epochs=2"]) == 0
    assert read_metadata(tmp_path / "run/last.safetensors")["metrics"]["epoch"] == 2


# ---- small backbones -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "timm"), [("mobilenet_v3_small", None), ("timm", "mobilenetv4_conv_small"), ("timm", "convnext_atto")]
)
@pytest.mark.parametrize("size", [64, 97])
def test_small_backbones_give_maps_of_the_stated_size(name: str, timm: str | None, size: int) -> None:
    backbone = build_backbone(name, timm=timm).eval()
    with torch.no_grad():
        found = backbone(torch.randn(2, 3, size, size))
    assert found.shape == (2, backbone.channels, backbone.grid(size), backbone.grid(size))
    assert any(backbone.last_block is module for module in backbone.modules())


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "timm"])
def test_folding_small_backbones_changes_no_answer(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, timm="mobilenetv4_conv_small" if name == "timm" else None).train()
    with torch.no_grad():
        for _ in range(2):
            backbone(torch.randn(4, 3, 64, 64))  # statistics that are not those of a fresh network
        images = torch.randn(2, 3, 64, 64)
        wanted = backbone.eval()(images)
        fold_batch_norms(backbone)
        torch.testing.assert_close(backbone(images), wanted, rtol=1e-3, atol=1e-4)


def test_timm_s_own_weights_go_in_by_name() -> None:
    import timm

    there = timm.create_model("mobilenetv4_conv_small", pretrained=False)
    backbone = build_backbone("timm", timm="mobilenetv4_conv_small")
    load_torchvision(backbone, there.state_dict(), "a file")
    state = there.state_dict()
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, state[key.removeprefix("layers.network.")])


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"name": "timm"}, "wanted a network's name"),
        ({"name": "resnet18", "timm": "x"}, "null with any other"),
        ({"name": "timm", "timm": "mobilenetv4_conv_small"}, "no ImageNet file for 'timm'"),
    ],
)
def test_backbones_that_a_config_cannot_mean(backbone: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict({"model": {"backbone": backbone}})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilnetv4_conv_small", "did you mean 'mobilenetv4"),
        ("vit_tiny_patch16_224", "no map"),
        ("hf-hub:timm/resnet18", "no network"),
    ],
)  # fmt: skip
def test_timm_networks_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone("timm", timm=name)


def test_a_model_with_a_timm_backbone_saves_and_loads(world: Path, tmp_path: Path) -> None:
    changes = ["model.backbone.name=timm", "model.backbone.timm=mobilenetv4_conv_small", "data.image_size=64"]
    config = change_config(read(world), changes)
    model = saved(config, tmp_path / "w.safetensors").eval()
    loaded = load_weights(tmp_path / "w.safetensors")
    assert loaded.config == replace(config)
    crops = [torch.randn(2, 3, 64, 64) for _ in range(3)]
    boxes = [torch.tensor([[2.0, 2.0, 20.0, 20.0]] * 2)] * 2
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(*crops, *boxes).logits, model(*crops, *boxes).logits)
