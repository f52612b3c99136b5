"""What a page asks about an image: the same answers as the recogniser's, bounded, and every fault as a sentence."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_images import promised_png
from tiny_recognizer import tiny_checkpoint

from cocoer.data.transforms import make_batch
from cocoer.errors import ViewError
from cocoer.export.onnx_model import ExportedModel
from cocoer.inference.explain import explain
from cocoer.inference.recognizer import Recognizer
from cocoer.inference.viewer import Viewer
from cocoer.names import LEVELS
from cocoer.outputs import CompetitionRecord, PersonPrediction
from cocoer.report.person_html import map_rows, person_block
from cocoer.report.saliency import attention_rows, saliency_rows

BOXES = [{"body": [2, 2, 40, 58], "head": [5, 5, 25, 25]}, {"body": [30, 5, 70, 55], "head": [40, 10, 41, 11]}]
BROKEN = {"body": [1, 2, 3]}


def write_image(folder: Path, name: str = "people.png", boxes: list[Any] | None = None) -> Path:
    """A random image, with its boxes beside it unless they are None."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name)
    if boxes is not None:
        (folder / name).with_suffix(".boxes.json").write_text(json.dumps(boxes))
    return folder / name


def bomb(path: Path) -> Path:
    """A PNG of a few bytes that says it has 900 million pixels."""
    path.write_bytes(promised_png(30000, 30000))
    return path


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    """Seeded weights of almost no size."""
    return Recognizer.from_checkpoint(tiny_checkpoint(tmp_path_factory.mktemp("weights")), "cpu")


@pytest.fixture
def viewer(recognizer: Recognizer) -> Viewer:
    return Viewer(recognizer)


def test_a_view_holds_what_the_recogniser_says(viewer: Viewer, recognizer: Recognizer, tmp_path: Path) -> None:
    image = write_image(tmp_path, boxes=[*BOXES, BROKEN])
    viewed = viewer.view(image)
    assert list(viewed.result.persons) == recognizer(image, [*BOXES, BROKEN])
    assert viewed.result.image == "people.png" and (viewed.result.width, viewed.result.height) == (80, 60)
    assert [crops is None for crops in viewed.crops] == [False, False, True]
    assert viewer.recall(viewed.token) is viewed
    given = tmp_path / "others.json"
    given.write_text(json.dumps(BOXES[1:]))
    assert list(viewer.view(image, given).result.persons) == recognizer(image, BOXES[1:])


def test_without_boxes_people_are_detected(viewer: Viewer, recognizer: Recognizer, tmp_path: Path) -> None:
    image = write_image(tmp_path / "bare")
    assert list(viewer.view(image).result.persons) == recognizer(image)


def test_only_the_last_images_are_kept(recognizer: Recognizer, tmp_path: Path) -> None:
    viewer, image = Viewer(recognizer, kept=2), write_image(tmp_path, boxes=BOXES)
    first, second = (viewer.view(image).token for _ in range(2))
    viewer.recall(first)  # was looked at again, so the second is now the oldest
    third = viewer.view(image).token
    assert len({first, second, third}) == 3
    assert viewer.recall(first).token == first and viewer.recall(third).token == third
    with pytest.raises(ViewError, match=r"not kept any more \(the last 2 are\)"):
        viewer.recall(second)
    with pytest.raises(ViewError, match="not kept"):
        viewer.explain(second, 0)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: path.write_bytes(b"<script>"), "wanted an image"),
        (lambda path: path.write_bytes(b""), "wanted an image"),
        (lambda path: path.write_bytes(write_image(path.parent).read_bytes()[:-2000]), "damaged or truncated"),
        (bomb, "pixels"),
        (lambda path: None, "no such file"),
        (lambda path: Image.new("RGB", (300, 400)).save(path), r"wanted 1 to 100,000 pixels .*got 300x400"),
    ],
)
def test_a_image_that_cannot_be_used_is_told_without_the_servers_folder(
    recognizer: Recognizer, tmp_path: Path, make: Any, text: str
) -> None:
    image = tmp_path / "sent.png"
    make(image)
    with pytest.raises(ViewError, match=text) as caught:
        Viewer(recognizer, most_pixels=100_000).view(image)
    assert "sent.png" in str(caught.value) and str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("boxes", "text"),
    [
        ("{no", "boxes file b.json: is not JSON"),
        ('"text"', "wanted an object or a list, got str"),
        (json.dumps(BOXES * 3), "wanted at most 5 people, got 6"),
    ],
)
def test_boxes_that_cannot_be_used_are_told(recognizer: Recognizer, tmp_path: Path, boxes: str, text: str) -> None:
    (tmp_path / "b.json").write_text(boxes)
    with pytest.raises(ViewError, match=text) as caught:
        Viewer(recognizer, most_persons=5).view(write_image(tmp_path), tmp_path / "b.json")
    assert str(tmp_path) not in str(caught.value)


def test_an_explanation_is_that_of_the_person(viewer: Viewer, recognizer: Recognizer, tmp_path: Path) -> None:
    viewed = viewer.view(write_image(tmp_path, boxes=[BROKEN, *BOXES]))
    crops = list(recognizer.prepare(viewed.image, BOXES).crops.values())
    for place, own in zip((1, 2), crops, strict=True):
        found = viewer.explain(viewed.token, place, "fear")
        assert found == explain(recognizer.model, recognizer.config, make_batch([own], ["0"]), "Fear")[0]
    scores = viewed.result.persons[1].probabilities["pred"]
    assert viewer.explain(viewed.token, 1).emotion == max(scores, key=lambda name: scores[name])
    for person, emotion, text in (
        (1, "Surprize", "did you mean 'Surprise'"),
        (0, None, "person 0: body: wanted four numbers"),
        (3, None, "wanted 0 to 2, got 3"),
        (-1, None, "wanted 0 to 2, got -1"),
    ):
        with pytest.raises(ViewError, match=text):
            viewer.explain(viewed.token, person, emotion)


def test_an_exported_model_cannot_be_explained(recognizer: Recognizer, tmp_path: Path) -> None:
    own = recognizer.prepare(Image.open(write_image(tmp_path)).convert("RGB"), BOXES).crops[0]
    with pytest.raises(
        ValueError, match=r"wanted a checkpoint \(.safetensors\) .*, got ExportedModel: an exported file"
    ):
        explain(ExportedModel.__new__(ExportedModel), recognizer.config, make_batch([own], ["0"]))


def test_questions_at_the_same_time_do_not_disturb_each_other(viewer: Viewer, tmp_path: Path) -> None:
    """Grad-CAM's hooks stand in the model while it runs; a pass of another thread must not fall into them."""
    image = write_image(tmp_path, boxes=BOXES)
    viewed = viewer.view(image)
    alone = viewer.explain(viewed.token, 0, "Fear")
    start = threading.Barrier(4)

    def ask(number: int) -> bool:
        start.wait()
        if number % 2:
            return viewer.view(image).result.persons == viewed.result.persons
        return viewer.explain(viewed.token, 0, "Fear") == alone

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(4)))


class Fragment(HTMLParser):
    """Text, struck-out words and images of a piece of HTML, whose tags must match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.struck: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "
        if self.open[-1:] == ["del"]:
            self.struck.append(data)


def a_person(**changes: Any) -> PersonPrediction:
    labels = {"pred": ("Fear",), "head": ("Fear", "Pain"), "body": (), "ctx": ("Anger",), "VI": ("<b>",)}
    scores = {source: {"Fear": 0.8, "Pain": 0.6, "Anger": 0.3} for source in labels}
    record = CompetitionRecord((0.5, 0.25, 0.125), ((0.2, 0.3, 0.5), (0.0, 0.4, 0.6)), ("head", "body", "context"), 0.1)
    given: dict[str, Any] = {"labels": labels, "probabilities": scores, "competition": record, "boxes": None}
    return PersonPrediction(0, **(given | changes))


def test_a_persons_block_strikes_out_what_the_answer_does_not_share() -> None:
    said = Fragment(person_block(a_person(pseudo_label=("Joy & Co",))))
    assert said.struck == ["Pain", "Anger"]
    for text in ("Fear", "0.80", "0.500", "0.125", "0.400", "lambda, round 2", "Joy & Co", "Exclusion Sequence:"):
        assert text in said.text
    assert re.search(r"\(1\)\s+Head\W+\(2\)\s+Body\W+\(3\)\s+Context", said.text)
    shared = Fragment(person_block(a_person(pseudo_label=("Pain", "<b>"))))
    assert shared.struck == ["Anger"] and "<b>" in shared.text  # what V-I says too is not struck out
    titles = [said.text.index(title) for title in ("Prediction", "Head", "Body", "Context", "V-I (pseudo label)")]
    assert titles == sorted(titles) and "GT" not in said.text


def test_a_block_says_why_there_is_no_answer() -> None:
    assert "box outside <it>" in Fragment(person_block(a_person(status="error", message="box outside <it>"))).text
    none = Fragment(person_block(a_person(labels={}, competition=None)))
    assert "none; highest: Fear 0.80" in none.text and "nothing competed" in none.text
    unjudged = CompetitionRecord((0.5, 0.25, 0.125), ((0.2, 0.3, 0.5), (0.0, 0.4, 0.6)), (), 0.1)
    silent = a_person(competition=unjudged, status="no_pseudo_label", message="the pseudo label is empty")
    assert "none, the pseudo label is empty" in Fragment(person_block(silent)).text
    assert "head box is estimated" in Fragment(person_block(a_person(status="no_face_estimated"))).text


def test_maps_are_rows_of_captioned_images(viewer: Viewer, tmp_path: Path) -> None:
    viewed = viewer.view(write_image(tmp_path, boxes=BOXES))
    found = viewer.explain(viewed.token, 1)
    boxes = viewed.result.persons[1].boxes
    assert boxes is not None
    crops = boxes.level_images(viewed.image)
    assert {level: crop.size for level, crop in crops.items()} == {
        "head": (1, 1),
        "body": (40, 50),
        "context": (80, 60),
    }
    rows = saliency_rows(crops, found) | attention_rows(viewed.image, found)
    assert list(rows) == [*LEVELS, "head -> context", "body -> context"]
    shown = Fragment(map_rows(rows))
    assert len(shown.images) == 3 * 4 + 2 * (1 + len(found.attention["head"]))
    assert all(str(p["src"]).startswith("data:image/jpeg;base64,") and p["alt"] for p in shown.images)
