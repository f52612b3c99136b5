"""EMOTIC as it really is: every layout of loadmat, every trap of the format, one named row for each."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from real_trees import NAN, image, person, save_annotations, save_image, save_tree, small_splits, struct
from scipy.io import loadmat
from small_images import rough_image

from cocoer.data.files import FileFacts
from cocoer.data.people import HEAD_IN_BODY, Detections
from cocoer.data.prepare.emotic import RawImage, find_tree, load_annotations, mean_vad, numbers, read_annotations
from cocoer.data.prepare.emotic_index import EmoticIndex, HeadSource, build_emotic_index, stored_sizes
from cocoer.data.prepare.heads import Candidate, choose_heads, judge_head, match_faces, read_head_file, shares
from cocoer.data.prepare.leaks import NearSearch
from cocoer.errors import AnnotationError, StrictError

LAYOUTS: list[dict[str, bool]] = [
    {},
    {"struct_as_record": False},
    {"squeeze_me": True},
    {"squeeze_me": True, "struct_as_record": False},
    {"simplify_cells": True},
    {"mat_dtype": True},
]


def build(root: Path, **options: Any) -> EmoticIndex:
    tree = find_tree(root)
    return build_emotic_index(load_annotations(tree.annotations), tree, **options)


def build_rows(tmp_path: Path, rows: list[dict[str, Any]], split: str = "train", **options: Any) -> EmoticIndex:
    """The index of a tree in which one split has these rows."""
    return build(save_tree(tmp_path / "root", **(small_splits() | {split: rows})), **options)


def reasons(index: EmoticIndex) -> list[str]:
    return [row["reason"] for row in index.sidecar["skipped"]]


# --------------------------------------------------------------------------------------------------------------- layouts


def every_shape() -> dict[str, list[dict[str, Any]]]:
    """Lists of length zero, one and many at every level: split, person, annotator, category."""
    return {
        "train": [
            image("one.jpg", [person(labels=[["Peace"]])]),
            image("two.jpg", [person(labels=[["Peace", "Pleasure"]]), person(labels=[[]])]),
            image("none.jpg", [person(labels=[], vad=[])]),
            image("nan.jpg", [person(vad=[(NAN, NAN, NAN)])]),
            image("types.jpg", [person(np.array([[3.5, 4, 60, 70]])), person(np.array([[3, 4, 60, 70]], np.uint8))]),
        ],
        "val": [image("val.jpg", [person(split="val", labels=[["Anger"], ["Anger", "Fear"], ["Fear"]])])],
        "test": [image("test.jpg", [person(split="test", labels=[[]], combined=[])], size=None)],
    }


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "+".join(layout) or "default")
def test_every_layout_of_loadmat_gives_the_same_rows(tmp_path: Path, layout: dict[str, bool]) -> None:
    path = save_annotations(tmp_path / "Annotations.mat", **every_shape())
    rows = read_annotations(loadmat(path, **layout))
    assert rows == load_annotations(path)
    by_name = {row.name.split("/")[-1]: row for row in rows}
    assert [len(row.persons) for row in rows] == [1, 2, 1, 1, 2, 1, 1]
    assert by_name["one.jpg"].persons[0].labels == ("Peace",)
    assert [p.labels for p in by_name["two.jpg"].persons] == [("Peace", "Pleasure"), ()]
    assert by_name["none.jpg"].persons[0].annotators == 0 and by_name["none.jpg"].persons[0].vad is None
    assert by_name["nan.jpg"].persons[0].vad is None
    assert [p.body for p in by_name["types.jpg"].persons] == [(3.5, 4, 60, 70), (3, 4, 60, 70)]
    assert by_name["val.jpg"].persons[0].labels == ("Anger", "Fear") and by_name["val.jpg"].persons[0].annotators == 3
    assert by_name["test.jpg"].persons[0].labels == () and by_name["test.jpg"].stored_size is None
    assert by_name["one.jpg"].stored_size == (80, 100) and by_name["one.jpg"].source == "mscoco"
    assert by_name["one.jpg"].persons[0].vad == (5, 6, 7) and by_name["one.jpg"].persons[0].gender == "Male"


def test_fields_are_found_by_name_and_an_early_layout_brings_its_heads(tmp_path: Path) -> None:
    early = person() | {"head_bbox": np.array([[20, 12, 40, 30]]), "gender": struct([{"name": "Male", "votes": 3}])}
    row = {"hasAnnotations_categories": 1} | dict(reversed(image("a.jpg", [dict(reversed(early.items()))]).items()))
    rows = load_annotations(save_annotations(tmp_path / "a.mat", **(small_splits() | {"train": [row]})))
    assert rows[0].persons[0].head == (20, 12, 40, 30) and rows[0].persons[0].gender == ""
    index = build_rows(tmp_path, [row])
    assert index.records[0].head == (20, 12, 40, 30) and index.records[0].head_source == "annotated"


@pytest.mark.parametrize("name", ["filename", "folder", "original_database", "person"])
def test_a_missing_image_field_is_named(name: str) -> None:
    row = image("a.jpg", [person()])
    del row[name]
    with pytest.raises(AnnotationError, match=rf"train\[0\]: wanted a struct with the field '{name}'"):
        read_annotations(small_splits() | {"train": struct([row])})


@pytest.mark.parametrize(
    "name", ["body_bbox", "annotations_categories", "combined_categories", "annotations_continuous"]
)
def test_a_missing_person_field_is_named(name: str) -> None:
    row = person(split="val")
    del row[name]
    row.pop("combined_continuous")
    with pytest.raises(AnnotationError, match=rf"val\[0\] .*a\.jpg person 0: .*'{name}'"):
        read_annotations({"train": [], "val": struct([image("a.jpg", [row])]), "test": []})


def test_a_missing_split_a_foreign_a_broken_and_a_new_file_are_refused(tmp_path: Path) -> None:
    splits = small_splits()
    del splits["val"]
    with pytest.raises(AnnotationError, match="val missing, got test, train|val missing, got train, test"):
        load_annotations(save_annotations(tmp_path / "a.mat", **splits))
    (tmp_path / "text.mat").write_text("not a mat file " * 40)
    cut = save_annotations(tmp_path / "cut.mat", **small_splits())
    cut.write_bytes(cut.read_bytes()[:3000])
    for name in ("text.mat", "cut.mat"):
        with pytest.raises(AnnotationError, match=rf"{name}: cannot be read as a MAT file|{name}: wanted the keys"):
            load_annotations(tmp_path / name)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 20
    (tmp_path / "new.mat").write_bytes(header)
    with pytest.raises(AnnotationError, match=r"version 5, got version 7\.3"):
        load_annotations(tmp_path / "new.mat")
    with pytest.raises(AnnotationError, match="no such file"):
        load_annotations(tmp_path / "none.mat")


# ------------------------------------------------------------------------------------------------------- labels and VAD


def test_spelling_variants_and_repeats_are_taken_and_unknown_names_refused_together(tmp_path: Path) -> None:
    rows = [image("a.jpg", [person(labels=[["doubt / confusion", "ANGER", "Anger", " Yearning "]])])]
    index = build_rows(tmp_path, rows)
    assert index.records[0].labels == ("Anger", "Doubt/Confusion", "Yearning")
    wrong = [image("a.jpg", [person(labels=[["Disquitement"]]), person(labels=[["Joy"]]), person(vad=[(0, 5, 5)])])]
    with pytest.raises(AnnotationError) as caught:
        build_rows(tmp_path / "2", wrong)
    text = str(caught.value)
    assert "3 persons" in text and "did you mean 'Disquietment'" in text and "'Joy'" in text and "Yearning" in text
    assert re.search(r"a\.jpg person 2: wanted valence.* in 1\.\.10, got \[0\.0, 5\.0, 5\.0\]", text)
    with pytest.raises(AnnotationError, match=r"1\.\.10"):
        build_rows(tmp_path / "3", [image("a.jpg", [person(vad=[(5, 5, 11)])])])


def test_no_vad_is_fine_for_categories_and_dropped_on_request(tmp_path: Path) -> None:
    rows = [image("a.jpg", [person(vad=[(NAN, 5, 5)]), person(vad=[]), person()])]
    index = build_rows(tmp_path, rows)
    assert [r.vad for r in index.records if r.split == "train"] == [None, None, (5, 6, 7)]
    assert index.sidecar["without_vad"] == {"train": 2}
    again = build(tmp_path / "root", require_vad=True)
    assert reasons(again) == ["no valid VAD"] * 2 and len(again.records) == len(index.records) - 2


def test_no_category_and_no_annotator_are_dropped_with_their_reason(tmp_path: Path) -> None:
    index = build_rows(tmp_path, [image("a.jpg", [person(labels=[[]]), person(labels=[], vad=[]), person()])])
    assert reasons(index) == ["no category", "no annotator"]
    assert [r.person for r in index.records if r.split == "train"] == [2]  # the numbers of the others do not move
    build(tmp_path / "root", strict=True)  # a rule of the selection, not a fault of the data


def test_val_and_test_take_the_union(tmp_path: Path) -> None:
    index = build(save_tree(tmp_path, **small_splits()))
    assert next(r.labels for r in index.records if r.split == "val") == ("Anger", "Fear")


# ----------------------------------------------------------------------------------------------------------------- boxes


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ((10, 10, 50), "body box: 3 values instead of 4"),
        ((NAN, 10, 50, 70), "body box: NaN or infinite"),
        ((10, 10, float("inf"), 70), "body box: NaN or infinite"),
        ((50, 10, 10, 70), "body box: inverted"),
        ((10, 10, 10, 70), "body box: no area"),
        ((80, 10, 120, 70), "body box: outside the image"),
        ((79.5, 10, 120, 70), "body box: under one pixel inside the image"),
        ((20, 10, 20.9, 70), "body box: under one pixel inside the image"),
        ((10, 20, 50, 20.9), "body box: under one pixel inside the image"),
        ((10, 70, 50, 10), "body box: inverted"),
        ((10, 10, 50, 10), "body box: no area"),
    ],
)
def test_an_unusable_body_is_dropped_with_its_reason_and_refused_when_strict(
    tmp_path: Path, body: tuple[float, ...], reason: str
) -> None:
    index = build_rows(tmp_path, [image("a.jpg", [person(body), person()])])
    assert reasons(index) == [reason]
    assert index.sidecar["skipped"][0] == {
        "split": "train", "image": "emotic/mscoco/images/a.jpg", "person": 0, "reason": reason,
    }  # fmt: skip
    assert [r.person for r in index.records if r.split == "train"] == [1]
    with pytest.raises(StrictError, match=rf"1 persons would be dropped:\n  train .*a\.jpg person 0: {reason}"):
        build(tmp_path / "root", strict=True)


@pytest.mark.parametrize("body", [(20, 10, 21, 70), (10, 20, 50, 21), (79, 10, 120, 70)])
def test_a_body_of_one_pixel_is_kept(tmp_path: Path, body: tuple[float, ...]) -> None:
    assert reasons(build_rows(tmp_path, [image("a.jpg", [person(body)])])) == []


def test_boxes_are_clipped_with_the_decoded_size_whatever_is_stored(tmp_path: Path) -> None:
    sizes = [(80, 100), (100, 80), (0, 0), None, (7, 7)]
    rows = [
        image(f"{i}.jpg", [person(np.array([[-5, -6, 90, 120]], np.int16))], "emodb_small/images", size)
        for i, size in enumerate(sizes)
    ]
    index = build_rows(tmp_path, rows)
    assert {r.body for r in index.records if r.split == "train"} == {(0, 0, 80, 100)}
    assert index.sidecar["stored_sizes"]["emodb_small"] == {"equal": 1, "swapped": 1, "missing": 2, "wrong": 1}
    assert index.sidecar["clipped_boxes"] == {"train": 5}


def test_unsigned_and_fractional_boxes_do_not_wrap(tmp_path: Path) -> None:
    rows = [image("a.jpg", [person(np.array([[86, 10, 20, 70]], np.uint16)), person((1.5, 2.25, 60.5, 70.75))])]
    index = build_rows(tmp_path, rows)
    assert reasons(index) == ["body box: inverted"] and index.records[0].body == (1.5, 2.25, 60.5, 70.75)


def test_a_rotated_image_has_its_upright_size(tmp_path: Path) -> None:
    root = save_tree(tmp_path, **small_splits())
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(root / "emotic/mscoco/images/a.jpg", 100, 80, exif=exif)
    records = [r for r in build(root).records if r.image.endswith("a.jpg")]
    assert {(r.width, r.height) for r in records} == {(80, 100)} and len(records) == 2


# ----------------------------------------------------------------------------------------------------------------- files


def test_missing_broken_and_odd_files(tmp_path: Path) -> None:
    names = ["missing", "cut", "text", "empty", "png", "gray", "palette", "alpha", "deep", "cmyk"]
    root = save_tree(tmp_path, **(small_splits() | {"train": [image(f"{n}.jpg", [person()]) for n in names]}))
    folder = root / "emotic/mscoco/images"
    (folder / "missing.jpg").unlink()
    data = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "text.jpg").write_text("404")
    (folder / "empty.jpg").write_bytes(b"")
    save_image(folder / "png.jpg", format="PNG")
    photo = Image.open(folder / "png.jpg").copy()
    photo.convert("L").save(folder / "gray.jpg", "JPEG")
    photo.quantize(8).save(folder / "palette.jpg", "PNG")
    photo.convert("RGBA").save(folder / "alpha.jpg", "PNG")
    Image.fromarray(np.full((100, 80), 30000, np.uint16)).save(folder / "deep.jpg", "PNG")
    photo.convert("CMYK").save(folder / "cmyk.jpg", "JPEG")
    index = build(root)
    assert index.sidecar["skipped_because"] == {"missing file": 1, "unreadable image": 3}
    assert {Path(row["image"]).stem for row in index.sidecar["skipped"]} == {"missing", "cut", "text", "empty"}
    assert {Path(r.image).stem for r in index.records if r.split == "train"} == set(names[4:])
    with pytest.raises(StrictError, match="4 persons would be dropped"):
        build(root, strict=True)


def test_keys_are_unique_also_for_equal_file_names_and_images_listed_twice(tmp_path: Path) -> None:
    rows = [
        image("a.jpg", [person(), person((30, 20, 79, 99))]),
        image("a.jpg", [person()], "framesdb/images"),
        image("a.jpg", [person(), person((1, 2, 30, 40))]),
    ]
    index = build_rows(tmp_path, rows)
    train = [r for r in index.records if r.split == "train"]
    assert len({r.key for r in train}) == 5 and sorted(r.person for r in train) == [0, 0, 1, 2, 3]
    assert index.sidecar["repeated_persons"] == {"train": 1, "val": 0, "test": 0}
    assert index.sidecar["counts"]["train"]["images"] == 2 and index.sidecar["counts"]["train"]["images_listed"] == 3


def test_overlap_is_found_by_path_and_by_content_and_dropped_on_request(tmp_path: Path) -> None:
    splits = small_splits()
    splits["train"] += [image("c.jpg", [person((1, 1, 30, 40)), person()])]  # the very image of val
    splits["train"] += [image("copy.jpg", [person()], "framesdb/images")]  # a copy of test's under another name
    root = save_tree(tmp_path, **splits)
    shutil.copy(root / "emotic/ade20k/images/d.jpg", root / "emotic/framesdb/images/copy.jpg")
    index = build(root)
    assert index.sidecar["overlap"]["train/val"] == {
        "images_by_path": 1, "images_by_content": 1, "identical_person_boxes": 1,
        "train_persons_in_them": 2, "val_persons_in_them": 1,
    }  # fmt: skip
    found = index.sidecar["overlap"]["train/test"]
    assert (found["images_by_path"], found["images_by_content"]) == (0, 1)
    assert reasons(index) == []
    clean = build(root, drop_overlap=True)
    assert reasons(clean) == ["overlap with val"] * 2 + ["overlap with test"]
    assert [r for r in clean.records if r.split != "train"] == [r for r in index.records if r.split != "train"]
    assert len(clean.records) == len(index.records) - 3
    build(root, drop_overlap=True, strict=True)


def test_every_person_is_in_the_index_or_in_the_list_of_the_skipped(tmp_path: Path) -> None:
    rows = [
        image(f"{i}.jpg", [person((i * 9 - 30, 5, i * 9, 60)), person(labels=[[]] if i % 3 else None)])
        for i in range(12)
    ]
    index = build_rows(tmp_path, rows)
    seen = [(r.split, r.key) for r in index.records]
    seen += [(row["split"], f"{row['image']}#{row['person']}") for row in index.sidecar["skipped"]]
    assert len(seen) == len(set(seen)) == 24 + 2
    for r in index.records:
        assert 0 <= r.body[0] < r.body[2] <= r.width and 0 <= r.head[1] < r.head[3] <= r.height


# ----------------------------------------------------------------------------------------------------------------- trees


@pytest.mark.parametrize(
    ("images", "mat", "root"),
    [
        ("emotic", "Annotations/Annotations.mat", "."),
        ("emotic/emotic", "Annotations/Annotations/Annotations.mat", "."),
        ("PAMI/emotic", "PAMI/Annotations/Annotations.mat", "."),
        ("PAMI/emotic", "PAMI/Annotations/Annotations.mat", "PAMI"),
        ("emotic", "Annotations/Annotations.mat", "emotic"),
        ("emotic", "Annotations/Annotations.mat", "Annotations"),
        (".", "Annotations.mat", "."),
    ],
)
def test_a_root_too_high_or_too_low_is_found(tmp_path: Path, images: str, mat: str, root: str) -> None:
    save_tree(tmp_path, images, mat, **small_splits())
    tree = find_tree(tmp_path / root)
    index = build_emotic_index(load_annotations(tree.annotations), tree)
    assert tree.release == "pami" and len(index.records) == 5
    assert all((tree.data_root / r.image).is_file() for r in index.records)


def test_both_releases_side_by_side_are_told_apart(tmp_path: Path) -> None:
    save_tree(tmp_path, **small_splits())
    splits = small_splits()
    splits["train"] = splits["train"][:1]
    save_tree(tmp_path, "cvpr_emotic", "CVPR17_Annotations.mat", **splits)
    assert find_tree(tmp_path).images == tmp_path / "emotic"
    tree = find_tree(tmp_path, "cvpr17")
    assert tree.release == "cvpr17" and tree.images == tmp_path / "cvpr_emotic"
    index = build_emotic_index(load_annotations(tree.annotations), tree)
    assert index.sidecar["against_published"]["counts"]["persons with a category"]["val"] == {
        "published": 2397, "here": 1, "difference": -2396,
    }  # fmt: skip
    assert set(index.sidecar["against_published"]["labels"]) == {"val", "test"}


def test_a_tree_that_is_not_there_is_described(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no such folder"):
        find_tree(tmp_path / "none")
    with pytest.raises(AnnotationError, match=r"Annotations\.mat or CVPR17_Annotations\.mat"):
        find_tree(tmp_path)
    save_annotations(tmp_path / "Annotations.mat", **small_splits())
    with pytest.raises(AnnotationError, match="no folder near it with mscoco/images"):
        find_tree(tmp_path)


# ----------------------------------------------------------------------------------------------------------------- heads

BODY = (10.0, 10.0, 50.0, 70.0)


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (None, "absent"),
        ((), "absent"),
        ((0, 0, 0, 0), "absent"),
        ((20, 12, 40), "not a box"),
        ((20, NAN, 40, 30), "not a box"),
        ((40, 12, 20, 30), "not a box"),
        ((90, 12, 99, 30), "outside the image"),
        ((20, 12, 21, 13), "too small"),
        ((-20, -20, 80, 100), "larger than the body"),
        ((55, 12, 65, 30), "outside the body"),
        ((20, 12, 40, 30), ""),
        ((5, 12, 40, 30), ""),
    ],
)
def test_the_rule_for_heads(head: tuple[float, ...] | None, problem: str) -> None:
    box, found = judge_head(Candidate(head, "detected"), BODY, 80, 100)
    assert found == problem and (box is None) == bool(problem)
    heads, report = choose_heads([Candidate(head, "detected", 0.8)], [BODY], [(80, 100)], ["train"])
    assert heads[0].source == ("estimated" if problem else "detected") and heads[0].score == (None if problem else 0.8)
    assert report["estimated_because"] == ({problem: 1} if problem else {})


@pytest.mark.parametrize(
    ("head", "fits"),
    [
        ((20, 22, 22, 40), True), ((20, 30, 40, 32), True), ((20, 22, 21.9, 40), False), ((20, 30, 40, 31.9), False),
        ((10, 30, 50, 120), True), ((10, 30, 50, 120.1), False), ((0, 22, 20, 40), True), ((0, 22, 19.9, 40), False),
        ((40, 22, 60, 40), True), ((40.1, 22, 60, 40), False), ((20, 20, 40, 40), True), ((20, 20, 40, 39.9), False),
        ((20, 110, 40, 130), True), ((20, 110.1, 40, 130), False),
    ],
)  # fmt: skip
def test_the_rule_for_heads_at_its_borders(head: tuple[float, ...], fits: bool) -> None:
    """The body is 40 wide and 90 high, and its four sides are four numbers."""
    box, _ = judge_head(Candidate(head), (10.0, 30.0, 50.0, 120.0), 80, 140)
    assert box == (tuple(map(float, head)) if fits else None)


@pytest.mark.parametrize("count", [29, 30])
def test_thirty_heads_of_train_are_enough_for_a_median(count: int) -> None:
    candidates = [Candidate((20, 12, 40, 30), "detected", 0.5)] * count + [Candidate()]
    heads, report = choose_heads(
        candidates, [BODY] * (count + 1), [(80, 100)] * (count + 1), ["train"] * count + ["test"]
    )
    enough = count >= 30
    assert report["relative_box_of_estimates"] == pytest.approx(
        [0.25, 0.0333, 0.75, 0.3333] if enough else list(HEAD_IN_BODY)
    )
    assert report["relative_box_from"] == (
        f"median of {count} heads of train" if enough else "published median of EMOTIC"
    )
    assert report["sources"]["test"]["estimated"] == {"persons": 1, "share": 1.0} and heads[0].score == 0.5


@pytest.mark.parametrize("count", [20, 21, 23])
def test_a_refusal_lists_twenty_persons_and_counts_the_rest(tmp_path: Path, count: int) -> None:
    save_annotations(
        tmp_path / "Annotations/Annotations.mat",
        train=[image(f"{i}.jpg", [person((5, 5, 60, 80))]) for i in range(count)],
        val=[],
        test=[],
    )
    (tmp_path / "emotic/mscoco/images").mkdir(parents=True)
    tree = find_tree(tmp_path)
    with pytest.raises(StrictError, match=f"{count} persons would be dropped") as told:
        build_emotic_index(load_annotations(tree.annotations), tree, strict=True)
    assert str(told.value).count(": missing file") == 20 and (f"and {count - 20} more" in str(told.value)) == (
        count > 20
    )


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([[1, 10, 5.5]], (1, 10, 5.5)), ([[1, 2, 3], [2, 4, 6]], (1.5, 3, 4.5)), ([[1, 2, NAN], [2, 4, 6]], (2, 4, 6)),
        ([[1, 2]], None), ([], None), ([[0.9, 5, 5]], "got"), ([[5, 5, 10.1]], "got"),
        ([[1, 1, 1], [1, 1, 2], [1, 1, 2]], (1, 1, 1.6667)),
    ],
)  # fmt: skip
def test_vad_is_the_mean_of_whole_annotations_in_one_to_ten(rows: list[list[float]], wanted: Any) -> None:
    if wanted == "got":
        with pytest.raises(Exception, match=r"wanted valence, arousal and dominance in 1\.\.10"):
            mean_vad(rows)
    else:
        assert mean_vad(rows) == wanted


def test_estimates_are_the_median_of_trains_own_heads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    places = np.array([0.3, 0.05, 0.6, 0.25]) + rng.uniform(-0.04, 0.04, (41, 4))
    boxes = [
        Candidate(tuple((np.array([10, 10, 10, 10]) + p * (40, 60, 40, 60)).tolist()), "detected", 0.9) for p in places
    ]
    far = Candidate((11.0, 60.0, 15.0, 69.0), "detected", 0.9)
    candidates = [*boxes, Candidate(), *[far] * 60]
    splits = ["train"] * 41 + ["val"] + ["test"] * 60
    heads, report = choose_heads(candidates, [BODY] * 102, [(80, 100)] * 102, splits)
    wanted = np.array([10, 10, 10, 10]) + np.median(places, axis=0) * (40, 60, 40, 60)
    np.testing.assert_allclose(heads[41].box, wanted, atol=0.01)  # val and test do not reach the median
    assert report["sources"]["val"]["estimated"] == {"persons": 1, "share": 1.0}
    assert report["sources"]["train"]["detected"] == {"persons": 41, "share": 1.0}
    _, few = choose_heads(candidates[20:], [BODY] * 82, [(80, 100)] * 82, splits[20:])
    assert few["relative_box_of_estimates"] == list(HEAD_IN_BODY)


def test_two_people_never_share_a_face_unless_the_published_rule_is_asked_for(tmp_path: Path) -> None:
    found = Detections(faces=np.array([[25.0, 15, 35, 28]]), face_scores=np.array([0.7]))
    bodies = [BODY, (12.0, 10.0, 48.0, 66.0)]
    assert sum(c.box is not None for c in match_faces(bodies, found)) == 1
    assert sum(c.box is not None for c in match_faces(bodies, found, "published")) == 2
    with pytest.raises(ValueError, match="one_to_one"):
        match_faces(bodies, found, "nearest")
    rows = [image("a.jpg", [person(BODY), person(bodies[1])])]
    source = HeadSource(detect=lambda images: ({path: found for path in images if path.endswith("a.jpg")}, {}))
    index = build_rows(tmp_path, rows, heads=source)
    train = [r for r in index.records if r.split == "train"]
    assert sorted(r.head_source for r in train) == ["detected", "estimated"]
    assert [r.extra.get("head_score") for r in train if r.head_source == "detected"] == [0.7]
    broken = HeadSource(detect=lambda images: ({}, {path: "cut" for path in images if path.endswith("a.jpg")}))
    assert build(tmp_path / "root", heads=broken).sidecar["skipped_because"] == {"unreadable image": 2}


def test_heads_from_a_csv_and_from_another_index(tmp_path: Path) -> None:
    root = save_tree(tmp_path / "root", **small_splits())
    table = tmp_path / "heads.csv"
    table.write_text(
        "image,person,x1,y1,x2,y2,score\r\n"
        "mscoco/images/a.jpg,0,20,12,40,30,0.5\r\n"
        "elsewhere\\emotic\\mscoco\\images\\a.jpg,1,0,0,0,0,\r\n"
        "framesdb/images/b.jpg,0,20,12,40,30,\r\n"
    )
    index = build(root, heads=HeadSource(given=read_head_file(table)))
    by_key = {r.key: r for r in index.records}
    first = by_key["emotic/mscoco/images/a.jpg#0"]
    assert first.head == (20, 12, 40, 30) and first.head_source == "annotated" and first.extra["head_score"] == 0.5
    assert {key for key, r in by_key.items() if r.head_source == "annotated"} == {
        "emotic/mscoco/images/a.jpg#0", "emotic/framesdb/images/b.jpg#0",
    }  # fmt: skip
    assert index.sidecar["heads"]["estimated_because"] == {"absent": 3}
    lines = tmp_path / "old.jsonl"
    lines.write_text("\n".join(r.to_line() for r in index.records) + "\n\n")
    again = build(root, heads=HeadSource(given=read_head_file(lines)))
    assert again.records == index.records


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "image,person,x1,y1,x2\n", "missing: y2"),
        ("a.csv", "image,person,x1,y1,x2,y2\na.jpg,0,1,2,3\n", "row 2"),
        ("a.csv", "image,person,x1,y1,x2,y2\na.jpg,zero,1,2,3,4\n", "row 2: .*zero"),
        (
            "a.csv",
            "image,person,x1,y1,x2,y2\na,1,1,2,3,4\nb,0,1,2,3,4\nb,0,1,2,3,4\n",
            "entry 3: person 0 of b is given twice",
        ),
        ("a.jsonl", '{"image": "a.jpg"}\n', "row 1: .*image, person and head"),
        ("a.jsonl", "[1]\n", "row 1"),
        ("a.jsonl", "nothing\n", "row 1"),
        ("a.txt", "", r"ends in \.csv or \.jsonl"),
    ],
)
def test_faulty_head_files_are_refused_by_row(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_head_file(tmp_path / name)


def test_every_label_of_a_kept_person_is_counted_once(tmp_path: Path) -> None:
    rows = [image("a.jpg", [person(labels=[["Peace", "Pleasure"]]), person(labels=[["Peace"]])])]
    index = build_rows(tmp_path, rows)
    counted = {name: count for name, count in index.sidecar["labels"]["train"].items() if count}
    assert counted == {"Peace": 2, "Pleasure": 1}
    assert counted == dict(Counter(label for r in index.records if r.split == "train" for label in r.labels))


def test_each_stored_size_is_judged_for_itself() -> None:
    judged = {"equal": (80, 100), "swapped": (100, 80), "wrong": (80, 99), "missing": (0, 100)}
    for word, stored in judged.items():
        raw = RawImage("train", "a.jpg", "mscoco", (float(stored[0]), float(stored[1])), ())
        facts = {"p/a.jpg": FileFacts(80, 100, "x")}
        assert stored_sizes([raw], facts, Path("p")) == {"mscoco": {word: 1}}
    nothing = [None, (80.0, 0.0), (-1.0, 100.0), (80.0, NAN), (float("inf"), 100.0)]
    raws = [RawImage("train", "a.jpg", "mscoco", stored, ()) for stored in (*nothing, (1.0, 1.0))]
    assert stored_sizes(raws, facts, Path("p")) == {"mscoco": {"missing": 5, "wrong": 1}}
    square = RawImage("train", "a.jpg", "mscoco", (90.0, 90.0), ())
    assert stored_sizes([square], {"p/a.jpg": FileFacts(90, 90, "x")}, Path("p")) == {"mscoco": {"square": 1}}


# ------------------------------------------------------------------------------------------------ what else rows may say


def test_numbers_are_flat_floats_and_what_is_none_is_nan() -> None:
    nested = np.empty((1, 2), dtype=object)
    nested[0, 0], nested[0, 1] = np.array([[3]], np.uint8), [4.5, "x"]
    assert numbers(nested)[:2] == [3.0, 4.5] and np.isnan(numbers(nested)[2])
    assert numbers(np.array([[1, 2]], np.uint16)) == [1.0, 2.0] and np.isnan(numbers(np.array(["x"]))).all()
    assert numbers(np.empty((0, 0))) == [] and np.isnan(numbers(None)).all()


def test_a_source_is_the_named_one_else_the_first_folder() -> None:
    row = image("a.jpg", [person()], "framesdb/images")
    named = row | {"original_database": struct([{"name": "mscoco"}])}
    silent = row | {"original_database": struct([{"name": ""}])}
    found = read_annotations({"train": struct([named, silent]), "val": [], "test": []})
    assert [i.source for i in found] == ["mscoco", "framesdb"]


def test_the_combined_vad_counts_where_there_is_one() -> None:
    """As published: the release has it for val and test. Without it, the mean over annotators."""
    row = person(split="val", labels=[["Anger"], ["Anger"]], vad=[(1, 1, 1), (3, 3, 3)])
    said = row | {"combined_continuous": row["annotations_continuous"][:, :1]}
    silent = {key: value for key, value in row.items() if key != "combined_continuous"}
    val = struct([image("a.jpg", [said]), image("b.jpg", [silent])])
    found = read_annotations({"train": [], "val": val, "test": []})
    assert [i.persons[0].vad for i in found] == [(1, 1, 1), (2, 2, 2)]


@pytest.mark.parametrize(
    ("images", "mat", "root", "found"),
    [
        ("d/emotic", "a/b/c/Annotations.mat", ".", True), ("d/emotic", "a/b/c/d/Annotations.mat", ".", False),
        ("a/b/c/emotic", "Annotations.mat", ".", True), ("a/b/c/d/emotic", "Annotations.mat", ".", False),
        # beside the root: of its parent and grandparent, and no further
        ("a/b/emotic", "Annotations/Annotations.mat", "a/b", True), ("a/b/c/emotic", "Annotations.mat", "a/b/c", False),
        # beside the annotations: of their three folders above, and no further
        ("emotic", "a/b/Annotations.mat", "a/b", True), ("emotic", "a/b/c/Annotations.mat", "a/b/c", False),
        ("d/emotic", "images/Annotations.mat", ".", False), ("d/emotic", ".old/Annotations.mat", ".", False),
    ],
)  # fmt: skip
def test_how_far_away_folders_are_looked_for(tmp_path: Path, images: str, mat: str, root: str, found: bool) -> None:
    save_tree(tmp_path, images, mat, **small_splits())
    if found:
        assert find_tree(tmp_path / root).images.resolve() == tmp_path / images
    else:
        with pytest.raises(AnnotationError, match="4 levels down or beside it; found none|no folder near it"):
            find_tree(tmp_path / root)


def test_an_annotated_head_stays_where_a_detector_sees_another(tmp_path: Path) -> None:
    early = person() | {"head_bbox": np.array([[20, 12, 40, 30]])}
    found = Detections(faces=np.array([[22.0, 15, 35, 28]]), face_scores=np.array([0.123456]))
    source = HeadSource(detect=lambda images: (dict.fromkeys(images, found), {}))
    index = build_rows(tmp_path, [image("a.jpg", [early]), image("b.jpg", [person() | {"head_bbox": np.empty((0, 0))}])],
                       heads=source)  # fmt: skip
    first, second, *others = index.records
    assert (first.head, first.head_source, first.extra.get("head_score")) == ((20, 12, 40, 30), "annotated", None)
    assert second.head_source == "estimated"  # the layout has a place for heads, and this one is empty
    assert {(r.head, r.extra["head_score"]) for r in others} == {((22, 15, 35, 28), 0.1235)}


def test_heads_of_a_jsonl_are_those_that_somebody_saw(tmp_path: Path) -> None:
    rows = [
        {"image": "x/y/mscoco/images/a.jpg", "person": 0, "head": [1, 2, 3, 4]},
        {"image": "a.jpg", "person": 1, "head": None, "head_source": "detected"},
        {"image": "a.jpg", "person": 2, "head": [1, 2, 3, 4], "head_source": "estimated"},
        {"image": "a.jpg", "person": 3, "head": [1, 2, 3, 4], "head_source": "detected", "head_score": 0.5},
    ]
    (tmp_path / "h.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_head_file(tmp_path / "h.jsonl") == {
        ("mscoco/images/a.jpg", 0): Candidate((1, 2, 3, 4), "annotated"), ("a.jpg", 1): Candidate(None, "detected"),
        ("a.jpg", 2): Candidate(None, "estimated"), ("a.jpg", 3): Candidate((1, 2, 3, 4), "detected", 0.5),
    }  # fmt: skip


def test_shares_are_of_a_split_and_rounded_to_four_digits() -> None:
    found = shares([("train", "detected"), ("train", "estimated"), ("train", "estimated"), ("val", "annotated")])
    assert found["train"] == {
        "annotated": {"persons": 0, "share": 0.0},
        "detected": {"persons": 1, "share": 0.3333},
        "estimated": {"persons": 2, "share": 0.6667},
    }
    assert list(found) == ["train", "val"]


def test_the_report_counts_each_split_for_itself(tmp_path: Path) -> None:
    rows = [
        image("a.jpg", [person(), person(), person((50, 10, 10, 70))]),
        image("b.jpg", [person(vad=[])], "framesdb/images"),
        image("c.jpg", []),
    ]
    sidecar = build_rows(tmp_path, rows).sidecar
    assert sidecar["counts"]["train"] == {
        "images": 2, "persons": 3, "skipped": 1, "persons_by_source": {"framesdb": 1, "mscoco": 2}, "images_listed": 3,
    }  # fmt: skip
    assert sidecar["counts"]["val"]["skipped"] == 0 and sidecar["counts"]["val"]["persons_by_source"] == {"mscoco": 1}
    counts = {name: found["train"]["here"] for name, found in sidecar["against_published"]["counts"].items()}
    assert counts == {
        "images in the annotations": 3, "persons in the annotations": 4, "persons with valid VAD and box": 2,
    }  # fmt: skip
    assert sidecar["without_vad"] == {"train": 1} and sidecar["clipped_boxes"] == {}


def test_near_duplicates_are_marked_outside_train_and_dropped_from_it(tmp_path: Path) -> None:
    root = save_tree(tmp_path, **small_splits())
    folder = root / "emotic/mscoco/images"
    rough_image(0).save(folder / "a.jpg", "JPEG", quality=95)  # of train, with two persons
    rough_image(0).save(root / "emotic/ade20k/images/d.jpg", "JPEG", quality=60)  # of test
    rough_image(1).save(folder / "c.jpg", "JPEG")  # of val
    rough_image(2).save(root / "emotic/framesdb/images/b.jpg", "JPEG")  # of train
    marked = build(root, near=NearSearch())
    assert [(r.split, r.extra.get("near_train"), r.extra.get("near_train_by")) for r in marked.records] == [
        ("train", None, None), ("train", None, None), ("train", None, None), ("val", False, "nothing"), ("test", True, "hash"),
    ]  # fmt: skip
    assert marked.sidecar["near_duplicates"]["pairs"] == {
        "train/test": {
            "train_images": 1, "train_persons": 2, "train_images_by_hash": 1,
            "test_images": 1, "test_persons": 1, "test_images_by_hash": 1,
        }
    }  # fmt: skip
    dropped = build(root, near=NearSearch(drop=True))
    assert reasons(dropped) == ["near-duplicate in test"] * 2
    assert [r.split for r in dropped.records] == ["train", "val", "test"]
