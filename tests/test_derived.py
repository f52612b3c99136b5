"""Files that others derived: rows as pandas and numpy wrote them, arrays, JSON, and pickles that must not run anything."""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from real_trees import save_image

from cocoer.data.cache import open_cache
from cocoer.data.decode import decode_record
from cocoer.data.index import read_index, write_index
from cocoer.data.people import HEAD_IN_BODY
from cocoer.data.prepare.derived.coco import labels_of_bits
from cocoer.data.prepare.derived.convert import FORMATS, convert
from cocoer.data.prepare.derived.reading import RowError, vad_or_none
from cocoer.data.prepare.derived.tandon_csv import literal
from cocoer.datasets import CAERS_CLASSES, EMOTIC_CLASSES
from cocoer.errors import DerivedError

ROOT = Path(__file__).resolve().parent.parent
HEADER = "Index,Folder,Filename,Image Size,BBox,Categorical_Labels,Continuous_Labels,Gender,Age"


def csv_row(n: int = 0, folder: str = "mscoco/images", **changes: str) -> str:
    values = {
        "size": '"[80, 100]"', "box": '"[10, 10, 50, 70]"', "labels": "\"['Happiness', 'Engagement']\"",
        "vad": '"[5.0, 6.0, 7.0]"',
    } | changes  # fmt: skip
    return f"{n},{folder},a.jpg,{values['size']},{values['box']},{values['labels']},{values['vad']},Male,Adult"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_image(tmp_path / "root/mscoco/images/a.jpg")
    return tmp_path / "root"


def write_csv(folder: Path, *rows: str, name: str = "train.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join([HEADER, *rows]) + "\n")
    return folder / name


def test_a_csv_of_tandon_becomes_an_index_with_estimated_heads(root: Path, tmp_path: Path) -> None:
    rows = [
        csv_row(),
        csv_row(
            1, "mscoco\\images", box='"[np.int64(1), np.uint16(2), np.float64(30.5), 40]"', vad="\"['None', 5, 5]\""
        ),
        csv_row(2, labels='"[]"'),
        csv_row(3, labels="\"['Joy']\""),
        csv_row(4, box='"[1, 2, 3]"'),
        csv_row(5, box="\"__import__('os')\""),
        csv_row(6, folder="nowhere"),
        csv_row(7, vad='"[0, 5, 5]"'),
        csv_row(8, vad='"[nan, nan, nan]"'),
    ]
    records, sidecar = convert(write_csv(tmp_path / "csv", *rows), "tandon-csv", root)
    assert [r.person for r in records] == [0, 1, 2] and len({r.key for r in records}) == 3
    assert records[0].body == (10, 10, 50, 70) and records[0].labels == ("Happiness", "Engagement")
    assert (records[0].width, records[0].height, records[0].vad, records[0].head_source) == (
        80,
        100,
        (5, 6, 7),
        "estimated",
    )
    assert records[1].body == (1, 2, 30.5, 40) and records[1].vad is None and records[2].vad is None
    places = [row["where"] for row in sidecar["skipped"]]
    assert places == [f"train.csv row {n}" for n in (4, 5, 6, 7, 8, 9)]
    for row, text in zip(
        sidecar["skipped"],
        ("no category", "'Joy'", "BBox: wanted four numbers, got", "literal", "no such file", "1..10"),
        strict=True,
    ):
        assert text in row["reason"]


def test_csv_of_another_kind_is_refused(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DerivedError, match="missing: Folder, Filename, BBox"):
        convert(path, "tandon-csv", root)
    with pytest.raises(DerivedError, match="train, val or test in it"):
        convert(write_csv(tmp_path / "c", csv_row(), name="all.csv"), "tandon-csv", root)
    with pytest.raises(DerivedError, match="no person could be used"):
        convert(write_csv(tmp_path / "c", csv_row(folder="no")), "tandon-csv", root)
    with pytest.raises(DerivedError, match="no such file"):
        convert(tmp_path / "none.csv", "tandon-csv", root)
    with pytest.raises(DerivedError, match="the formats are: tandon-csv"):
        convert(path, "yolo", root)


@pytest.mark.parametrize("text", ["__import__('os').system('true')", "[i for i in (1,)]", "open('x')", "[1,"])
def test_a_literal_is_data_and_never_code(text: str) -> None:
    with pytest.raises(ValueError, match="literal"):
        literal(text)
    assert literal(" [np.int64(5), None] ") == [5, None] and literal("") is None


# ---------------------------------------------------------------------------------------------------------------- arrays


def write_arrays(folder: Path, count: int, face: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"context": (count, 24, 24, 3), "body": (count, 16, 16, 3)} | (
        {"face": (count, 16, 16, 3)} if face else {}
    )
    arrays = {name: rng.integers(1, 256, shape, dtype=np.uint8) for name, shape in shapes.items()}
    for name, array in arrays.items():
        np.save(folder / f"train_{name}_arr.npy", array)
    return arrays


@pytest.mark.parametrize("face", [True, False])
def test_arrays_become_an_index_and_a_crop_cache_that_needs_no_image(tmp_path: Path, face: bool) -> None:
    source, root = tmp_path / "arrays", tmp_path / "root"
    root.mkdir()
    swapped = csv_row(2, "emodb_small/images", size='"[100, 80]"', box='"[10, 10, 50, 95]"')

    write_csv(source, csv_row(), csv_row(1, labels='"[]"'), swapped)
    arrays = write_arrays(source, 3, face)
    records, sidecar = convert(source, "tandon-npy", root)
    assert len(records) == 2 and sidecar["skipped"] == [{"where": "train.csv row 3", "reason": "no category"}]
    assert (records[1].width, records[1].height) == (80, 100)  # only that way the body fits
    write_index(root / "index", records, sidecar)
    read = read_index(root / "index", "train", EMOTIC_CLASSES)
    cache = open_cache(root / "cache", "train", read, root, 24)
    np.testing.assert_array_equal(cache[0].pixels[2], arrays["context"][0])
    np.testing.assert_array_equal(cache[1].pixels[2], arrays["context"][2])  # the left-out row is not in it
    np.testing.assert_allclose(cache[0].body_xyxy, np.array([10 / 80, 0.1, 50 / 80, 0.7]) * 24, rtol=1e-5)
    np.testing.assert_allclose(cache[0].head_xyxy, np.array(records[0].head) / (80, 100, 80, 100) * 24, rtol=1e-5)
    assert cache[0].pixels[0].std() > 0
    if not face:
        x1, y1, x2, y2 = (round(v * 16) for v in HEAD_IN_BODY)
        assert abs(float(cache[0].pixels[0].mean()) - arrays["body"][0, y1:y2, x1:x2].mean()) < 15


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "arrays"
    with pytest.raises(DerivedError, match="no such file"):
        convert(source, "tandon-npy", tmp_path)
    source.mkdir()
    with pytest.raises(DerivedError, match=r"wanted train_context_arr\.npy"):
        convert(source, "tandon-npy", tmp_path)
    write_arrays(source, 2, False)
    with pytest.raises(DerivedError, match=r"train\.csv: no such file; the arrays hold crops alone"):
        convert(source, "tandon-npy", tmp_path)
    write_csv(source, csv_row())
    with pytest.raises(DerivedError, match="2 context and 2 body crops, 1 rows"):
        convert(source, "tandon-npy", tmp_path)
    np.save(source / "train_body_arr.npy", np.zeros((1, 4, 4, 3), np.float32))
    with pytest.raises(DerivedError, match=r"uint8 \[N, H, W, 3\], got float32"):
        convert(source, "tandon-npy", tmp_path)
    np.save(source / "train_body_arr.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DerivedError, match="holds object, not numbers or texts"):
        convert(source, "tandon-npy", tmp_path)

    for shape in ((1, 4, 4), (1, 4, 4, 4)):
        np.save(source / "train_body_arr.npy", np.zeros(shape, np.uint8))
        with pytest.raises(DerivedError, match=r"uint8 \[N, H, W, 3\], got uint8"):
            convert(source, "tandon-npy", tmp_path)


@pytest.mark.parametrize("face", [True, False])
def test_head_crops_come_from_the_faces_else_from_where_heads_are_in_the_body(tmp_path: Path, face: bool) -> None:
    """Arrays that are not square, so that rows and columns cannot be taken for each other; S is the context's height."""
    source, root = tmp_path / "arrays", tmp_path / "root"
    root.mkdir()
    write_csv(source, csv_row(), csv_row(1))
    rng = np.random.default_rng(0)
    arrays = {"context": (2, 24, 20, 3), "body": (2, 40, 30, 3)} | ({"face": (2, 12, 10, 3)} if face else {})
    made = {name: rng.integers(1, 256, shape, dtype=np.uint8) for name, shape in arrays.items()}
    if face:
        made["face"][1] = 0  # no face was found: then as without the array
    for name, array in made.items():
        np.save(source / f"train_{name}_arr.npy", array)
    records, _ = convert(source, "tandon-npy", root)
    cache = open_cache(root / "cache", "train", records, root, 24)
    x1, y1, x2, y2 = HEAD_IN_BODY
    from_body = made["body"][:, round(y1 * 40) : round(y2 * 40), round(x1 * 30) : round(x2 * 30)]
    for i in range(2):
        head = made["face"][i] if face and i == 0 else from_body[i]
        for level, crop in enumerate((head, made["body"][i], made["context"][i])):
            wanted = Image.fromarray(np.ascontiguousarray(crop)).resize((24, 24), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(cache[i].pixels[level], np.asarray(wanted))


@pytest.mark.parametrize(
    ("size", "box", "wanted"),
    [
        ('"[100, 80]"', '"[10, 10, 80, 80]"', (100, 80)), ('"[80, 100]"', '"[10, 10, 80, 80]"', (80, 100)),
        ('"[80, 100]"', '"[10, 10, 200, 200]"', (80, 100)), ('"[100, 80]"', '"[10, 10, 50, 95]"', (80, 100)),
        ('"[80, 100]"', '"[10, 10, 95, 50]"', (100, 80)), ('"[80]"', '"[10, 10, 50, 70]"', None),
        ('"[80, 100]"', '"[10, 10, 50]"', None), ('"80"', '"[10, 10, 50, 70]"', None), ("", '"[10, 10, 50, 70]"', None),
    ],
)  # fmt: skip
def test_a_stored_size_is_turned_only_where_the_body_fits_no_other_way(
    tmp_path: Path, size: str, box: str, wanted: tuple[int, int] | None
) -> None:
    write_csv(tmp_path / "arrays", csv_row(), csv_row(1, size=size, box=box))
    write_arrays(tmp_path / "arrays", 2, False)
    records, sidecar = convert(tmp_path / "arrays", "tandon-npy", tmp_path)
    if wanted is None:
        assert sidecar["skipped"][0]["reason"].startswith("wanted Image Size [w, h] and BBox [x1, y1, x2, y2], got ")
    else:
        assert (records[1].width, records[1].height) == wanted and not sidecar["skipped"]


def test_images_are_looked_for_as_named_and_then_below_emotic(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "csv", csv_row())
    save_image(tmp_path / "root/emotic/mscoco/images/a.jpg")
    assert convert(table, "tandon-csv", tmp_path / "root")[0][0].image == "emotic/mscoco/images/a.jpg"
    save_image(tmp_path / "root/mscoco/images/a.jpg")
    assert convert(table, "tandon-csv", tmp_path / "root")[0][0].image == "mscoco/images/a.jpg"


def test_boxes_have_two_decimals_as_in_the_index_and_counts_are_by_split(root: Path, tmp_path: Path) -> None:
    row = csv_row(box='"[10.123, 10.456, 50.789, 70.005]"')
    write_csv(tmp_path / "csv", row, name="train.csv")
    records, sidecar = convert(write_csv(tmp_path / "csv", row, row, name="val.csv").parent, "tandon-csv", root)
    assert records[0].body[:3] == (10.12, 10.46, 50.79) and all(v == round(v, 2) for v in records[0].head)
    assert sidecar["counts"] == {"train": 1, "val": 2, "test": 0} and [r.person for r in records] == [0, 0, 1]


def test_of_a_file_without_a_person_five_reasons_are_told(root: Path, tmp_path: Path) -> None:
    bad = f"x{'y' * 80}"
    rows = [csv_row(i, labels=f'"{bad}"') for i in range(6)]
    with pytest.raises(DerivedError, match="no person could be used") as told:
        convert(write_csv(tmp_path / "csv", *rows), "tandon-csv", root)
    assert str(told.value).split("\n  ")[1:] == [
        f"train.csv row {n}: wanted a Python literal, got {bad[:60]!r}" for n in range(2, 7)
    ]


# ------------------------------------------------------------------------------------------------------------------ JSON


def test_a_box_of_zeros_is_none_and_bits_end_with_the_classes(root: Path, tmp_path: Path) -> None:
    entry = {"id": 1, "image_id": 7, "bbox": [0, 0, 0, 0], "body_bbox": [10, 10, 40, 60], "category_id": 1}
    ((record,), _) = convert(coco(tmp_path / "train.json", [entry], categories(tuple(EMOTIC_CLASSES))), "coco", root)
    assert record.head_source == "estimated" and record.body == (10, 10, 50, 70)
    for number in (0, 2**26):
        with pytest.raises(RowError, match=rf"the number of a 26-bit label string, 1\.\.67108863, got {number}"):
            labels_of_bits(number, EMOTIC_CLASSES)
    assert labels_of_bits(2**26 - 1, EMOTIC_CLASSES) == tuple(EMOTIC_CLASSES)


@pytest.mark.parametrize(("count", "said"), [(4, "x0, x1, x2, x3, which"), (5, "x0, x1, x2, x3 ..., which")])
def test_four_categories_of_another_data_set_are_named(root: Path, tmp_path: Path, count: int, said: str) -> None:
    path = coco(tmp_path / "train.json", labelled(2), categories(tuple(f"x{i}" for i in range(count))))
    with pytest.raises(DerivedError, match=said):
        convert(path, "coco", root)


def test_a_coco_style_json_has_heads_and_label_bits(root: Path, tmp_path: Path) -> None:
    bits = int("1" + "0" * 24 + "1", 2)
    vad = {"valence": 5, "arousal": 6, "dominance": 7}
    boxes = {"bbox": [20, 12, 15, 18], "body_bbox": [10, 10, 40, 60]}
    annotations: list[dict[str, Any]] = [
        {"id": 1, "image_id": 7, "bbox": [20, 12, 15, 18], "category_id": bits, "vad": [5, 6, "None"]},
        {"id": 2, "image_id": 7, "category_id": 1} | boxes | vad,
        {"id": 3, "image_id": 7, "bbox": [20, 12, 15, 18], "category_id": 0},
        {"id": 4, "image_id": 8, "bbox": [20, 12, 15, 18], "category_id": 1},
        {"id": 5, "image_id": 7, "bbox": [20, 12, 15], "category_id": 1},
    ]  # fmt: skip
    path = tmp_path / "emotic_test.json"
    path.write_text(
        json.dumps({"images": [{"id": 7, "file_name": "mscoco\\images\\a.jpg"}], "annotations": annotations})
    )
    records, sidecar = convert(path, "coco", root)
    assert records[0].labels == ("Affection", "Yearning") and records[0].vad is None and records[0].split == "test"
    assert records[0].head == (20, 12, 35, 30) and records[0].head_source == "annotated"
    assert records[0].body[0] < 20 and records[0].body[3] > 30
    assert records[1].body == (10, 10, 50, 70) and records[1].vad == (5, 6, 7)
    assert [r["where"] for r in sidecar["skipped"]] == ["annotation 3", "annotation 4", "annotation 5"]
    path.write_text("[1, 2]")
    with pytest.raises(DerivedError, match="COCO-style JSON"):
        convert(path, "coco", root)


def test_label_bits_round_trip() -> None:
    for names in (("Affection",), ("Yearning",), ("Anger", "Fear", "Pain"), EMOTIC_CLASSES):
        number = int("".join("1" if c in names else "0" for c in EMOTIC_CLASSES), 2)
        assert labels_of_bits(number, EMOTIC_CLASSES) == tuple(names)


def coco(path: Path, annotations: list[dict[str, Any]], categories: list[dict[str, Any]] | None = None) -> Path:
    content: dict[str, Any] = {"images": [{"id": 7, "file_name": "mscoco/images/a.jpg"}], "annotations": annotations}
    path.write_text(json.dumps(content | ({} if categories is None else {"categories": categories})))
    return path


def labelled(*numbers: int) -> list[dict[str, Any]]:
    return [{"id": i, "image_id": 7, "bbox": [20, 12, 15, 18], "category_id": n} for i, n in enumerate(numbers)]


def categories(names: tuple[str, ...], first: int = 1) -> list[dict[str, Any]]:
    return [{"id": i, "name": name} for i, name in enumerate(names, start=first)]


@pytest.mark.parametrize(("dataset", "names"), [("emotic", EMOTIC_CLASSES), ("caers", CAERS_CLASSES)])
@pytest.mark.parametrize("first", [0, 1])
def test_categories_of_a_coco_file_are_read_by_name(
    root: Path, tmp_path: Path, dataset: str, names: tuple[str, ...], first: int
) -> None:
    numbers = range(first, first + len(names))
    path = coco(tmp_path / "train.json", labelled(*numbers), categories(tuple(names), first))
    records, _ = convert(path, "coco", root, dataset)
    assert [r.labels for r in records] == [(name,) for name in names]


def test_a_category_that_the_file_does_not_list_is_left_out(root: Path, tmp_path: Path) -> None:
    path = coco(tmp_path / "train.json", labelled(2, 9), categories(tuple(CAERS_CLASSES)))
    records, sidecar = convert(path, "coco", root, "caers")
    assert [r.labels for r in records] == [("Disgust",)] and "wanted one of 1, 2" in sidecar["skipped"][0]["reason"]


def test_label_bits_are_a_property_of_dscts_emotic_file_alone(root: Path, tmp_path: Path) -> None:
    bits = int("01" + "0" * 24, 2)
    for listed in (None, categories(tuple(EMOTIC_CLASSES))):
        records, _ = convert(coco(tmp_path / "train.json", labelled(bits, 1), listed), "coco", root)
        assert [r.labels for r in records] == [("Anger",), ("Yearning",)]
    for dataset, numbers in (("emotic", (2, 3)), ("caers", (2, 64))):
        with pytest.raises(DerivedError, match="the meaning of category_id is not given"):
            convert(coco(tmp_path / "train.json", labelled(*numbers)), "coco", root, dataset)


def test_categories_that_contradict_the_data_set_are_refused(root: Path, tmp_path: Path) -> None:
    path = coco(tmp_path / "train.json", labelled(2), categories(("person", "Anger")))
    with pytest.raises(DerivedError, match="has the categories person, which are no classes of emotic"):
        convert(path, "coco", root)
    with pytest.raises(DerivedError, match="no classes of caers"):
        convert(coco(path, labelled(2), categories(tuple(EMOTIC_CLASSES))), "coco", root, "caers")


# --------------------------------------------------------------------------------------------------------------- pickles


def unpack(*words: object) -> int:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/unpack_release_pickles.py", *map(str, words)], capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def test_five_tuples_are_unpacked_where_they_were_made(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 80, 3), dtype=np.uint8)
    vector = np.zeros(26)
    vector[[1, 3]] = 1
    rows = [("k", vector, None, np.array([10, 10, 50, 70]), [20, 12, 35, 30])] * 2
    rows.append(("k", np.zeros(26), None, [10, 10, 50, 70], [20, 12, 35, 30]))
    (tmp_path / "val_info.pkl").write_bytes(pickle.dumps(rows))
    (tmp_path / "val_image.pkl").write_bytes(pickle.dumps({"k": image}))
    assert unpack(tmp_path / "val_info.pkl", tmp_path / "out") == 0
    records = read_index(tmp_path / "out/index", "val", EMOTIC_CLASSES)
    assert [(r.person, r.labels, r.head) for r in records] == [
        (i, ("Anger", "Anticipation"), (20, 12, 35, 30)) for i in (0, 1)
    ]
    np.testing.assert_array_equal(np.asarray(decode_record(records[0], tmp_path / "out")), image)


def test_seven_tuples_are_unpacked_where_they_were_made(tmp_path: Path) -> None:
    image = np.zeros((40, 30, 3), np.uint8)
    content = {"key": [(image, image, image, np.eye(7)[2], None, [1, 2, 20, 30], [4, 4, 9, 9])]}
    np.save(tmp_path / "train_info.npy", np.array(content, dtype=object), allow_pickle=True)
    assert unpack(tmp_path / "train_info.npy", tmp_path / "out", "--dataset", "caers") == 0
    (record,) = read_index(tmp_path / "out/index", "train", CAERS_CLASSES)
    assert record.labels == (CAERS_CLASSES[2],) and record.body == (1, 2, 20, 30)


def test_the_unpacker_knows_the_classes() -> None:
    text = (ROOT / "scripts/unpack_release_pickles.py").read_text(encoding="utf-8")
    tree = {n.targets[0].id: n.value for n in ast.parse(text).body if isinstance(n, ast.Assign)}  # type: ignore[attr-defined]
    assert ast.literal_eval(tree["EMOTIC"]) == tuple(EMOTIC_CLASSES)
    assert ast.literal_eval(tree["CAERS"]) == tuple(CAERS_CLASSES)


def test_no_pickle_is_read_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'harm'}",)

    (tmp_path / "val_info.pkl").write_bytes(pickle.dumps([Harm()]))
    for form in FORMATS:
        with pytest.raises(DerivedError, match=r"is a pickle, which is not read.*scripts/unpack_release_pickles\.py"):
            convert(tmp_path / "val_info.pkl", form, tmp_path)
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays/train_context_arr.npy", np.array([Harm()], dtype=object), allow_pickle=True)
    write_csv(tmp_path / "arrays", csv_row())
    with pytest.raises(DerivedError, match="holds object, not numbers or texts"):
        convert(tmp_path / "arrays", "tandon-npy", tmp_path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "text", ["(" * 100_000, "-" * 4000 + "1", "[" * 4000, "9" * 4900, "{" * 300, "a" * 10**6, "1e999", "10**10"]
)
def test_a_literal_of_any_size_is_one_error_or_a_number(text: str) -> None:
    try:
        assert literal(text) == float("inf")
    except ValueError as err:
        assert "literal" in str(err)


@pytest.mark.parametrize("content", ["a\0b", HEADER + "\n" + "x" * 200_000, HEADER + '\n"' + "x" * 300_000])
def test_a_csv_that_no_csv_reader_takes_is_one_error(root: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(DerivedError):
        convert(tmp_path / "train.csv", "tandon-csv", root)


def test_all_formats_are_named() -> None:
    assert set(FORMATS) == {"tandon-csv", "tandon-npy", "coco"}


def test_vad_of_a_row_is_three_numbers_in_one_to_ten_or_none() -> None:
    assert vad_or_none([1, "10", 5.5]) == (1.0, 10.0, 5.5)
    for missing in (None, [1, 2], [1, 2, 3, 4], [1, 2, None], [1, 2, "None"], [1, 2, float("nan")], "123"):
        assert vad_or_none(missing) is None
    for outside in ([0.5, 5, 5], [5, 5, 10.5]):
        with pytest.raises(RowError, match=r"in 1\.\.10"):
            vad_or_none(outside)


def test_a_literal_may_have_five_thousand_letters() -> None:
    assert len(literal("[" + "1," * 2498 + "11]")) == 2499
    with pytest.raises(RowError, match="wanted a Python literal"):
        literal("[" + "1," * 2498 + "111]")
