"""The two looks at an index: which images are broken, and a sheet whose boxes lie where the index says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cocoer.data.batch import PersonRecord
from cocoer.data.prepare import checks
from cocoer.data.prepare.checks import check_images, contact_sheet

BACKGROUND, BODY = (24, 24, 28), (255, 80, 80)
HEAD = {"annotated": (60, 220, 90), "detected": (70, 190, 255), "estimated": (255, 170, 40)}


def record(
    image: str, number: int = 0, source: str = "annotated", size: tuple[int, int] = (600, 400), **extra: object
) -> PersonRecord:
    return PersonRecord(
        image=image, width=size[0], height=size[1], person=number, body=(100, 40, 500, 380), head=(220, 60, 300, 160),
        head_source=source, labels=("Peace", "Sadness"), vad=None, split="test", extra=dict(extra),
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Image.new("RGB", (600, 400), (10, 200, 10)).save(tmp_path / "a.png")
    Image.new("RGB", (100, 400), (10, 10, 200)).save(tmp_path / "tall.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


def test_a_broken_image_is_told_once_with_all_its_persons(root: Path) -> None:
    records = [record("a.png"), record("broken.png"), record("a.png", 1), record("broken.png", 1), record("gone.png"),
               record("tall.png")]  # fmt: skip
    found = check_images(records, root)
    assert [(b.image, b.persons) for b in found] == [("broken.png", 2), ("gone.png", 1), ("tall.png", 1)]
    assert "600x400" in found[2].reason  # of another size than the index says
    assert check_images(records[:1], root) == []


def box_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero((pixels == colour).all(-1))
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


@pytest.mark.parametrize("source", HEAD)
def test_a_cell_shows_the_image_in_its_middle_and_the_boxes_scaled(root: Path, source: str) -> None:
    """600 x 400 in a cell of 300 x 250: half the size, 25 pixels down; the sheet has a border of 6."""
    sheet = np.asarray(contact_sheet([record("a.png", source=source)], root))
    assert sheet.shape == (250 + 46 + 6 + 6, 300 + 6 + 6, 3)
    assert (sheet[0, 0] == BACKGROUND).all() and (sheet[20, 20] == BACKGROUND).all()
    green = box_of(sheet, (10, 200, 10))
    assert green == (6, 6 + 25, 6 + 299, 6 + 25 + 199)
    assert box_of(sheet, BODY) == (6 + 50, 31 + 20, 6 + 250 - 1, 31 + 190 - 1)
    assert box_of(sheet, HEAD[source]) == (6 + 110, 31 + 30, 6 + 150 - 1, 31 + 80 - 1)
    inner = sheet[31 + 20 : 31 + 190, 6 + 50 : 6 + 250]
    assert (
        (inner[:2] == BODY).all() and (inner[:, :2] == BODY).all() and not (inner[2, 2] == BODY).all()
    )  # two pixels wide
    text = sheet[6 + 250 :, :]
    assert (text == (235, 235, 235)).all(-1).any() and box_of(text, (235, 235, 235))[0] >= 6 + 2


def test_a_tall_image_fills_its_cells_height(root: Path) -> None:
    tall = record("tall.png", size=(100, 400))
    sheet = np.asarray(contact_sheet([tall], root))
    left, top, right, bottom = box_of(sheet, (10, 10, 200))
    assert (top, bottom) == (6, 6 + 249) and right - left + 1 in (62, 63) and abs((left + right) / 2 - (6 + 150)) <= 1


@pytest.mark.parametrize(("size", "wanted"), [((3000, 2), (300, 1)), ((2, 3000), (1, 250))])
def test_an_image_is_a_line_wide_and_high_at_least(root: Path, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    Image.new("RGB", size, (10, 10, 200)).save(root / "thin.png")
    person = replace(record("thin.png", size=size), body=(0, 0, 1, 1), head=(0, 0, 1, 1))
    seen: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        resize = Image.Image.resize
        patch.setattr(Image.Image, "resize", lambda image, to: seen.append(to) or resize(image, to))
        contact_sheet([person], root)
    assert seen == [wanted]


def test_cells_stand_four_in_a_row_in_the_order_of_the_index(root: Path) -> None:
    persons = [record("a.png" if i % 2 else "broken.png", i) for i in range(6)]
    sheet = contact_sheet(persons, root)
    assert sheet.size == (4 * 306 + 6, 2 * 302 + 6)
    pixels = np.asarray(sheet)
    for place in range(6):
        x, y = 6 + place % 4 * 306, 6 + place // 4 * 302
        middle = tuple(int(v) for v in pixels[y + 240 - (place % 2) * 40, x + 150])
        assert middle == ((10, 200, 10) if place % 2 else (80, 80, 80))
    assert contact_sheet(persons[:3], root).size == (3 * 306 + 6, 302 + 6)
    assert contact_sheet(persons, root, count=5).size == (4 * 306 + 6, 2 * 302 + 6)
    few = [contact_sheet(persons, root, count=1, seed=s).tobytes() for s in range(8)]
    assert few == [contact_sheet(persons, root, count=1, seed=s).tobytes() for s in range(8)] and len(set(few)) > 2
    assert few[0] == contact_sheet(persons, root, count=1).tobytes()
    many = [record("broken.png", i) for i in range(30)]
    assert contact_sheet(many, root).size == (4 * 306 + 6, 6 * 302 + 6)  # 24 unless told otherwise
    with pytest.raises(ValueError, match="at least one person"):
        contact_sheet([], root)


def test_what_is_written_below_a_cell(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[tuple[float, float], str]] = []
    draw = checks.ImageDraw.ImageDraw.multiline_text

    def seen(self: object, xy: tuple[float, float], text: str, **options: object) -> None:
        written.append((xy, text))
        assert options["font"].size == 11 and options.get("spacing", 2) == 2  # type: ignore[attr-defined]
        draw(self, xy, text, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(checks.ImageDraw.ImageDraw, "multiline_text", seen)
    long = "deep/folder/" + "n" * 30 + ".png"
    contact_sheet([record("a.png", 3, "detected", head_score=0.456), record(long, 1)], root)
    assert written[0] == ((8, 258), "a.png #3  head detected 0.46\nPeace, Sadness")
    assert written[1][0] == (6 + 306 + 6, 12) and "\n" in written[1][1]
    contact_sheet([replace(record("a.png"), labels=tuple(f"label number {i}" for i in range(20)))], root)
    below = written.pop()[1].split("\n")[1:]
    assert len(below) == 3 and below[-1].endswith(" ...") and all(40 <= len(line) <= 54 for line in below)
    short = replace(record("a.png"), labels=("aa",) * 60)  # twelve of "aa, " fit into 50 letters, and thirteen into 51
    contact_sheet([short], root)
    assert [len(line) for line in written.pop()[1].split("\n")[1:]] == [47, 47, 51]  # the last with " ..."
    contact_sheet([record("/".join(["a " * 110] * 4))], root)
    lines = written[-2][1].split("\n")  # 22 letters with 21 blanks between them are 43; a line holds 44
    assert len(lines) == 12 and Counter(map(len, lines)).most_common(1)[0][0] == 43
    assert written[2] == ((314, 258), "n" * 22 + ".png #1  head annotated\nPeace, Sadness")


@pytest.mark.parametrize(
    ("text", "width", "lines", "wanted"),
    [
        ("", 10, 2, ""), ("one two", 7, 2, "one two"), ("one two", 6, 2, "one\ntwo"), ("a b c", 1, 2, "a\nb ..."),
        ("longer-than-it a", 4, 3, "longer-than-it\na"), ("a b c", 1, 3, "a\nb\nc"),
    ],
)  # fmt: skip
def test_text_is_wrapped_at_words(text: str, width: int, lines: int, wanted: str) -> None:
    assert checks._wrapped(text, width, lines) == wanted


def test_a_box_on_the_sheet_is_a_line_wide_at_least() -> None:
    assert checks._on_sheet((10, 20, 50, 60), 0.5, 100, 200) == (105, 210, 124, 229)
    assert checks._on_sheet((10, 20, 11, 21), 0.5, 100, 200) == (105, 210, 106, 211)
