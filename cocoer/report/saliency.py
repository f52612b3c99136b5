"""Panels of where the levels look: Grad-CAM before and after coordination (supplement, Fig. 4), and cross-level attention.

Before and after share one colour scale within a level, so that they can be compared; the difference has its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from cocoer.outputs import Explanation, Grid, LevelSaliency
from cocoer.report.plots import image_grid

_CELL = 224

# Dark to bright with rising lightness, so that a print in grey still reads: value -> RGB.
_HEAT = (
    (0.0, (20, 11, 52)),
    (0.25, (87, 16, 110)),
    (0.5, (188, 55, 84)),
    (0.75, (249, 142, 9)),
    (1.0, (252, 255, 164)),
)
_GAIN, _LOSS = (178, 24, 43), (33, 102, 172)
Cell = tuple[Image.Image, str]
"""An image and its caption."""

_STRONGEST = 0.75  # opacity of the strongest cell; the image must stay visible


def _upscaled(grid: Grid, size: tuple[int, int]) -> NDArray[np.float32]:
    """A map at the size (width, height) of the image below it, bilinear: [height, width]."""
    small = Image.fromarray(np.asarray(grid, dtype=np.float32))
    return np.asarray(small.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def _blend(image: Image.Image, colour: NDArray[np.float32], opacity: NDArray[np.float32]) -> Image.Image:
    """Colours [H, W, 3] over the image with opacity [H, W] in 0..1."""
    below = np.asarray(image.convert("RGB"), dtype=np.float32)
    mixed = below + (colour - below) * opacity[..., None]
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def heat(image: Image.Image, grid: Grid, top: float) -> Image.Image:
    """The image with a map over it: dark violet to bright yellow from 0 to `top`, opacity rising with the value.

    grid: cells over the whole image. A map of zeros, or `top` 0, leaves the image as it is.
    """
    value = _upscaled(grid, image.size).clip(0.0) / top if top > 0 else np.zeros(image.size[::-1], np.float32)
    value = value.clip(0.0, 1.0)
    places = [place for place, _ in _HEAT]
    colour = np.stack([np.interp(value, places, [rgb[c] for _, rgb in _HEAT]) for c in range(3)], axis=-1)
    return _blend(image, colour.astype(np.float32), _STRONGEST * np.sqrt(value))


def change(image: Image.Image, before: Grid, after: Grid) -> tuple[Image.Image, float]:
    """The image with after - before over it, red where saliency grew and blue where it fell; and the largest change."""
    difference = np.asarray(after, dtype=np.float32) - np.asarray(before, dtype=np.float32)
    top = float(np.abs(difference).max())
    if top == 0.0:
        return image.convert("RGB"), 0.0
    value = _upscaled(tuple(tuple(row) for row in difference.tolist()), image.size) / top
    colour = np.where(value[..., None] > 0, np.array(_GAIN, np.float32), np.array(_LOSS, np.float32))
    grey = image.convert("L").convert("RGB")  # the two hues stand out on grey alone
    return _blend(grey, colour, _STRONGEST * np.abs(value).clip(0, 1)), top


def _largest(level: LevelSaliency) -> float:
    return max((v for grid in (level.before, level.after) for row in grid for v in row), default=0.0)


def saliency_rows(crops: Mapping[str, Image.Image], explanation: Explanation) -> dict[str, tuple[Cell, ...]]:
    """Per level the crop, Grad-CAM with theta, with theta~, and the difference, as captioned squares.

    crops: level name -> what the level saw, any size and mode (a crop of one pixel too).
    """
    rows: dict[str, tuple[Cell, ...]] = {}
    for level in explanation.saliency:
        crop = crops[level.level]
        shown = crop.convert("RGB").resize((_CELL, _CELL), Image.Resampling.BICUBIC)
        most = _largest(level)
        moved, by = change(shown, level.before, level.after)
        share = f"up to {100 * by / most:.0f} %" if most > 0 else ""
        rows[level.level] = (
            (shown, f"{level.level}, {crop.width}x{crop.height} px"),
            (heat(shown, level.before, most), f"theta: logit {level.score_before:.2f}"),
            (heat(shown, level.after, most), f"theta~: logit {level.score_after:.2f}"),
            (moved, f"theta~ - theta, {share}" if by else "no change" if most > 0 else "both maps are empty"),
        )
    return rows


def attention_rows(image: Image.Image, explanation: Explanation) -> dict[str, tuple[Cell, ...]]:
    """Per looking level the mean over attention heads and each head, over the whole image; empty without attention maps."""
    high = max(1, min(2 * _CELL, round(_CELL * image.height / image.width)))
    shown = image.convert("RGB").resize((_CELL, high), Image.Resampling.BICUBIC)
    rows = {}
    for name, maps in explanation.attention.items():
        mean = np.mean(np.asarray(maps), axis=0)
        grids = [tuple(tuple(r) for r in mean.tolist()), *maps]
        captions = [f"{name} -> context, mean", *(f"attention head {i + 1}" for i in range(len(maps)))]
        images = [heat(shown, _above_even(grid), _peak(grid)) for grid in grids]
        rows[f"{name} -> context"] = tuple(zip(images, captions, strict=True))
    return rows


def draw_saliency(crops: Mapping[str, Image.Image], explanation: Explanation, title: str = "") -> Figure:
    """The panel of Fig. 4, a row of `saliency_rows` per level. Same input, same bytes."""
    said = f"{title}   {explanation.emotion}, fused probability {explanation.probability:.2f}".strip()
    return image_grid(list(saliency_rows(crops, explanation).values()), said)


def draw_attention(image: Image.Image, explanation: Explanation, title: str = "") -> Figure:
    """Where the head's and the body's tokens look in the whole image: the mean over attention heads, then each head.

    image: the whole image, which is what the context level sees. Raises ValueError where there are no attention maps.
    """
    if not explanation.attention:
        raise ValueError("wanted attention maps, got none: this model was built without cross-level attention")
    rows = list(attention_rows(image, explanation).values())
    return image_grid(rows, f"{title}   cross-level attention".strip())


def _above_even(grid: Grid) -> Grid:
    """The map above its smallest cell: an even look at everything leaves the image as it is."""
    least = min(v for row in grid for v in row)
    return tuple(tuple(v - least for v in row) for row in grid)


def _peak(grid: Grid) -> float:
    return max(v for row in _above_even(grid) for v in row)
