"""Turn feature maps into tokens that attend to the context (hierarchical feature extraction).

Letters: B persons, L=3 levels in `names.LEVELS` order, g map side, N tokens, c token channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cocoer.model.attention import AttentionBlock
from cocoer.model.release.positions import RegionPositions
from cocoer.names import CONTEXT, LEVELS


class AttentionMaps(NamedTuple):
    """Where a level's tokens look in the context: head, body, context, each [B, heads, N, N], rows summing to 1."""

    head: Tensor
    body: Tensor
    context: Tensor


class PatchTokens(nn.Module):
    """Zero-pad the map to a multiple of the patch size, cut it into patches, project each with E to a token.

    With patch=2 a 7x7 map becomes 8x8 and 16 tokens (docs/method.md); with patch=1 each cell is a token (release: the
    1x1 convolution).
    """

    def __init__(self, channels: int, grid: int, patch: int, size: int) -> None:
        super().__init__()
        self.grid, self.patch = grid, patch
        self.num_tokens = math.ceil(grid / patch) ** 2
        self.project = nn.Linear(channels * patch * patch, size)

    def forward(self, features: Tensor) -> Tensor:
        """[B, channels, g, g] -> [B, N, size], tokens row by row, a patch's entries channel by channel.

        Raises ValueError for a map of another side than the one the model was built for.
        """
        if features.shape[2] != self.grid or features.shape[3] != self.grid:
            raise ValueError(
                f"feature map: wanted {self.grid}x{self.grid} cells, got {features.shape[2]}x{features.shape[3]}; "
                f"the crops have another size than data.image_size says"
            )
        if self.patch == 1:
            return self.project(features.flatten(2).transpose(1, 2))
        fill = -self.grid % self.patch
        padded = F.pad(features, (0, fill, 0, fill))  # [B, channels, g', g']
        patches = F.unfold(padded, self.patch, stride=self.patch)  # [B, channels * patch^2, N]
        return self.project(patches.transpose(1, 2))


def _blocks_of(blocks: nn.ModuleDict, level: str) -> list[AttentionBlock]:
    """A level's attention blocks, in order."""
    return list(cast("Iterable[AttentionBlock]", blocks[level]))


class PaperCrossLevel(nn.Module):
    """T_{h,c}, T_{b,c}, T_{c,c}: each level's tokens query the context's, block after block; one learned position table."""

    def __init__(self, blocks: Sequence[Sequence[AttentionBlock]], num_tokens: int, channels: int) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(num_tokens, channels))
        self.blocks = nn.ModuleDict({level: nn.ModuleList(own) for level, own in zip(LEVELS, blocks, strict=True)})

    def forward(self, tokens: Sequence[Tensor], head_xyxy: Tensor, body_xyxy: Tensor) -> list[Tensor]:
        """Three [B, N, c] in, three [B, N, c] out; the boxes are for the release's positions and unused here."""
        placed = [t + self.position for t in tokens]
        context = placed[CONTEXT]
        out = []
        for level, x in zip(LEVELS, placed, strict=True):
            for block in _blocks_of(self.blocks, level):
                x = block(x, x if level == "context" else context)
            out.append(x)
        return out

    def attention_maps(self, tokens: Sequence[Tensor], head_xyxy: Tensor, body_xyxy: Tensor) -> AttentionMaps:
        """Where each level looks in the context in its first block."""
        placed = [t + self.position for t in tokens]
        return AttentionMaps(
            *(
                _blocks_of(self.blocks, m)[0].attention_map(x, placed[CONTEXT])
                for m, x in zip(LEVELS, placed, strict=True)
            )
        )


class ReleaseCrossLevel(nn.Module):
    """The published code's form: box-aware positions on queries and keys, several blocks a level, one shared last norm.

    Head and body attend, in all blocks, to the context tokens as the backbone gave them; the context stream attends to
    itself (models_sw.py, `model_GWT.forward`).
    """

    def __init__(self, blocks: Sequence[Sequence[AttentionBlock]], positions: RegionPositions, channels: int) -> None:
        super().__init__()
        self.positions = positions
        self.blocks = nn.ModuleDict({level: nn.ModuleList(own) for level, own in zip(LEVELS, blocks, strict=True)})
        self.norm = nn.LayerNorm(channels)

    def _positions(self, head_xyxy: Tensor, body_xyxy: Tensor) -> list[Tensor]:
        """Position of each level's tokens, in level order, each [B, N, c]."""
        whole = self.positions.context().expand(head_xyxy.shape[0], -1, -1)
        return [self.positions.region(head_xyxy), self.positions.region(body_xyxy), whole]

    def forward(self, tokens: Sequence[Tensor], head_xyxy: Tensor, body_xyxy: Tensor) -> list[Tensor]:
        """Three [B, N, c] and boxes [B, 4] in the 224 frame in, three [B, N, c] out."""
        places = self._positions(head_xyxy, body_xyxy)
        context = tokens[CONTEXT]
        out = []
        for level, x, place in zip(LEVELS, tokens, places, strict=True):
            for block in _blocks_of(self.blocks, level):
                x = block(x, x if level == "context" else context, place, places[CONTEXT])
            out.append(self.norm(x))
        return out

    def attention_maps(self, tokens: Sequence[Tensor], head_xyxy: Tensor, body_xyxy: Tensor) -> AttentionMaps:
        """Where each level looks in the context in its first block."""
        places = self._positions(head_xyxy, body_xyxy)
        maps = [
            _blocks_of(self.blocks, m)[0].attention_map(x, tokens[CONTEXT], place, places[CONTEXT])
            for m, x, place in zip(LEVELS, tokens, places, strict=True)
        ]
        return AttentionMaps(*maps)


class NoCrossLevel(nn.Module):
    """Ablation "without cross-level attention": tokens get their learned position and nothing else."""

    def __init__(self, num_tokens: int, channels: int) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(num_tokens, channels))

    def forward(self, tokens: Sequence[Tensor], head_xyxy: Tensor, body_xyxy: Tensor) -> list[Tensor]:
        """Three [B, N, c] in, three [B, N, c] out."""
        return [t + self.position for t in tokens]
