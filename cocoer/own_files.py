"""Recognising cocoer's own output files, so that no other file is overwritten: the marks they carry, and their input.

An answer as JSON is recognised by its keys. A drawn image, PNG or PDF, carries two notes: the program, and a checksum of the
input's name.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

_KEYS = {"image", "width", "height", "status", "message", "persons"}
_LARGEST = 256 * 1024 * 1024  # bytes of an answer that are read to see whose it is


def note_of(key: str) -> PngInfo:
    """The notes of an image that is drawn for the input with this key."""
    note = PngInfo()
    note.add_text("Software", "cocoer")
    note.add_text("Source", _checksum(key))
    return note


def pdf_notes(key: str) -> dict[str, str | None]:
    """The same notes as options of Pillow's PDF writer, without dates."""
    return {"creator": "cocoer", "keywords": _checksum(key), "producer": None, "creationDate": None, "modDate": None}


def is_own_image(path: Path) -> bool:
    """Whether a file is an image that cocoer drew."""
    return bool(_noted(path))


def is_own(path: Path, key: str) -> bool:
    """Whether a file is cocoer's answer for the input with this key, as JSON or drawn. Any other file is not ours to replace."""
    if path.suffix == ".png":
        return _noted(path) == _checksum(key)
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return False
        if path.suffix == ".pdf":
            data = path.read_bytes()
            return data.startswith(b"%PDF") and all(n.encode("utf-16-be") in data for n in ("cocoer", _checksum(key)))
        tree = json.loads(path.read_bytes())
        frame = tree.get("frame")
        return tree.keys() >= _KEYS and key == (tree["image"] if frame is None else f"{tree['image']}#{frame}")
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _noted(path: Path) -> str:
    """The checksum in the notes of an image that cocoer drew; empty for any other file. Pixels are not unpacked."""
    try:
        if not path.is_file():
            return ""
        with Image.open(path, formats=["PNG"]) as image:
            return str(image.info.get("Source", "")) if image.info.get("Software") == "cocoer" else ""
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        return ""


def _checksum(key: str) -> str:
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
