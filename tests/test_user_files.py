"""Nothing of the user's is lost: no answer takes the place of an input, of a foreign file, or of another image's answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from programs import files_below, load_program
from tiny_recognizer import ROOT, tiny_checkpoint

from cocoer.data.inputs import iterate_inputs, survey_inputs
from cocoer.errors import OutputError
from cocoer.files import hold_folder
from cocoer.inference.recognizer import Recognizer
from cocoer.own_files import is_own, is_own_image
from cocoer.report.results import check_same_weights, start_over

BOXES = {"persons": [{"body": [10, 5, 60, 90], "head": [25, 8, 45, 30]}]}
Run = Callable[..., int]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def run(checkpoint: Path) -> Run:
    def call(*args: object) -> int:
        fixed = ["--checkpoint", checkpoint, "--device", "cpu"]
        return int(load_program("predict").main([str(a) for a in (*args, *fixed)]))

    return call


def image(path: Path, seed: int = 0) -> Path:
    """An image with boxes beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (96, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.with_name(path.stem + ".boxes.json").write_text(json.dumps(BOXES))
    return path


def kept(before: dict[str, bytes], folder: Path) -> bool:
    after = files_below(folder)
    return all(after.get(name) == data for name, data in before.items())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_bytes().split(b"\n")[:-1]]


@pytest.mark.parametrize("how", ["same", "dots", "link"])
def test_an_output_folder_that_is_the_input_folder_loses_nothing(run: Run, tmp_path: Path, how: str) -> None:
    """`--input d --output d`: photo.jpg would be drawn onto photo.png, which is an input too. Twice, and with panels."""
    d = tmp_path / "d"
    image(d / "photo.jpg")
    image(d / "photo.png", 1)
    image(d / "PHOTO.PNG", 2)
    before = files_below(d)
    out = {"same": d, "dots": d / ".." / "d", "link": tmp_path / "link"}[how]
    if how == "link":
        out.symlink_to(d)
    for _ in range(2):
        assert run("--input", d, "--output", out, "--figure") == 0
        assert kept(before, d)
        assert len(rows(d)) == 3  # what was drawn the first time is no input the second time
    drawn = [name for name in files_below(d) if name.endswith(".png") and name not in before and "figure" not in name]
    assert len(drawn) == 3 and all(is_own_image(d / name) for name in drawn)


@pytest.mark.parametrize("make", ["symlink", "hardlink", "nfd", "case", "symlink in the output"])
def test_an_input_by_another_name_is_an_input_too(run: Run, tmp_path: Path, make: str) -> None:
    out, photo = tmp_path / "out", image(tmp_path / "in" / "photo.jpg")
    out.mkdir()
    name = {"nfd": unicodedata.normalize("NFD", "é.png"), "case": "PHOTO.PNG"}.get(make, "photo.png")
    if make in ("nfd", "case"):
        precious = image(out / name, 1)
        inputs = [image(tmp_path / "in" / "é.jpg") if make == "nfd" else photo, precious]
    elif make == "symlink in the output":
        precious = image(tmp_path / "in" / "other.png", 1)
        (out / name).symlink_to(precious)
        inputs = [photo, precious]
    else:
        precious = image(out / name, 1)
        other = tmp_path / "in" / "alias.png"
        other.symlink_to(precious) if make == "symlink" else os.link(precious, other)
        inputs = [photo, other]
    before = files_below(tmp_path)
    assert run("--input", *inputs, "--output", out) == 0
    assert kept(before, tmp_path) and len(rows(out)) == 2


def test_an_input_is_protected_even_where_it_is_an_answer_of_ours(run: Run, tmp_path: Path) -> None:
    """The annotated image of an earlier run, handed in as an input beside the image that it was drawn for."""
    photo = image(tmp_path / "photo.jpg")
    assert run("--input", photo, "--output", tmp_path) == 0
    drawn = (tmp_path / "photo.png").read_bytes()
    for inputs in ([photo, tmp_path / "photo.png"], [tmp_path / "photo.png", photo]):
        assert run("--input", *inputs, "--output", tmp_path) == 0
        assert (tmp_path / "photo.png").read_bytes() == drawn


def test_a_list_names_inputs_before_any_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    """On standard input too: the last line's file must survive the first line's answer."""
    photo = image(tmp_path / "photo.jpg")
    assert run("--input", photo, "--output", tmp_path) == 0
    before = files_below(tmp_path)
    lines = f"{photo}\n{tmp_path / 'photo.png'}\n"
    (tmp_path / "list.txt").write_text(lines)
    assert run("--input", tmp_path / "list.txt", "--output", tmp_path) == 0
    assert files_below(tmp_path)["photo.png"] == before["photo.png"]
    command = [sys.executable, "-m", "cocoer", "predict", "--input", "-", "--output", str(tmp_path)]
    command += ["--checkpoint", str(checkpoint), "--device", "cpu"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert files_below(tmp_path)["photo.png"] == before["photo.png"]
    assert "photo.cocoer.png (the usual name is taken" in done.stdout


def test_boxes_config_and_foreign_files_in_the_output_folder_stay(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    photo = image(tmp_path / "in" / "photo.jpg")
    out.mkdir()
    (out / "photo.json").write_text(json.dumps(BOXES))  # boxes, as --boxes names them
    (out / "photo.png").write_bytes(b"somebody's")
    (out / "photo.figure0.png").mkdir()
    (out / "config.yaml").write_text("their: config\n")
    before = files_below(out)
    assert run("--input", photo, "--boxes", out / "photo.json", "--output", out, "--figure") == 0
    assert kept(before, out) and (out / "photo.figure0.png").is_dir()
    new = set(files_below(out)) - set(before)
    assert new == {
        "photo.cocoer.json",
        "photo.cocoer.png",
        "photo.cocoer.figure0.png",
        "photo.cocoer.figure0.pdf",
        "config.cocoer.yaml",
    }
    assert run("--input", photo, "--config", out / "config.cocoer.yaml", "--output", out) == 0
    assert set(files_below(out)) - set(before) - new == {"config.cocoer2.yaml"}  # that one was read


@pytest.mark.parametrize("name", ["results.jsonl", "results.csv"])
def test_a_table_that_is_not_ours_stops_the_run_before_anything_is_written(
    run: Run, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [image(tmp_path / "in" / f"{n}.jpg") for n in "ab"]
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("date,amount\n2026-01-01,5\n")
    before = files_below(out)
    assert run("--input", *photos, "--output", out) == 2
    assert files_below(out) == before and f"{name}: is not a file that cocoer wrote" in capsys.readouterr().err


def test_a_start_that_fails_leaves_the_rows_of_the_run_before(run: Run, tmp_path: Path) -> None:
    photos = [image(tmp_path / "in" / f"{n}.jpg") for n in "ab"]
    assert run("--input", *photos, "--output", tmp_path / "out") == 0
    before = files_below(tmp_path / "out")
    program = load_program("predict")
    words = [
        "--input",
        str(photos[0]),
        str(photos[1]),
        "--output",
        str(tmp_path / "out"),
        "--checkpoint",
        "absent.safetensors",
    ]
    assert program.main(words) == 2
    assert files_below(tmp_path / "out") == before


def test_every_file_of_a_run_has_one_owner(run: Run, tmp_path: Path) -> None:
    """`a.jpg` with panels writes a.figure0.png; so would `a.figure0.jpg`, and others of the kind."""
    d = tmp_path / "d"
    names = [
        "a.jpg",
        "a.figure0.jpg",
        "a.FIGURE0.png",
        "a.boxes.png",
        "a.cocoer.jpg",
        "A.bmp",
        "a..png",
        "x.json/b.jpg",
        "x.jpg",
    ]
    for seed, name in enumerate(names):
        image(d / name, seed)
    out = tmp_path / "out"
    assert run("--input", d, "--recursive", "--figure", "--output", out) == 0
    found = rows(out)
    assert sorted(Path(r["image"]).relative_to(d).as_posix() for r in found) == sorted(names)
    answers = list(out.rglob("*.json"))
    assert sorted(json.loads(p.read_text())["image"] for p in answers) == sorted(r["image"] for r in found)
    for answer in answers:
        key = json.loads(answer.read_text())["image"]
        for ending in (".png", ".figure0.png", ".figure0.pdf"):
            assert is_own(answer.with_name(answer.name.removesuffix(".json") + ending), key)
    assert not list(out.rglob("*.boxes.json"))  # nobody would take an answer for boxes


def test_frames_and_images_that_are_named_like_frames(tmp_path: Path) -> None:
    import cv2

    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for level in range(3):
        video.write(np.full((48, 64, 3), 50 * level, np.uint8))
    video.release()
    for name in ("v_000001.jpg", "V_000002.png"):
        image(tmp_path / name)
    for inputs in (["v.avi", "v_000001.jpg", "V_000002.png"], ["v_000001.jpg", "V_000002.png", "v.avi"]):
        stems = [item.stem.casefold() for item in iterate_inputs([str(tmp_path / n) for n in inputs])]
        assert len(set(stems)) == len(stems) == 5


def test_a_resumed_run_never_replaces_the_answer_of_another_image(run: Run, tmp_path: Path) -> None:
    """An image that is new and comes first would take the name that its namesake had."""
    first, second = image(tmp_path / "x" / "a.jpg"), image(tmp_path / "w" / "a.jpg", 1)
    third = image(tmp_path / "y" / "b.jpg", 2)
    out = tmp_path / "out"
    assert run("--input", first, third, "--output", out) == 0
    before = {name: data for name, data in files_below(out).items() if name.startswith("a.")}
    assert run("--input", second, first, third, "--output", out, "--resume") == 0
    assert kept(before, out) and len(rows(out)) == 3
    told = {json.loads(p.read_text())["image"] for p in out.glob("*.json")}
    assert told == {str(first), str(second), str(third)}


def test_a_second_run_in_a_folder_is_refused_and_says_who_is_there(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = image(tmp_path / "a.jpg"), tmp_path / "out"
    with hold_folder(out):
        assert run("--input", photo, "--output", out) == 1
    assert f"process {os.getpid()} on" in capsys.readouterr().err
    assert not out.exists()  # the first one made it and left nothing in it
    assert run("--input", photo, "--output", out) == 0
    assert not list(out.glob(".*"))


BAD_BOXES = {
    "huge number": '{"persons": [{"body": [10, 5, %s, 90]}]}' % ("9" * 5000),
    "huge id": '{"persons": [{"body": [10, 5, 60, 90], "id": %s}]}' % ("9" * 4200),
    "half a letter": r'{"persons": [{"body": [10, 5, 60, 90], "id": "\ud800"}]}',
    "half a letter as a key": r'{"\ud800": [{"body": [10, 5, 60, 90]}]}',
    "deep": "[" * 100_000,
    "infinite": '{"persons": [{"body": [10, 5, 1e999, 90]}]}',
    "no number": '{"persons": [{"body": [10, 5, NaN, 90]}]}',
    "words": '{"persons": "all of them"}',
    "no JSON": "\x00\xff",
    "empty": "",
}


def test_a_bad_boxes_file_is_one_row_whatever_is_wrong_with_it(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    d = tmp_path / "d"
    for number, text in enumerate(BAD_BOXES.values()):
        image(d / f"{number:02d}.jpg").with_name(f"{number:02d}.boxes.json").write_text(text)
    image(d / "good.jpg")
    for resume in ([], ["--resume"]):
        assert run("--input", d, "--output", tmp_path / "out", *resume) == (0 if resume else 1)
        found = rows(tmp_path / "out")
        assert len(found) == len(BAD_BOXES) + 1
        assert found[-1]["status"] == "ok" and found[-1]["persons"][0]["status"] in ("ok", "no_face_estimated")
        for row, what in zip(found, BAD_BOXES, strict=False):
            faults = [row["status"], *(p["status"] for p in row["persons"])]
            assert "error" in faults or what == "huge id", (what, row)
    assert "Traceback" not in capsys.readouterr().err


def test_a_fault_that_nobody_foresaw_is_one_row_named_and_traced_on_request(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    d = tmp_path / "d"
    for name in "abc":
        image(d / f"{name}.jpg", ord(name))
    prepare, score = Recognizer.prepare, Recognizer.score
    marked = np.asarray(Image.open(d / "c.jpg"))[0, 0].tolist()

    def poisoned(self: Recognizer, picture: Image.Image, persons: Any = None) -> Any:
        if list(picture.getpixel((0, 0))) == marked:  # type: ignore[arg-type]
            raise ZeroDivisionError("library fault\nwith two lines")
        return prepare(self, picture, persons)

    def failing(self: Recognizer, crops: Any) -> Any:
        if len(crops) > 1:
            raise RuntimeError("CUDA out of memory")
        return score(self, crops)

    monkeypatch.setattr(Recognizer, "prepare", poisoned)
    monkeypatch.setattr(Recognizer, "score", failing)
    assert run("--input", d, "--output", tmp_path / "out", "--debug") == 1
    found = rows(tmp_path / "out")
    assert [r["status"] for r in found] == ["ok", "ok", "error"]
    assert "ZeroDivisionError: library fault with two lines" in found[2]["message"]
    said = capsys.readouterr().err
    assert "Traceback" in said and "CUDA out of memory" in said
    assert run("--input", d, "--output", tmp_path / "out2") == 1
    assert "Traceback" not in capsys.readouterr().err


def test_an_answer_that_cannot_be_drawn_is_a_row(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cocoer.report import results

    d = tmp_path / "d"
    for name in "ab":
        image(d / f"{name}.jpg")
    draw = results.draw_result

    def broken(picture: Any, result: Any) -> Any:
        if result.image.endswith("a.jpg"):
            raise KeyError("font")
        return draw(picture, result)

    monkeypatch.setattr(results, "draw_result", broken)
    assert run("--input", d, "--output", tmp_path / "out") == 1
    assert [r["status"] for r in rows(tmp_path / "out")] == ["error", "ok"]


def test_names_with_every_kind_of_line_break_survive_the_way_to_the_table(run: Run, tmp_path: Path) -> None:
    d = tmp_path / "d"
    names = ["a\u2028b.jpg", "a\x85b.jpg", "a\nb.jpg", "a\x1b[31mb.jpg", " a .jpg"]
    for name in names:
        image(d / name)
    assert run("--input", d, "--output", tmp_path / "out") == 0
    assert sorted(Path(r["image"]).name for r in rows(tmp_path / "out")) == sorted(names)
    assert run("--input", d, "--output", tmp_path / "out", "--resume") == 0
    assert len(rows(tmp_path / "out")) == len(names)


@pytest.mark.parametrize("form", ["PPM", "BMP", "TIFF", "PNG", "JPEG"])
def test_the_bytes_of_any_image_on_standard_input_are_an_image(form: str, tmp_path: Path) -> None:
    Image.new("L" if form == "PPM" else "RGB", (40, 30), 80).save(tmp_path / "x", form)
    data = (tmp_path / "x").read_bytes()
    (item,) = iterate_inputs(["-"], stdin=data)
    assert not item.fault and item.name == "stdin"
    (item,) = iterate_inputs(["-"], stdin=data[: len(data) // 2])
    assert item.name == "stdin"  # damaged, which the decoder says; never a list of names
    assert survey_inputs(["-"], stdin=data).total == 1


def test_bytes_that_are_neither_image_nor_list_are_one_fault() -> None:
    (item,) = iterate_inputs(["-"], stdin=os.urandom(3000) + b"\0\n\n")
    assert "neither" in item.fault and len(item.fault) < 200


def test_a_name_with_blanks_at_its_ends_is_found_through_a_list(tmp_path: Path) -> None:
    (tmp_path / " a.jpg ").write_bytes(b"")
    (tmp_path / "plain.jpg").write_bytes(b"")
    lines = f"{tmp_path}/ a.jpg \r\n  {tmp_path}/plain.jpg  \n".encode()
    assert [item.fault for item in iterate_inputs(["-"], stdin=lines)] == ["", ""]


GOOD_ROW = {"image": "a.jpg", "frame": None, "width": 9, "height": 9, "status": "ok", "message": "", "persons": []}
BAD_ROWS = {
    "no object": "[]",
    "a number": "5",
    "without an image": '{"persons": []}',
    "an image that is a number": '{"image": 5, "persons": []}',
    "not a number": '{"image": NaN, "persons": []}',
    "without persons": '{"image": "a.jpg"}',
    "persons that are none": '{"image": "a.jpg", "persons": [5]}',
    "a person without sources": '{"image": "a.jpg", "persons": [{"boxes": null}]}',
    "weights that are a list": '{"image": "a.jpg", "persons": [], "model": []}',
    "deep": "[" * 100_000,
    "many digits": '{"image": "a.jpg", "persons": [], "frame": ' + "9" * 5_000 + "}",
    "no text": "\0",
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_damaged_row_is_named_before_a_resumed_run_goes_on(kind: str, tmp_path: Path) -> None:
    rows = tmp_path / "results.jsonl"
    rows.write_text(json.dumps(GOOD_ROW) + "\n" + BAD_ROWS[kind] + "\n" + json.dumps(GOOD_ROW) + "\n")
    before = rows.read_bytes()
    with pytest.raises(OutputError, match=r"results\.jsonl: line 2 is not a row"):
        start_over(tmp_path, resume=True)
    assert rows.read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("resume", [False, True])
def test_what_stands_in_the_place_of_the_rows_and_is_no_file_stays(resume: bool, tmp_path: Path) -> None:
    makers: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "device": lambda place: place.symlink_to("/dev/zero"),
        "nothing": lambda place: place.symlink_to("nowhere"),
    }
    for name, make in makers.items():
        place = tmp_path / name / "results.jsonl"
        place.parent.mkdir()
        make(place)
        check_same_weights(place.parent, "0" * 64)
        with pytest.raises(ValueError, match=r"is not a file that cocoer wrote, and it stays"):
            start_over(place.parent, resume)
        assert os.path.lexists(place)
