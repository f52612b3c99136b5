"""With and without near-duplicates of train: marked in any index, measured against scikit-learn on the persons that are left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import load_program
from sklearn import metrics as sk
from small_images import rough_image
from training_world import make_world, read, train

from cocoer.data.batch import PersonRecord
from cocoer.data.index import read_index
from cocoer.data.synthetic.copies import CHANGES
from cocoer.data.synthetic.export import write_caers, write_emotic
from cocoer.errors import ScoreError, UsageError
from cocoer.evaluation.evaluate import Evaluation
from cocoer.evaluation.groups import image_draws
from cocoer.evaluation.leaks import with_and_without
from cocoer.report.evaluation import near_caption, near_grid

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(3)


def people(by: Sequence[str]) -> list[PersonRecord]:
    """Two persons an image, with a mark each."""
    return [
        PersonRecord(
            f"{i // 2}.jpg", 9, 9, i % 2, (0, 0, 9, 9), (0, 0, 4, 4), "annotated", (), None, "test",
            {"near_train": bool(way), "near_train_by": way},
        )
        for i, way in enumerate(by)
    ]  # fmt: skip


def evaluation(records: list[PersonRecord], multi_label: bool, k: int = 3) -> Evaluation:
    n = len(records)
    targets = (RNG.random((n, k)) < 0.4) if multi_label else np.eye(k)[RNG.integers(0, k, n)]
    scores = RNG.random((n, k)).astype(np.float32)
    keys = tuple(record.key for record in records)
    return Evaluation(keys, targets.astype(np.float32), {"pred": scores}, None, None, None, None, None)


@pytest.mark.parametrize("multi_label", [True, False])
def test_each_way_leaves_out_its_persons_and_the_rest_is_measured_as_if_alone(multi_label: bool) -> None:
    records = people(["hash"] * 10 + ["clip"] * 6 + ["both"] * 4 + [""] * 60)
    result = evaluation(records, multi_label)
    found = with_and_without(result, records, multi_label, 300)

    def headline(rows: np.ndarray) -> float:
        scores, targets = result.probabilities["pred"][rows], result.targets[rows]
        if multi_label:
            return float(np.mean([sk.average_precision_score(targets[:, j], scores[:, j]) for j in range(3)]))
        return float(sk.accuracy_score(targets.argmax(1), scores.argmax(1)))

    marks = np.array([record.extra["near_train_by"] for record in records])
    whole = headline(np.ones(80, dtype=bool))
    assert found["all"]["persons"] == 80 and found["all"]["images"] == 40
    assert found["all"]["headline"]["value"] == pytest.approx(whole, abs=1e-6)
    for way, marked in (("hash", ("hash", "both")), ("clip", ("clip", "both")), ("any", ("hash", "clip", "both"))):
        rest = ~np.isin(marks, marked)
        row = found["without"][way]
        assert (row["left_out"], row["persons"]) == (int((~rest).sum()), int(rest.sum()))
        assert (row["left_out_images"], row["images"]) == (int((~rest).sum()) // 2, int(rest.sum()) // 2)
        assert row["headline"]["value"] == pytest.approx(headline(rest), abs=1e-6)
        change = row["difference"]
        assert change["value"] == pytest.approx(headline(rest) - whole, abs=1e-6)
        assert change["low"] < change["value"] < change["high"]
        # what is left is most of the whole, so the two move together: the difference is surer than either
        assert change["high"] - change["low"] < row["headline"]["high"] - row["headline"]["low"]


@pytest.mark.parametrize("multi_label", [True, False])
def test_the_interval_of_the_change_is_that_of_a_loop_over_draws_of_images(multi_label: bool) -> None:
    """Every person as often as its image is drawn, each number by scikit-learn."""
    records = people(["hash"] * 8 + [""] * 40)
    result = evaluation(records, multi_label)
    scores, targets = result.probabilities["pred"].astype(float), result.targets

    def headline(counts: np.ndarray) -> float:
        drawn, true = scores.repeat(counts, axis=0), targets.repeat(counts, axis=0)
        if multi_label:
            return float(
                np.mean([sk.average_precision_score(true[:, j], drawn[:, j]) for j in range(3) if true[:, j].any()])
            )
        return float(sk.accuracy_score(true.argmax(1), drawn.argmax(1)))

    rest = np.array([not record.extra["near_train"] for record in records]).astype(int)
    draws = image_draws(np.arange(48) // 2, 60).astype(int)
    changes = np.array([headline(counts * rest) - headline(counts) for counts in draws])
    value = headline(rest) - headline(np.ones(48, dtype=int))
    low, high = value + np.percentile(changes - changes.mean(), [2.5, 97.5])
    found = with_and_without(result, records, multi_label, 60)["without"]["any"]["difference"]
    assert (found["value"], found["low"], found["high"]) == pytest.approx((value, low, high), abs=1e-9)


def test_the_change_of_map_is_over_the_classes_that_are_left() -> None:
    """Class 2 has its only positives among those left out: its AP of 1 is no part of the change."""
    records = people(["hash"] * 4 + [""] * 40)
    targets = np.zeros((44, 3), dtype=np.float32)
    targets[:22, 0], targets[10:30, 1], targets[:4, 2] = 1, 1, 1
    scores = np.where(targets > 0, 0.9, 0.1).astype(np.float32)
    scores[5, 0] = 0.05  # one of class 0 is ranked last, among the rest
    result = Evaluation(tuple(r.key for r in records), targets, {"pred": scores}, None, None, None, None, None)
    row = with_and_without(result, records, True, 100)["without"]["any"]
    before = [sk.average_precision_score(targets[:, j], scores[:, j]) for j in (0, 1)]
    after = [sk.average_precision_score(targets[4:, j], scores[4:, j]) for j in (0, 1)]
    assert row["difference"]["value"] == pytest.approx(np.mean(after) - np.mean(before), abs=1e-6)
    assert row["headline"]["value"] == pytest.approx(np.mean(after), abs=1e-6)


def test_nothing_is_said_of_an_index_without_marks_or_of_few_persons_left() -> None:
    records = [replace(record, extra={}) for record in people([""] * 40)]
    assert with_and_without(evaluation(records, True), records, True, 20) == {}
    unmarked = people([""] * 40)
    found = with_and_without(evaluation(unmarked, True), unmarked, True, 20)
    assert found["without"]["any"]["left_out"] == 0 and set(found["without"]) == {"any"}
    assert found["without"]["any"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert near_caption(found).startswith("No image of this split looks like one of train")
    most = people(["hash"] * 20 + [""] * 29)
    few = with_and_without(evaluation(most, True), most, True, 20)["without"]["any"]
    assert few == {"left_out": 20, "left_out_images": 10, "persons": 29, "images": 15}
    grid = near_grid(with_and_without(evaluation(most, False), most, False, 20))
    assert grid[0][1:4] == ("accuracy", "change", "left out") and grid[-1][1:4] == ("too few persons", "", "20")
    assert len({len(row) for row in grid}) == 1


@pytest.mark.parametrize(
    "change", [{"near_train": "no"}, {"near_train": 1}, {"near_train_by": "sight"}, {"near_train_by": 3}, None]
)
def test_a_split_that_is_marked_in_part_or_otherwise_is_said(change: dict[str, object] | None) -> None:
    records = people(["hash"] * 4 + [""] * 40)
    extra = {} if change is None else {**records[7].extra, **change}
    records[7] = replace(records[7], extra=extra)
    with pytest.raises(ScoreError, match="for 3.jpg#1 and 0 more; mark the index anew with `cocoer prepare near`"):
        with_and_without(evaluation(records, True), records, True, 20)


# ------------------------------------------------------------------------------------------------------ the planted copies


def test_a_copy_shows_its_people_where_its_boxes_are() -> None:
    """A bright rectangle on black stays inside its box, and fills it, after every change."""
    box = (60.0, 40.0, 120.0, 140.0)
    image = Image.new("RGB", (200, 160))
    image.paste((120, 200, 160), tuple(map(int, box)))
    for change in CHANGES:
        after = np.asarray(change.pixels(image)).max(2) > 40
        x1, y1, x2, y2 = change.box(box, 200, 160)
        ys, xs = np.nonzero(after)
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == pytest.approx((x1, y1, x2, y2), abs=1.5), change.name
    assert len({change.name for change in CHANGES}) == len(CHANGES) == 6


def test_copies_are_the_first_images_of_train_in_test_and_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    counts = {"train": 12, "val": 3, "test": 5}
    for write, name in ((write_emotic, "emotic"), (write_caers, "caers")):
        write(tmp_path / name, counts, seed=4)
        write(tmp_path / f"{name}_copies", counts, seed=4, copies=6)
        for split in ("train", "val", "test"):
            plain, with_copies = (read_index(tmp_path / root / "index", split) for root in (name, f"{name}_copies"))
            assert with_copies[: len(plain)] == plain
        copied = [r for r in read_index(tmp_path / f"{name}_copies/index", "test") if "copy_of" in r.extra["synthetic"]]
        train = read_index(tmp_path / name / "index", "train")
        firsts = list(dict.fromkeys(record.image for record in train))[:6]
        assert list(dict.fromkeys(r.extra["synthetic"]["copy_of"] for r in copied)) == firsts
        assert [r.labels for r in copied] == [r.labels for r in train if r.image in firsts]
        assert {r.extra["synthetic"]["change"] for r in copied} == {change.name for change in CHANGES}
        for record in copied:
            with Image.open(tmp_path / f"{name}_copies" / record.image) as image:
                assert image.size == (record.width, record.height) and "synthetic" in str(image.info["comment"])
        with pytest.raises(UsageError, match="wanted at most as many as train has images"):
            write(tmp_path / "more", counts, seed=4, copies=13)
        assert not (tmp_path / "more").exists()


def test_prepare_emotic_reads_the_copies_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_emotic(tmp_path / "world", {"train": 8, "val": 2, "test": 3}, seed=4, copies=3)
    given = ["--root", str(tmp_path / "world"), "--output", str(tmp_path / "index"), "--heads", "estimate"]
    assert load_program("prepare_emotic").main(given) == 0
    ours = read_index(tmp_path / "index", "test")
    theirs = read_index(tmp_path / "world/index", "test")
    assert sorted((r.image, r.body, r.labels) for r in ours) == sorted((r.image, r.body, r.labels) for r in theirs)


# ------------------------------------------------------------------------------------------------------------- the command


def make_tree(root: Path, splits: dict[str, list[int]]) -> None:
    """An index of rough images; the same number is the same look, in other bytes."""
    (root / "index").mkdir(parents=True)
    for split, looks in splits.items():
        lines = []
        for place, look in enumerate(looks):
            name = f"{split}_{place}.jpg"
            image = rough_image(look)
            image.save(root / name, quality=60 if split == "train" else 90)
            box = (0.0, 0.0, float(image.width), float(image.height))
            lines.append(
                PersonRecord(
                    name, *image.size, 0, box, (0.0, 0.0, 20.0, 20.0), "annotated", ("Peace",), None, split, {"kept": 1}
                )
            )
        (root / "index" / f"{split}.jsonl").write_text("".join(line.to_line() + "\n" for line in lines))
    (root / "index/sidecar.json").write_text(json.dumps({"skipped": [], "dataset": "emotic", "options": {"other": 1}}))


def test_the_command_marks_any_index_and_drops_from_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree(tmp_path, {"train": [0, 1, 2], "val": [3, 1], "test": [4, 0]})
    near, given = load_program("prepare_near").main, ["--root", str(tmp_path), "--index", str(tmp_path / "index")]
    assert near([*given, "--output", str(tmp_path / "marked"), "--clip", "none"]) == 0
    said = capsys.readouterr().out
    assert "near-duplicates train/test: 1 images with 1 persons of train and 1 images with 1 persons of test" in said
    assert "test: 1 of 2 persons marked near_train" in said
    marks = {
        s: [r.extra.get("near_train_by") for r in read_index(tmp_path / "marked", s)] for s in ("train", "val", "test")
    }
    assert marks == {"train": [None] * 3, "val": ["nothing", "hash"], "test": ["nothing", "hash"]}
    assert all(r.extra["kept"] == 1 for r in read_index(tmp_path / "marked", "test"))
    sidecar = json.loads((tmp_path / "marked/sidecar.json").read_text())
    assert sidecar["dataset"] == "emotic" and sidecar["options"] == {"other": 1, "near": 6, "drop_near": False}
    assert sidecar["near_duplicates"]["pairs"].keys() == {"train/val", "train/test"}
    (tmp_path / "test_0.jpg").write_bytes(b"no image")
    assert near([*given, "--output", str(tmp_path / "clean"), "--clip", "none", "--drop", "near"]) == 0
    said = capsys.readouterr().out
    assert "train: 2 persons left out" in said and "1 images cannot be read and were not compared" in said
    assert [r.image for r in read_index(tmp_path / "clean", "train")] == ["train_2.jpg"]
    assert len(read_index(tmp_path / "clean", "test")) == 2


def test_an_index_in_one_file_is_the_same_index(tmp_path: Path) -> None:
    make_tree(tmp_path, {"train": [0, 1], "test": [4, 0]})
    whole = tmp_path / "whole.jsonl"
    whole.write_text("".join((tmp_path / f"index/{split}.jsonl").read_text() for split in ("train", "test")))
    (tmp_path / "index/sidecar.json").write_text('{"skipped": [], "options": "none"}')  # of no index that we know
    for index, out in ((tmp_path / "index", "a"), (whole, "b")):
        given = ["--root", str(tmp_path), "--index", str(index), "--output", str(tmp_path / out), "--clip", "none"]
        assert load_program("prepare_near").main(given) == 0
    for split in ("train", "test"):
        assert read_index(tmp_path / "a", split) == read_index(tmp_path / "b", split)


def test_what_cannot_be_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree(tmp_path, {"train": [0], "test": [1]})
    near, index = load_program("prepare_near").main, str(tmp_path / "index")
    given = ["--index", index, "--output", str(tmp_path / "out"), "--clip", "none"]
    assert near([*given, "--root", str(tmp_path / "index")]) == 1
    assert (
        "wanted the images of the index below" in capsys.readouterr().err
        and not (tmp_path / "out/sidecar.json").exists()
    )
    (tmp_path / "index/test.jsonl").unlink()
    assert near([*given, "--root", str(tmp_path)]) == 2
    assert "wanted persons of train and of val or test, to compare them, got train;" in capsys.readouterr().err
    for wrong, words in (
        (["--output", index], "wanted another folder than --index"),
        (["--near", "40"], "wanted 0..31 bits, got 40"),
        (["--cosine", "0"], "wanted a number above 0 and up to 1, got 0"),
    ):
        with pytest.raises(SystemExit, match="2"):
            near([*given, "--root", str(tmp_path), *wrong])
        assert words in capsys.readouterr().err


def test_evaluate_tells_both_numbers_of_a_marked_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path, other=40)
    assert train(config, settings=["run.max_steps=2"]) == 0
    data, marked = read(config).data, str(tmp_path / "marked")
    near = ["--root", data.root, "--index", data.index, "--output", marked, "--clip", "none", "--near", "20"]
    assert load_program("prepare_near").main(near) == 0
    weights, out = tmp_path / "run/best.safetensors", tmp_path / "out"
    given = ["--checkpoint", str(weights), "--device", "cpu", "--resamples", "20", "--output", str(out)]
    assert load_program("evaluate").main([*given, "--index", marked]) == 0
    told = json.loads((out / "result.json").read_text())["numbers"]["near_duplicates"]
    assert told["all"]["persons"] == told["without"]["any"]["persons"] + told["without"]["any"]["left_out"] == 40
    said = capsys.readouterr().out
    assert "near-duplicates of train" in said and "without any that was found" in said
    assert "with and without near-duplicates of train" in (out / "evaluation.html").read_text()
