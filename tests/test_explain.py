"""Saliency and attention: against gradients taken by hand, and what they must do when coordination does or does not act."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from programs import load_program
from slow_oracle import delta_of
from tiny_models import persons, tiny_config, tiny_model
from tiny_recognizer import tiny_checkpoint
from torch import Tensor

from cocoer.data.batch import Batch
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.inference.explain import attention_grids, chosen_classes, explain, grad_cam
from cocoer.model.cocoer import CocoER
from cocoer.model.competition import PaperCompetition
from cocoer.names import LEVELS
from cocoer.outputs import Explanation, LevelSaliency
from cocoer.report.plots import as_image
from cocoer.report.saliency import draw_attention, draw_saliency, heat, saliency_rows

PANELS = (".json", "_attention.pdf", "_attention.png", "_saliency.pdf", "_saliency.png")
STRONG = ("model.coordination.step=0.5",)


def batch(count: int = 2) -> Batch:
    crops = persons(count)
    return Batch(*crops, targets=None, keys=tuple(map(str, range(count))))


def delta_logits(model: CocoER, *overrides: str) -> tuple[Tensor, Tensor]:
    """Logits after coordination, ours and with delta built in full."""
    config = tiny_config(*overrides)
    people = batch(3)
    with torch.no_grad():
        output = model(people.head, people.body, people.context, people.head_xyxy, people.body_xyxy)
        heads = model.head_parameters()
        found = output.competition
        assert isinstance(found, PaperCompetition)
        delta, settings = delta_of(found), config.model.coordination
        expected = torch.empty_like(output.level_logits)
        for b in range(3):
            for m in range(3):
                weight, bias = heads.prediction_weight[m].clone(), heads.prediction_bias[m]
                stays = settings.update == "two" and found.exclusion[b, -1] == m
                if not stays:
                    size = settings.step
                    if settings.step_rule == "relative":
                        size = size * float(weight.norm() / delta[b].norm())
                    weight += size * delta[b]
                expected[b, m] = weight @ output.refined[b, m] + bias
        return model.workspace.coordinated_logits(output.refined, heads, found), expected


@pytest.mark.parametrize("rule", ["relative", "raw"])
@pytest.mark.parametrize("update", ["one", "two"])
def test_coordinated_logits_are_those_of_the_updated_prediction_layer(update: str, rule: str) -> None:
    overrides = (f"model.coordination.update={update}", f"model.coordination.step_rule={rule}", *STRONG)
    ours, expected = delta_logits(tiny_model(*overrides), *overrides)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("level", range(3))
def test_grad_cam_is_its_definition(level: int, when: str) -> None:
    """relu(sum over channels of mean gradient times activation), with the gradient taken by a hook and autograd alone."""
    model, people = tiny_model(*STRONG), batch()
    emotions = torch.tensor([3, 16])
    kept: list[Tensor] = []
    handle = model.backbones[LEVELS[level]].last_block.register_forward_hook(lambda m, a, out: kept.append(out))
    output = model(people.head, people.body, people.context, people.head_xyxy, people.body_xyxy)
    handle.remove()
    logits = (
        output.level_logits
        if when == "before"
        else model.workspace.coordinated_logits(output.refined, model.head_parameters(), output.competition)
    )
    score = logits[:, level].gather(1, emotions[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, kept[0])
    expected = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).clamp_min(0)
    maps, scores = grad_cam(model, people, emotions, level, when)  # type: ignore[arg-type]
    torch.testing.assert_close(maps, expected.detach(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(scores.sum(), score.detach())
    assert maps.max() > 0


def difference(*overrides: str) -> float:
    found = explain(tiny_model(*overrides), tiny_config(*overrides), batch(), "Happiness")
    return max(float(np.abs(np.array(s.after) - np.array(s.before)).max()) for e in found for s in e.saliency)


def test_the_maps_differ_exactly_where_coordination_acts() -> None:
    assert difference("model.coordination.update=none") == 0.0
    assert difference(*STRONG) > 1e-6


def test_gradient_flows_through_the_coordination_itself() -> None:
    """With the mapping's answer cut off from the refined feature, what is left comes through errors and delta alone."""
    model, people = tiny_model(*STRONG), batch()
    output = model(people.head, people.body, people.context, people.head_xyxy, people.body_xyxy)
    assert isinstance(output.competition, PaperCompetition)
    score = model.workspace.coordinated_logits(output.refined, model.head_parameters(), output.competition)[
        :, 0, 5
    ].sum()
    through = torch.autograd.grad(score, [output.competition.errors, output.competition.coefficients])
    assert all(float(g.abs().max()) > 0 for g in through)


def test_explaining_leaves_the_model_as_it_was() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = explain(model, tiny_config(), batch())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    assert explain(model, tiny_config(), batch()) == first


def test_a_person_does_not_depend_on_its_neighbours() -> None:
    model, config, people = tiny_model(*STRONG), tiny_config(*STRONG), batch(3)
    together = explain(model, config, people, "Fear")[1]
    one = Batch(
        people.head[1:2],
        people.body[1:2],
        people.context[1:2],
        people.head_xyxy[1:2],
        people.body_xyxy[1:2],
        None,
        ("1",),
    )
    alone = explain(model, config, one, "Fear")[0]
    for a, b in zip(together.saliency, alone.saliency, strict=True):
        np.testing.assert_allclose(a.after, b.after, rtol=1e-3, atol=1e-6)


def test_the_emotion_is_the_named_one_or_the_most_probable() -> None:
    scores = torch.rand(4, 26)
    assert torch.equal(chosen_classes(scores, None, EMOTIC_CLASSES), scores.argmax(1))
    assert chosen_classes(scores, "happiness ", EMOTIC_CLASSES).tolist() == [16] * 4
    with pytest.raises(ValueError, match="did you mean 'Happiness'"):
        chosen_classes(scores, "Hapiness", EMOTIC_CLASSES)


def test_frozen_weights_still_give_maps() -> None:
    model = tiny_model()
    free = explain(model, tiny_config(), batch())
    assert explain(model.requires_grad_(False), tiny_config(), batch()) == free


def test_attention_cells_share_their_tokens_weight() -> None:
    maps = torch.rand(2, 3, 16, 16).softmax(-1)
    cells = attention_grids(maps, 8, 2)
    assert cells.shape == (2, 3, 8, 8)
    torch.testing.assert_close(cells.sum((-1, -2)), torch.ones(2, 3))
    token = maps[0, 1, :, 6].mean() / 4  # row 1, column 2 of the 4 x 4 tokens
    torch.testing.assert_close(cells[0, 1, 2:4, 4:6], token.expand(2, 2))
    assert torch.equal(attention_grids(maps, 7, 2), cells[..., :7, :7])


def test_without_cross_level_attention_there_is_no_attention_map() -> None:
    model = tiny_model("model.attention.enabled=false")
    assert explain(model, tiny_config("model.attention.enabled=false"), batch())[0].attention == {}


def explanation(before: float = 1.0, after: float = 0.0) -> Explanation:
    """A level map that is hot in its first cell before, and in its last cell after."""
    hot = ((before, 0.0), (0.0, 0.0))
    moved = ((0.0, 0.0), (0.0, after))
    levels = tuple(LevelSaliency(level, hot, moved, 0.5, -0.25) for level in LEVELS)
    looks = dict.fromkeys(("head", "body"), (((0.7, 0.1), (0.1, 0.1)), ((0.1, 0.1), (0.1, 0.7))))
    return Explanation(0, "Happiness", 0.8, levels, looks)


CROPS = {level: Image.new("RGB", (40, 60), (128, 128, 128)) for level in LEVELS}


def test_heat_is_strongest_where_the_map_is() -> None:
    grey = Image.new("RGB", (80, 80), (128, 128, 128))
    drawn = np.asarray(heat(grey, ((1.0, 0.0), (0.0, 0.0)), 1.0)).astype(int)
    moved = np.abs(drawn - 128).sum(-1)
    assert moved[:20, :20].mean() > 4 * moved[-20:, -20:].mean()
    assert np.abs(np.asarray(heat(grey, ((0.0, 0.0), (0.0, 0.0)), 0.0)).astype(int) - 128).max() == 0


def test_the_panel_shows_a_gain_and_a_loss_in_different_colours() -> None:
    gained, lost = (as_image(draw_saliency(CROPS, explanation(*ends))) for ends in ((0.0, 1.0), (1.0, 0.0)))
    assert gained.size == lost.size
    reds = [int(((a := np.asarray(p).astype(int))[..., 0] - a[..., 2] > 60).sum()) for p in (gained, lost)]
    assert gained.tobytes() != lost.tobytes() and min(reds) > 0
    assert as_image(draw_saliency(CROPS, explanation(0.0, 1.0))).tobytes() == gained.tobytes()


def test_a_crop_of_one_pixel_and_an_empty_map_are_drawn() -> None:
    tiny = CROPS | {"head": Image.new("RGB", (1, 1))}
    assert as_image(draw_saliency(tiny, explanation(0.0, 0.0))).width > 400
    said = {caption for cells in saliency_rows(tiny, explanation(0.0, 0.0)).values() for _, caption in cells}
    assert "head, 1x1 px" in said and "both maps are empty" in said
    assert as_image(draw_attention(CROPS["context"], explanation())).width > 400


@pytest.mark.parametrize("dataset", ["emotic", "caers"])
def test_the_command_writes_panels_and_numbers(
    tmp_path: Path, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny_checkpoint(tmp_path / "weights", dataset)
    image = tmp_path / "a b.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(image)
    boxes = tmp_path / "boxes.json"
    one_pixel = {"body": [30, 5, 70, 55], "head": [40, 10, 41, 11]}
    boxes.write_text(json.dumps([{"body": [2, 2, 40, 58], "head": [5, 5, 25, 25]}, one_pixel]))
    command = ["--checkpoint", str(weights), "--input", str(image), "--boxes", str(boxes), "--device", "cpu"]
    program = load_program("explain")
    out = tmp_path / "out"
    assert program.main([*command, "--emotion", "surprise", "--output", str(out)]) == 0
    written = sorted(p.name for p in out.iterdir())
    assert written == [f"a_b_person{i}_Surprise{end}" for i in (0, 1) for end in PANELS]
    said = json.loads((out / "a_b_person1_Surprise.json").read_text())
    assert said["emotion"] == "Surprise" and set(said["saliency"]) == set(LEVELS)
    assert "person 1" in capsys.readouterr().out
    assert program.main([*command, "--emotion", "Surprize", "--output", str(out)]) == 2
    assert "did you mean 'Surprise'" in capsys.readouterr().err
    assert program.main([*command, "--person", "7", "--output", str(out)]) == 2
    assert "0 to 1" in capsys.readouterr().err
