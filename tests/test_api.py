"""The API of a notebook: the examples of docs/api.md, lists that know their image, tables, drawings, streams."""

from __future__ import annotations

import copy
import doctest
import pickle
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_recognizer import ROOT, tiny_checkpoint

import cocoer
from cocoer.errors import ImageError, MissingExtra
from cocoer.inference.answers import People, to_frame
from cocoer.inference.recognizer import Recognizer
from cocoer.outputs import PersonPrediction

BOXES = [{"body": [10, 5, 60, 90], "head": [25, 8, 45, 30]}, {"body": [50, 0, 118, 88], "id": 7}]


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    return Recognizer.from_checkpoint(tiny_checkpoint(tmp_path_factory.mktemp("weights")), "cpu")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "<a>.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)).save(path)
    return path


def test_the_examples_of_the_page_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = doctest.testfile(
        str(ROOT / "docs" / "api.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert done.attempted > 10 and done.failed == 0


def test_the_package_shows_its_names_and_gives_them() -> None:
    assert dir(cocoer) == sorted(cocoer.__all__)
    for name in cocoer.__all__:
        assert getattr(cocoer, name) is not None


def test_the_most_probable_comes_first() -> None:
    probabilities = {"pred": {"a": 0.2, "b": 0.9, "c": 0.5}, "head": {"a": 1.0, "b": 0.0, "c": 0.0}}
    person = PersonPrediction(0, {"pred": ("a", "b"), "head": ("a",)}, probabilities, None, None)
    assert person.emotions == ("b", "a") and person.top(2) == [("b", 0.9), ("c", 0.5)]
    assert person.top(1, "head") == [("a", 1.0)]
    broken = PersonPrediction(0, {}, {}, None, None, status="error", message="no")
    assert broken.emotions == () and broken.top() == []


def test_an_answer_is_a_list_and_knows_its_image(recognizer: Recognizer, image: Path) -> None:
    people = recognizer(image, BOXES)
    assert isinstance(people, list) and len(people) == 2 and people == list(people)
    tree = people.to_dict()
    assert (tree["image"], tree["width"], tree["height"]) == (str(image), 120, 96)
    assert tree["persons"] == [person.to_dict() for person in people]
    assert recognizer(Image.open(image), BOXES).result.image == "image"
    for made in (copy.copy(people), pickle.loads(pickle.dumps(people))):  # noqa: S301 - our own bytes
        assert made == people and made.result == people.result


def test_a_table_has_a_row_a_person_and_the_columns_of_the_csv(
    recognizer: Recognizer, image: Path, tmp_path: Path
) -> None:
    import pandas

    from cocoer.report.results import ResultFolder, start_over

    people = recognizer(image, BOXES)
    table = people.to_frame()
    assert list(table["person"]) == [0, 1] and list(table["track"]) == ["", 7]
    start_over(tmp_path / "out", False)
    folder = ResultFolder(tmp_path / "out", {"csv"})
    folder.add(people.result, "a", 0, None)
    folder.close()
    folder.finish()
    written = pandas.read_csv(tmp_path / "out" / "results.csv", keep_default_na=False)
    assert set(table.columns) == set(written.columns)
    assert list(table["body_x2"]) == list(written["body_x2"])
    assert len(to_frame([people, People(people.result, image)])) == 4


def test_without_pandas_the_extra_is_named(
    recognizer: Recognizer, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"pandas is not installed: pip install 'cocoer\[table\]'"):
        recognizer(image, BOXES).to_frame()


def test_a_cell_is_whole_escaped_html_with_the_drawing(recognizer: Recognizer, image: Path) -> None:
    class Reader(HTMLParser):
        tags: list[str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.append(tag)

    people = recognizer(image, BOXES)
    html = people._repr_html_()
    reader = Reader()
    reader.tags = []
    reader.feed(html)
    assert reader.tags.count("img") == 1 and reader.tags.count("tr") == 3 and "a" not in reader.tags
    assert not re.search(r'src="(?!data:)', html)
    assert "no people" in recognizer(image, [])._repr_html_()
    assert people.drawing().size[0] >= 120


def test_a_stream_gives_what_the_list_gives_and_goes_on_after_a_bad_image(recognizer: Recognizer, image: Path) -> None:
    broken = image.with_name("broken.png")
    broken.write_bytes(b"no image")
    with pytest.raises(ImageError):
        recognizer([image, broken], [BOXES, BOXES])
    asked: list[int] = []

    def images() -> object:
        for i in range(9):
            asked.append(i)
            yield broken if i == 1 else image

    stream = recognizer.stream(images(), [BOXES] * 9)
    first = next(stream)
    assert len(asked) <= recognizer.config.inference.batch_size, "nothing is read ahead of the batch"
    found = [first, *stream]
    assert [people.result.status for people in found] == ["ok", "error", *["ok"] * 7]
    assert "broken.png" in found[1].result.message and found[1] == []
    alone = recognizer(image, BOXES)
    for people in (found[0], found[8]):
        assert [p.labels for p in people] == [p.labels for p in alone]


def test_predict_keeps_its_weights(image: Path, tmp_path: Path) -> None:
    weights = tiny_checkpoint(tmp_path)
    first = cocoer.predict(image, BOXES, checkpoint=weights, device="cpu")
    weights.unlink()  # not read a second time
    assert cocoer.predict([image], [BOXES], checkpoint=weights, device="cpu") == [first]
