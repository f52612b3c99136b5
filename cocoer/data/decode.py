"""From a file to RGB pixels as a person sees them, or an error that says what is wrong with the file.

Data sets hold PNG under `.jpg`, truncated JPEGs, gray, palette, 16-bit, CMYK and transparent images, and cameras that
store the rotation beside the pixels. All of that is settled here, once, so that boxes always mean upright pixels.
"""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from cocoer.data.batch import PersonRecord
from cocoer.errors import ImageError

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "MPO")
"""Content that is read, whatever the file's ending. Of an animation, the first frame."""

MAX_PIXELS = 150_000_000
"""Larger images are refused before their pixels are unpacked. The widest of EMOTIC has 11,617 columns."""

_OPENERS = tuple(
    f for f in FORMATS if f != "MPO"
)  # Pillow reads an MPO (two images of one camera) through its JPEG reader
_ORIENTATION_TAG = 0x0112
_UPRIGHT: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's parsers raise on damaged files, found by the fuzz test and in Pillow's own handlers.
_FAULTS = (
    OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    ZeroDivisionError, RuntimeError, MemoryError, struct.error, zlib.error, Warning,
)  # fmt: skip

_OPENING = threading.Lock()

Source = str | Path | BinaryIO


def decode_image(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image of a file (path or open binary file) in mode RGB, upright, 8 bits a channel.

    EXIF rotation is applied. 16-bit gray keeps its high byte (as Pillow does for 16-bit colour), CMYK is converted,
    transparent parts are laid over white. The size is checked against `max_pixels` before pixels are unpacked.
    Raises ImageError for a missing, unreadable, foreign, damaged, truncated or too large file.
    """
    name = _name(source)
    image = _open(source, name, max_pixels)
    try:
        with image:
            image.load()
            return _to_rgb(_upright(image), name)
    except ImageError:
        raise
    except _FAULTS as err:
        raise ImageError(
            f"{name}: wanted a complete {image.format} image, got a damaged or truncated one ({_one_line(err)}); "
            "fetch the file again or leave it out"
        ) from None


def image_size(source: Source, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) in pixels after EXIF rotation, read from the header alone.

    Raises ImageError as `decode_image` does, except for damage behind the header, which only a full decode sees.
    """
    name = _name(source)
    with _open(source, name, max_pixels) as image:
        width, height = image.size
        # Pillow has already turned the size of a TIFF; of every other format it reports the stored one. Of a PNG it would unpack
        # all pixels to find a late EXIF chunk, so the chunks are walked first.
        known_upright = image.format == "TIFF" or (image.format == "PNG" and not _png_has_exif(image))
        turned = not known_upright and _orientation(image) >= 5
        return (height, width) if turned else (width, height)


def _png_has_exif(image: Image.Image) -> bool:
    """Whether an opened PNG holds EXIF anywhere: as a chunk of its own, or as text the way ImageMagick writes it."""
    file = image.fp  # type: ignore[attr-defined]
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf" or (kind in (b"tEXt", b"zTXt", b"iTXt") and file.read(21) == b"Raw profile type exif"):
            return True
        file.seek(length + 4 - (21 if kind in (b"tEXt", b"zTXt", b"iTXt") else 0), 1)
    return False


def decode_record(record: PersonRecord, root: Path) -> Image.Image:
    """The person's image, RGB, of the size that the index says; ImageError otherwise."""
    image = decode_image(root / record.image)
    if image.size != (record.width, record.height):
        raise ImageError(
            f"{root / record.image}: wanted {record.width}x{record.height} pixels as in the index, got "
            f"{image.width}x{image.height}; the file has changed, prepare the index again"
        )
    return image


def _open(source: Source, name: str, max_pixels: int) -> Image.Image:
    """The lazily opened image, its format and size checked."""
    try:
        # Pillow warns from 89 million pixels on; the limit that counts is ours, below. The lock is there because
        # catch_warnings puts back what it found: two threads inside it at once would leave the wrong filters behind.
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # of damaged EXIF, which does not matter here
            image = Image.open(source, formats=_OPENERS)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: wanted an image, got a folder") from None
    except Image.DecompressionBombError as err:
        raise ImageError(f"{name}: wanted at most {max_pixels:,} pixels ({_one_line(err)}); make it smaller") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{name}: wanted an image ({', '.join(FORMATS)}), got something else or a damaged header; "
            "save it as JPEG or PNG"
        ) from None
    except _FAULTS as err:
        raise ImageError(f"{name}: wanted a readable image, got {type(err).__name__}: {_one_line(err)}") from None
    width, height = image.size
    if width * height > max_pixels or not width or not height:
        image.close()
        raise ImageError(f"{name}: wanted 1 to {max_pixels:,} pixels, got {width}x{height}; make the image smaller")
    return image


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where it is absent or unreadable: damaged notes do not spoil good pixels."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        return int(value) if int(value) in _UPRIGHT else 1
    except _FAULTS:
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """The loaded image turned as its EXIF orientation says. A TIFF is already upright and its note gone after load()."""
    how = _UPRIGHT.get(_orientation(image))
    return image if how is None else image.transpose(how)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any mode of Pillow's -> RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        # A copy of the pixels' owner, so that the file can be closed and nothing of it (EXIF, profile) travels along.
        image.info = {}
        return image.copy()
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError(f"{name}: wanted 8 or 16 bits a channel, got floating-point pixels; save it as 8-bit PNG")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _name(source: Source) -> str:
    """How messages call the source."""
    return str(source) if isinstance(source, str | Path) else str(getattr(source, "name", "image"))


def _one_line(err: BaseException) -> str:
    return " ".join(str(err).split())[:200] or type(err).__name__
