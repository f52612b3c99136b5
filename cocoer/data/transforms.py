"""Cut the model's three crops from an image and one person's boxes, plain or augmented.

Frames: boxes are pixels of the image until `crop_levels` scales them, once, to the S x S frame of the context crop.
What moves pixels between crops (random crop, box shift) happens on the image; what does not (flip, jitter) happens on the
finished crops, so that crops from the disk cache go through the same steps and give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cocoer.boxes import Box, clip_box, scale_box, touched_pixels
from cocoer.config import AugmentConfig
from cocoer.data.batch import Batch
from cocoer.names import BODY, CONTEXT, HEAD

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN: tuple[float, float, float] = (0.485, 0.456, 0.406)
IMAGENET_STD: tuple[float, float, float] = (0.229, 0.224, 0.225)

_GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float64)  # ITU-R 601 luma, as Pillow and torchvision weigh colours


@dataclass(frozen=True)
class LevelCrops:
    """One person, cropped.

    pixels: uint8 [3, S, S, 3], levels in `names.LEVELS` order, then rows, columns, RGB.
    head_xyxy, body_xyxy: float32 [4], in the S x S frame of the context crop.
    """

    pixels: NDArray[np.uint8]
    head_xyxy: NDArray[np.float32]
    body_xyxy: NDArray[np.float32]


def crop_levels(image: Image.Image, body: Box, head: Box, size: int) -> LevelCrops:
    """Head, body and whole image, each resized to size x size.

    image: mode RGB. body, head: xyxy, pixels of `image`; parts outside are cut off. A crop covers every pixel that its box
    touches. Resizing is bilinear with antialiasing, bit for bit what torchvision does to a PIL image.
    Raises ValueError where a box lies outside the image.
    """
    width, height = image.size
    body, head = clip_box(body, width, height, "body"), clip_box(head, width, height, "head")
    pixels = np.empty((3, size, size, 3), dtype=np.uint8)
    for level, box in ((HEAD, head), (BODY, body), (CONTEXT, None)):
        part = image if box is None else image.crop(touched_pixels(box, width, height))
        pixels[level] = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))
    return LevelCrops(
        pixels=pixels,
        head_xyxy=np.array(scale_box(head, width, height, size), dtype=np.float32),
        body_xyxy=np.array(scale_box(body, width, height, size), dtype=np.float32),
    )


def normalise(pixels: NDArray[np.uint8] | Tensor) -> Tensor:
    """uint8 [..., S, S, 3] RGB -> float32 [..., 3, S, S], scaled to 0..1, then ImageNet mean and std."""
    import torch

    x = torch.as_tensor(pixels).movedim(-1, -3).contiguous().float()  # [..., 3, S, S]
    mean = torch.tensor(IMAGENET_MEAN, device=x.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=x.device).view(3, 1, 1)
    return x.sub_(mean * 255).mul_(1 / (std * 255))


def normalised(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`normalise` without torch: uint8 [..., S, S, 3] -> float32 [..., 3, S, S]; the same numbers."""
    x = np.ascontiguousarray(np.moveaxis(pixels, -1, -3), dtype=np.float32)
    mean, std = (
        np.array(v, dtype=np.float32).reshape(3, 1, 1) * np.float32(255) for v in (IMAGENET_MEAN, IMAGENET_STD)
    )
    x -= mean
    x *= np.float32(1) / std
    return x


def make_batch(crops: Sequence[LevelCrops], keys: Sequence[str], targets: Tensor | None = None) -> Batch:
    """Persons' crops, normalised and stacked. targets: float32 [B, k] or None."""
    import torch

    if not crops:
        raise ValueError("a batch needs at least one person, got none")
    pixels = np.stack([c.pixels for c in crops], axis=1)  # [3, B, S, S, 3]: every level lies in one piece
    head, body, context = normalise(pixels)  # each [B, 3, S, S]
    return Batch(
        head=head,
        body=body,
        context=context,
        head_xyxy=torch.from_numpy(np.stack([c.head_xyxy for c in crops])),
        body_xyxy=torch.from_numpy(np.stack([c.body_xyxy for c in crops])),
        targets=targets,
        keys=tuple(keys),
    )


def person_generator(
    seed: int, epoch: int, index: int, step: Literal["image", "crops"] = "image"
) -> np.random.Generator:
    """The random numbers of one person in one epoch: the same in any worker, process, batch or order.

    `augment_image` and `augment_crops` have a stream each, so that cached crops are changed as fresh ones would be.
    """
    key = np.random.SeedSequence((seed, epoch, index, ("image", "crops").index(step)))
    return np.random.Generator(np.random.Philox(key))


def augment_image(
    image: Image.Image, body: Box, head: Box, augment: AugmentConfig, rng: np.random.Generator
) -> tuple[Image.Image, Box, Box]:
    """Random crop of the image, then random shift of the box sides; the three come back as a new set.

    image: RGB. body, head: xyxy, pixels of `image`; the returned ones are pixels of the returned image.
    The crop takes off at most the share `augment.crop` of each side and never a pixel that body or head touches. A shift
    moves each box side by at most `augment.box_shift` of the box, and leaves at least one pixel inside the image.
    Always draws the same count of numbers, so that one setting does not change what another draws.
    """
    cuts, shifts = rng.random((2, 2)), rng.uniform(-1.0, 1.0, (2, 4))
    if augment.crop > 0:
        inside = (min(body[0], head[0]), min(body[1], head[1]), max(body[2], head[2]), max(body[3], head[3]))
        keep = touched_pixels(clip_box(inside, *image.size, "person"), *image.size)
        left, right = _cut(image.width, keep[0], keep[2], augment.crop, cuts[0])
        top, bottom = _cut(image.height, keep[1], keep[3], augment.crop, cuts[1])
        image = image.crop((left, top, right, bottom))
        body, head = _moved(body, left, top), _moved(head, left, top)
    if augment.box_shift > 0:
        body = _shifted(body, image.size, shifts[0] * augment.box_shift)
        head = _shifted(head, image.size, shifts[1] * augment.box_shift)
    return image, body, head


def _cut(length: int, first: int, last: int, share: float, draws: NDArray[np.float64]) -> tuple[int, int]:
    """Where a random crop of one axis begins and ends: total cut draws[0] * share, of which draws[1] before the person."""
    total = draws[0] * share * length
    begin = min(int(total * draws[1]), first)
    end = max(length - int(total * (1 - draws[1])), last)
    return begin, end


def _moved(box: Box, left: int, top: int) -> Box:
    return box[0] - left, box[1] - top, box[2] - left, box[3] - top


def _shifted(box: Box, size: tuple[int, int], by: NDArray[np.float64]) -> Box:
    """The box with each side moved by `by` (in units of the box), inside the image and at least a pixel wide and high."""
    wide, high = box[2] - box[0], box[3] - box[1]
    x1, y1, x2, y2 = (float(v) for v in np.array(box) + by * (wide, high, wide, high))
    x1, y1 = min(max(x1, 0.0), size[0] - 1.0), min(max(y1, 0.0), size[1] - 1.0)
    return x1, y1, max(min(x2, float(size[0])), x1 + 1.0), max(min(y2, float(size[1])), y1 + 1.0)


def augment_crops(crops: LevelCrops, augment: AugmentConfig, rng: np.random.Generator) -> LevelCrops:
    """Random left-right flip of all crops and both boxes, then brightness, contrast and saturation.

    One set of factors serves the three crops, and contrast pulls towards the mean of the context crop: as if the
    image itself had been taken in another light. Factors are uniform in 1 - jitter .. 1 + jitter.
    Always draws the same count of numbers. Returns new crops; the given ones are left alone.
    """
    flip, factors = rng.random(), 1.0 + augment.jitter * rng.uniform(-1.0, 1.0, 3)
    if flip < augment.flip:
        crops = flip_crops(crops)
    if augment.jitter > 0:
        crops = LevelCrops(jitter_pixels(crops.pixels, *factors), crops.head_xyxy, crops.body_xyxy)
    return crops


def flip_crops(crops: LevelCrops) -> LevelCrops:
    """Left and right exchanged in every crop and in both boxes."""
    size = crops.pixels.shape[2]

    def mirrored(box: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.array([size - box[2], box[1], size - box[0], box[3]], dtype=np.float32)

    # Whole pixels of three bytes are moved: twice as fast as byte by byte.
    pixels = np.ascontiguousarray(crops.pixels).view("V3")[:, :, ::-1].copy().view(np.uint8)
    return LevelCrops(pixels, mirrored(crops.head_xyxy), mirrored(crops.body_xyxy))


def jitter_pixels(
    pixels: NDArray[np.uint8], brightness: float, contrast: float, saturation: float
) -> NDArray[np.uint8]:
    """uint8 [3, S, S, 3] -> the same shape: brightness, then contrast about the context's mean gray, then saturation.

    Factor 1 changes nothing; contrast 0 is one gray, saturation 0 is gray. Values are clipped to 0..255 once, at the end.
    """
    size = pixels.shape[1]
    image = Image.fromarray(pixels.reshape(-1, size, 3))  # the three crops, one above the other
    mean_gray = np.asarray(Image.fromarray(pixels[CONTEXT]).convert("L")).mean()
    # All three are linear in the colours, so together they are one 3x4 colour matrix, applied by Pillow in one pass.
    gain, offset = brightness * contrast, (1.0 - contrast) * brightness * mean_gray
    matrix = []
    for channel in range(3):
        row = gain * (1.0 - saturation) * _GRAY
        row[channel] += gain * saturation
        matrix += [*row.tolist(), offset]
    return np.asarray(image.convert("RGB", tuple(matrix))).reshape(pixels.shape)
