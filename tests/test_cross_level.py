"""From feature maps to tokens that have looked at the context."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cocoer.model.attention import AttentionBlock
from cocoer.model.cross_level import NoCrossLevel, PaperCrossLevel, PatchTokens, ReleaseCrossLevel
from cocoer.model.release.positions import RegionPositions

BOXES = torch.zeros(2, 4), torch.zeros(2, 4)


def slow_tokens(features: Tensor, module: PatchTokens) -> Tensor:
    """Patch by patch, entry by entry; what lies outside the map is 0."""
    persons, channels, side, _ = features.shape
    patch = module.patch
    across = -(-side // patch)
    rows = []
    for b in range(persons):
        for row in range(across):
            for column in range(across):
                entries = [
                    features[b, c, y, x] if y < side and x < side else torch.zeros(())
                    for c in range(channels)
                    for y in range(row * patch, (row + 1) * patch)
                    for x in range(column * patch, (column + 1) * patch)
                ]
                rows.append(module.project(torch.stack(entries)))
    return torch.stack(rows).unflatten(0, (persons, across * across))


@pytest.mark.parametrize(
    ("grid", "patch", "count"), [(7, 2, 16), (7, 3, 9), (7, 4, 4), (7, 1, 49), (4, 2, 4), (1, 2, 1)]
)
def test_patches_are_cut_row_by_row_from_the_padded_map(grid: int, patch: int, count: int) -> None:
    torch.manual_seed(0)
    module = PatchTokens(channels=3, grid=grid, patch=patch, size=5)
    features = torch.randn(2, 3, grid, grid)
    assert module.num_tokens == count
    tokens = module(features)
    assert tokens.shape == (2, count, 5)
    torch.testing.assert_close(tokens, slow_tokens(features, module), rtol=1e-5, atol=1e-6)


def test_a_map_of_another_size_is_named() -> None:
    module = PatchTokens(channels=3, grid=7, patch=2, size=5)
    with pytest.raises(
        ValueError, match=r"feature map: wanted 7x7 cells, got 8x8; the crops have another size than data.image_size"
    ):
        module(torch.zeros(1, 3, 8, 8))
    for height, width in ((7, 8), (8, 7)):
        with pytest.raises(ValueError, match=f"wanted 7x7 cells, got {height}x{width};"):
            module(torch.zeros(1, 3, height, width))


def levels(seed: int = 0, count: int = 4) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(2, count, 8, generator=rng) for _ in range(3)]


def blocks(depth: int = 1, published: bool = False) -> list[list[AttentionBlock]]:
    return [[AttentionBlock(8, 2, 3, 16, published) for _ in range(depth)] for _ in range(3)]


def test_paper_head_and_body_see_the_context_and_the_context_sees_itself() -> None:
    torch.manual_seed(0)
    module = PaperCrossLevel(blocks(), 4, 8)
    base = module(levels(), *BOXES)
    for changed in range(3):
        tokens = levels()
        tokens[changed] = tokens[changed] + 1 + torch.randn(2, 4, 8)
        moved = [not torch.allclose(a, b) for a, b in zip(module(tokens, *BOXES), base, strict=True)]
        assert moved == [changed in (0, 2), changed in (1, 2), changed == 2]


def test_paper_levels_share_one_position_table_and_nothing_else() -> None:
    torch.manual_seed(0)
    module = PaperCrossLevel(blocks(2), 4, 8)
    tokens = levels()
    place = module.position
    context = tokens[2] + place
    wanted = tokens[0] + place
    for block in module.blocks["head"]:
        wanted = block(wanted, context)
    torch.testing.assert_close(module(tokens, *BOXES)[0], wanted)
    own = tokens[2] + place
    for block in module.blocks["context"]:
        own = block(own, own)
    torch.testing.assert_close(module(tokens, *BOXES)[2], own)
    weights = [id(p) for level in module.blocks.values() for p in level.parameters()]
    assert len(weights) == len(set(weights))


@pytest.mark.parametrize("published", [False, True])
def test_attention_maps_are_shares(published: bool) -> None:
    torch.manual_seed(0)
    if published:
        module: PaperCrossLevel | ReleaseCrossLevel = ReleaseCrossLevel(blocks(3, True), RegionPositions(2, 8, 32.0), 8)
    else:
        module = PaperCrossLevel(blocks(), 4, 8)
    maps = module.attention_maps(levels(), *BOXES)
    for each in maps:
        assert each.shape == (2, 2, 4, 4)
        torch.testing.assert_close(each.sum(-1), torch.ones(2, 2, 4))
        assert (each > 0).all()


def test_maps_are_those_of_the_first_block() -> None:
    for module in (
        PaperCrossLevel(blocks(2), 4, 8),
        ReleaseCrossLevel(blocks(2, True), RegionPositions(2, 8, 32.0), 8),
    ):
        before = module.attention_maps(levels(), *BOXES)
        with torch.no_grad():
            for level in module.blocks.values():
                for weight in level[1].parameters():  # type: ignore[index]
                    weight.zero_()
        for found, wanted in zip(module.attention_maps(levels(), *BOXES), before, strict=True):
            assert torch.equal(found, wanted)


def test_a_box_of_one_cell_reads_between_the_first_two_columns_and_rows() -> None:
    """Its points are at a quarter and three quarters of the way: 12.5 and 17.5 between 10 and 20, 1.5 and 2.5 between 1 and 3."""
    positions = RegionPositions(2, 2)  # a cell has 32 pixels
    with torch.no_grad():
        positions.column.copy_(torch.tensor([[10.0], [20.0]]))
        positions.row.copy_(torch.tensor([[1.0], [3.0]]))
    found = positions.region(torch.tensor([[0.0, 0.0, 32.9, 32.9]]))  # whole pixels count
    assert found.tolist() == [[[12.5, 1.5], [17.5, 1.5], [12.5, 2.5], [17.5, 2.5]]]
    assert positions.context().tolist() == [[[10.0, 1.0], [20.0, 1.0], [10.0, 3.0], [20.0, 3.0]]]


def test_positions_start_small_beside_normed_tokens() -> None:
    torch.manual_seed(0)
    for module in (NoCrossLevel(200, 60), PaperCrossLevel(blocks(), 200, 60)):
        assert module.position.std().item() == pytest.approx(0.02, rel=0.03)  # as a ViT's
        assert module.position.mean().abs() < 0.001


def test_maps_are_of_the_tokens_with_their_positions_added() -> None:
    module = PaperCrossLevel(blocks(), 4, 8)
    placed = [t + module.position.detach() for t in levels()]
    maps = module.attention_maps(levels(), *BOXES)
    with torch.no_grad():
        module.position.zero_()
    for found, wanted in zip(maps, module.attention_maps(placed, *BOXES), strict=True):
        torch.testing.assert_close(found, wanted)


def test_without_cross_level_attention_a_level_keeps_to_itself() -> None:
    module = NoCrossLevel(4, 8)
    for before, after in zip(levels(), module(levels(), *BOXES), strict=True):
        assert torch.equal(after, before + module.position)
