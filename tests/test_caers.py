"""CAER-S as it really is: folder spellings, duplicates, lists of faces, and splits that share nothing."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image
from real_trees import save_caers, save_image

from cocoer.data.people import HEAD_IN_BODY, Detections
from cocoer.data.prepare.caers import choose_person, find_caers, read_face_lists, read_tree
from cocoer.data.prepare.caers_index import CaersIndex, build_caers_index
from cocoer.data.prepare.near_duplicates import BITS, SHARES, near_groups, perceptual_hash, stratified_split
from cocoer.errors import CaersError, StrictError

SPLITS = ("train", "val", "test")


def tree(root: Path, **changes: Any) -> Path:
    return save_caers(root, {"Angry": 3, "Happy": 3}, {"Anger": 2, "Happy": 2}, **changes)


def build(root: Path, **options: Any) -> CaersIndex:
    base = find_caers(root)
    faces = options.pop("faces", None)
    images = read_tree(base, root)
    return build_caers_index(images, root, faces=read_face_lists(faces, images) if faces else None, **options)


@pytest.mark.parametrize(
    ("nested", "root", "folders"),
    [
        (".", ".", ("train", "test")),
        ("CAER-S", ".", ("train", "test")),
        ("CAER-S/CAER-S", ".", ("Train", "Test")),
        ("CAER-S", "CAER-S/train", ("train", "test")),
        ("CAER-S", "CAER-S/train/Angry", ("train", "test")),
    ],
)
def test_the_tree_is_found_a_level_too_high_or_too_low(
    tmp_path: Path, nested: str, root: str, folders: tuple[str, str]
) -> None:
    tree(tmp_path / nested, folders=folders)
    base = find_caers(tmp_path / root)
    images = read_tree(base, base)
    assert Counter((i.folder, i.label) for i in images) == {
        ("train", "Anger"): 3, ("train", "Happy"): 3, ("test", "Anger"): 2, ("test", "Happy"): 2,
    }  # fmt: skip
    assert all((base / i.path).is_file() for i in images)


def test_a_tree_of_something_else_beside_it_is_not_taken(tmp_path: Path) -> None:
    for other in ("train/cats", "test/dogs", "CAER-S/older/train/Angry", "CAER-S/older/val/Happy"):
        (tmp_path / other).mkdir(parents=True)
    tree(tmp_path / "CAER-S")
    assert find_caers(tmp_path) == tmp_path / "CAER-S"


def test_a_root_is_two_levels_too_low_at_most(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "train/Angry/deeper").mkdir()
    assert find_caers(tmp_path / "train/Angry") == tmp_path
    with pytest.raises(CaersError, match="wanted folders `train` and `test`"):
        find_caers(tmp_path / "train/Angry/deeper")


def test_a_root_is_two_levels_too_high_at_most(tmp_path: Path) -> None:
    tree(tmp_path / "a/b")
    assert find_caers(tmp_path) == tmp_path / "a/b"
    tree(tmp_path / "c/d/e/f")
    with pytest.raises(CaersError, match="3 levels down; found none"):
        find_caers(tmp_path / "c")


def test_what_lies_beside_the_images_is_passed_over(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "train/.cache").mkdir()
    for name in ("train/notes.txt", "train/Angry/Thumbs.db", "README"):
        (tmp_path / name).write_text("x")
    save_image(tmp_path / "validation/Angry/0001.png", 64, 48)
    images = read_tree(tmp_path, tmp_path)
    order = [(i.folder, i.label, i.path) for i in images]
    assert len(order) == 11 and [o[0] for o in order] == ["train"] * 6 + ["val"] + ["test"] * 4
    assert order[0] == ("train", "Anger", "train/Angry/0001.png") and images[0].key == ("train", "Anger", "0001.png")


def test_wrong_trees_are_described(tmp_path: Path) -> None:
    with pytest.raises(CaersError, match="no such folder"):
        find_caers(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaersError, match="wanted folders `train` and `test`"):
        find_caers(tmp_path / "empty")
    both = save_caers(tmp_path / "both", {"Angry": 1, "Anger": 1}, {"Happy": 1})
    with pytest.raises(CaersError, match="both Anger and Angry are class Anger"):
        build(both)
    other = save_caers(tmp_path / "other", {"Angry": 1, "Contempt": 1}, {"Happy": 1})
    with pytest.raises(CaersError, match=r"Contempt: unknown class 'Contempt'.*Surprise"):
        build(other)
    twice = tree(tmp_path / "twice")
    shutil.copytree(twice / "train", twice / "Train")
    with pytest.raises(CaersError, match="hold the train images"):
        build(twice)
    bare = tree(tmp_path / "bare")
    for path in bare.rglob("*.png"):
        path.unlink()
    with pytest.raises(CaersError, match="found none"):
        build(bare)


def test_the_original_split_follows_the_folders_and_an_added_valid_is_val(tmp_path: Path) -> None:
    root = tree(tmp_path)
    save_image(root / "valid" / "Sad" / "0001.png", 64, 48, 9)
    index = build(root)
    assert Counter(r.split for r in index.records) == {"train": 6, "val": 1, "test": 4}
    assert {r.labels for r in index.records if "Angry" in r.image} == {("Anger",)}
    assert {(r.width, r.height, r.head_source, r.vad) for r in index.records} == {(64, 48, "estimated", None)}
    assert index.sidecar["against_published"]["train"] == {"published": 49007, "here": 6, "difference": -49001}


def test_byte_identical_images_are_counted_across_splits_and_labels(tmp_path: Path) -> None:
    root = tree(tmp_path)
    shutil.copy(root / "train/Angry/0001.png", root / "test/Happy/0002.png")
    shutil.copy(root / "train/Happy/0001.png", root / "train/Happy/0002.png")
    found = build(root).sidecar["duplicates"]["by_folder"]
    assert (found["repeats"], found["contents_across"], found["contents_with_several_labels"]) == (
        2,
        {"train/test": 1},
        1,
    )
    assert found["groups"] == [
        ["train/Angry/0001.png", "test/Happy/0002.png"], ["train/Happy/0001.png", "train/Happy/0002.png"],
    ]  # fmt: skip
    index = build(root, split="disjoint")
    assert index.sidecar["skipped_because"] == {"byte-identical to another": 2}
    assert any("which is labelled Anger" in row["reason"] for row in index.sidecar["skipped"])
    assert index.sidecar["duplicates"]["in_index"]["repeats"] == 0 and len(index.records) == 8


def test_broken_images_are_named_and_refused_when_strict(tmp_path: Path) -> None:
    root = tree(tmp_path)
    path = root / "train/Happy/0003.png"
    path.write_bytes(path.read_bytes()[:-30])
    for split in ("original", "disjoint"):
        index = build(root, split=split)
        assert [row["image"] for row in index.sidecar["skipped"]] == ["train/Happy/0003.png"]
        assert index.sidecar["skipped_because"] == {"unreadable image": 1}
        with pytest.raises(StrictError, match=r"Happy/0003\.png: unreadable"):
            build(root, split=split, strict=True)


# ------------------------------------------------------------------------------------------------------ near-duplicates


@pytest.mark.parametrize("count", [20, 22])
def test_a_refusal_lists_twenty_images(tmp_path: Path, count: int) -> None:
    root = save_caers(tmp_path, {"Angry": 1, "Happy": count + 1}, {"Happy": 1})
    for path in sorted((root / "train/Happy").iterdir())[:count] if (root / "train").is_dir() else ():
        path.write_bytes(b"no image")
    with pytest.raises(StrictError, match=f"{count} images would be dropped") as told:
        build(root, strict=True)
    lines = str(told.value).split("\n  ")[1:]
    assert len(lines) == min(count, 21) and (count <= 20 or lines[-1] == f"and {count - 20} more")


def test_the_one_person_of_an_image_is_number_nought(tmp_path: Path) -> None:
    index = build(tree(tmp_path))
    assert {record.person for record in index.records} == {0} and all(r.key.endswith("#0") for r in index.records)


def test_ten_sizes_are_listed_the_most_frequent_first(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for i in range(11):
        save_image(root / f"train/Sad/{i:04d}.png", 70 + i, 50, i)
    sizes = build(root).sidecar["sizes"]
    assert len(sizes) == 10 and next(iter(sizes.items())) == ("64x48", 10)


def test_nothing_that_can_be_read_is_no_group_and_no_person(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for path in root.rglob("*.png"):
        path.write_bytes(b"no image" + path.as_posix().encode())
    index = build(root, split="disjoint")
    assert index.records == [] and index.sidecar["near_duplicates"] == {
        "bits": 6, "groups_of_two_or_more": 0, "images_in_them": 0, "largest_group": 0, "seed": 0,
    }  # fmt: skip


def test_a_look_is_the_64_bits_of_imagehash() -> None:
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    bits = imagehash.phash(image).hash.ravel()
    assert len(bits) == BITS == 64
    assert perceptual_hash(image) == int("".join("01"[int(bit)] for bit in bits), 2)


def test_six_bits_are_near_and_a_distance_is_less_than_all_of_them() -> None:
    """docs/data.md: at most 6 bits of 64, unless `--near` says otherwise."""
    own, near, far = 0, 0b111111, 0b1111111 << 8
    assert near_groups([own, near, far]).tolist() == [0, 0, 1]
    assert near_groups([0, 2**64 - 1], 63).tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"a distance of 0\.\.63 bits, got 64"):
        near_groups([0], 64)


def test_a_class_is_divided_by_what_each_split_still_lacks_of_its_share() -> None:
    """70, 10 and 20 %. Of three the first goes to train; then val and test lack all of theirs, and train a half."""
    three = stratified_split([("Sad",)] * 3, [0, 1, 2])
    assert sorted(three) == ["test", "train", "val"] and three == stratified_split([("Sad",)] * 3, [0, 1, 2], seed=0)
    # Ten, of which seven belong together: they are placed first, while train still lacks seven.
    ten = stratified_split([("Sad",)] * 10, [0, 1, 2, *[3] * 7])
    assert ten[3:] == ["train"] * 7 and sorted(ten[:3]) == ["test", "test", "val"]
    assert SHARES == {"train": 0.7, "val": 0.1, "test": 0.2}


def test_a_look_survives_size_light_and_compression(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
        for _ in range(12)
    ]
    hashes = [perceptual_hash(p) for p in images]
    for image, own in zip(images, hashes, strict=True):
        image.save(tmp_path / "a.jpg", quality=60)
        for other in (
            Image.open(tmp_path / "a.jpg"),
            image.resize((90, 70)),
            image.point(lambda v: int(v * 0.8 + 20)),
        ):
            assert (own ^ perceptual_hash(other)).bit_count() <= 6
    assert min((a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]) > 12


@pytest.mark.parametrize("distance", [0, 3, 6, 11])
def test_groups_are_those_of_comparing_every_pair(distance: int) -> None:
    rng = np.random.default_rng(distance)
    centres = rng.integers(0, 2**63, 30)
    hashes = [
        int(c) ^ int(np.bitwise_or.reduce(1 << rng.integers(0, 63, rng.integers(0, 8)), initial=0))
        for c in centres
        for _ in range(6)
    ]
    got = near_groups(hashes, distance)
    wanted = list(range(len(hashes)))
    for i, a in enumerate(hashes):  # the slow and obvious way
        for j, b in enumerate(hashes[:i]):
            if (a ^ b).bit_count() <= distance and wanted[i] != wanted[j]:
                old, new = wanted[i], wanted[j]
                wanted = [new if w == old else w for w in wanted]
    pairs = list(zip(got.tolist(), wanted, strict=True))
    assert len(set(pairs)) == len(set(wanted)) == len(set(got.tolist()))


def test_a_disjoint_split_keeps_groups_whole_and_classes_in_proportion() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(900), rng.integers(1, 5, 900))
    labels = [("Anger", "Happy", "Sad")[g % 3] for g in groups]
    each = [(label,) for label in labels]
    splits = stratified_split(each, groups, seed=3)
    assert all(len({s for s, g in zip(splits, groups, strict=True) if g == k}) == 1 for k in (0, 5, 77, 899))
    assert len({(s, int(g)) for s, g in zip(splits, groups, strict=True)}) == 900
    for name in set(labels):
        mine = Counter(s for s, label in zip(splits, labels, strict=True) if label == name)
        for split in SPLITS:
            assert abs(mine[split] / labels.count(name) - SHARES[split]) < 0.01
    assert stratified_split(each, groups, seed=3) == splits != stratified_split(each, groups, seed=4)


def test_no_two_splits_share_a_near_duplicate(tmp_path: Path) -> None:
    root = save_caers(tmp_path, {"Angry": 12, "Happy": 12}, {"Anger": 6, "Happy": 6})
    for i in range(1, 7):  # frames of one clip, spread over both folders as in the original
        image = Image.open(root / f"train/Happy/{i:04d}.png")
        image.point(lambda v: min(255, v + 3)).save(root / f"test/Happy/{i:04d}.png")
    index = build(root, split="disjoint")
    split_of = {r.image: r.split for r in index.records}
    for i in range(1, 7):
        assert split_of[f"train/Happy/{i:04d}.png"] == split_of[f"test/Happy/{i:04d}.png"]
    near = index.sidecar["near_duplicates"]
    assert (near["groups_of_two_or_more"], near["images_in_them"], near["largest_group"]) == (6, 12, 2)
    assert near["seed"] == 0 and index.records == build(root, split="disjoint", seed=0).records
    assert {r.split for r in index.records} == set(SPLITS)


# ------------------------------------------------------------------------------------------------------------ face lists


def write_lists(folder: Path, **lists: str) -> Path:
    folder.mkdir()
    for name, content in lists.items():
        (folder / f"{name}.txt").write_text(content, newline="")
    return folder


def test_lists_relative_to_the_split_folder_and_the_community_split(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    lists = write_lists(
        tmp_path / "lists",
        train="Angry/0001.png,0,5,4,25,30\r\nAngry/0002.png,0,-3,-4,25,30\r\nHappy/0001.png,3,5,4,25,30\r\n\r\n",
        val="Anger/0001.png,0,5,4,25,30\n",
        test="Anger/0002.png,0,5,4,25,99\nHappy/0001.png,3,0,0,0,0\n",
    )
    index = build(root, split="community", faces=lists)
    assert Counter(r.split for r in index.records) == {"train": 3, "val": 1, "test": 2}
    by_image = {r.image: r for r in index.records}
    assert by_image["test/Anger/0001.png"].split == "val" and by_image["train/Angry/0001.png"].head == (5, 4, 25, 30)
    assert by_image["train/Angry/0002.png"].head == (0, 0, 25, 30)  # clipped, and counted
    assert by_image["test/Anger/0002.png"].head == (5, 4, 25, 48)
    assert by_image["test/Happy/0001.png"].head_source == "estimated"
    assert index.sidecar["listed_faces_not_used"] == {"listed without a face": 1}
    assert index.sidecar["face_lists"]["train.txt"]["boxes with a negative value"] == 1
    assert index.sidecar["face_lists"]["test.txt"]["boxes with a negative value"] == 0
    assert index.sidecar["skipped_because"] == {"not in the face lists": 4}
    original = build(root, faces=lists)
    assert len(original.records) == 10 and original.sidecar["heads"]["train"]["annotated"]["persons"] == 3


def test_lists_relative_to_the_root_of_the_data_set(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    lists = write_lists(
        tmp_path / "lists", train="train/Anger/0001.png,0,5,4,25,30\n", test="test/Happy/0002.png,3,5,4,25,30\n"
    )
    annotated = {r.image for r in build(root, faces=lists).records if r.head_source == "annotated"}
    assert annotated == {"train/Angry/0001.png", "test/Happy/0002.png"}
    with pytest.raises(CaersError, match="which images are val|say which"):
        build(root, faces=lists, split="community")
    with pytest.raises(CaersError, match="--faces FOLDER"):
        build(root, split="community")


def test_faulty_rows_are_named_and_not_used(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    rows = [
        "Angry/0001.png,0,5,4,25,30",
        "Angry/0001.png,0,6,6,26,36",
        "Angry/0002.png,3,5,4,25,30",
        "Angry/9999.png,0,5,4,25,30",
        "Angry/0003.png,0,5,4,25",
        "Joy/0003.png,0,5,4,25,30",
        *(f"Happy/000{i}.png,3,5,4,25,30" for i in (1, 2, 3)),
        "Angry/0003.png,0,30,30,5,5",
        "Angry/0002.png,0,5,4,25,30",
    ]
    lists = write_lists(tmp_path / "lists", train="\n".join(rows))
    index = build(root, faces=lists)
    report = index.sidecar["face_lists"]["train.txt"]
    assert report["rows"] == 11 and report["used"] == 6 and len(report["not_used"]) == 5
    assert report["image listed before"] == report["unknown class folder"] == 1 and report["cannot be parsed"] == 1
    for number, fault in (
        (2, "listed before"),
        (3, "contradicts"),
        (4, "no such image"),
        (5, "parsed"),
        (6, "unknown"),
    ):
        assert any(line.startswith(f"row {number}: ") and fault in line for line in report["not_used"])
    assert index.sidecar["listed_faces_not_used"] == {"listed face is not a box inside the image": 1}


def test_a_list_for_another_folder_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    lists = write_lists(tmp_path / "lists", train="CAER/images/1.png,0,5,4,25,30\nCAER/images/2.png,0,5,4,25,30\n")
    with pytest.raises(CaersError, match="only 0 of 2 rows fit"):
        build(root, faces=lists)
    with pytest.raises(CaersError, match="found none"):
        build(root, faces=tmp_path / "nowhere.txt")


def test_half_of_a_list_must_fit_and_ten_faults_are_shown(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    images = read_tree(root, root)
    good, long = "Angry/0001.png,0,5,4,25,30\n", "x" * 100
    (tmp_path / "train.txt").write_text(good + "0001.png,0,5,4,25,30\n")  # a row without its folder
    found = read_face_lists(tmp_path / "train.txt", images)
    assert list(found.faces) == [("train", "Anger", "0001.png")] and found.report["train.txt"]["not_used"] == [
        "row 2: cannot be parsed: 0001.png,0,5,4,25,30"
    ]
    (tmp_path / "train.txt").write_text(good + "Angry/0002.png,0,5,4,25,30\n" + f"{long}\n" * 3)
    with pytest.raises(CaersError, match="only 2 of 5 rows fit"):
        read_face_lists(tmp_path / "train.txt", images)
    (tmp_path / "train.txt").write_text(f"{long}\n" * 12)
    with pytest.raises(CaersError) as told:
        read_face_lists(tmp_path / "train.txt", images)
    lines = str(told.value).split("\n  ")[1:]
    assert lines == [f"row {i}: cannot be parsed: {'x' * 80}" for i in range(1, 11)]


def test_a_list_without_a_split_in_its_name_says_it_in_its_rows(tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    lists = write_lists(tmp_path / "lists", faces="train/Angry/0001.png,0,5,4,25,30\n")
    (lists / "README.md").write_text("no list")
    found = read_face_lists(lists, read_tree(root, root))
    assert found.faces == {("train", "Anger", "0001.png"): ("train", (5, 4, 25, 30))} and list(found.report) == [
        "faces.txt"
    ]


# ---------------------------------------------------------------------------------------------------------- one person


def seen(bodies: list[list[float]], faces: list[list[float]]) -> Detections:
    return Detections(
        np.array(bodies, float).reshape(-1, 4),
        np.full(len(bodies), 0.8),
        np.array(faces, float).reshape(-1, 4),
        np.full(len(faces), 0.9),
    )


def test_the_person_with_the_largest_face_is_taken() -> None:
    found = seen([[0, 0, 30, 90], [40, 0, 99, 90]], [[10, 5, 18, 14], [60, 5, 80, 28]])
    person, fault = choose_person(found, None, 100, 100)
    assert person.body == (40, 0, 99, 90) and person.head == (60, 5, 80, 28) and fault == ""
    assert (person.head_source, person.body_source, person.head_score, person.body_score) == (
        "detected",
        "detected",
        0.9,
        0.8,
    )


def test_a_listed_face_counts_first_and_gets_its_own_body() -> None:
    found = seen([[0, 0, 30, 90], [40, 0, 99, 90]], [[60, 5, 80, 28]])
    found.body_scores[0] = 0.123456
    person, _ = choose_person(found, (9, 5, 19, 15), 100, 100)
    assert person.body_score == 0.1235 and person.head_score is None
    assert person.body == (0, 0, 30, 90) and person.head_source == "annotated" and person.body_source == "detected"
    alone, _ = choose_person(seen([], []), (40, 10, 50, 20), 100, 100)
    assert alone.body_source == "estimated" and alone.body[0] < 40 and alone.body[3] > 20


def test_without_any_detection_the_whole_image_is_the_body() -> None:
    for found in (None, seen([], [])):
        person, fault = choose_person(found, (1, 1, 2, 2), 100, 200)
        assert person.body == (0, 0, 100, 200) and person.head_source == person.body_source == "estimated"
        np.testing.assert_allclose(person.head, np.array(HEAD_IN_BODY) * (100, 200, 100, 200))
        assert fault == "listed face is too small"


def test_a_seen_face_is_worth_more_than_a_large_body() -> None:
    found = seen([[0, 0, 20, 60], [30, 0, 100, 100]], [[6, 5, 12, 12]])
    person, _ = choose_person(found, None, 100, 100)
    assert person.body == (0, 0, 20, 60) and person.head_source == "detected"
    person, _ = choose_person(seen([[0, 0, 20, 60], [30, 0, 100, 100]], []), None, 100, 100)
    assert person.body == (30, 0, 100, 100)


@pytest.mark.parametrize(
    ("face", "used"),
    [((20, 10, 22, 40), True), ((20, 10, 21.9, 40), False), ((10, 20, 40, 22), True), ((10, 20, 40, 21.9), False)],
)
def test_a_listed_face_is_two_pixels_wide_and_high_at_least(face: tuple[float, ...], used: bool) -> None:
    person, fault = choose_person(None, face, 100, 100)
    assert (person.head_source, fault) == (("annotated", "") if used else ("estimated", "listed face is too small"))


def test_what_a_detector_was_sure_of_is_kept(tmp_path: Path) -> None:
    found = seen([[0, 0, 30, 48]], [[10, 5, 18, 14]])
    index = build(tree(tmp_path), detect=lambda images: (dict.fromkeys(images, found), {}))
    assert {tuple(r.extra.items()) for r in index.records} == {
        (("body_source", "detected"), ("head_score", 0.9), ("body_score", 0.8))
    }


def test_a_image_that_fails_in_the_detector_is_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path)
    index = build(root, detect=lambda images: ({p: seen([], []) for p in images}, {"train/Happy/0001.png": "cut"}))
    assert index.sidecar["skipped"] == [{"image": "train/Happy/0001.png", "reason": "unreadable image: cut"}]
