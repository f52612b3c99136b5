"""One decoder for every form in which an image comes: the same pixels by path, bytes, open file, PIL image and array."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cocoer.data.decode import decode_image
from cocoer.errors import ImageError

RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
GRAY16 = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def rotated(form: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(RGB), form, exif=exif)


def palette_with_transparency() -> bytes:
    image = Image.fromarray(RGB).quantize(16)
    return encoded(image, "PNG", transparency=3)


FILES: dict[str, Callable[[], bytes]] = {
    "rotated by EXIF": rotated,
    "rotated TIFF": lambda: rotated("TIFF"),
    "16-bit gray": lambda: encoded(Image.fromarray(GRAY16)),
    "transparent": lambda: encoded(Image.fromarray(np.dstack([RGB, RGB[..., 0]]))),
    "palette with a transparent colour": palette_with_transparency,
    "gray": lambda: encoded(Image.fromarray(RGB[..., 0])),
    "gray and alpha": lambda: encoded(Image.merge("LA", [Image.fromarray(RGB[..., c]) for c in (0, 1)])),
    "one bit": lambda: encoded(Image.fromarray(RGB[..., 0]).convert("1")),
    "CMYK": lambda: encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "PPM": lambda: encoded(Image.fromarray(RGB), "PPM"),
    "animation": lambda: encoded(Image.fromarray(RGB), "GIF", save_all=True, append_images=[Image.fromarray(255 - RGB)]),
}  # fmt: skip


class Named(os.PathLike[str]):
    """A path that is neither text nor `Path`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __fspath__(self) -> str:
        return self._name


class Pipe(io.RawIOBase):
    """A stream that cannot go back, as a network answer."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._data.read(min(len(buffer), 37))
        buffer[: len(block)] = block
        return len(block)


@pytest.mark.parametrize("what", FILES)
def test_a_file_gives_the_same_pixels_in_whatever_form_it_comes(what: str, tmp_path: Path) -> None:
    data = FILES[what]()
    path = tmp_path / "image.bin"
    path.write_bytes(data)
    wanted = np.asarray(decode_image(path))
    moved = io.BytesIO(data)
    moved.seek(11)
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    with open(path, "rb") as file:
        forms = {
            "text path": str(path), "path-like": Named(str(path)), "bytes": data, "bytearray": bytearray(data),
            "memoryview": memoryview(data), "file": file, "moved file": moved, "pipe": io.BufferedReader(Pipe(data)),
            "PIL, lazy": Image.open(io.BytesIO(data)), "PIL, loaded": loaded, "PIL, by path": Image.open(path),
        }  # fmt: skip
        for name, form in forms.items():
            assert np.array_equal(np.asarray(decode_image(form)), wanted), name
        assert not file.closed and not moved.closed
    forms["PIL, by path"].close()


def test_arrays_mean_what_the_same_pixels_mean_in_a_file() -> None:
    for array in (RGB, RGB[..., 0], GRAY16, np.dstack([RGB, RGB[..., 1]]), RGB[:, ::-1], RGB[::2, ::3]):
        as_file = decode_image(encoded(Image.fromarray(np.ascontiguousarray(array))))
        assert np.array_equal(np.asarray(decode_image(array)), np.asarray(as_file)), array.shape
    big_endian = GRAY16.astype(">u2")
    assert np.array_equal(np.asarray(decode_image(big_endian)), np.asarray(decode_image(GRAY16)))


def test_what_the_caller_has_stays_as_it_was() -> None:
    image = Image.open(io.BytesIO(rotated()))
    before = dict(image.info)
    assert decode_image(image).size == (20, 30) and image.size == (30, 20)
    assert image.info == before and image.getexif()[0x0112] == 6
    plain = Image.fromarray(RGB)
    plain.info["note"] = "mine"
    decode_image(plain).putpixel((0, 0), (1, 2, 3))
    assert plain.info == {"note": "mine"} and np.array_equal(np.asarray(plain), RGB)


def test_a_pil_image_without_the_note_is_taken_as_it_is() -> None:
    """Whoever has turned it already (ImageOps.exif_transpose takes the note away) gets it once, not twice."""
    from PIL import ImageOps

    once = ImageOps.exif_transpose(Image.open(io.BytesIO(rotated())))
    assert np.array_equal(np.asarray(decode_image(once)), np.asarray(decode_image(rotated())))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda: Image.open(io.BytesIO(rotated()[:900])), "truncated"),
        (lambda: rotated()[:900], "truncated"),
        (lambda: b"", "something else or a damaged header"),
        (lambda: io.StringIO("text"), "Binary data"),
        (lambda: np.zeros((4, 4, 2), np.uint8), r"an array of uint8 \[4, 4, 2\]"),
        (lambda: np.zeros((4, 4, 3)), "an array of float64"),
        (lambda: np.zeros((0, 4, 3), np.uint8), "an array of uint8"),
        (lambda: np.zeros((2, 4, 4, 3), np.uint8), "an array of uint8"),
        (lambda: Image.new("F", (4, 4)), "floating-point"),
        (lambda: Image.new("RGB", (0, 4)), "0x4"),
        (lambda: None, "got NoneType"),
        (lambda: 7, "got int"),
        (lambda: {"image": 1}, "got dict"),
    ],
)
def test_what_is_no_image_is_one_clear_error(bad: Callable[[], Any], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode_image(bad())


def test_a_closed_image_or_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(rotated())
    image = Image.open(path)
    image.close()
    file = open(path, "rb")  # noqa: SIM115 - closed at once
    file.close()
    for closed in (image, file):
        with pytest.raises(ImageError, match=r"a\.jpg.*closed"):
            decode_image(closed)


def test_the_limit_of_pixels_holds_for_every_form() -> None:
    data = encoded(Image.fromarray(RGB))
    for form in (data, io.BytesIO(data), Image.fromarray(RGB), RGB):
        with pytest.raises(ImageError, match=r"wanted 1 to 599 pixels .*got 30x20"):
            decode_image(form, max_pixels=599)
        assert decode_image(form, max_pixels=600).size == (30, 20)
