"""Broken, odd and hostile images through the whole program: one row each, the rest goes on, nothing crashes."""

from __future__ import annotations

import io
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import load_program
from small_images import promised_png
from tiny_recognizer import FixedDetector, tiny_checkpoint

from cocoer import Recognizer
from cocoer.data.inputs import iterate_inputs
from cocoer.inference.pipeline import predict_many
from cocoer.outputs import ImageResult
from cocoer.report.results import read_rows

PEOPLE = FixedDetector([[0.1, 0.0, 0.9, 1.0]], [[0.3, 0.1, 0.6, 0.4]])


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    return Recognizer.from_checkpoint(tiny_checkpoint(tmp_path_factory.mktemp("weights")), "cpu", detector=PEOPLE)  # type: ignore[arg-type]


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def colours(width: int = 80, height: int = 60) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def rotated_by_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(colours(), "JPEG", exif=exif)


GOOD: dict[str, tuple[bytes, tuple[int, int]]] = {
    "plain.jpg": (encoded(colours(), "JPEG"), (80, 60)),
    "one_pixel.png": (encoded(colours(1, 1), "PNG"), (1, 1)),
    "wide.png": (encoded(Image.new("RGB", (20_000, 3)), "PNG"), (20_000, 3)),
    "gray16.png": (encoded(Image.fromarray(np.full((60, 80), 40_000, np.uint16)), "PNG"), (80, 60)),
    "cmyk.jpg": (encoded(colours().convert("CMYK"), "JPEG"), (80, 60)),
    "palette.gif": (encoded(colours().convert("P"), "GIF"), (80, 60)),
    "alpha.png": (encoded(colours().convert("RGBA"), "PNG"), (80, 60)),
    "png_inside.jpg": (encoded(colours(), "PNG"), (80, 60)),
    "jpeg_inside.heic": (encoded(colours(), "JPEG"), (80, 60)),
    "bilevel.tif": (encoded(colours().convert("1"), "TIFF"), (80, 60)),
    "upright.jpg": (rotated_by_exif(), (60, 80)),
    "é日本 .png": (encoded(colours(), "PNG"), (80, 60)),
}
BAD: dict[str, bytes] = {
    "empty.jpg": b"",
    "half.jpg": encoded(colours(400, 300), "JPEG")[:4000],
    "half.png": encoded(colours(), "PNG")[:700],
    "bomb.png": promised_png(60_000, 60_000),
    "liar.png": promised_png(3000, 3000),
    "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
    "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 200,
    "text.jpg": b"I am not an image\n" * 40,
    "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


def results(recognizer: Recognizer, folder: Path) -> dict[str, ImageResult]:
    found = predict_many(recognizer, iterate_inputs([str(folder)]))
    return {Path(result.image).name: result for result, _, _ in found}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in"
    place.mkdir()
    for name, content in BAD.items():
        (place / name).write_bytes(content)
    for name, (content, _) in GOOD.items():
        (place / name).write_bytes(content)
    (place / ("n" * 200 + ".jpg")).write_bytes(GOOD["plain.jpg"][0])
    return place


def test_odd_images_are_scored_and_broken_ones_are_rows(recognizer: Recognizer, folder: Path) -> None:
    found = results(recognizer, folder)
    assert len(found) == len(GOOD) + len(BAD) + 1
    for name, (_, size) in GOOD.items():
        result = found[name]
        assert (result.status, (result.width, result.height)) == ("ok", size), (name, result.message)
        assert [p.status for p in result.persons] == ["ok"], name
    for name in BAD:
        assert found[name].status == "error" and found[name].persons == (), name
        assert name in found[name].message and "\n" not in found[name].message
    assert found["n" * 200 + ".jpg"].status == "ok"


def test_the_program_writes_a_row_and_a_json_for_each(folder: Path, tmp_path: Path) -> None:
    program = load_program("predict")
    weights = tiny_checkpoint(tmp_path / "weights")
    out = tmp_path / "out"
    assert program.main(["--input", str(folder), "--checkpoint", str(weights), "--output", str(out), "--quiet"]) == 1
    rows = [row for _, row in read_rows(out / "results.jsonl")]
    assert len(rows) == len(GOOD) + len(BAD) + 1
    assert len(list(out.glob("*.json"))) == len(rows)
    for row in rows:
        assert (row["status"] == "error") == (Path(row["image"]).name in BAD)
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            image.verify()


def test_an_unreadable_file_is_a_row(recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(GOOD["alpha.png"][0])
    (tmp_path / "b.png").write_bytes(GOOD["alpha.png"][0])
    original = Image.open

    def guarded(source: object, *args: object, **kwargs: object) -> Image.Image:
        if str(source).endswith("a.png"):
            raise PermissionError(13, "Permission denied")  # tests may run as root, whom chmod does not stop
        return original(source, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", guarded)
    found = results(recognizer, tmp_path)
    assert found["a.png"].status == "error" and "Permission denied" in found["a.png"].message
    assert found["b.png"].status == "ok"


def test_a_pipe_in_a_folder_does_not_hang(recognizer: Recognizer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "good.png").write_bytes(GOOD["alpha.png"][0])
    found = results(recognizer, tmp_path)
    assert found["pipe.jpg"].status == "error" and found["good.png"].status == "ok"


def test_damaged_bytes_never_stop_the_run(recognizer: Recognizer, tmp_path: Path) -> None:
    """Seeded damage: bytes changed, cut out and put in, in every format that is read."""
    rng = random.Random(7)
    bases = [content for content, _ in GOOD.values() if len(content) < 60_000] + [
        encoded(colours(), form) for form in ("WEBP", "BMP", "PPM", "TIFF")
    ]
    for number in range(120):
        data = bytearray(rng.choice(bases))
        for _ in range(rng.randint(1, 12)):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 40)]
                case _:
                    data[at:at] = rng.randbytes(rng.randint(1, 9))
            data = data or bytearray(b"\0")
        (tmp_path / f"{number:03d}.jpg").write_bytes(data)
    found = results(recognizer, tmp_path)
    assert len(found) == 120
    for result in found.values():
        json.dumps(result.to_dict(), allow_nan=False)
        assert (result.status == "error") == bool(result.message)
