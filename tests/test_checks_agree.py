"""`cocoer data check` and `cocoer train` refuse and take the same indexes, for the same reason."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import load_program
from training_world import make_world, read, train

from cocoer.cli import data as data_command
from cocoer.names import SPLITS

CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any] | None, str]] = {
    "as it is": (None, ""),
    "a class that is none": (lambda row: row.update(labels=["Rage"]), "unknown class 'Rage', did you mean"),
    "another spelling": (lambda row: row.update(labels=[row["labels"][0].upper()]), ""),
    "two labels": (lambda row: row.update(labels=["Happy", "Sad"]), "have not exactly one label"),
    "no label": (lambda row: row.update(labels=[]), "have not exactly one label"),
    "a box outside": (lambda row: row.update(body=[10, 10, 500, 30]), "leaves the image"),
    "no such image": (lambda row: row.update(image="nowhere.png"), "nowhere.png"),
    "no such split": (lambda row: row.update(split="dev"), "split one of train, val, test"),
    "a missing key": (lambda row: row.pop("head"), "a person needs the keys"),
    "an image of another size": (lambda row: row.update(width=row["width"] + 4), "pixels as in the index"),
}


def outcome(config: Path) -> tuple[bool, bool]:
    """Whether the check passes the config's index, and whether training takes it."""
    data = read(config).data
    passed = data_command.main(["check", data.index, "--root", data.root, "--config", str(config)]) == 0
    return passed, train(config, "--overwrite", settings=["run.max_steps=1"]) == 0


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", CHANGES)
def test_the_check_and_training_agree(
    name: str, split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_world(tmp_path, "caers", train=8, other=4)
    change, message = CHANGES[name]
    file = Path(read(config).data.index) / f"{split}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    if change is not None:
        change(rows[1])
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    passed, trained = outcome(config)
    assert passed == trained == (message == ""), name
    if message:
        assert capsys.readouterr().err.count(message) >= 2, "both say it"


@pytest.mark.parametrize("dataset", ["emotic", "caers"])
def test_an_index_without_a_label(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path, dataset, train=8, other=4)
    for split in ("train", "val"):
        file = Path(read(config).data.index) / f"{split}.jsonl"
        rows = [json.loads(line) | {"labels": []} for line in file.read_text().splitlines()]
        file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert outcome(config) == (False, False)
    assert capsys.readouterr().err.count("not one label") == 2


def test_a_split_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path, train=8, other=4)
    (Path(read(config).data.index) / "val.jsonl").unlink()
    assert outcome(config) == (False, False)
    tree = yaml.safe_load(config.read_text())
    tree["data"]["select_split"] = "test"
    config.write_text(yaml.safe_dump(tree))
    assert outcome(config) == (True, True)


def test_which_data_set_it_is_has_to_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path, "caers", train=8, other=4)
    data = read(config).data
    (Path(data.index) / "sidecar.json").unlink(missing_ok=True)
    words = ["check", data.index, "--root", data.root]
    assert data_command.main(words) == 1 and "--dataset or --config" in capsys.readouterr().err
    assert data_command.main([*words, "--dataset", "caers"]) == 0
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"labels": "single", "classes": ["Rage", "Joy"]}))
    assert data_command.main([*words, "--dataset", str(tmp_path / "mine.yaml")]) == 1
    assert "unknown class" in capsys.readouterr().err


# ---- many small faulty indexes and configs -------------------------------------------------------------------------------

CLASSES = ["calm", "Storm", "so la la"]
BOXES = st.one_of(
    st.lists(st.sampled_from([0, 4.5, 12, 30, 47.99, 48, 49, -1, None, "x"]), min_size=3, max_size=5),
    st.sampled_from([None, [6, 2, 40, 38], [40, 2, 6, 38], [6, 2, 6, 38], [0, 0, 48, 40]]),
)
LABELS = st.lists(st.sampled_from([*CLASSES, "STORM", " calm", "Sturm", "solala", "", 3]), max_size=3)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "image": st.sampled_from(["train/001.png", "val/001.png", "none.png", "../root/train/001.png", "", None, 5]),
    "width": st.sampled_from([48, 48.0, 47, 0, -1, "48", None, 1e30, True]),
    "person": st.sampled_from([0, 1, 0.5, None]),
    "body": BOXES,
    "head": BOXES,
    "head_source": st.sampled_from(["annotated", "detected", "guessed", None]),
    "labels": LABELS,
    "vad": st.sampled_from([None, [5, 5, 5], [5, 5], "5", [5, None, 5]]),
    "split": st.sampled_from([*SPLITS, "dev", None]),
}
SETTINGS = [
    "data.labels=multi", "data.labels=single", "data.train_split=val", "data.select_split=test", "data.select_split=train",
    "data.classes=[calm, Storm]", "data.aliases={sturm: Storm}", "data.image_size=30", "data.dataset=emotic",
]  # fmt: skip


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[tuple[str, int, dict[str, Any] | str | None]], list[str]]:
    """What is done to which rows (other values of keys, another line, or the line taken away), and settings."""
    change = st.one_of(
        st.sampled_from(sorted(VALUES)).flatmap(lambda key: VALUES[key].map(lambda value: {key: value})),
        st.sampled_from(["", "{", "[]", "null", '{"image": "a.png"}', None]),
    )
    where = st.tuples(st.sampled_from(["train", "val"]), st.integers(0, 3), change)
    return draw(st.lists(where, max_size=3)), draw(st.lists(st.sampled_from(SETTINGS), max_size=2, unique=True))


class Started(Exception):
    """Training has passed its checks."""


def starts(config: Path, changes: list[str]) -> bool:
    """Whether `cocoer train` comes to where it would begin."""
    begin = mock.patch.object(load_program("train").RunRecord, "begin", side_effect=Started)
    try:
        with begin:
            assert train(config, "--overwrite", settings=changes) in (1, 2)
    except Started:
        return True
    return False


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of three own classes, four persons a split."""
    data = {"dataset": "custom", "classes": CLASSES, "labels": "single"}
    config = make_world(tmp_path_factory.mktemp("own"), "caers", train=4, other=4, data=data)
    for path in Path(read(config).data.index).glob("*.jsonl"):
        rows = [json.loads(line) | {"labels": [CLASSES[i % 3]]} for i, line in enumerate(path.read_text().splitlines())]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return config


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(worlds())
def test_many_faulty_worlds(own: Path, capsys: pytest.CaptureFixture[str], world: Any) -> None:
    changes, settled = world
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        shutil.copytree(read(own).data.index, index)
        for split, row, change in changes:
            path = index / f"{split}.jsonl"
            lines = path.read_text().splitlines()
            if row >= len(lines):
                continue
            if isinstance(change, dict):
                lines[row] = (
                    json.dumps(json.loads(lines[row]) | change) if lines[row].startswith('{"image": "t') else lines[row]
                )
            else:
                lines[row : row + 1] = [] if change is None else [change]
            path.write_text("".join(line + "\n" for line in lines))
        root = read(own).data.root
        settled = [*settled, f"data.index={index}"]
        capsys.readouterr()
        looked = data_command.main(["check", str(index), "--root", root, "--config", str(own), "--set", *settled])
        checked = capsys.readouterr()
        started = starts(own, settled)
        said = capsys.readouterr().err
    assert (looked == 0) == started, (changes, settled, checked.err, said)
    if looked:
        assert checked.err.partition("cocoer data: error: ")[2] == said.partition("cocoer train: error: ")[2] != "", (
            "for the same reason"
        )


def test_a_damaged_image_stops_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path, "caers", train=8, other=4)
    image = Path(read(config).data.root) / "train" / "002.png"
    image.write_bytes(image.read_bytes()[:300])
    assert outcome(config) == (False, False)
    assert capsys.readouterr().err.count("damaged or truncated") >= 2
