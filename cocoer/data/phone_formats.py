"""Formats of phones and cameras: HEIC, AVIF, and colour profiles other than sRGB."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

from PIL import Image, ImageCms, features

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def register() -> tuple[str, ...]:
    """Make Pillow read HEIC where pillow-heif is installed; returns the names of the formats beside its own."""
    try:
        import pillow_heif
    except ImportError:
        return ()
    pillow_heif.register_heif_opener(thumbnails=False)
    return ("HEIF",)


def missing_codec(source: Any) -> str:
    """What to install for a file of a known format that this Pillow cannot read; empty for anything else.

    source: a path, or an open binary file that can be set back.
    """
    start = _start(source)
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    if brand in _AVIF_BRANDS and not features.check("avif"):
        return (
            "an AVIF image, and this Pillow was built without its decoder; run `pip install --force-reinstall pillow`"
        )
    if brand in _HEIC_BRANDS and not register():
        return "a HEIC image, and pillow-heif is not installed; run `pip install pillow-heif`"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP" and not features.check("webp"):
        return "a WebP image, and this Pillow was built without its decoder; run `pip install --force-reinstall pillow`"
    return ""


def _start(source: Any) -> bytes:
    """The first bytes, and nothing where they cannot be had."""
    try:
        with open(source, "rb") if isinstance(source, str | os.PathLike) else contextlib.nullcontext(source) as file:
            file.seek(0)
            return bytes(file.read(16))
    except (OSError, ValueError, AttributeError, TypeError):
        return b""


def to_srgb(image: Image.Image) -> Image.Image:
    """The image with its colours in sRGB, as its ICC profile says; as it is without one, or with one that cannot be used.

    image: loaded, any mode. RGB, gray and CMYK are converted to RGB; transparency stays. A profile that is sRGB changes nothing.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "L", "CMYK"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        plain = image.convert("RGB") if alpha else image
        plain = ImageCms.profileToProfile(
            plain, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
        )  # type: ignore[assignment]
        if alpha:
            plain.putalpha(alpha)
        return plain
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
