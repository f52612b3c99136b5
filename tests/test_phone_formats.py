"""Files as phones and cameras write them: HEIC, AVIF, several images in one file, other colour spaces than sRGB."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data as sample_data
from small_images import TURNS
from tiny_recognizer import FixedDetector, tiny_checkpoint

from cocoer import Recognizer
from cocoer.data import phone_formats
from cocoer.data.decode import decode_image, image_size
from cocoer.errors import ImageError

PHOTO = Image.fromarray(sample_data.astronaut())


def difference(image: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(image, dtype=np.float64) - np.asarray(other, dtype=np.float64)).mean())


@pytest.mark.parametrize(("kind", "suffix"), [("HEIF", ".heic"), ("AVIF", ".avif")])
def test_phone_formats_are_decoded_whatever_they_are_called(tmp_path: Path, kind: str, suffix: str) -> None:
    phone_formats.register()
    path = tmp_path / f"photo{suffix}"
    PHOTO.save(path, kind, quality=90)
    assert image_size(path) == PHOTO.size
    image = decode_image(path)
    assert image.mode == "RGB" and image.size == PHOTO.size and difference(image, PHOTO) < 4
    renamed = tmp_path / "photo.jpg"
    renamed.write_bytes(path.read_bytes())
    assert decode_image(renamed).tobytes() == decode_image(path.read_bytes()).tobytes() == image.tobytes()


NOTE = b"\x01\x12\x00\x03\x00\x00\x00\x01"
"""How EXIF's orientation begins in a file with the most significant byte first."""


def turned(path: Path, kind: str, orientation: int) -> Image.Image:
    """Writes an image as a turned phone does, with the rotation beside the pixels; returns it upright."""
    phone_formats.register()
    upright = PHOTO.crop((0, 0, 512, 256))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = TURNS[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    if kind == "HEIF":
        stored.info["exif"] = (
            exif.tobytes()
        )  # pillow-heif writes its boxes for an image's own EXIF, not for the argument
        stored.save(path, kind, quality=90)
    else:
        stored.save(path, kind, quality=90, exif=exif)
    return upright


@pytest.mark.parametrize(("kind", "suffix"), [("HEIF", ".heic"), ("AVIF", ".avif"), ("JPEG", ".jpg")])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_turned_phone_is_upright(tmp_path: Path, kind: str, suffix: str, orientation: int) -> None:
    """HEIC says it twice, in its own boxes (irot, imir) and in EXIF, as a phone's files do; it is applied once."""
    path = tmp_path / f"turned{suffix}"
    upright = turned(path, kind, orientation)
    if kind == "HEIF" and orientation != 1:
        stored = path.read_bytes()
        assert (b"irot" in stored) == (orientation not in (2, 4)) and (b"imir" in stored) == (
            orientation in (2, 4, 5, 7)
        )
        assert NOTE + bytes([0, orientation]) in stored
    assert image_size(path) == decode_image(path).size == upright.size
    assert difference(decode_image(path), upright) < 5


def test_of_heic_its_own_rotation_counts_and_not_exif(tmp_path: Path) -> None:
    """As the standard has it: readers of HEIC turn by the boxes of the file, and EXIF's note is only information."""
    path = tmp_path / "turned.heic"
    upright = turned(path, "HEIF", 6)
    stored = path.read_bytes()
    silent = stored.replace(NOTE + b"\x00\x06", NOTE + b"\x00\x01")
    assert silent != stored
    path.write_bytes(silent)
    assert decode_image(path).size == upright.size and difference(decode_image(path), upright) < 5
    angle = stored.index(b"irot") + 4
    path.write_bytes(stored[:angle] + b"\x00" + stored[angle + 1 :])
    assert image_size(path) == decode_image(path).size == (upright.height, upright.width)


def test_of_several_images_in_one_file_the_first_is_taken(tmp_path: Path) -> None:
    """A camera's MPO, and an Ultra-HDR JPEG: the SDR image with a gain map behind it."""
    path = tmp_path / "two.jpg"
    gain = Image.new("L", (128, 128), 200)
    PHOTO.save(path, "MPO", save_all=True, append_images=[gain.convert("RGB")], quality=95)
    with Image.open(path) as stored:
        assert stored.format == "MPO"
    assert difference(decode_image(path), PHOTO) < 3
    appended = io.BytesIO()
    PHOTO.save(appended, "JPEG", quality=95)
    gain.save(appended, "JPEG")
    assert difference(decode_image(appended.getvalue()), PHOTO) < 3


def wide_gamut() -> bytes:
    """A matrix profile with red and blue primaries exchanged: what is red in it is blue in sRGB, so a test cannot miss it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    for i in range(count):
        at = 132 + 12 * i
        name = bytes(profile[at : at + 4])
        if name in (b"rXYZ", b"bXYZ"):
            profile[at : at + 4] = b"bXYZ" if name == b"rXYZ" else b"rXYZ"
    return bytes(profile).replace(b"sRGB", b"swap").replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "HEIF", "AVIF"])
def test_a_profile_is_applied(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"profile.{kind.lower()}"
    phone_formats.register()
    extra = {} if kind in ("PNG", "TIFF") else {"quality": 100}
    Image.new("RGB", (64, 64), (220, 40, 10)).save(path, kind, icc_profile=wide_gamut(), **extra)
    red, _, blue = decode_image(path).getpixel((32, 32))  # type: ignore[misc]
    assert blue > 180 > 60 > red
    half = tmp_path / f"half.{kind.lower()}"
    Image.new("RGB", (64, 64), (220, 40, 10)).save(half, kind, icc_profile=b"not a profile" * 20, **extra)
    assert difference(decode_image(half), Image.new("RGB", (64, 64), (220, 40, 10))) < 3


def test_srgb_and_no_profile_leave_every_pixel(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    PHOTO.save(tmp_path / "srgb.png", icc_profile=srgb)
    PHOTO.save(tmp_path / "plain.png")
    assert (
        decode_image(tmp_path / "srgb.png").tobytes()
        == decode_image(tmp_path / "plain.png").tobytes()
        == PHOTO.tobytes()
    )


def test_transparency_and_profile_go_together(tmp_path: Path) -> None:
    image = Image.new("RGBA", (32, 32), (220, 40, 10, 255))
    image.paste((220, 40, 10, 0), (0, 0, 16, 32))
    image.save(tmp_path / "a.png", icc_profile=wide_gamut())
    decoded = decode_image(tmp_path / "a.png")
    assert decoded.getpixel((4, 4)) == (255, 255, 255)
    assert decoded.getpixel((24, 4))[2] > 180  # type: ignore[index]


def test_a_missing_codec_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cocoer.data import decode

    phone_formats.register()
    path = tmp_path / "photo.heic"
    PHOTO.save(path, "HEIF")
    monkeypatch.setattr(decode, "_OPENERS", ("JPEG", "PNG"))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        decode_image(path)
    PHOTO.save(path, "AVIF")
    monkeypatch.setattr(phone_formats.features, "check", lambda name: False)
    with pytest.raises(ImageError, match="AVIF image, and this Pillow was built without"):
        decode_image(path)


def test_a_codec_is_missing_only_where_it_is_the_files_and_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container says its brand after `ftyp`, in bytes 4 to 12; WebP says RIFF, its length, and WEBP."""
    heic, avif = b"\0\0\0\x18ftypheic" + bytes(20), b"\0\0\0\x18ftypavif" + bytes(20)
    webp, sound, film = b"RIFF\1\2\3\4WEBPVP8 ", b"RIFF\1\2\3\4WAVEfmt ", b"\0\0\0\x18ftypmp42" + bytes(20)
    odd = (b"XIFF\1\2\3\4WEBP", b"\0\0\0\x18ftyqheic", b"", b"RIFF")

    def said(data: bytes) -> str:
        file = io.BytesIO(data)
        file.seek(3)  # a reader has been there before
        return phone_formats.missing_codec(file)

    assert [said(data) for data in (heic, avif, webp, sound, film, *odd)] == [""] * 9  # all codecs are here
    monkeypatch.setattr(phone_formats.features, "check", lambda name: name != "webp")
    assert [bool(said(data)) for data in (heic, avif, webp)] == [False, False, True]
    monkeypatch.setattr(phone_formats.features, "check", lambda name: False)
    monkeypatch.setattr(phone_formats, "register", lambda: ())
    words = [said(data).partition(" image")[0] for data in (heic, avif, webp)]
    assert words == ["a HEIC", "an AVIF", "a WebP"] and not any(said(data) for data in (sound, film, *odd))
    assert phone_formats.missing_codec(None) == phone_formats.missing_codec("/nowhere.heic") == ""


def test_an_image_without_a_profile_is_not_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    paletted = PHOTO.convert("P")
    paletted.info["icc_profile"] = wide_gamut()
    monkeypatch.setattr(ImageCms, "ImageCmsProfile", lambda file: pytest.fail("opened"))
    for image in (PHOTO, paletted):
        assert phone_formats.to_srgb(image) is image


def test_a_damaged_phone_file_is_said(tmp_path: Path) -> None:
    phone_formats.register()
    for kind, suffix in (("HEIF", ".heic"), ("AVIF", ".avif")):
        path = tmp_path / f"cut{suffix}"
        PHOTO.save(path, kind)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(ImageError):
            decode_image(path)


def test_a_panorama_that_shrinks_people_is_said_with_the_option(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path)
    people = FixedDetector([[0.1, 0.0, 0.9, 1.0]], [[0.3, 0.1, 0.6, 0.4]])
    recognizer = Recognizer.from_checkpoint(checkpoint, "cpu", ["inference.detector.input_size=640"], people)  # type: ignore[arg-type]
    wide = recognizer.prepare(Image.new("RGB", (6000, 900)))
    assert "6.7 times" in wide.remark and "640 x 96" in wide.remark
    assert "--set inference.detector.input_size=1504" in wide.remark
    large = Recognizer.from_checkpoint(checkpoint, "cpu", ["inference.detector.input_size=1504"], people)  # type: ignore[arg-type]
    assert large.prepare(Image.new("RGB", (6000, 900))).remark == ""
    assert recognizer(Image.new("RGB", (6000, 900))).result.message == wide.remark
    assert "--set inference.detector.input_size=" in recognizer.prepare(Image.new("RGB", (900, 6000))).remark
    assert recognizer.prepare(Image.new("RGB", (1600, 900))).remark == ""
    assert recognizer.prepare(Image.new("RGB", (6000, 900)), [{"body": [10, 10, 90, 90]}]).remark == ""
