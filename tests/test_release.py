"""Release mode, part by part against slow references, and as a whole against the published outputs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import load_program
from release_files import PARITY, ROOT, small_config, small_model
from torch import Tensor

from cocoer.config import Config, load_config
from cocoer.model.build import BlankWeights, build_model
from cocoer.model.cocoer import CocoER
from cocoer.model.cross_level import ReleaseCrossLevel
from cocoer.model.level_model import ModelOutput
from cocoer.model.release.coordination import ReleaseCompetition
from cocoer.model.release.positions import RegionPositions
from cocoer.names import LEVELS


@pytest.fixture(scope="module")
def check_parity() -> ModuleType:
    return load_program("scripts/check_parity.py")


@pytest.fixture(scope="module")
def config() -> Config:
    return small_config()


@pytest.fixture(scope="module")
def model(config: Config) -> CocoER:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return small_model(config)


def batch(persons: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    crops = {level: torch.randn(persons, 3, 224, 224, generator=generator) for level in LEVELS}
    corner = torch.randint(0, 90, (persons, 2), generator=generator)
    body = torch.cat([corner, corner + torch.randint(60, 160, (persons, 2), generator=generator)], dim=1)
    head = torch.cat([corner + 10, corner + 45], dim=1)
    return crops | {"head_xyxy": head.float(), "body_xyxy": body.float()}


@torch.no_grad()
def answer(model: CocoER, b: dict[str, Tensor]) -> ModelOutput:
    output: ModelOutput = model(b["head"], b["body"], b["context"], b["head_xyxy"], b["body_xyxy"])
    return output


def test_published_outputs(check_parity: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Reference file b through the script itself; file a goes through conversion in test_convert.py."""
    assert check_parity.main(["--golden", str(PARITY / "release_golden_b.npz")]) == 0
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert tuple(lines) == check_parity.OUTPUTS
    assert all(float(error) < 3e-5 for error in lines.values()), lines


def test_parity_notices_what_is_off(check_parity: ModuleType) -> None:
    golden = dict(np.load(PARITY / "release_golden_a.npz"))
    ours = {name: torch.from_numpy(golden[name].copy()) for name in check_parity.OUTPUTS}
    assert set(check_parity.compare(ours, golden).values()) == {0.0}
    ours["pred"][2, 3] += 0.5
    ours["distance"][0] = torch.nan
    ours["head"] = ours["head"][:2]
    errors = check_parity.compare(ours, golden)
    assert errors["pred"] == pytest.approx(0.5)
    assert {errors["distance"], errors["head"]} == {math.inf}
    assert errors["exclusion"] == 0.0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("text", "not a readable .npz"),
        ("other arrays", "lacks seed"),
        ("no recipe", "no seeded_weights.py"),
    ],
)
def test_parity_says_which_file_is_wrong(
    check_parity: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    golden = tmp_path / "golden.npz"
    if kind == "text":
        golden.write_text("not arrays")
    elif kind == "other arrays":
        np.savez(golden, other=np.ones(3))
    elif kind == "no recipe":
        golden = PARITY / "release_golden_a.npz"
    assert check_parity.main(["--golden", str(golden), "--parity-dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def published_position(table: RegionPositions, x: float, y: float) -> Tensor:
    """One point of the published lookup, corner by corner: indices are clamped first, weights come from the clamped ones."""
    last = table.grid - 1
    x0, y0 = math.floor(x), math.floor(y)
    x0, x1 = (min(max(v, 0), last) for v in (x0, x0 + 1))
    y0, y1 = (min(max(v, 0), last) for v in (y0, y0 + 1))
    total = torch.zeros(table.column.shape[1] + table.row.shape[1], dtype=torch.float64)
    for cx, wx in ((x0, x1 - x), (x1, x - x0)):
        for cy, wy in ((y0, y1 - y), (y1, y - y0)):
            total += wx * wy * torch.cat([table.column[cx], table.row[cy]]).double()
    return total


corner = st.integers(-40, 260)


@settings(max_examples=40)
@given(boxes=st.lists(st.tuples(corner, corner, corner, corner), min_size=1, max_size=2))
def test_positions_equal_the_published_lookup(boxes: list[tuple[int, int, int, int]]) -> None:
    """Boxes inside, across and beyond the border, empty and inverted ones too."""
    torch.manual_seed(0)
    table = RegionPositions(7, 6).requires_grad_(False)
    got = table.region(torch.tensor(boxes))
    for box, points in zip(boxes, got, strict=True):
        x1, y1, x2, y2 = (torch.tensor(v, dtype=torch.float32) for v in box)
        share = (torch.arange(7, dtype=torch.float32) + 0.5) / 7
        xs = (share * (x2 - x1) - (x2 - x1) / 2 + (x1 + x2) / 2) / 32
        ys = (share * (y2 - y1) - (y2 - y1) / 2 + (y1 + y2) / 2) / 32
        for i, point in enumerate(points):
            wanted = published_position(table, float(xs[i % 7]), float(ys[i // 7]))
            torch.testing.assert_close(point.double(), wanted, rtol=0, atol=2e-5)


def test_positions_at_and_beyond_the_border_are_zero() -> None:
    table = RegionPositions(7, 8).requires_grad_(False)
    beyond = torch.tensor([[192, 20, 192, 60], [30, 192, 60, 192], [200, 200, 240, 240], [-90, -90, -40, -40]])
    assert not table.region(beyond).any()
    just_inside = table.region(torch.tensor([[191, 20, 191, 60]]))
    assert just_inside.abs().amin(-1).min() > 0


def test_positions_of_the_cell_corners_are_the_context_map() -> None:
    """A box whose points fall on the corners 0..5 reads the map itself there."""
    table = RegionPositions(7, 8).requires_grad_(False)
    box = torch.tensor([[-16, -16, 208, 208]])  # points at 0, 32, .. 192
    ours, whole = table.region(box).unflatten(1, (7, 7)), table.context().unflatten(1, (7, 7))
    torch.testing.assert_close(ours[:, :6, :6], whole[:, :6, :6])
    assert not ours[:, 6].any() and not ours[:, :, 6].any()


def test_boxes_count_in_whole_pixels() -> None:
    table = RegionPositions(7, 8).requires_grad_(False)
    whole = torch.tensor([[10.0, 20.0, 90.0, 120.0]])
    assert torch.equal(table.region(whole + 0.75), table.region(whole))
    assert torch.equal(table.region(whole.double()), table.region(whole.long()))


def slow_level(cross: ReleaseCrossLevel, level: str, tokens: list[Tensor], places: list[Tensor]) -> Tensor:
    """One level through torch's own multi-head attention."""
    m = LEVELS.index(level)
    x, place = tokens[m], places[m]
    for block in cross.blocks[level]:
        y = x if level == "context" else tokens[2]
        query, key = block.norm_query(x) + place, block.norm_context(y) + places[2]
        a = block.attention
        inner, _ = F.multi_head_attention_forward(
            query.transpose(0, 1), key.transpose(0, 1), y.transpose(0, 1), x.shape[-1], a.heads, None,
            torch.cat([a.to_query.bias, a.to_key.bias, a.to_value.bias]), None, None, False, 0.0,
            a.to_out.weight, a.to_out.bias, training=False, need_weights=False, use_separate_proj_weight=True,
            q_proj_weight=a.to_query.weight, k_proj_weight=a.to_key.weight, v_proj_weight=a.to_value.weight,
        )  # fmt: skip
        x = x + inner.transpose(0, 1)
        wide, narrow = block.feed_forward[0], block.feed_forward[2]
        hidden = wide(block.norm_feed_forward(x))
        x = x + narrow(hidden * torch.sigmoid(hidden))
    return F.layer_norm(x, x.shape[-1:], cross.norm.weight, cross.norm.bias)


@torch.no_grad()
def test_cross_level_attention_equals_the_slow_one(model: CocoER) -> None:
    cross = model.cross_level
    assert isinstance(cross, ReleaseCrossLevel)
    g = cross.positions.grid
    torch.manual_seed(1)
    tokens = [torch.randn(2, g * g, 16) for _ in LEVELS]
    b = batch(2)
    out = cross(tokens, b["head_xyxy"], b["body_xyxy"])
    whole = cross.positions.context().expand(2, -1, -1)
    places = [cross.positions.region(b["head_xyxy"]), cross.positions.region(b["body_xyxy"]), whole]
    for m, level in enumerate(LEVELS):
        torch.testing.assert_close(out[m], slow_level(cross, level, tokens, places), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_levels_see_the_context_and_not_each_other(model: CocoER) -> None:
    g = model.cross_level.positions.grid
    torch.manual_seed(2)
    tokens, b = [torch.randn(1, g * g, 16) for _ in LEVELS], batch(1)
    before = model.cross_level(tokens, b["head_xyxy"], b["body_xyxy"])
    for changed, touched in ((0, {0}), (1, {1}), (2, {0, 1, 2})):
        other = [t + (m == changed) for m, t in enumerate(tokens)]
        after = model.cross_level(other, b["head_xyxy"], b["body_xyxy"])
        assert {m for m in range(3) if not torch.equal(after[m], before[m])} == touched


def test_folding_changes_no_output(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    model, b = small_model(config, seed=3), batch(2, seed=3)
    wide = answer(model, b)
    assert model.vocabulary is not None
    before = model.vocabulary.widen.weight.numel()
    model.vocabulary.fold()
    folded = answer(model, b)
    assert model.vocabulary.folded and model.vocabulary.widen.weight.numel() * 26 == before
    for ours, theirs in ((folded.vocabulary_logits, wide.vocabulary_logits), (folded.logits, wide.logits)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="only the layout 'repeat'"):
        build_model(replace(config, model=replace(config.model, vocabulary=replace(config.model.vocabulary, layout="modulate"))),
                    pretrained=False, folded=True)  # fmt: skip


def test_batch_neighbours_change_nothing(model: CocoER) -> None:
    b = batch(3, seed=4)
    together = answer(model, b)
    for i in range(3):
        alone = answer(model, {name: tensor[i : i + 1] for name, tensor in b.items()})
        torch.testing.assert_close(alone.logits, together.logits[i : i + 1], rtol=0, atol=1e-5)
        assert alone.competition is not None and together.competition is not None
        assert torch.equal(alone.competition.exclusion, together.competition.exclusion[i : i + 1])


def test_no_person_is_an_empty_answer(model: CocoER) -> None:
    output = answer(model, batch(0))
    assert output.logits.shape == (0, 26) and output.fused_features.shape == (0, 32)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_full_and_empty_pseudo_labels(config: Config, monkeypatch: pytest.MonkeyPatch, threshold: float) -> None:
    monkeypatch.chdir(ROOT)
    spec = replace(config.model.vocabulary, threshold=threshold)
    output = answer(small_model(replace(config, model=replace(config.model, vocabulary=spec))), batch(2))
    assert output.pseudo_label is not None and set(output.pseudo_label.unique().tolist()) == {1.0 - threshold}
    assert output.logits.isfinite().all()
    assert isinstance(output.competition, ReleaseCompetition)
    assert output.competition.distance.isfinite().all()
    assert sorted(output.competition.exclusion[0].tolist()) == [0, 1, 2]


def test_coordination_can_be_turned_off(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    b, updated = batch(2), None
    for update in ("none", "release"):
        spec = replace(config.model.coordination, update=update)
        output = answer(small_model(replace(config, model=replace(config.model, coordination=spec))), b)
        moved = (output.refined - output.level_features).abs().max() > 1e-6
        assert moved == (update == "release")
        updated = output
    off = replace(config.model.competition, enabled=False)
    output = answer(small_model(replace(config, model=replace(config.model, competition=off))), b)
    assert torch.equal(output.refined, output.level_features)
    assert updated is not None and torch.equal(output.level_logits, updated.level_logits)


def test_the_release_config_says_what_was_published() -> None:
    config = load_config(ROOT / "configs/emotic_release.yaml")
    thresholds = config.inference.thresholds
    assert (thresholds.fused, thresholds.levels, thresholds.vocabulary) == (0.26, 0.6, 0.6)
    assert (config.model.vocabulary.threshold, config.model.coordination.step) == (0.3, 1.0)
    assert (config.inference.channel_order, config.model.vocabulary.normalisation) == ("bgr", "imagenet")


def test_blank_weights_are_zeros_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    with BlankWeights():
        layer = torch.nn.Linear(5, 4)
    assert not layer.weight.any()
    assert torch.equal(torch.rand(3), wanted)
    assert torch.nn.Linear(5, 4).weight.any(), "outside, layers are random again"


def test_full_size_counts() -> None:
    config = load_config(ROOT / "configs/emotic_release.yaml")
    with BlankWeights():
        model = build_model(config, pretrained=False, folded=True)
    assert model.vocabulary is not None
    widen = model.vocabulary.widen
    classes, size = model.vocabulary.text_embeddings.shape
    saved = widen.out_features * (classes * size - widen.in_features)
    assert saved == 170_393_600
    assert sum(p.numel() for p in model.parameters()) == 137_105_314
