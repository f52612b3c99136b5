"""Backbones: feature grid, channels, and that torchvision's ImageNet files fit each of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
import torchvision.models as tv
from tiny_models import shake_norms, tiny_config
from torch import Tensor, nn

from cocoer.config import BackboneConfig
from cocoer.model import backbone as backbone_module
from cocoer.model.backbone import build_backbone
from cocoer.model.build import build_model, load_torchvision

NAMES = [
    name for name in get_args(get_type_hints(BackboneConfig)["name"]) if name != "timm"
]  # test_fine_tune has timm's
CHANNELS = {
    "resnet18": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "resnet152": 2048,
    "vgg16": 512,
    "densenet161": 2208,
    "mobilenet_v3_small": 576,
}


@pytest.mark.parametrize("name", NAMES)
def test_grid_and_channels_are_those_of_the_map(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name, (4, 8, 16)).eval()
    for side in (224, 111, 33):
        cells = backbone.grid(side)
        assert backbone(torch.empty(1, 3, side, side, device="meta")).shape == (1, backbone.channels, cells, cells)
    assert backbone.channels == CHANNELS.get(name, 16)
    if name in CHANNELS:
        assert backbone.grid(224) == 7  # 7x7 cells, so 16 tokens with patches of 2x2
    last = [module for module in backbone.modules() if not isinstance(module, nn.ReLU)][-1]
    assert last in list(backbone.last_block.modules())  # nothing but a ReLU comes after it


def features_of(network: nn.Module, images: Tensor) -> Tensor:
    """The feature map as torchvision's own networks compute it on the way to their classifier."""
    if isinstance(network, tv.ResNet):
        x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
        return network.layer4(network.layer3(network.layer2(network.layer1(x))))
    features: Tensor = network.features(images)  # type: ignore[operator,union-attr]
    return features.relu() if isinstance(network, tv.DenseNet) else features


@pytest.mark.parametrize("network", [tv.resnet18, tv.resnet50, tv.densenet161], ids=lambda f: f.__name__)
def test_torchvision_weights_give_torchvisions_features(network: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    theirs = network(weights=None).eval()
    shake_norms(theirs)
    ours = build_backbone(network.__name__).eval()
    old = {key: value for key, value in theirs.state_dict().items() if "num_batches_tracked" not in key}
    load_torchvision(ours, old, "a file from before torch counted batches")
    images = torch.randn(1, 3, 40, 40)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), features_of(theirs, images), rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_every_torchvision_file_fits_its_backbone_and_no_other(name: str) -> None:
    with torch.device("meta"):
        network, ours = getattr(tv, name)(weights=None), build_backbone(name)
    theirs = {key: value.to("meta") for key, value in network.state_dict().items()}
    ours = ours.to("meta")
    load_torchvision(ours, theirs, "here")
    body = [key for key in theirs if not key.startswith(("fc.", "classifier."))]
    assert [v.shape for v in ours.state_dict().values()] == [theirs[key].shape for key in body]
    with torch.device("meta"):
        other = build_backbone("resnet18" if name != "resnet18" else "small", (8, 8))
    with pytest.raises(ValueError, match="backbone weights FILE are not of this network"):
        load_torchvision(other, theirs, "FILE")


def test_each_level_starts_from_the_named_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tv.resnet18(weights=None).state_dict()
    torch.save(weights, tmp_path / "r18.pth")
    changes: list[Any] = [
        "model.backbone.name=resnet18",
        f"model.backbone.weights={tmp_path / 'r18.pth'}",
        "model.vocabulary.enabled=false",
    ]
    model = build_model(tiny_config(*changes))
    for backbone in model.backbones.values():
        assert torch.equal(backbone.layers[0].weight, weights["conv1.weight"])
        assert torch.equal(next(reversed(backbone.state_dict().values())), weights["layer4.1.bn2.num_batches_tracked"])
    assert model.backbones["head"].layers[0].weight is not model.backbones["body"].layers[0].weight
    with pytest.raises(FileNotFoundError, match="no such file.*cocoer weights fetch resnet18"):
        build_model(tiny_config(changes[0], f"model.backbone.weights={tmp_path / 'no.pth'}", changes[2]))


def test_a_network_of_timm_says_its_channels_and_grid_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = build_backbone("timm", timm="test_resnet").train()
    for side in (224, 100):
        cells = backbone.grid(side)
        assert backbone.training and cells == math.ceil(side / 32)  # as timm states its last stage
        assert backbone.eval()(torch.zeros(2, 3, side, side)).shape == (2, 96, cells, cells)
        backbone.train()
    assert backbone.channels == 96 and backbone.last_block is backbone.layers.network.layer4
    with pytest.raises(ValueError, match=r"test_vit gives features \[1, 197, 64\], no map"):
        build_backbone("timm", timm="test_vit")
    with monkeypatch.context() as patch:
        patch.setattr(backbone_module, "_map_shape", lambda *_: (1, 96, 7, 6))
        with pytest.raises(ValueError, match=r"test_resnet gives features \[1, 96, 7, 6\], no map"):
            build_backbone("timm", timm="test_resnet")
    with pytest.raises(ValueError, match="has no network 'test_resne'; did you mean 'test_resnet'"):
        build_backbone("timm", timm="test_resne")
    with pytest.raises(ValueError, match="has no network ''"):
        build_backbone("timm")


def test_a_small_network_halves_from_the_second_width_on_and_changes_its_input_only_where_it_must() -> None:
    backbone = build_backbone("small", (8, 8, 12))
    layers = list(backbone.layers)
    assert [type(layer).__name__ for layer in layers] == ["Conv2d", "BatchNorm2d", "ReLU", *["BasicBlock"] * 3]
    assert [block.downsample is None for block in layers[3:]] == [True, False, False]
    assert [block.conv1.stride[0] for block in layers[3:]] == [1, 2, 2]
    assert layers[0].weight.shape == (8, 3, 3, 3) and [b.conv1.weight.shape[:2] for b in layers[3:]] == [
        (8, 8),
        (8, 8),
        (12, 8),
    ]
    wider = build_backbone("small", (8, 12)).layers
    assert wider[3].downsample is None and wider[4].downsample[0].weight.shape == (12, 8, 1, 1)
