"""The demo world: deterministic, well formed, and contradictory exactly as it says."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import files_below
from scipy.io import loadmat

from cocoer.boxes import as_box, intersections
from cocoer.cli import prepare_demo as make_demo_data
from cocoer.data.synthetic import export
from cocoer.data.synthetic.annotations import HEADER, person_fields
from cocoer.data.synthetic.emotions import ARCHETYPES, WorldOptions, archetype_pool, captions, clearly_different
from cocoer.data.synthetic.export import ANNOTATORS, write_caers, write_emotic
from cocoer.data.synthetic.expression import EXPRESSIONS
from cocoer.data.synthetic.posture import POSTURES
from cocoer.data.synthetic.scene import PLAIN_WORDS, SCENES
from cocoer.data.synthetic.world import DrawnImage, Person, draw_image, plan_image
from cocoer.datasets import CAERS_CLASSES, EMOTIC_CLASSES
from cocoer.names import LEVELS, SPLITS

ROOT = Path(__file__).resolve().parents[1]
COUNTS = {"train": 14, "val": 7, "test": 7}


def _people(count: int, options: WorldOptions, split: str = "train") -> list:
    return [p for i in range(count) for p in plan_image(3, split, i, options).people]


def _lines(root: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (root / "index" / f"{split}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def emotic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("emotic")
    write_emotic(root, COUNTS, seed=5, traps=True)
    return root


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plain")
    write_emotic(root, COUNTS, seed=5)
    return root


def test_every_archetype_has_a_face_a_posture_a_scene_and_valid_labels() -> None:
    assert set(EXPRESSIONS) == set(POSTURES) == set(SCENES) == set(PLAIN_WORDS) == set(ARCHETYPES)
    for archetype in ARCHETYPES.values():
        assert {*archetype.core, archetype.strong, archetype.mild, *archetype.chance} <= set(EMOTIC_CLASSES)
        assert archetype.caers is None or archetype.caers in CAERS_CLASSES
    assert {ARCHETYPES[n].caers for n in archetype_pool("caers")} == set(CAERS_CLASSES)


def test_the_label_follows_the_majority_of_the_levels() -> None:
    for dataset in ("emotic", "caers"):
        for p in _people(300, WorldOptions(0.6, dataset=dataset)):
            assert Counter(p.archetypes)[p.archetype] == (3 if p.contradicted_level is None else 2)
            if dataset == "caers":
                assert p.labels == (ARCHETYPES[p.archetype].caers,)
                continue
            assert set(ARCHETYPES[p.archetype].core) <= set(p.labels)
            assert 1 <= len(p.labels) <= 6
            assert list(p.labels) == sorted(p.labels, key=EMOTIC_CLASSES.index)
            if p.contradicted_level is not None:
                odd = p.archetypes[LEVELS.index(p.contradicted_level)]
                assert odd in clearly_different(p.archetype)
                assert not set(ARCHETYPES[odd].core) & set(ARCHETYPES[p.archetype].core)


@pytest.mark.parametrize("share", [0.0, 0.35, 0.7, 1.0])
def test_the_share_of_contradicted_people_is_the_wanted_one(share: float) -> None:
    people = _people(1500, WorldOptions(share))
    levels = Counter(p.contradicted_level for p in people)
    found = 1 - levels[None] / len(people)
    assert found == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / len(people)) + 1e-9)
    for level in LEVELS:
        assert levels[level] == pytest.approx(
            share * len(people) / 3, abs=4 * math.sqrt(len(people) * share / 3) + 1e-9
        )


@pytest.mark.parametrize("level", LEVELS)
def test_a_forced_level_is_the_only_one_that_contradicts(level: str) -> None:
    assert {p.contradicted_level for p in _people(100, WorldOptions(0.5, level))} == {None, level}


def test_every_class_occurs_and_none_dominates() -> None:
    people = _people(400, WorldOptions())
    counts = Counter(label for p in people for label in p.labels)
    assert set(counts) == set(EMOTIC_CLASSES)
    assert max(counts.values()) < 0.4 * len(people)
    assert {p.age for p in people} == {"Kid", "Teenager", "Adult"}
    assert all(1 <= v <= 10 and v == int(v) for p in people for v in p.vad)


def test_splits_and_seeds_do_not_repeat_each_other() -> None:
    options = WorldOptions()
    first = [plan_image(0, "train", i, options) for i in range(40)]
    assert first == [plan_image(0, "train", i, options) for i in range(40)]
    assert first != [plan_image(0, "test", i, options) for i in range(40)]
    assert first != [plan_image(1, "train", i, options) for i in range(40)]


def test_captions_name_every_label_in_the_prompt_of_the_paper_and_describe_the_scene() -> None:
    plan = _people(1, WorldOptions())[0]
    found = captions(plan, "in a library")
    assert found[:-1] == [f"This photo shows {label} emotion." for label in plan.labels]
    assert found[-1].endswith("in a library")


def test_boxes_lie_inside_the_image_and_the_head_inside_the_body() -> None:
    for i in range(25):
        image = draw_image(11, "val", i, WorldOptions())
        width, height = image.image.size
        for person in image.people:
            for box in (as_box(person.body_xyxy), as_box(person.head_xyxy)):
                assert box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
            body, head = person.body_xyxy, person.head_xyxy
            assert all(v == int(v) for v in body)
            head_area = (head[2] - head[0]) * (head[3] - head[1])
            assert intersections([body], [head])[0, 0] == pytest.approx(head_area, rel=1e-6)
            assert head[3] - head[1] >= 12, "a face this small cannot be seen"


def test_the_boxes_are_where_the_people_are() -> None:
    """Where one person is drawn instead of another, pixels change inside their boxes and nowhere else by much."""
    options = WorldOptions(0.0, people_weights=(0.0, 1.0))
    two = draw_image(2, "train", 0, options)
    background = np.asarray(two.image, dtype=np.float64)
    edges = np.abs(np.diff(background, axis=1)).sum(axis=2)
    for person in two.people:
        x1, y1, x2, y2 = (round(v) for v in person.head_xyxy)
        assert edges[y1:y2, x1 : x2 - 1].mean() > 5, "a head has eyes, hair and a mouth"


def test_same_seed_same_bytes_whatever_the_number_of_images(plain: Path, tmp_path: Path) -> None:
    write_emotic(tmp_path / "again", COUNTS, seed=5)
    assert files_below(tmp_path / "again") == files_below(plain)
    write_emotic(tmp_path / "more", {**COUNTS, "train": 20}, seed=5)
    more, once = files_below(tmp_path / "more"), files_below(plain)
    last = _lines(plain, "train")[-1]["image"]  # the last image may be cut to the wanted number of persons
    images = {k: v for k, v in once.items() if k.endswith(".jpg") and k != last}
    assert images and all(more[k] == v for k, v in images.items())


def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "FEW", 2)
    for workers in (1, 2):
        write_caers(tmp_path / str(workers), {"train": 5}, seed=1, workers=workers)
    assert files_below(tmp_path / "1") == files_below(tmp_path / "2")


def test_the_mat_file_has_no_date_and_every_split(plain: Path) -> None:
    raw = (plain / "Annotations" / "Annotations.mat").read_bytes()
    assert raw[:116].rstrip() == HEADER
    assert raw[124:128] == b"\x00\x01IM"  # MAT v5, little endian
    mat = loadmat(plain / "Annotations" / "Annotations.mat")
    for split in SPLITS:
        rows = mat[split]
        assert rows.shape[0] == 1
        assert rows.dtype.names == ("filename", "folder", "image_size", "original_database", "person")
        assert sum(row["person"].shape[1] for row in rows[0]) == COUNTS[split]
        for row in rows[0]:
            assert row["person"].dtype.names == person_fields(split)
            for person in row["person"][0]:
                assert person["body_bbox"].shape == (1, 4)
                annotators = person["annotations_categories"]
                assert annotators.dtype.names == ("categories",)
                assert annotators.shape == person["annotations_continuous"].shape == (1, ANNOTATORS[split])
                assert person["annotations_continuous"].dtype.names == ("valence", "arousal", "dominance")
                assert all(a["categories"].shape[0] == 1 for a in annotators[0])


def test_the_mat_file_agrees_with_the_index_in_every_layout(plain: Path) -> None:
    path = plain / "Annotations" / "Annotations.mat"
    simple, squeezed = loadmat(path, simplify_cells=True), loadmat(path, squeeze_me=True, struct_as_record=False)
    for split in SPLITS:
        lines = iter(_lines(plain, split))
        for row, other in zip(simple[split], squeezed[split], strict=True):
            assert (row["filename"], row["folder"]) == (other.filename, other.folder)
            persons = row["person"] if isinstance(row["person"], list) else [row["person"]]
            for person in persons:
                line = next(lines)
                assert line["image"] == f"emotic/{row['folder']}/{row['filename']}"
                assert [float(v) for v in person["body_bbox"]] == line["body"]
                assert person["gender"] in ("Male", "Female") and person["age"] in ("Kid", "Teenager", "Adult")
                named = person["annotations_categories"]
                named = named if isinstance(named, list) else [named]
                union = {str(c) for a in named for c in np.atleast_1d(a["categories"])}
                assert union == set(line["labels"])
                if split != "train":
                    assert set(np.atleast_1d(person["combined_categories"])) == union
                    assert [
                        float(person["combined_continuous"][k]) for k in ("valence", "arousal", "dominance")
                    ] == line["vad"]
        assert next(lines, None) is None


def test_the_stored_size_is_swapped_for_emodb_small_only(plain: Path) -> None:
    mat = loadmat(plain / "Annotations" / "Annotations.mat", simplify_cells=True)
    folders = set()
    for split in SPLITS:
        for row in mat[split]:
            folders.add(row["folder"].split("/")[0])
            size = int(row["image_size"]["n_col"]), int(row["image_size"]["n_row"])
            with Image.open(plain / "emotic" / row["folder"] / row["filename"]) as image:
                assert size == (image.size[::-1] if row["folder"] == "emodb_small/images" else image.size)
            assert ("info" in row["original_database"]) == (row["folder"] == "mscoco/images")
    assert "emodb_small" in folders and "mscoco" in folders


def test_traps_are_in_the_mat_file_only_and_are_listed(emotic: Path, plain: Path) -> None:
    assert _lines(emotic, "train") == _lines(plain, "train")
    listed = json.loads((emotic / "index" / "sidecar.json").read_text())["traps"]
    with_traps = loadmat(emotic / "Annotations" / "Annotations.mat")
    without = loadmat(plain / "Annotations" / "Annotations.mat")
    added = Counter(trap["split"] for trap in listed)
    for split in SPLITS:
        assert with_traps[split].shape[1] == without[split].shape[1] + added[split] and added[split] >= 1
    boxes = [p["body_bbox"].astype(float) for row in with_traps["train"][0] for p in row["person"][0]]
    assert any(np.isnan(b).any() for b in boxes) and any((b < 0).any() for b in boxes)
    assert any(b[0, 2] < b[0, 0] for b in boxes) and any(b[0, 2] == b[0, 0] for b in boxes)
    assert with_traps["test"][0, -1]["person"][0, 0]["combined_categories"].shape == (1, 0)
    train, val = ({str(r["filename"][0]) for r in with_traps[s][0]} for s in ("train", "val"))
    assert len(train & val) == 1


def test_index_lines_are_well_formed(plain: Path) -> None:
    sidecar = json.loads((plain / "index" / "sidecar.json").read_text())
    assert sidecar["synthetic"] is True and sidecar["seed"] == 5
    for split in SPLITS:
        lines = _lines(plain, split)
        assert len(lines) == COUNTS[split] == sidecar["splits"][split]["persons"]
        for line in lines:
            with Image.open(plain / line["image"]) as image:
                assert image.size == (line["width"], line["height"])
            assert line["split"] == split and line["head_source"] == "annotated"
            assert set(line["labels"]) <= set(EMOTIC_CLASSES) and line["labels"]
            assert set(line["synthetic"]) == {"contradicted_level", "archetypes", "captions"}
            assert set(line["synthetic"]["archetypes"]) == set(LEVELS)


def blank(seed: int, split: str, index: int, options: WorldOptions, max_people: int = 4) -> DrawnImage:
    """An image's people without their drawing, where the files' names and lines are what counts."""
    planned = plan_image(seed, split, index, options, max_people).people
    people = tuple(Person(p, (2.0, 2.0, 60.0, 60.0), (4.0, 4.0, 20.0, 20.0), ("a", "b")) for p in planned)
    return DrawnImage(Image.new("RGB", (64, 64)), people, "somewhere")


def test_the_caers_tree_has_one_person_a_image_and_real_folder_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "draw_image", blank)
    write_caers(tmp_path, {"train": 60, "val": 10, "test": 25}, seed=2)
    train = {p.name for p in (tmp_path / "CAER-S" / "train").iterdir()}
    test = {p.name for p in (tmp_path / "CAER-S" / "test").iterdir()}
    assert train == {"Angry", *CAERS_CLASSES} - {"Anger"}
    assert test <= set(CAERS_CLASSES)
    for folder in (tmp_path / "CAER-S").glob("*/*"):
        names = sorted(p.name for p in folder.iterdir())
        assert names == [f"{i + 1:04d}.png" for i in range(len(names))]
    for split, count in (("train", 60), ("val", 10), ("test", 25)):
        lines = _lines(tmp_path, split)
        assert len(lines) == len({line["image"] for line in lines}) == count
        for line in lines:
            (label,) = line["labels"]
            assert line["image"].split("/")[2] == ("Angry" if split == "train" and label == "Anger" else label)
            assert line["vad"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to do"),
        (["--output", "full"], "not empty"),
        (["--output", "file"], "wanted a folder"),
        (["--output", "new", "--contradicted-share", "1.5"], "wanted a share from 0 to 1"),
        (["--output", "new", "--train", "many"], "wanted a whole number"),
        (["--output", "new", "--conflict-level", "feet"], "head"),
        (["--output", "new", "--dataset", "caers", "--traps"], "--traps"),
    ],
)
def test_wrong_usage_ends_with_code_2_and_a_reason(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").touch()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        make_demo_data.main(arguments)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_command_writes_both_trees_and_is_quiet_off_a_terminal(tmp_path: Path) -> None:
    arguments = ["--output", "demo", "--dataset", "both", "--train", "3", "--val", "2", "--test", "2"]
    command = [sys.executable, "-m", "cocoer", "prepare", "demo", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and done.stderr == ""
    for name in ("emotic", "caers"):
        assert len(_lines(tmp_path / "demo" / name, "train")) == 3
        assert json.loads((tmp_path / "demo" / name / "index" / "sidecar.json").read_text())["dataset"] == name


def test_force_replaces_the_demo_data_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    counts = ["--train", "2", "--val", "1", "--test", "1"]
    for seed in ("1", "2"):
        assert make_demo_data.main(["--output", str(tmp_path), "--seed", seed, "--force", *counts]) == 0
    found = {str(p.relative_to(tmp_path)) for p in (tmp_path / "emotic").rglob("*.jpg")}
    assert found == {line["image"] for split in SPLITS for line in _lines(tmp_path, split)}
    assert (tmp_path / "mine.txt").exists()


def test_shipped_demo_images_have_boxes_inside_them() -> None:
    images = sorted((ROOT / "test_imgs").glob("demo_*.jpg"))
    assert len(images) >= 8
    for path in images:
        content = json.loads(path.with_suffix(".boxes.json").read_text())
        with Image.open(path) as image:
            width, height = image.size
        assert content["persons"]
        for person in content["persons"]:
            for box in (as_box(person["body"]), as_box(person["head"])):
                assert box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
    sheet = ROOT / "test_imgs" / "contact_sheet.png"
    shown = json.loads(sheet.with_suffix(".boxes.json").read_text())["persons"]
    assert len(shown) == 24 and all(as_box(p["head"])[1] >= as_box(p["body"])[1] - 1 for p in shown)
    assert sheet.stat().st_size < 1_500_000
    assert re.search(rb"tIME", sheet.read_bytes()[:4096]) is None, "a time stamp would change the bytes"
