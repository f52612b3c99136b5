"""Files as they come from people's disks, and what the decoder makes of them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL import __version__ as PILLOW_VERSION
from small_images import TURNS

from cocoer.data.decode import FORMATS, MAX_PIXELS, decode_image, image_size
from cocoer.data.files import read_facts
from cocoer.errors import ImageError

PILLOW = int(PILLOW_VERSION.split(".")[0])
RNG = np.random.default_rng(0)
GRADIENT = np.stack(np.broadcast_arrays(*np.ogrid[0:240:24j, 0:240:16j], 99.0), -1).astype(
    np.uint8
)  # 24 rows, 16 columns


def saved(path: Path, image: Image.Image, form: str, **options: object) -> Path:
    image.save(path, form, **options)
    return path


def encoded(form: str = "JPEG", image: Image.Image | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    (image or Image.fromarray(GRADIENT)).save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_shows_the_image_as_it_was_taken(tmp_path: Path, form: str, orientation: int) -> None:
    upright = Image.fromarray(GRADIENT)
    turn = TURNS[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    path = saved(tmp_path / "image.jpg", stored, form, exif=exif, **options)
    decoded = decode_image(path)
    assert decoded.size == image_size(path) == (16, 24)
    assert np.abs(np.asarray(decoded).astype(int) - GRADIENT).max() <= (4 if form == "JPEG" else 0)
    assert not decoded.getexif()  # nobody downstream can turn it again


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("1", (255, 255, 255)),
        ("L", (200, 200, 200)),
        ("I;16", (200, 200, 200)),
        ("I", (200, 200, 200)),
        ("RGB", (200, 100, 50)),
        ("P", (200, 100, 50)),
        ("CMYK", (200, 100, 50)),
        pytest.param(
            "YCbCr",
            (200, 100, 50),
            marks=pytest.mark.skipif(PILLOW < 13, reason="Pillow 12 cannot read the YCbCr TIFF that it writes itself"),
        ),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, expected: tuple[int, int, int]) -> None:
    if mode in ("I;16", "I"):
        value = 200 * 256 + 77  # the high byte is what an 8-bit image would hold
        image = Image.fromarray(np.full((5, 6), value, np.uint16 if mode == "I;16" else np.int32))
    elif mode == "L":
        image = Image.new("L", (6, 5), 200)
    elif mode == "1":
        image = Image.new("1", (6, 5), 1)
    else:
        image = Image.new("RGB", (6, 5), (200, 100, 50))
        image = image.quantize(4) if mode == "P" else image.convert(mode)
    form = "TIFF" if mode in ("CMYK", "YCbCr", "I") else "PNG"
    decoded = decode_image(saved(tmp_path / "image.jpg", image, form))
    assert decoded.mode == "RGB" and decoded.size == (6, 5)
    assert np.abs(np.asarray(decoded).astype(int) - expected).max() <= 2


def test_cmyk_jpeg_and_16_bit_colour_png(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (8, 8), (200, 100, 50)).convert("CMYK"), "JPEG", quality=100)
    assert np.abs(np.asarray(decode_image(path)).astype(int) - (200, 100, 50)).max() <= 4
    row = b"\x00" + struct.pack(">HHH", 200 * 256 + 255, 100 * 256, 50 * 256) * 4
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * 2)),
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    assert set(np.asarray(decode_image(io.BytesIO(data))).reshape(-1, 3)[0]) == {200, 100, 50}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_lie_over_white_and_opaque_ones_stay(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (40, 40, 40, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    form, options = "PNG", {}
    if mode == "P":
        image, options = Image.new("P", (2, 1)), {"transparency": 1}
        image.putpalette([40, 40, 40, 0, 0, 0])
        image.putpixel((1, 0), 1)
    else:
        image = image.convert(mode)
    decoded = decode_image(saved(tmp_path / "a.png", image, form, **options))
    assert np.asarray(decoded).tolist() == [[[40] * 3, [255] * 3]]


@pytest.mark.parametrize("form", FORMATS)
def test_every_named_format_is_read_whatever_the_ending(tmp_path: Path, form: str) -> None:
    options = {"save_all": True, "append_images": [Image.new("RGB", (16, 24))]} if form == "MPO" else {}
    path = saved(tmp_path / "wrong.jpg", Image.fromarray(GRADIENT), form, **options)
    assert decode_image(path).size == image_size(path) == (16, 24)


def test_a_format_outside_the_list_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(GRADIENT), "ICO")
    with pytest.raises(ImageError, match=r"a\.jpg: wanted an image \(JPEG, PNG"):
        decode_image(path)
    floats = saved(tmp_path / "f.tiff", Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    with pytest.raises(ImageError, match="floating-point"):
        decode_image(floats)


def test_missing_folder_empty_and_foreign_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    (tmp_path / "folder.jpg").mkdir()
    for name, text in {"none": "no such file", "empty": "wanted", "text": "wanted", "folder": "got a folder"}.items():
        for read in (decode_image, image_size):
            with pytest.raises(ImageError, match=rf"{name}\.jpg: .*{text}"):
                read(tmp_path / f"{name}.jpg")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_truncated_file_keeps_its_size_and_loses_its_pixels(tmp_path: Path, form: str) -> None:
    noise = Image.fromarray(RNG.integers(0, 256, (64, 80, 3), dtype=np.uint8))
    data = encoded(form, noise)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: len(data) * 6 // 10])
    if form != "WEBP":  # whose reader wants the whole file first
        assert image_size(path) == (80, 64)
    with pytest.raises(ImageError, match=r"cut\.jpg"):
        decode_image(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = saved(tmp_path / "bomb.png", Image.new("1", (20000, 20000)), "PNG")  # 50 kB on disk, 1.2 GB as RGB
    for read in (decode_image, image_size):
        with pytest.raises(ImageError, match="at most|wanted 1 to 92,000,000 pixels"):
            read(path)
    assert MAX_PIXELS == 92_000_000  # docs/security.md says what an image of that size takes
    with pytest.raises(ImageError, match="wanted 1 to 383 pixels .inference.max_pixels., got 16x24"):
        decode_image(io.BytesIO(encoded()), max_pixels=383)
    assert decode_image(io.BytesIO(encoded()), max_pixels=384).size == (16, 24)


def test_formats_whose_decoders_copy_have_two_thirds_of_the_limit() -> None:
    for kind, most in (("WEBP", 576), ("PNG", 384)):
        data = encoded(kind)
        assert decode_image(io.BytesIO(data), max_pixels=most).size == (16, 24)
        with pytest.raises(ImageError, match="make the image smaller"):
            decode_image(io.BytesIO(data), max_pixels=most - 2)


def test_transparent_and_16_bit_images_are_the_same_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    clear = Image.fromarray(rng.integers(0, 256, (41, 30, 4), dtype=np.uint8), "RGBA")
    deep = Image.fromarray(rng.integers(0, 65536, (41, 30)).astype(np.uint16))
    palette = clear.convert("RGB").convert("P")
    palette.info["transparency"] = 3
    for image in (clear, deep, palette, clear.convert("LA")):
        monkeypatch.setattr("cocoer.data.decode._STRIP", 2**20)
        whole = np.asarray(decode_image(image))
        for strip in (1, 100, 30 * 40):
            monkeypatch.setattr("cocoer.data.decode._STRIP", strip)
            np.testing.assert_array_equal(np.asarray(decode_image(image)), whole)


def test_a_conversion_copies_a_megapixel_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    crop = Image.Image.crop

    def watched(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        seen.append((box[2] - box[0], box[3] - box[1]))
        return crop(image, box)

    monkeypatch.setattr(Image.Image, "crop", watched)
    decode_image(Image.new("RGBA", (2048, 1025)))
    assert seen == [(2048, 512), (2048, 512), (2048, 1)]  # 2^20 pixels, and what is left
    seen.clear()
    monkeypatch.setattr("cocoer.data.decode._STRIP", 5)
    decode_image(Image.new("RGBA", (6, 2)))
    assert seen == [(6, 1), (6, 1)]  # a row at least, however wide it is


def test_gray_of_more_than_8_bits_keeps_its_high_byte_and_stays_between_black_and_white() -> None:
    """32-bit integers hold more than 16 bits: what lies below or above those is black or white."""
    deep = Image.fromarray(np.array([[-5, 0, 255, 256, 65535, 70_000]], np.int32))
    assert np.asarray(decode_image(deep))[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255]


def test_a_transparent_colour_of_a_colour_image_is_white() -> None:
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (1, 2, 3))
    decoded = decode_image(io.BytesIO(encoded("PNG", image, transparency=(1, 2, 3))))
    assert np.asarray(decoded).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes) -> bytes:
    """The gradient as a PNG with these chunks before its pixels."""
    data = encoded("PNG")
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunks) + data[at:]


def test_of_a_png_the_rotation_is_found_behind_other_notes_and_looked_for_only_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes().removeprefix(b"Exif\x00\x00")
    title = chunk(b"tEXt", b"Title\x00made by hand, not EXIF")
    # ImageMagick writes EXIF as text: its name, its length, and the bytes as hexadecimal digits.
    magick = chunk(b"tEXt", b"Raw profile type exif\x00\nexif\n" + f"{len(raw):8}\n{raw.hex()}\n".encode())
    for notes in ([chunk(b"eXIf", raw)], [title, chunk(b"eXIf", raw)], [magick], [title, magick]):
        data = png_with(*notes)
        assert image_size(io.BytesIO(data)) == decode_image(data).size == (24, 16)
    asked: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "getexif", lambda image: asked.append(image) or Image.Exif())
    assert image_size(io.BytesIO(png_with(title))) == (16, 24) and not asked  # Pillow would unpack all pixels
    image_size(io.BytesIO(png_with(title, magick)))
    assert len(asked) == 1


def test_large_images_below_the_limit_give_no_warning(tmp_path: Path) -> None:
    path = saved(tmp_path / "wide.png", Image.new("1", (11617, 7800)), "PNG")  # above Pillow's own warning mark
    assert image_size(path) == (11617, 7800)


def test_one_pixel_is_a_image() -> None:
    assert decode_image(io.BytesIO(encoded("PNG", Image.new("RGB", (1, 1), (1, 2, 3))))).getpixel((0, 0)) == (1, 2, 3)


def test_damaged_exif_does_not_spoil_good_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff\xff\xff"))
    assert decode_image(path).size == image_size(path) == (16, 24)
    # An orientation that is a letter, and one that does not exist: both mean upright.
    for kind, value in ((b"\x00\x02", b"x\x00\x00\x00"), (b"\x00\x03", b"\x00\x09\x00\x00")):
        note = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12" + kind + b"\x00\x00\x00\x01" + value + b"\x00" * 4
        path.write_bytes(encoded("JPEG", exif=b"Exif\x00\x00" + note))
        assert decode_image(path).tobytes() == decode_image(encoded("JPEG")).tobytes()
    path.write_bytes(encoded("JPEG")[:-30])
    with pytest.raises(ImageError, match="wanted a complete JPEG image"):
        decode_image(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
    keep=st.floats(0.05, 1.0),
)
def test_a_damaged_file_is_a_image_or_one_named_error(form: str, edits: list[tuple[float, int]], keep: float) -> None:
    data = bytearray(encoded(form))
    for place, value in edits:
        data[int(place * len(data))] = value
    file = io.BytesIO(bytes(data[: max(1, int(len(data) * keep))]))
    try:
        image = decode_image(file, max_pixels=1_000_000)
    except ImageError as err:
        assert str(err).startswith("image: ")
    else:
        assert image.mode == "RGB" and np.asarray(image).shape[2] == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_never_ends_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        for read in (decode_image, image_size):
            with pytest.raises(ImageError, match=f"{name}: wanted an image file, got a pipe, socket or device"):
                read(tmp_path / name)
        assert "pipe or device" in read_facts(tmp_path / name).error


def test_a_large_tiff_below_the_limit_gives_no_warning(tmp_path: Path) -> None:
    """A warning is an error here: Pillow warns of a TIFF from 89,478,485 pixels on, and once more as it unpacks it."""
    Image.new("1", (9_591, 9_591)).save(tmp_path / "a.tif", compression="group4")
    assert (tmp_path / "a.tif").stat().st_size < 100_000 and 9_591**2 > 89_478_485
    assert decode_image(tmp_path / "a.tif").size == (9_591, 9_591)
