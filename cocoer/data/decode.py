"""Decode any image to upright RGB pixels, or raise an error that explains what is wrong with it.

Data sets hold PNG under `.jpg`, truncated JPEGs, gray, palette, 16-bit, CMYK and transparent images, and cameras that
store the rotation beside the pixels. All of that is settled here, once, so that boxes always mean upright pixels.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cocoer.data.batch import PersonRecord
from cocoer.data.phone_formats import missing_codec, register, to_srgb
from cocoer.errors import ImageError, one_line

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "MPO", "AVIF", "HEIF")
"""Content that is read, whatever the file's ending. Of several images in one file (an animation, a Live Photo, the gain map of an
Ultra-HDR JPEG) the first."""

DEMO_MARK = "cocoer demo world: synthetic"
"""The comment that an image drawn by the demo world carries, in memory and in its file."""

MAX_PIXELS = 92_000_000
"""Larger images are refused before their pixels are unpacked; `inference.max_pixels` is the limit of a recogniser.

At the limit decoding takes at most 1.12 GB (progressive CMYK JPEG; most formats 0.8), see docs/security.md. The widest image of
EMOTIC has 11,617 columns.
"""

_COPIED_BY_THEIR_DECODER = frozenset({"WEBP", "AVIF", "HEIF"})
"""Their decoders hold the whole image more than once (WebP of 90 megapixels: 1.45 GB), so two thirds of the limit count."""

_STRIP = 2**20  # pixels that are converted at a time where a conversion needs several copies

# Pillow reads an MPO (two images of one camera) through its JPEG reader.
_OPENERS = (*(f for f in FORMATS if f not in ("MPO", "HEIF")), *register())
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

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[Any]
"""A path, the bytes of a file, an open binary file, a PIL image, or an array of pixels."""

_WANTED = (
    "a path, the bytes of an image file, an open binary file, a PIL image, or an array: uint8 [H, W], [H, W, 3] (RGB) or"
    " [H, W, 4] (RGBA), uint16 [H, W]"
)


class _NotAnImage(ImageError):
    """Content that no decoder knows."""


def is_image(data: bytes) -> bool:
    """Whether a decoder knows these bytes as an image, whatever may be wrong with the rest of it."""
    try:
        with _open(io.BytesIO(data), "image", MAX_PIXELS):
            return True
    except _NotAnImage:
        return False
    except ImageError:
        return True


def decode_image(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image in mode RGB, upright, 8 bits a channel; the same pixels in whichever form of `Source` it comes.

    EXIF rotation is applied (of a PIL image: where it still carries the note), and colours are converted to sRGB where there
    is a profile. 16-bit gray keeps its high byte (as Pillow does for 16-bit colour), CMYK is converted, transparent parts are
    laid over white. The size is checked against
    `max_pixels` before pixels are unpacked. What was handed in stays as it was, and open.
    Raises ImageError for a missing, unreadable, foreign, damaged, truncated, closed or too large image, and for anything
    that is no `Source`.
    """
    name = _name(source)
    in_memory = isinstance(source, Image.Image | np.ndarray)
    image = _given(source, name, max_pixels) if in_memory else _open(source, name, max_pixels)
    try:
        # Leaving an image closes the file of a path, and no file of the caller's.
        with contextlib.nullcontext() if in_memory else image:
            _load(image)
            marked, turn = is_demo_image(image), _UPRIGHT.get(_orientation(image))
            rgb = _to_rgb(to_srgb(image), name)
        if not in_memory and not hasattr(source, "read"):  # close() would close the caller's file too
            image.close()  # its pixels go before the turned copy comes
        upright = rgb if turn is None else rgb.transpose(turn)
        upright.info = {"comment": DEMO_MARK.encode()} if marked else {}
        return upright
    except ImageError:
        raise
    except _FAULTS as err:
        raise ImageError(
            f"{name}: wanted a complete {image.format or 'PIL'} image, got a damaged or truncated one ({one_line(err)}); "
            "fetch the file again or leave it out"
        ) from None


def _load(image: Image.Image) -> None:
    """Unpack the pixels. Of a TIFF Pillow warns of the size a second time here, see `_open`."""
    if image.format != "TIFF" or image.width * image.height <= (Image.MAX_IMAGE_PIXELS or MAX_PIXELS):
        image.load()
        return
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image.load()


def is_demo_image(image: Image.Image) -> bool:
    """Whether the image says that the demo world drew it; one that lost its comment on the way does not."""
    comment = image.info.get("comment", "")
    return (comment.decode("latin-1") if isinstance(comment, bytes) else str(comment)) == DEMO_MARK


def image_size(source: str | Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
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


def image_path(root: str | Path, image: str, allow_outside: bool = False, follow_links: bool = False) -> Path:
    """Where the image that an index (or another list) names lies below `root`.

    Raises ImageError for one that lies elsewhere (`..`, an absolute path, a link that leads out), unless `allow_outside`: who
    made the index decides otherwise which files of this machine are opened. follow_links: links may lead out; for preparing a
    folder that its owner has put together from links.
    """
    root = Path(root)
    path = root / image
    if allow_outside:
        return path
    try:
        inside = ".." not in Path(image).parts and path.is_relative_to(root)
        inside = inside and (follow_links or path.resolve().is_relative_to(root.resolve()))
    except (OSError, RuntimeError, ValueError) as err:  # a circle of links, a name too long or with a zero byte
        raise ImageError(f"{image!r}: no path of a file ({err})") from None
    if not inside:
        raise ImageError(
            f"{image}: leads out of the images' folder {root}, so it is not read. If you trust who made the index, set"
            " data.allow_outside: true in the config, or give --allow-outside to commands without one"
        )
    return path


def decode_record(record: PersonRecord, root: Path, allow_outside: bool = False) -> Image.Image:
    """The person's image, RGB, of the size that the index says; ImageError otherwise, and as `image_path` says."""
    path = image_path(root, record.image, allow_outside)
    image = decode_image(path)
    if image.size != (record.width, record.height):
        raise ImageError(
            f"{path}: wanted {record.width}x{record.height} pixels as in the index, got "
            f"{image.width}x{image.height}; the file has changed, prepare the index again"
        )
    return image


def _given(image: Any, name: str, max_pixels: int) -> Image.Image:
    """An image that is in memory already, as a PIL image, its size and kind checked."""
    if isinstance(image, np.ndarray):
        kind = (image.dtype.name, image.shape[2:] if image.ndim == 3 else ())
        good = image.ndim in (2, 3) and kind in (("uint8", ()), ("uint8", (3,)), ("uint8", (4,)), ("uint16", ()))
        if not good or 0 in image.shape:
            raise ImageError(f"{name}: wanted {_WANTED}; got an array of {image.dtype} {list(image.shape)}")
        image = Image.fromarray(np.ascontiguousarray(image))
    _check_size(image, name, max_pixels)
    return image


def _open(source: Any, name: str, max_pixels: int) -> Image.Image:
    """The lazily opened image, its format and size checked."""
    if isinstance(source, bytes | bytearray | memoryview):
        source = io.BytesIO(source)
    elif not isinstance(source, str | os.PathLike) and not hasattr(source, "read"):
        raise ImageError(f"{name}: wanted {_WANTED}; got {type(source).__name__}")
    elif not hasattr(source, "read") and _never_ends(source):
        raise ImageError(f"{name}: wanted an image file, got a pipe, socket or device")
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
        raise ImageError(f"{name}: wanted at most {max_pixels:,} pixels ({one_line(err)}); make it smaller") from None
    except UnidentifiedImageError:
        if codec := missing_codec(source):
            raise ImageError(f"{name}: is {codec}") from None
        raise _NotAnImage(
            f"{name}: wanted an image ({', '.join(FORMATS)}), got something else or a damaged header; "
            "save it as JPEG or PNG"
        ) from None
    except _FAULTS as err:
        raise ImageError(f"{name}: wanted a readable image, got {type(err).__name__}: {one_line(err)}") from None
    try:
        _check_size(image, name, max_pixels)
    except ImageError:
        with image:
            raise
    return image


def _never_ends(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a pipe, socket or device, which may block or never end. Missing paths are reported later."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if image.format in _COPIED_BY_THEIR_DECODER:
        max_pixels = max_pixels * 2 // 3
    if width * height > max_pixels or not width or not height:
        raise ImageError(
            f"{name}: wanted 1 to {max_pixels:,} pixels (inference.max_pixels), got {width}x{height}; make the image smaller"
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where it is absent or unreadable: damaged notes do not spoil good pixels.

    A TIFF is already upright, and its note gone, after load().
    """
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
        return int(value) if int(value) in _UPRIGHT else 1
    except _FAULTS:
        return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any mode of Pillow's -> RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        # A copy, so that the file can be closed, nothing of it (EXIF, profile) travels along, and the caller's image stays.
        plain = image.copy()
        plain.info = {}
        return plain
    if image.mode.startswith("I"):
        high = np.empty((image.height, image.width), np.uint8)
        for box in _strips(image):
            high[box[1] : box[3]] = (np.asarray(image.crop(box)).astype(np.int64) >> 8).clip(0, 255)
        return Image.fromarray(high).convert("RGB")
    if image.mode == "F":
        raise ImageError(f"{name}: wanted 8 or 16 bits a channel, got floating-point pixels; save it as 8-bit PNG")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        shown = Image.new("RGB", image.size)
        for box in _strips(image):
            layer = image.crop(box).convert("RGBA")
            paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
            shown.paste(Image.alpha_composite(paper, layer).convert("RGB"), box)
        return shown
    return image.convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of full width, one below the other, of at most `_STRIP` pixels (or one row)."""
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(image.height, top + rows)


def _name(source: Source) -> str:
    """How messages call the source."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None) or getattr(source, "filename", None)
    return os.fspath(name) if isinstance(name, str | os.PathLike) and str(name) else "image"
