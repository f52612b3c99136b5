"""The whole model: shapes, modes, independence of persons, bad input."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from slow_oracle import delta_of
from tiny_models import ROOT, persons, tiny_model
from torch import Tensor, nn

from cocoer.config import load_config
from cocoer.model.cocoer import CocoER, Decisions
from cocoer.model.competition import PaperCompetition
from cocoer.model.describe import blank_model
from cocoer.model.level_model import ModelOutput
from cocoer.model.simplex_qp import require_finite


def tensors_of(output: ModelOutput) -> dict[str, Tensor]:
    return {f.name: v for f in fields(output) if isinstance(v := getattr(output, f.name), Tensor)}


@torch.inference_mode()
def answers(model: CocoER, *inputs: Tensor) -> dict[str, Tensor]:
    output: ModelOutput = model(*inputs)
    found = tensors_of(output)
    if isinstance(output.competition, PaperCompetition):
        found |= {"losses": output.competition.losses, "exclusion": output.competition.exclusion}
    return found


MODES: list[tuple[str, ...]] = [
    (),
    ("data.dataset=caers",),
    ("model.coordination.update=two", "model.coordination.step_rule=raw", "model.coordination.step=0.01"),
    ("model.vocabulary.layout=modulate", "model.competition.biases=true"),
    ("model.attention.enabled=false", "model.competition.negative_weight=0.5"),
    ("model.competition.enabled=false",),
]


@pytest.mark.parametrize("changes", MODES, ids=lambda c: ",".join(c) or "paper")
def test_shapes_and_independence_of_batch_and_order(changes: tuple[str, ...]) -> None:
    model = tiny_model(*changes)
    inputs = persons(5)
    together = answers(model, *inputs)
    k = 7 if changes == ("data.dataset=caers",) else 26
    wanted = {
        "logits": (5, k), "level_logits": (5, 3, k), "vocabulary_logits": (5, k), "pseudo_label": (5, k),
        "level_features": (5, 3, 16), "refined": (5, 3, 16), "fused_features": (5, 64), "losses": (5, 3), "exclusion": (5, 3),
    }  # fmt: skip
    assert {name: tuple(value.shape) for name, value in together.items()} == wanted
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = answers(model, *(t[order] for t in inputs))
    alone = [answers(model, *(t[i : i + 1] for t in inputs)) for i in range(5)]
    for name, value in together.items():
        torch.testing.assert_close(shuffled[name], value[order], rtol=1e-4, atol=1e-5, msg=name)
        torch.testing.assert_close(torch.cat([a[name] for a in alone]), value, rtol=1e-4, atol=1e-5, msg=name)
    assert answers(model, *(t[:0] for t in inputs))["logits"].shape == (0, k)


def test_every_crop_and_no_box_matters_in_paper_mode() -> None:
    model, inputs = tiny_model(), persons(2)
    before = answers(model, *inputs)["logits"]
    for place in range(5):
        changed = [t + 0.5 * torch.randn(t.shape) if i == place else t for i, t in enumerate(inputs)]
        assert torch.equal(answers(model, *changed)["logits"], before) == (place > 2)


def test_the_forward_pass_writes_nothing() -> None:
    model = tiny_model()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = answers(model, *persons(3)), answers(model, *persons(3))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_every_trainable_parameter_learns() -> None:
    model = tiny_model().train()
    output = model(*persons(4))
    (
        output.logits.square().sum() + output.level_logits.square().sum() + output.vocabulary_logits.square().sum()
    ).backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # a key's bias moves all scores of a query alike, so softmax does not see it
    assert [name for name in silent if not name.endswith("to_key.bias")] == []


def test_without_competition_delta_is_zero_and_levels_still_move() -> None:
    model, still = tiny_model("model.competition.enabled=false"), tiny_model("model.coordination.update=none")
    with torch.inference_mode():
        output, plain = model(*persons(3)), still(*persons(3))
    assert not output.competition.delta_sq_norm.any()
    assert not output.competition.weights.any()
    assert not delta_of(output.competition).any()
    assert torch.equal(output.competition.losses, plain.competition.losses)
    assert torch.equal(plain.refined, plain.level_features)
    assert ((output.refined - output.level_features).abs().amax((1, 2)) > 1e-4).all()


def test_bf16_keeps_the_workspace_in_float32() -> None:
    model = tiny_model()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*persons(3))
    assert output.competition.weights.dtype == output.refined.dtype == torch.float32
    torch.testing.assert_close(output.competition.weights.sum(-1), torch.ones(3, 2))
    plain = answers(model, *persons(3))
    torch.testing.assert_close(output.logits.float(), plain["logits"], rtol=0, atol=0.05)


# ---- bad input ------------------------------------------------------------------------------------------------------


def wrong(place: int, value: Tensor) -> tuple[Tensor, ...]:
    inputs = list(persons(2))
    inputs[place] = value
    return tuple(inputs)


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (0, (2, 3, 96, 96), r"head crops: wanted \[2, 3, 80, 80\], got \[2, 3, 96, 96\]"),
        (1, (2, 1, 80, 80), r"body crops: wanted \[2, 3, 80, 80\], got \[2, 1, 80, 80\]"),
        (1, (3, 3, 80, 80), r"body crops: wanted \[2, 3, 80, 80\], got \[3, 3, 80, 80\]"),
        (2, (2, 3, 80, 48), r"context crops: wanted \[2, 3, 80, 80\], got \[2, 3, 80, 48\]"),
        (2, (3, 80, 80), r"context crops: wanted .*, got \[3, 80, 80\]"),
        (3, (2, 5), r"head_xyxy: wanted \[2, 4\], got \[2, 5\]"),
        (4, (1, 4), r"body_xyxy: wanted \[2, 4\], got \[1, 4\]"),
    ],
)
def test_wrong_shapes_name_the_tensor(place: int, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model()(*wrong(place, torch.zeros(shape)))


def test_an_image_size_that_gives_another_token_count_is_named() -> None:
    model = tiny_model()
    model.image_size = 112
    with pytest.raises(ValueError, match="feature map: wanted 5x5 cells, got 7x7; the crops have another size"):
        model(*persons(1, side=112))


def test_weights_for_another_number_of_emotions_are_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch for heads.head.prediction.weight"):
        tiny_model("data.dataset=caers").load_state_dict(tiny_model().state_dict())


def test_a_pseudo_label_of_another_length_is_named() -> None:
    model = tiny_model()
    short = lambda logits: logits[:, :7]  # noqa: E731
    short.judge = "vocabulary"
    model.decisions = Decisions(short)
    with pytest.raises(ValueError, match=r"pseudo_label must be \[2, 26\]; got \[2, 7\]"):
        model(*persons(2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_crop_spoils_its_person_alone_and_no_level_is_chosen(bad: float) -> None:
    model, inputs = tiny_model(), persons(3)
    good = answers(model, *inputs)
    inputs[1][1, 0, 5, 5] = bad
    spoilt = answers(model, *inputs)
    assert spoilt["exclusion"][1].tolist() == [-1, -1, -1]
    assert torch.isnan(spoilt["logits"][1]).all()
    for name in good:
        torch.testing.assert_close(spoilt[name][[0, 2]], good[name][[0, 2]], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"body \(3, 3, 80, 80\) must be finite; got NaN or infinity in rows \[1\]"):
        require_finite(head=inputs[0], body=inputs[1])


# ---- the full size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["caers", "emotic_release"])  # emotic: test_ablations, test_describe
def test_full_size_models_are_built_and_run(name: str) -> None:
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    model = blank_model(config)
    crop, box = torch.empty(2, 3, 224, 224, device="meta"), torch.empty(2, 4, device="meta")
    with torch.no_grad():
        output: Any = model(crop, crop, crop, box, box)
    assert output.logits.shape == (2, len(config.classes))
    assert output.refined.shape == (2, 3, 256)
    assert not any(isinstance(m, nn.Dropout) for m in model.modules())
