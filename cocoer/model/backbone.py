"""Backbones: an image in, a feature map out. torchvision's or timm's networks; only `small` (for the demo world) is ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from cocoer.names import nearest


class Backbone(nn.Module):
    """A network without its classifier.

    channels: of the feature map. halvings: for each layer that halves the map, whether an odd side is rounded up.
    last_block: the module whose output is the last feature map, for saliency.
    """

    def __init__(self, layers: nn.Module, channels: int, halvings: Sequence[bool], last_block: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.channels = channels
        self._halvings = tuple(halvings)
        self._last_block = [last_block]  # in a list: it is already registered below `layers`

    @property
    def last_block(self) -> nn.Module:
        """The last convolutional block."""
        return self._last_block[0]

    def grid(self, image_size: int) -> int:
        """Cells along a side of the feature map of an image_size x image_size image."""
        side = image_size
        for up in self._halvings:
            side = (side + 1) // 2 if up else side // 2
        return side

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, S, S], normalised RGB -> [B, channels, g, g]."""
        return self.layers(images)


def _resnet(network: tv.ResNet) -> Backbone:
    stem = (network.conv1, network.bn1, network.relu, network.maxpool)
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    return Backbone(nn.Sequential(*stem, *stages), network.fc.in_features, (True,) * 5, network.layer4[-1])


def _small(widths: Sequence[int]) -> Backbone:
    """A residual network of one basic block per width; the demo's backbone (about 0.3 M parameters at 16, 32, 64, 128)."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(inplace=True),
    ]
    before = widths[0]
    for i, width in enumerate(widths):
        stride = 1 if i == 0 else 2
        shortcut = None
        if stride != 1 or before != width:
            shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
        layers.append(BasicBlock(before, width, stride, shortcut))
        before = width
    return Backbone(nn.Sequential(*layers), before, (True,) * len(widths), layers[-1])


def _vgg16() -> Backbone:
    network = tv.vgg16(weights=None)
    return Backbone(network.features, 512, (False,) * 5, network.features[-1])


def _densenet161() -> Backbone:
    network = tv.densenet161(weights=None)
    layers = nn.Sequential(network.features, nn.ReLU(inplace=True))  # torchvision's forward has this ReLU outside
    return Backbone(layers, network.classifier.in_features, (True, True, False, False, False), network.features.norm5)


def _mobilenet_v3_small() -> Backbone:
    network = tv.mobilenet_v3_small(weights=None)
    return Backbone(network.features, network.classifier[0].in_features, (True,) * 5, network.features[-1])


class _TimmFeatures(nn.Module):
    """A network of timm up to its feature map."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, channels, g, g]."""
        features: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        return features


class TimmBackbone(Backbone):
    """A convolutional network of the timm library, by its name there, with random weights.

    Raises ValueError for a name that timm does not list (nearest offered), and for a network without a feature map [B, C, g, g].
    Only timm's own list counts: a name that would fetch something (`hf-hub:...`) is not in it.
    """

    PREFIX = "layers.network."
    """Before the names of timm's own state."""

    def __init__(self, name: str) -> None:
        import timm

        if name not in (known := timm.list_models()):
            near = nearest(name, known)
            raise ValueError(
                f"model.backbone.timm: timm {timm.__version__} has no network {name!r}"
                + (f"; did you mean {near!r}?" if near else "")
            )
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        layers = _TimmFeatures(network)
        shape = _map_shape(layers, 224)
        if len(shape) != 4 or shape[2] != shape[3]:
            raise ValueError(
                f"model.backbone.timm: {name} gives features {list(shape)}, no map [B, channels, g, g]; take a"
                " convolutional network"
            )
        info: Any = getattr(network, "feature_info", None)
        last = network.get_submodule(info[-1]["module"]) if info else layers
        super().__init__(layers, shape[1], (), last)

    def grid(self, image_size: int) -> int:
        """Cells along a side of the feature map, by trying."""
        return _map_shape(self.layers, image_size)[-1]


def _map_shape(layers: nn.Module, size: int) -> tuple[int, ...]:
    """The shape of the feature map of one black image; neither weights nor statistics change."""
    training = layers.training
    with torch.no_grad():
        shape = tuple(layers.eval()(torch.zeros(1, 3, size, size)).shape)
    layers.train(training)
    return shape


def build_backbone(name: str, widths: Sequence[int] = (), timm: str | None = None) -> Backbone:
    """A backbone with random weights, by its config name (`BackboneConfig.name`; paper Table 3 compares five of them).

    widths: of `small`. timm: the network's name there, for `timm`. Raises ValueError as `TimmBackbone` does.
    """
    if name == "timm":
        return TimmBackbone(timm or "")
    resnets = {"resnet18": tv.resnet18, "resnet50": tv.resnet50, "resnet101": tv.resnet101, "resnet152": tv.resnet152}
    if name in resnets:
        return _resnet(resnets[name](weights=None))
    if name == "small":
        return _small(widths)
    return {"vgg16": _vgg16, "densenet161": _densenet161, "mobilenet_v3_small": _mobilenet_v3_small}[name]()
