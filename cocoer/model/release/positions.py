"""Where a box's tokens lie in the context: the published code's learned map, read at the points of a box.

Letters: B boxes, g grid side, c channels. Boxes are xyxy in the square frame of the context crop, `cell * g` pixels wide.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RegionPositions(nn.Module):
    """Learned column and row embeddings make a g x g map; a box's own g x g points read it by bilinear interpolation.

    As released (models_sw.py, `get_roi_points` and `bilinear_interpolate`): points are in units of
    `cell` pixels without half-pixel shift, and the corner weights come from the *clamped* corner indices, so a point at
    or beyond the last row or column gets weight 0 there. Kept because the published weights were trained with it, and so
    is the cutting of boxes to whole pixels of the context frame (inference.py, `scale_coord`).
    """

    def __init__(self, grid: int, channels: int, cell: float = 32.0) -> None:
        super().__init__()
        self.grid, self.cell = grid, cell
        self.column = nn.Parameter(torch.rand(grid, channels // 2))
        self.row = nn.Parameter(torch.rand(grid, channels - channels // 2))

    def context(self) -> Tensor:
        """The map as tokens, row by row: [1, g * g, c], column half first."""
        g = self.grid
        column = self.column[None, :, :].expand(g, g, -1)
        row = self.row[:, None, :].expand(g, g, -1)
        return torch.cat([column, row], dim=-1).flatten(0, 1)[None]

    def region(self, boxes: Tensor) -> Tensor:
        """boxes [B, 4] xyxy -> positions [B, g * g, c] of the g x g points spread evenly over each box."""
        points = self._points(boxes)  # [B, 2 (x, y), g]
        column = self._read(self.column, points[:, 0])
        row = self._read(self.row, points[:, 1])
        return self._outer(column, row)

    def _points(self, boxes: Tensor) -> Tensor:
        """Coordinates of the points along x and y in units of a cell, [B, 2, g].

        A point on the last row or column is read differently from one just inside, so where it falls must not depend on
        rounding: whole pixels, float32, and the published order of operations.
        """
        boxes = boxes.float().trunc()
        low, high = boxes[:, :2, None], boxes[:, 2:, None]
        share = (torch.arange(self.grid, device=boxes.device) + 0.5) / self.grid
        points = share * (high - low) - (high - low) / 2 + (high + low) / 2
        return (points / self.cell).to(self.column.dtype)

    def _read(self, table: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """1-d linear interpolation of a table [g, c'] at points [B, g]: values [B, g, c'] and total weight [B, g].

        The weight is 1 inside and 0 where both clamped corners coincide.
        """
        last = table.shape[0] - 1
        floor = torch.floor(at)
        below, above = floor.clamp(0, last), (floor + 1).clamp(0, last)
        to_below, to_above = above - at, at - below
        value = to_below[..., None] * table[below.long()] + to_above[..., None] * table[above.long()]
        return value, to_below + to_above

    def _outer(self, column: tuple[Tensor, Tensor], row: tuple[Tensor, Tensor]) -> Tensor:
        """Two-dimensional bilinear weights are the products of the two one-dimensional ones: [B, g * g, c]."""
        (x_value, x_weight), (y_value, y_weight) = column, row
        across = x_value[:, None, :, :] * y_weight[:, :, None, None]  # [B, row, column, c/2]
        down = y_value[:, :, None, :] * x_weight[:, None, :, None]
        return torch.cat([across, down], dim=-1).flatten(1, 2)
