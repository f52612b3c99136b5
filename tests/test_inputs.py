"""What --input names, as a stream: order, names of outputs, faults in their place, shares, videos, standard input."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cocoer.data import inputs as inputs_module
from cocoer.data.inputs import InputItem, hash_of, is_single_image, iterate_inputs, read_stdin, survey_inputs
from cocoer.own_files import note_of


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names(items: Iterator[InputItem], folder: Path) -> list[str]:
    return [os.path.relpath(i.name, folder) for i in items]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    touch(
        tmp_path / "in",
        "b.jpg",
        "a.PNG",
        "notes.md",
        ".hidden.jpg",
        "deep/c.jpeg",
        "deep/er/a.png",
        "x.heic",
        "out/b.png",
    )
    return tmp_path / "in"


def test_a_folder_gives_its_images_by_name_and_deeper_ones_on_request(tree: Path) -> None:
    flat = list(iterate_inputs([str(tree)]))
    assert names(iter(flat), tree) == ["a.PNG", "b.jpg", "x.heic"]
    assert not any(i.fault for i in flat)
    deep = list(iterate_inputs([str(tree)], recursive=True, leave_out=tree / "out"))
    assert names(iter(deep), tree) == ["a.PNG", "b.jpg", "x.heic", "deep/c.jpeg", "deep/er/a.png"]
    assert [i.stem for i in deep] == ["a", "b", "x", "deep/c", "deep/er/a"]
    assert [i.position for i in deep] == list(range(5))


def test_files_globs_and_lists(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "list.txt").write_text("\ufeffb.jpg\r\n\n# a remark\ndeep/c.jpeg\nabsent.jpg\n", encoding="utf-8")
    items = list(iterate_inputs([str(tree / "list.txt")]))
    assert [Path(i.name).name for i in items] == ["b.jpg", "c.jpeg", "absent.jpg"]
    assert [i.source for i in items[:2]] == [tree / "b.jpg", tree / "deep/c.jpeg"]
    assert "no such file" in items[2].fault
    assert names(iterate_inputs([str(tree / "*.*g")]), tree) == ["b.jpg"]
    assert names(iterate_inputs([str(tree / "**/*.png")]), tree) == ["deep/er/a.png", "out/b.png"]
    monkeypatch.chdir(tree)
    assert [i.name for i in iterate_inputs(["b.jpg", "a.PNG"])] == ["b.jpg", "a.PNG"]


def test_a_name_with_glob_letters_that_exists_is_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jpg", "a1.jpg")
    assert names(iterate_inputs([str(tmp_path / "a[1].jpg")]), tmp_path) == ["a[1].jpg"]


def test_output_names_never_collide_whatever_the_case(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.jpg", "two/a.jpg", "two/A.png", "a-2.jpg", "a.jpg")
    inputs = [str(tmp_path / n) for n in ("a.jpg", "a-2.jpg", "one/a.jpg", "two/a.jpg", "two/A.png", "a.jpg")]
    stems = [i.stem for i in iterate_inputs(inputs)]
    assert stems[:2] == ["a", "a-2"]
    assert len({s.casefold() for s in stems}) == len(stems)


def test_output_names_stay_inside_and_short(tmp_path: Path) -> None:
    long = "é" * 120 + ".jpg"
    touch(tmp_path, long)
    (item,) = iterate_inputs([str(tmp_path / long)])
    assert item.source == tmp_path / long and not item.fault
    assert len(item.stem.encode()) <= 160
    climbing = list(iterate_inputs(["../../etc/passwd.jpg", "/root/../x.jpg", ".."]))
    assert all(not i.stem.startswith(("/", "..")) and "/../" not in i.stem for i in climbing)


def test_what_cannot_be_had_is_an_item_with_a_fault_and_the_rest_goes_on(tree: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "void.txt").write_text("\n")
    inputs = [
        "absent.jpg",
        str(empty),
        str(tree / "b.jpg"),
        "no*thing.png",
        "x" * 5000 + ".jpg",
        str(tmp_path / "void.txt"),
    ]
    items = list(iterate_inputs(inputs))
    said = [i.fault for i in items]
    assert [bool(f) for f in said] == [True, True, False, True, True, True]
    assert "found none" in said[1] and "--recursive" in said[1]
    assert "pattern" in said[3] and "empty" in said[5]
    assert [i.position for i in items] == list(range(6))


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)  # tests may run as root, whom no permission stops
    (item,) = iterate_inputs([str(tmp_path)])
    assert "Permission denied" in item.fault


def test_shares_split_the_input_and_agree_on_names(tree: Path) -> None:
    whole = {i.position: i.stem for i in iterate_inputs([str(tree)], recursive=True)}
    parts: dict[int, str] = {}
    for rank in range(3):
        share = list(iterate_inputs([str(tree)], recursive=True, wanted=lambda p, key, rank=rank: p % 3 == rank))
        assert not parts.keys() & {i.position for i in share}
        parts |= {i.position: i.stem for i in share}
    assert parts == whole


def test_counting_agrees_with_walking(tree: Path) -> None:
    for inputs, recursive in (([str(tree)], False), ([str(tree)], True), (["absent.jpg", str(tree / "b.jpg")], False)):
        assert survey_inputs(inputs, recursive).total == len(list(iterate_inputs(inputs, recursive=recursive)))
    assert survey_inputs(["-"], stdin=b"a.jpg\nb.jpg\n").total == 2
    assert survey_inputs(["a.mp4"]).total is None


def test_single_image(tree: Path) -> None:
    assert is_single_image([str(tree / "b.jpg")])
    assert not is_single_image([str(tree)])
    assert not is_single_image([str(tree / "b.jpg")] * 2)
    assert not is_single_image(["-"])
    assert not is_single_image(["absent.jpg"])


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """10 frames of 64x48; frame n is a plain gray of brightness 20 n."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for n in range(10):
        writer.write(np.full((48, 64, 3), 20 * n, dtype=np.uint8))
    writer.release()
    return path


def test_every_nth_frame_of_a_video(video: Path) -> None:
    items = list(iterate_inputs([str(video)], every=3))
    assert [i.frame for i in items] == [0, 3, 6, 9]
    assert [i.stem for i in items] == [f"clip_{n:06d}" for n in (0, 3, 6, 9)]
    assert [i.key for i in items] == [f"{video}#{n}" for n in (0, 3, 6, 9)]
    for item in items:
        assert item.pixels is not None and item.pixels.size == (64, 48) and item.frame is not None
        assert abs(float(np.asarray(item.pixels).mean()) - 20 * item.frame) < 4


def test_frames_done_before_are_not_unpacked(video: Path) -> None:
    items = list(iterate_inputs([str(video)], every=2, wanted=lambda p, key: not key.endswith(("#0", "#2"))))
    assert [(i.position, i.frame) for i in items] == [(2, 4), (3, 6), (4, 8)]


def test_a_video_is_red_where_it_is_red(tmp_path: Path) -> None:
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 255), dtype=np.uint8))  # OpenCV writes BGR
    writer.release()
    (item,) = iterate_inputs([str(path)])
    assert item.pixels is not None
    red, green, blue = np.asarray(item.pixels).reshape(-1, 3).mean(0)
    assert red > 200 > 60 > max(green, blue)


def test_a_video_that_is_none_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    items = list(iterate_inputs([str(tmp_path / "broken.mp4"), str(tmp_path / "absent.mp4")]))
    assert ["OpenCV" in i.fault or "no such file" in i.fault for i in items] == [True, True]


class _Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def test_standard_input_is_a_list_or_one_image(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Stdin(f"{tree}/b.jpg\nabsent.jpg\n".encode()))
    items = list(iterate_inputs(["-"]))
    assert [bool(i.fault) for i in items] == [False, True]
    for form in ("PNG", "JPEG", "GIF", "WEBP"):
        data = io.BytesIO()
        Image.new("RGB", (9, 7), "red").save(data, form)
        monkeypatch.setattr(sys, "stdin", _Stdin(data.getvalue()))
        (item,) = iterate_inputs(["-"])
        assert isinstance(item.source, io.BytesIO)
        with Image.open(item.source) as image:
            assert image.size == (9, 7)
    monkeypatch.setattr(sys, "stdin", _Stdin(b""))
    (item,) = iterate_inputs(["-"])
    assert "got nothing" in item.fault


def test_names_that_are_no_utf8_can_be_written_down(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(raw, "wb") as file:
        file.write(b"x")
    (item,) = iterate_inputs([str(tmp_path)])
    item.name.encode("utf-8")
    item.stem.encode("utf-8")
    assert isinstance(item.source, Path) and item.source.exists()


@pytest.mark.parametrize("every", [0, -1])
def test_every_wants_a_positive_number(every: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        list(iterate_inputs(["a.jpg"], every=every))
    with pytest.raises(ValueError, match="no input"):
        list(iterate_inputs([]))


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are Unicode here")
def test_names_that_are_no_utf_8_stay_apart_and_can_be_written(tmp_path: Path) -> None:
    """Two names that differ in such bytes alone are two rows, so that --resume never takes one for the other."""
    for byte in (b"\xff", b"\xfe"):
        with open(os.fsencode(tmp_path) + b"/a" + byte + b".jpg", "wb") as file:
            file.write(b"x")
    items = list(iterate_inputs([str(tmp_path)]))
    assert len({item.key for item in items}) == len({item.stem for item in items}) == 2
    for item in items:
        assert isinstance(item.source, Path) and item.source.read_bytes() == b"x"
        (item.key + item.stem).encode("utf-8")


def stems(*files: str, root: Path) -> list[str]:
    touch(root, *files)
    return [i.stem for i in iterate_inputs([str(root)], recursive=True)]


def test_an_output_name_is_150_bytes_at_most_and_the_cut_ones_differ(tmp_path: Path) -> None:
    """133 bytes of the name, a dash, and a 64-bit checksum of all of it as 16 digits: 150, where file systems allow 255."""
    whole, longer = "x" * 150, "x" * 150 + "y"
    found = stems(f"{whole}.jpg", f"{longer}.jpg", root=tmp_path)
    assert found == [whole, "x" * 133 + f"-{hash_of(longer):016x}"] and [len(s) for s in found] == [150, 150]
    assert hash_of("a") == int.from_bytes(hashlib.blake2b(b"a", digest_size=8).digest(), "big") < 2**64


def test_a_folder_that_is_called_as_a_file_is_no_folder_of_answers(tmp_path: Path) -> None:
    """`x.json/` would stand where the answer for `x.jpg` is written, at any depth; a file's own name stays."""
    assert stems("x.json/y.CSV/b.png.jpg", "x.jpg", "plain.d/a.jpg", root=tmp_path) == [
        "x",
        "plain.d/a",
        "x.json_/y.CSV_/b.png",
    ]


def test_a_name_that_is_taken_is_counted_on_from_two(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.jpg", "two/A.jpg", "a.jpg", "a.boxes.jpg")
    inputs = [str(tmp_path / n) for n in ("a.jpg", "one/a.jpg", "two/A.jpg", "a.boxes.jpg")]
    # `a.boxes` would be called as the boxes beside `a` are.
    assert [i.stem for i in iterate_inputs(inputs)] == ["a", "a-2", "A-3", "a.boxes-2"]


def test_a_line_of_a_list_is_taken_from_the_working_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "here/b.jpg", "lists/b.jpg", "lists/only.jpg")
    (tmp_path / "lists/all.txt").write_text("b.jpg\nonly.jpg\n")
    monkeypatch.chdir(tmp_path / "here")
    found = [i.source for i in iterate_inputs([str(tmp_path / "lists/all.txt")])]
    assert found == [Path("b.jpg"), tmp_path / "lists/only.jpg"]


def test_a_survey_knows_the_files_of_a_run_whether_they_are_there_or_not(tree: Path) -> None:
    touch(tree, "a.boxes.json", "weights.pt")
    inputs = [str(tree / n) for n in ("a.PNG", "b.jpg", "absent.jpg", "nul\0.jpg")]
    survey = survey_inputs(inputs, others=[tree / "weights.pt", None, Path()])
    assert survey.total == 4
    assert [survey.reads(tree / n) for n in ("a.PNG", "A.png", "absent.jpg", "a.boxes.json", "weights.pt")] == [
        True
    ] * 5
    assert not survey.reads(tree / "b.boxes.json")  # there are none beside b.jpg
    assert not survey.reads(tree / "x.heic")


def test_of_the_output_folder_what_cocoer_drew_is_no_input(tmp_path: Path) -> None:
    """Searched itself, it is its answers that are passed over; elsewhere an image that was once drawn is an image."""
    for folder in ("out", "in"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "drawn.png", pnginfo=note_of("a.jpg"))
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "photo.png")
    found = iterate_inputs([str(tmp_path / "out"), str(tmp_path / "in")], leave_out=tmp_path / "out")
    assert names(found, tmp_path) == ["out/photo.png", "in/drawn.png", "in/photo.png"]


def test_a_fault_says_in_few_words_what_is_wrong(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [i.fault for i in iterate_inputs(["absent.jpg"])] == ["absent.jpg: no such file; check the path"]
    (empty := tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("a.jpg\n")
    monkeypatch.chdir(empty)
    assert [i.stem for i in iterate_inputs([str(empty), "."])] == ["empty", "folder"]

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr("cocoer.data.inputs.open", refuse, raising=False)
    for path in (tmp_path, tmp_path / "list.txt"):
        assert [i.fault for i in iterate_inputs([str(path)])] == [f"{path}: cannot be read: Permission denied"]


def test_standard_input_has_a_limit_and_is_read_to_one_byte_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert inputs_module.MOST_STDIN == 268_435_456  # 256 MB: a list of millions of paths, or any image
    monkeypatch.setattr(inputs_module, "MOST_STDIN", 1 << 20)
    monkeypatch.setattr(sys, "stdin", _Stdin(b"x" * (1 << 21)))
    data = read_stdin()
    assert len(data) == (1 << 20) + 1
    (item,) = iterate_inputs(["-"], stdin=data)
    assert item.fault == "standard input: wanted at most 1 MB, got more; give a file or a folder"
    (item,) = iterate_inputs(["-"], stdin=b"\0" * (1 << 20))
    assert item.fault.endswith("got 1,048,576 bytes that are neither")
    monkeypatch.setattr(sys, "stdin", None)
    assert read_stdin() == b""


def test_a_video_gives_all_its_frames_unless_told_otherwise(video: Path) -> None:
    assert [i.frame for i in iterate_inputs([str(video)])] == list(range(10))
    assert not is_single_image([str(video)])
