"""Nobody can mistake the demonstration: what synthetic weights made says so everywhere, and demo detectors refuse photographs."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import load_program
from skimage import data as sample_data
from tiny_recognizer import tiny_checkpoint

from cocoer import Recognizer
from cocoer.data.decode import decode_image, is_demo_image
from cocoer.data.index import is_synthetic
from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.export import write_emotic
from cocoer.data.synthetic.world import draw_image
from cocoer.errors import DetectorError, SyntheticWeightsWarning
from cocoer.model.checkpoint import load_weights, read_metadata, save_weights
from cocoer.outputs import SYNTHETIC, ImageResult
from cocoer.provenance import says_synthetic
from cocoer.report.band import GROUND, with_band
from cocoer.report.draw import draw_result
from cocoer.report.figure import draw_case_study
from cocoer.report.person_html import person_block
from cocoer.report.text import summarize
from cocoer.weights.catalog import DEMO_CHECKPOINT, DETECTORS
from cocoer.weights.places import SHIPPED

DRAWN = SHIPPED / "test_imgs" / "demo_01.jpg"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The same small model twice: trained on synthetic scenes, and not."""
    folder = tmp_path_factory.mktemp("weights")
    plain = tiny_checkpoint(folder)
    loaded = load_weights(plain)
    drawn = folder / "drawn.safetensors"
    save_weights(drawn, loaded.model, loaded.config, metrics={}, thresholds={}, synthetic=True)
    return {True: drawn, False: plain}


PERSON = [{"body": [20, 20, 90, 120], "head": [40, 20, 70, 50]}]


@pytest.mark.parametrize("synthetic", [True, False])
def test_every_form_of_an_answer_says_what_the_weights_are(weights: dict[bool, Path], synthetic: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recognizer = Recognizer.from_checkpoint(weights[synthetic], "cpu")
    image = Image.new("RGB", (700, 500), (90, 120, 150))
    persons = recognizer(image, [*PERSON, {"body": [900, 900, 990, 990]}])
    assert [p.status for p in persons] == ["ok", "error"] and [p.synthetic for p in persons] == [synthetic] * 2
    result = ImageResult("a.png", 700, 500, tuple(persons), model=recognizer.about)
    tree = result.to_dict()
    assert tree["synthetic"] is tree["model"]["synthetic"] is tree["persons"][0]["synthetic"] is synthetic
    for drawing in (draw_result(image, result), draw_case_study(image, result, 0), draw_case_study(image, result, 1)):
        assert ((np.asarray(drawing)[1] == GROUND).all()) == synthetic
    assert (SYNTHETIC in person_block(persons[0])) == (SYNTHETIC in summarize(result)) == synthetic


def test_the_recogniser_warns_once_each(weights: dict[bool, Path]) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for recognizer in (
            Recognizer.from_checkpoint(weights[True], "cpu"),
            Recognizer.from_checkpoint(weights[True], "cpu"),
        ):
            for _ in range(2):
                recognizer(Image.new("RGB", (128, 128)), PERSON)
        Recognizer.from_checkpoint(weights[False], "cpu")
    assert [w.category for w in said] == [SyntheticWeightsWarning] * 2
    assert Path(said[0].filename) == Path(__file__)


def test_an_exported_copy_of_the_demonstration_warns_too(tmp_path: Path) -> None:
    out = tmp_path / "renamed.onnx"
    assert (
        load_program("export").main(["--checkpoint", str(DEMO_CHECKPOINT), "--format", "onnx", "--output", str(out)])
        == 0
    )
    with pytest.warns(SyntheticWeightsWarning, match="photographs"):
        recognizer = Recognizer.from_checkpoint(out)
    (person,) = recognizer(DRAWN, [{"body": [129, 40, 283, 300], "head": [169, 40, 258, 130]}])
    assert person.synthetic


def test_a_note_or_the_field_says_it_and_packing_keeps_it(weights: dict[bool, Path], tmp_path: Path) -> None:
    assert says_synthetic(read_metadata(DEMO_CHECKPOINT))
    assert not says_synthetic({"note": "EMOTIC, nine epochs", "synthetic": False}) and not says_synthetic({})
    assert says_synthetic({"note": "Synthetic demonstration"}) and says_synthetic({"synthetic": True})
    out = tmp_path / "packed.safetensors"
    assert load_program("weights").main(["pack", str(weights[True]), "--output", str(out)]) == 0
    assert says_synthetic(read_metadata(out))


def test_an_index_from_a_drawn_tree_is_synthetic_wherever_it_lies(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write_emotic(tree, {"train": 2, "val": 1, "test": 1}, 0, WorldOptions(), workers=1)
    assert is_synthetic(tree / "index") and is_synthetic(tree / "index" / "train.jsonl")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(tree / "index" / "train.jsonl", elsewhere)
    assert not is_synthetic(elsewhere) and is_synthetic(elsewhere, tree)
    assert all(is_demo_image(decode_image(path)) for path in tree.rglob("*.jpg"))


@pytest.mark.parametrize("width", [1, 40, 200, 1000, 5000])
def test_the_band_fits_every_width_and_leaves_the_image(width: int) -> None:
    image = Image.effect_noise((width, 30), 50).convert("RGB")
    banded = with_band(image, True)
    assert banded.width == width and banded.height > 30
    assert banded.crop((0, banded.height - 30, width, banded.height)).tobytes() == image.tobytes()
    assert with_band(image, False) is image


@pytest.fixture(scope="module")
def demo() -> Recognizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Recognizer.from_checkpoint(DEMO_CHECKPOINT, "cpu")


def photographs() -> Iterator[Image.Image]:
    yield Image.fromarray(sample_data.astronaut())
    yield Image.fromarray(sample_data.coffee())
    yield Image.new("RGB", (300, 200), (120, 120, 120))


def test_demo_detectors_refuse_what_the_demo_world_did_not_draw(demo: Recognizer) -> None:
    for image in photographs():
        with pytest.raises(DetectorError, match="cocoer setup photos"):
            demo(image)
    assert demo(Image.fromarray(sample_data.astronaut()), PERSON), "boxes of the user need no detector"
    found = demo(DRAWN)
    assert len(found) == 1 and found[0].boxes is not None and found[0].boxes.body_source == "detected"
    assert demo(draw_image(3, "test", 0, WorldOptions()).image)


def test_demo_detectors_look_at_photographs_where_they_are_asked() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recognizer = Recognizer.from_checkpoint(DEMO_CHECKPOINT, "cpu", DETECTORS["demo"])
    for person in recognizer(Image.fromarray(sample_data.astronaut())):
        assert person.synthetic


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_commands_rows_and_tables_say_it(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(sample_data.astronaut()).save(folder / f"photo{suffix}")
    shutil.copy(DRAWN, folder / "drawn.jpg")
    predict = load_program("predict")
    assert predict.main(["--input", str(folder), "--output", str(tmp_path / "out"), "--device", "cpu"]) == 1
    said = capsys.readouterr()
    assert "cocoer setup photos" in said.err and SYNTHETIC in said.err and SYNTHETIC in said.out
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(file)}
    assert {row["synthetic"] for row in rows.values()} == {"true"}
    assert "setup photos" in rows[f"photo{suffix}"]["message"] and rows["drawn.jpg"]["status"] == "ok"
    assert json.loads((tmp_path / "out" / "drawn.json").read_text())["synthetic"] is True
    args = ["--input", str(folder), "--detector", "demo", "--output", str(tmp_path / "asked"), "--device", "cpu"]
    assert predict.main(args) == 0
    assert json.loads((tmp_path / "asked" / "photo.json").read_text())["synthetic"] is True
