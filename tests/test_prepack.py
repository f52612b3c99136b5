"""Reordered weights: the same answers for every number of persons, the model itself untouched."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from tiny_models import tiny_config, tiny_model
from torch import nn

from cocoer.benchmark.variants import person_batch
from cocoer.inference import onednn
from cocoer.inference.onednn import PackedConv2d, PackedLinear, can_prepack, prepacked
from cocoer.inference.recognizer import Recognizer
from cocoer.model.backbone import build_backbone
from cocoer.model.fold_batch_norms import fold_batch_norms

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not can_prepack(CPU, torch.float32), reason="PyTorch was built without oneDNN here")


def packed_in(network: nn.Module) -> int:
    return sum(isinstance(m, (PackedConv2d, PackedLinear)) for m in network.modules())


@torch.inference_mode()
def test_a_full_size_backbone_answers_the_same_for_one_for_more_and_again_for_one() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("resnet50").eval()
    fold_batch_norms(backbone)
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    twin = prepacked(backbone, torch.float32)
    assert packed_in(twin) == 53 and packed_in(backbone) == 0
    for count in (1, 3, 2, 1):
        images = torch.randn(count, 3, 96, 96).to(memory_format=torch.channels_last)
        wanted = backbone(images)
        torch.testing.assert_close(twin(images), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
        assert twin(images).is_contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2, bias=False),
        nn.Conv2d(6, 4, (1, 3), dilation=(1, 2)),
        nn.Linear(6, 5),
        nn.Linear(6, 5, bias=False),
    ],
    ids=str,
)
def test_every_kind_of_layer_keeps_its_answer(layer: nn.Module) -> None:
    twin = prepacked(nn.Sequential(layer), torch.float32)
    assert packed_in(twin) == 1
    for shape in ((1, 6, 11, 13), (4, 6, 11, 13)) if isinstance(layer, nn.Conv2d) else ((6,), (3, 6), (2, 7, 6)):
        x = torch.randn(shape)
        torch.testing.assert_close(twin(x), layer(x), rtol=1e-5, atol=1e-5)


def test_layers_that_cannot_be_reordered_stay() -> None:
    class Own(nn.Linear):
        pass

    odd = [nn.Conv2d(2, 2, 3, padding="same"), nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), Own(2, 2)]
    half = nn.Linear(2, 2).to(torch.bfloat16)
    network = nn.Sequential(*odd, half, nn.ConvTranspose2d(2, 2, 3))
    assert packed_in(prepacked(network, torch.float32)) == 0


def test_the_twin_shares_the_parameters_and_the_model_can_still_be_differentiated() -> None:
    model = tiny_model()
    twin = prepacked(model, torch.float32)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in model.parameters()}
    assert packed_in(twin) > 20 and packed_in(model) == 0
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    twin.backbones["head"](x).sum().backward()  # type: ignore[index]
    assert x.grad is not None and float(x.grad.abs().sum()) > 0, "with gradients enabled it is any other network"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_recogniser_says_the_same_with_and_without(precision: str) -> None:
    if not can_prepack(CPU, torch.bfloat16) and precision == "bf16":
        pytest.skip("this CPU has no bfloat16 convolutions")
    model = tiny_model()
    made = {
        on: Recognizer(deepcopy(model), tiny_config(f"inference.prepack={on}", f"inference.precision={precision}"))
        for on in ("true", "false")
    }
    near = 1e-5 if precision == "fp32" else 0.05
    for count in (1, 5):
        batch = person_batch(tiny_config(), count, CPU)
        on, off = (made[switch].predict_tensors(batch) for switch in ("true", "false"))
        torch.testing.assert_close(on.logits, off.logits, rtol=near, atol=near)
        if precision == "fp32":
            assert torch.equal(on.competition.exclusion, off.competition.exclusion)


def test_a_gpu_has_no_use_for_it() -> None:
    assert not can_prepack(torch.device("cuda"), torch.float32)
    assert not can_prepack(CPU, torch.float16)


def test_a_torch_that_lacks_an_operator_runs_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators are torch's own and undocumented; `prepack: true` then means what `false` does."""
    monkeypatch.setattr(onednn, "_OPERATORS", (*onednn._OPERATORS, "_no_such_operator"))
    assert not can_prepack(CPU, torch.float32)
