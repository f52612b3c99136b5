"""Case studies: the numbers against their definitions, and the page in a browser where there is one, else in a parser."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import BROWSER, browse
from PIL import Image
from programs import load_program
from tiny_recognizer import tiny_checkpoint
from training_world import make_people

from cocoer.data.index import write_index
from cocoer.names import LEVELS
from cocoer.outputs import CaseStudy, CompetitionRecord, ImageResult, PersonBoxes, PersonPrediction
from cocoer.report.case_page import case_page, image_uri
from cocoer.studies.case_studies import choose_persons, level_conflict, truth_loss


def case(
    number: int, loss: float, conflict: float = 0.1, error: int = 1, first: str = "head", **changes: object
) -> CaseStudy:
    """A made-up person with the given sort keys."""
    order = (first, *(level for level in LEVELS if level != first))
    labels = {"pred": ("Fear",), "head": ("Fear", "Pain"), "body": (), "ctx": ("Anger",), "VI": ("Fear",)}
    scores = {source: {"Fear": 0.8, "Pain": 0.6, "Anger": 0.3} for source in labels}
    record = CompetitionRecord((0.5, 0.25, 0.125), ((0.2, 0.3, 0.5), (0.0, 0.5, 0.5)), order, 0.1)
    person = PersonPrediction(number, labels, scores, record, PersonBoxes((2, 2, 60, 40), (10, 5, 30, 20)))
    result = ImageResult(f"a/{number}.jpg", 64, 48, (replace(person, **changes),))  # type: ignore[arg-type]
    return CaseStudy(f"a/{number}.jpg#{number}", result, ("Fear", "Pain"), loss, conflict, error)


IMAGE = Image.new("RGB", (64, 48), (90, 120, 150))
CASES = [
    case(0, 0.5, 0.30, 3, "body"),
    case(1, 2.0, 0.10, 1, "context"),
    case(2, 0.1, 0.20, 0, "head"),
    case(3, 10.0, 0.05, 12, "body"),
]


class Cards(HTMLParser):
    """Articles, text, and every address in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cards: list[dict[str, str]] = []
        self.addresses: list[str] = []
        self.struck: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "article":
            self.cards.append(values)
        self.addresses += [values[name] for name in ("src", "href") if name in values]
        if tag not in ("meta", "img", "link", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "del":
            self.struck.append(data)


def sorted_in_browser(page: str, folder: Path, key: str, clicks: int, only: str = "") -> tuple[list[int], str]:
    """Places of the visible cards after choosing a key and pressing the direction button, and the page's own count.

    Real Chromium where it is installed; elsewhere the page's data attributes are sorted here, which checks the data alone.
    """
    if BROWSER is None:
        cards = Cards(page).cards
        kept = [c for c in cards if only in ("", c["data-excluded"])]
        falling = clicks % 2 == 0
        kept.sort(key=lambda c: (-1 if falling else 1) * float(c[f"data-{key}"]))
        return [int(c["data-place"]) for c in kept], f"{len(kept)} of {len(cards)}"
    change = "dispatchEvent(new Event('change'));"
    acts = f"key.value='{key}'; key.{change} only.value='{only}'; only.{change}"
    path = folder / "driven.html"
    path.write_text(page.replace("</body>", f"<script>{acts}{'turn.click();' * clicks}</script></body>"))
    after = Cards(browse(path, "--dump-dom"))
    shown = re.search(r"showing\s+(\d+ of \d+)", after.text)
    assert shown is not None
    return [int(c["data-place"]) for c in after.cards if "hidden" not in c], shown[1]


@pytest.mark.parametrize(
    ("key", "clicks", "only", "expected"),
    [
        ("loss", 0, "", [3, 1, 0, 2]),  # 10 before 2: as numbers, not as text
        ("conflict", 1, "", [3, 1, 2, 0]),
        ("error", 0, "1", [3, 0]),
        ("excluded", 1, "", [2, 0, 3, 1]),  # head, body, context; equal ones in the order of the index
    ],
)
def test_the_page_sorts_and_filters(tmp_path: Path, key: str, clicks: int, only: str, expected: list[int]) -> None:
    page = case_page([(c, IMAGE) for c in CASES], "Cases")
    places, count = sorted_in_browser(page, tmp_path, key, clicks, only)
    assert places == expected
    assert count == f"{len(expected)} of 4"


def test_the_page_fits_a_phone(tmp_path: Path) -> None:
    page = case_page([(c, IMAGE) for c in CASES], "Cases")
    assert 'name="viewport" content="width=device-width' in page
    if BROWSER is not None:  # a frame of a phone's size that reports how wide its contents and how high its bar are
        (tmp_path / "page.html").write_text(page)
        frame = f'<iframe id="f" width="360" height="640" srcdoc="{html.escape(page)}"></iframe>'
        bar = "f.contentDocument.querySelector('.controls').offsetHeight"
        measure = f"f.onload=()=>{{document.title='wide '+f.contentDocument.documentElement.scrollWidth+' bar '+{bar}}}"
        (tmp_path / "phone.html").write_text(f"<!doctype html><title></title>{frame}<script>{measure}</script>")
        found = re.search(r"<title>wide (\d+) bar (\d+)</title>", browse(tmp_path / "phone.html", "--dump-dom"))
        assert found is not None and int(found[1]) <= 360
        assert int(found[2]) <= 640 / 5, "the bar that stays on top leaves too little of the screen"
        browse(tmp_path / "page.html", f"--screenshot={tmp_path / 'page.png'}", "--window-size=500,900")
        assert len(Image.open(tmp_path / "page.png").convert("RGB").getcolors(2**20) or ()) > 50


def test_everything_is_inside_the_page_and_every_tag_is_closed() -> None:
    page = case_page([(c, IMAGE) for c in CASES], "Cases", ["made of synthetic scenes"])
    cards = Cards(page)
    assert not cards.open and len(cards.cards) == 4
    assert all(a.startswith("data:image/jpeg;base64,") for a in cards.addresses) and len(cards.addresses) == 4
    assert "http" not in re.sub(r"data:[^\"]+", "", page)
    assert "made of synthetic scenes" in cards.text
    assert Counter(cards.struck) == {"Pain": 4, "Anger": 4}  # what the answer (Fear) does not share


def test_columns_are_those_of_the_paper_and_an_empty_pseudo_label_excludes_nobody() -> None:
    judged = case(0, 1.0, pseudo_label=("Pain",))
    empty = CompetitionRecord((0.5, 0.25, 0.125), ((0.2, 0.3, 0.5), (0.0, 0.5, 0.5)), (), 0.1)
    silent = case(1, 1.0, competition=empty, status="no_pseudo_label", message="the pseudo label is empty")
    page = case_page([(judged, IMAGE), (silent, IMAGE)], "Cases")
    first, second = re.findall("<article.*?</article>", page, re.DOTALL)
    titles = re.findall("<h3>(.*?)</h3>", first)
    assert titles == ["GT", "Prediction", "Head", "Body", "Context", "V-I (pseudo label)"]
    assert "<del>" in second and Cards(first).struck == ["Anger"]  # V-I says Pain too
    assert first.count("<sub>hier</sub> = ") == 3
    assert re.search(r"\(1\) .*Head.*\(2\) .*Body.*\(3\) .*Context", first)
    assert "none, the pseudo label is empty" in second and 'data-excluded="-1"' in second
    assert "1 of 2 persons have an empty pseudo label" in page


def test_names_from_files_cannot_become_markup() -> None:
    evil = case(0, 1.0)
    evil = replace(evil, key='<script>alert("x")</script>', remark="<b>&", truth=("<i>",))
    page = case_page([(evil, IMAGE)], "<u>title", ["<s>note"])
    for text in ("<script>alert", "<b>&", "<i>", "<u>title", "<s>note"):
        assert text not in page


def test_a_person_with_an_error_has_a_card() -> None:
    failed = case(0, 0.0, labels={}, probabilities={}, competition=None, status="error", message="box outside <image>")
    page = case_page([(failed, IMAGE)], "Cases")
    assert "box outside &lt;image&gt;" in page and Cards(page).cards[0]["data-excluded"] == "-1"


def test_no_case_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one person"):
        case_page([], "Cases")


def test_the_embedded_image_shows_the_boxes_and_is_small() -> None:
    big = Image.new("RGB", (1600, 1200), (0, 0, 0))
    data = base64.b64decode(image_uri(big, case(0, 1.0)).partition(",")[2])
    shown = Image.open(io.BytesIO(data))
    assert shown.size == (480, 360)
    green = np.asarray(shown)[:, round(2 / 64 * 480)].astype(int)
    assert (green[100:200, 1] > 120).all()


def test_loss_and_conflict_are_their_definitions() -> None:
    scores = {"Fear": 0.8, "Pain": 0.25}
    assert truth_loss(scores, ["Fear"], True) == pytest.approx(-(math.log(0.8) + math.log(0.75)) / 2)
    assert truth_loss(scores, ["Pain"], False) == pytest.approx(-math.log(0.25))
    assert math.isfinite(truth_loss({"Fear": 0.0}, ["Fear"], False))
    person = case(0, 1.0).person
    assert level_conflict(person) == 0.0
    apart = {**person.probabilities, "head": {"Fear": 1.0, "Pain": 0.6, "Anger": 0.0}}
    assert level_conflict(replace(person, probabilities=apart)) == pytest.approx(2 * (0.2 + 0.3) / 9)


def test_persons_are_drawn_from_the_seed() -> None:
    drawn = choose_persons(100, 24, 0)
    assert drawn == choose_persons(100, 24, 0) == sorted(set(drawn)) and len(drawn) == 24
    assert drawn != choose_persons(100, 24, 1)
    assert choose_persons(5, 24, 0) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="at least 1"):
        choose_persons(5, 0, 0)


@pytest.mark.parametrize("dataset", ["emotic", "caers"])
def test_the_command_writes_a_page_and_panels(tmp_path: Path, dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tiny_checkpoint(tmp_path / "weights", dataset)
    records = make_people(tmp_path / "data", dataset, {"test": 7})
    write_index(tmp_path / "data" / "index", records, {})
    program = load_program("cases")
    command = [
        str(tmp_path / "data" / "index"),
        "--checkpoint",
        str(weights),
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "out"),
    ]
    assert program.main([*command, "--num", "5"]) == 0
    page = (tmp_path / "out" / "case_studies.html").read_text()
    cards = Cards(page)
    assert len(cards.cards) == 5 and len(list((tmp_path / "out").glob("case_*.png"))) == 5
    assert "seeded weights for tests" in page
    contradicted = sum((r.extra["synthetic"]["contradicted_level"] is not None) for r in records)
    assert 0 < page.count("contradicts the label") <= contradicted
    errors = [int(c["data-error"]) for c in cards.cards]
    assert (set(errors) <= {0, 1}) if dataset == "caers" else max(errors) > 1
    assert program.main([command[0] + "/nowhere", *command[1:]]) == 1
    assert "no such person index" in capsys.readouterr().err
