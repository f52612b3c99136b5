"""Results for other programs: Parquet, COCO and Label Studio JSON hold the same people, and their boxes are read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cocoer.data.boxes_file import GivenBoxes, person_from
from cocoer.data.label_studio_boxes import read_label_studio
from cocoer.errors import BoxesError
from cocoer.names import LEVELS
from cocoer.outputs import CompetitionRecord, ImageResult, PersonBoxes, PersonPrediction
from cocoer.report.exchange import COCO, LABEL_STUDIO, PARQUET
from cocoer.report.results import EXCHANGE, ResultFolder, start_over

WIDTH, HEIGHT = 640, 480


def person(number: int, track: int | None = None, head_source: str = "detected") -> PersonPrediction:
    x = 100.25 * number
    boxes = PersonBoxes(
        (x, 20.5, x + 90.75, 400.0), (x + 20, 30.0, x + 60.5, 80.25), head_source, "detected", 0.9, 0.8, track
    )
    probabilities = {source: {"Anger": 0.25, "Fear": 0.75} for source in ("pred", "VI", "head", "body", "ctx")}
    record = CompetitionRecord((0.1, 0.2, 0.3), ((1.0, 0.0, 0.0),), LEVELS, 0.5)
    return PersonPrediction(number, dict.fromkeys(probabilities, ("Fear",)), probabilities, record, boxes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image with two people, one with nobody, one that could not be read, and a frame of a video."""
    start_over(tmp_path, False)
    made = ResultFolder(tmp_path, set(EXCHANGE))
    results = [
        ImageResult("x/ä.jpg", WIDTH, HEIGHT, (person(0, 7), person(1, head_source="estimated"))),
        ImageResult("empty.jpg", WIDTH, HEIGHT, ()),
        ImageResult("broken.jpg", 0, 0, (), "error", "broken.jpg: not an image"),
        ImageResult("v.mp4", WIDTH, HEIGHT, (person(2),), frame=5),
    ]
    for position, result in enumerate(results):
        made.add(result, str(position), position, None)
    made.close()
    assert {p.name for p in made.finish()} == {"results.jsonl", PARQUET, COCO, LABEL_STUDIO}
    return tmp_path


def read_back(file: Path, name: str, frame: int | None = None) -> list[PersonBoxes]:
    found = GivenBoxes(file, False)(name, None, frame)
    assert found is not None, name
    return [person_from(raw, WIDTH, HEIGHT) for raw in found]


@pytest.mark.parametrize("name", [COCO, LABEL_STUDIO, PARQUET])
def test_only_its_own_files_are_written_anew(folder: Path, name: str) -> None:
    ResultFolder(folder, set(EXCHANGE)).close()  # those of an earlier run are its own
    (folder / name).write_text('{"images": [], "annotations": []}')
    with pytest.raises(ValueError, match="is not a file that cocoer wrote, and it stays"):
        ResultFolder(folder, set(EXCHANGE))
    assert (folder / name).read_text().startswith("{")
    ResultFolder(folder, {"json"}).close()  # not asked for, not looked at


@pytest.mark.parametrize("name", [COCO, LABEL_STUDIO])
def test_boxes_are_read_back_as_they_were(folder: Path, name: str) -> None:
    first, second = read_back(folder / name, "x/ä.jpg")
    wanted = person(0, 7).boxes
    assert wanted is not None
    assert first.body == pytest.approx(wanted.body, abs=0.01) and first.head == pytest.approx(wanted.head, abs=0.01)
    assert second.head_source == "estimated", "what was only estimated is estimated again"
    assert read_back(folder / name, "empty.jpg") == []
    assert GivenBoxes(folder / name, False)("broken.jpg", None) is None


def test_coco_keeps_ids_labels_and_frames(folder: Path) -> None:
    tree = json.loads((folder / COCO).read_text(encoding="utf-8"))
    assert [c["name"] for c in tree["categories"]] == ["person"]
    assert {a["image_id"] for a in tree["annotations"]} <= {i["id"] for i in tree["images"]}
    assert len({a["id"] for a in tree["annotations"]}) == 3
    for annotation in tree["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert annotation["area"] == pytest.approx(width * height, abs=0.01) and x >= 0 and y >= 0
        assert annotation["attributes"]["labels"] == ["Fear"]
    assert read_back(folder / COCO, "x/ä.jpg")[0].track == 7
    assert len(read_back(folder / COCO, "v.mp4", 5)) == 1


def test_label_studio_has_percentages_and_choices(folder: Path) -> None:
    first = json.loads((folder / LABEL_STUDIO).read_text(encoding="utf-8"))[0]
    result = first["predictions"][0]["result"]
    for part in result:
        if "value" in part:
            assert 0 <= part["value"]["x"] <= part["value"]["x"] + part["value"]["width"] <= 100
    choices = [part for part in result if part.get("type") == "choices"]
    assert [part["value"]["choices"] for part in choices] == [["Fear"], ["Fear"]]


@pytest.mark.parametrize("name", [COCO, LABEL_STUDIO])
def test_annotations_are_a_table_of_another_data_set(folder: Path, name: str) -> None:
    """`cocoer prepare table` reads what was written, with the emotions as labels."""
    from cocoer.data.prepare.table.coco import read_coco
    from cocoer.data.prepare.table.rows import Reading

    if name == COCO:
        tree = json.loads((folder / COCO).read_text(encoding="utf-8"))
        rows = list(read_coco(folder / COCO, tree, Reading(columns={"labels": "labels"})))
        assert [row.labels for row in rows] == [("Fear",)] * 3 and not any(row.fault for row in rows)
    else:
        tasks = json.loads((folder / LABEL_STUDIO).read_text(encoding="utf-8"))
        assert all("predictions" in task and "annotations" not in task for task in tasks), "predictions are no truth"


def test_parquet_has_types_and_every_line(folder: Path) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(folder / PARQUET)
    assert table.num_rows == 5  # two people, one, and two images without
    assert str(table.schema.field("p_Fear").type) == "double" and str(table.schema.field("width").type) == "int64"
    assert table.column("p_Fear").to_pylist() == [0.75, 0.75, None, None, 0.75]
    assert table.column("image").to_pylist()[0] == "x/ä.jpg"


@pytest.mark.parametrize(
    "tree",
    [
        [
            {
                "data": {"image": "a.jpg"},
                "predictions": [{"result": [{"id": "x", "value": {"rectanglelabels": ["head"]}}, 3]}],
            }
        ],
        [{"data": {}, "predictions": []}],
    ],
)
def test_a_broken_file_is_an_error_of_one_line(tree: object) -> None:
    with pytest.raises(BoxesError, match="not whole as Label Studio's JSON"):
        read_label_studio(tree)


def test_cocoers_own_form_is_left_alone() -> None:
    for tree in ({"persons": []}, [{"body": [0, 0, 1, 1]}], {"a.jpg": []}, [], 3, "x"):
        assert read_label_studio(tree) is tree
