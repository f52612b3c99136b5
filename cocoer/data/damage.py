"""Corrupt a person's input: blur, noise, JPEG compression, darkness or an occluded head, in the image or in one crop.

Five strengths a kind. Noise and JPEG quality are those of ImageNet-C (Hendrycks and Dietterich, ICLR 2019); blur is a share of
the side, because a crop and its image differ in size. Where one level alone is damaged, it is known which one a competition
should exclude.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from cocoer.boxes import Box
from cocoer.data.transforms import LevelCrops
from cocoer.names import HEAD, LEVELS

Kind = Literal["blur", "noise", "jpeg", "dark", "occlude-head"]
Where = Literal["image", "head", "body", "context"]

KINDS: tuple[Kind, ...] = ("blur", "noise", "jpeg", "dark", "occlude-head")
PLACES: tuple[Where, ...] = ("image", "head", "body", "context")
STRENGTHS = (1, 2, 3, 4, 5)

BLUR = (1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8)
"""Radius of the Gaussian, as a share of the shorter side."""
NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)
"""Deviation of the Gaussian noise; colours are 0..1."""
JPEG = (25, 18, 15, 10, 7)
"""Quality, in libjpeg's units."""
DARK = (0.7, 0.5, 0.35, 0.2, 0.1)
"""What the colours are multiplied by."""
COVERED = (0.3, 0.5, 0.7, 0.85, 1.0)
"""Share of each side that a grey patch covers, around the middle."""

GREY = 128


@dataclass(frozen=True)
class Damage:
    """One way to damage a person's view. where: the image before it is cropped, or one level's crop alone.

    Raises ValueError for an unknown kind, strength or place, and for a covered head in the crop of another level.
    """

    kind: str
    strength: int
    where: str = "image"

    def __post_init__(self) -> None:
        for what, value, choices in (
            ("kind", self.kind, KINDS), ("strength", self.strength, STRENGTHS), ("place", self.where, PLACES),
        ):  # fmt: skip
            if value not in choices:
                raise ValueError(f"damage: wanted a {what} of {', '.join(map(str, choices))}, got {value!r}")
        if self.kind == "occlude-head" and self.where not in ("image", "head"):
            raise ValueError(f"damage: a head is covered in the image or in the head's crop, not in the {self.where}'s")

    @property
    def level(self) -> str | None:
        """The level that is damaged more than the others, or None: a covered head spoils the head, wherever it is covered."""
        return "head" if self.kind == "occlude-head" else None if self.where == "image" else self.where


def all_damages(kinds: Sequence[str], places: Sequence[str]) -> list[Damage]:
    """Every strength of each kind at each place where it can be."""
    at = [(kind, where) for kind in kinds for where in places if kind != "occlude-head" or where in ("image", "head")]
    return [Damage(kind, strength, where) for kind, where in at for strength in STRENGTHS]


def damage_image(image: Image.Image, head: Box, damage: Damage, name: str) -> Image.Image:
    """The image (RGB), damaged; head: xyxy, its pixels. name: of the image, which has the same noise for all its persons."""
    if damage.kind != "occlude-head":
        return Image.fromarray(damaged_pixels(np.asarray(image), damage.kind, damage.strength, name))
    x1, y1, x2, y2 = head
    share = COVERED[damage.strength - 1]
    half_width, half_height = share * (x2 - x1) / 2, share * (y2 - y1) / 2
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    patch = (centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height)
    covered = image.copy()
    covered.paste((GREY, GREY, GREY), tuple(round(v) for v in patch))  # type: ignore[arg-type]
    return covered


def damage_crops(crops: LevelCrops, damage: Damage, name: str) -> LevelCrops:
    """New crops, with the level of `damage.where` damaged; boxes and the other levels as they were. name: the person's key."""
    pixels = crops.pixels.copy()
    level = LEVELS.index(damage.where)
    if damage.kind == "occlude-head":
        pixels[HEAD] = covered(pixels[HEAD], COVERED[damage.strength - 1])
    else:
        pixels[level] = damaged_pixels(pixels[level], damage.kind, damage.strength, name)
    return LevelCrops(pixels, crops.head_xyxy, crops.body_xyxy)


def damaged_pixels(pixels: NDArray[np.uint8], kind: str, strength: int, name: str) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] RGB -> the same shape. name: what the noise is drawn for; the same name has the same noise."""
    place = strength - 1
    if kind == "blur":
        return blurred(pixels, BLUR[place])
    if kind == "jpeg":
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG[place])
        return np.asarray(Image.open(buffer).convert("RGB"))
    if kind == "dark":
        return np.round(pixels * DARK[place]).astype(np.uint8)
    draws = np.random.default_rng((zlib.crc32(name.encode()), strength)).normal(0.0, NOISE[place], pixels.shape)
    return np.round(np.clip(pixels / 255.0 + draws, 0.0, 1.0) * 255.0).astype(np.uint8)


def blurred(pixels: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """A Gaussian blur of uint8 [H, W, 3] whose radius is this share of the shorter side."""
    radius = min(pixels.shape[:2]) * share
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def covered(pixels: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] with a grey patch around the middle, of this share of each side."""
    out = pixels.copy()
    height, width = pixels.shape[:2]
    top, left = round((1 - share) / 2 * height), round((1 - share) / 2 * width)
    out[top : height - top, left : width - left] = GREY
    return out
