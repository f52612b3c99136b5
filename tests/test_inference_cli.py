"""`inference.py` from its command line: files written, bytes repeated, exit codes, resume, shares, full disks."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from programs import files_below, load_program
from skimage import data as sample_data
from tiny_recognizer import ROOT, lamp_image, tiny_checkpoint

from cocoer.errors import OutputError
from cocoer.outputs import ImageResult
from cocoer.report import results
from cocoer.report.results import ResultFolder, RowsFile, consolidate, read_rows, start_over

BOXES = {"persons": [{"body": [10, 5, 60, 90], "head": [25, 8, 45, 30]}, {"body": [50, 0, 118, 88], "id": 7}]}
Run = Callable[..., int]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return load_program("predict")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def run(program: ModuleType, checkpoint: Path, tmp_path: Path) -> Run:
    """inference.py with the tiny weights, writing to tmp_path/out."""

    def call(*args: object, out: str = "out") -> int:
        fixed = ["--checkpoint", checkpoint, "--device", "cpu", "--output", tmp_path / out]
        return int(program.main([str(a) for a in (*args, *fixed)]))

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images: two with boxes beside them, one with lamps for the detectors, one with nobody in it."""
    place = tmp_path / "in"
    place.mkdir()
    for i, name in enumerate(("a.jpg", "b.png")):
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 256, (96, 120, 3), dtype=np.uint8)).save(place / name)
        (place / f"{name[0]}.boxes.json").write_text(json.dumps(BOXES))
    Image.fromarray(lamp_image(128, 128, [(4, 6, 0), (6, 6, 1)])).save(place / "c.png")
    Image.fromarray(lamp_image(128, 128, [])).save(place / "d.png")
    return place


def whole_image(path: Path) -> tuple[int, int]:
    """Size of an image that can be read to its end."""
    with Image.open(path) as image:
        image.load()
        return image.size


def test_one_image_gives_a_png_and_a_json(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--input", folder / "a.jpg") == 0
    assert set(files_below(tmp_path / "out")) == {"a.json", "a.png", "config.yaml"}
    tree = json.loads((tmp_path / "out" / "a.json").read_text())
    assert (tree["width"], tree["height"], tree["status"], len(tree["persons"])) == (120, 96, "ok", 2)
    person = tree["persons"][0]
    assert {"pred", "VI", "head", "body", "ctx", "emo_process"} <= person.keys()
    assert tree["persons"][1]["track"] == 7 and tree["persons"][1]["status"] == "no_face_estimated"
    assert tree["model"]["weights"] == "tiny.safetensors" and len(tree["model"]["sha256"]) == 64
    assert whole_image(tmp_path / "out" / "a.png") >= (120, 96)
    said = capsys.readouterr()
    assert "person 0" in said.out and "chosen" not in said.err and "cpu" in said.err


def test_a_folder_gives_rows_and_a_table_and_the_same_bytes_twice(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run("--input", folder, "--figure") == 0
    first = files_below(tmp_path / "out")
    assert {f"{n}.{e}" for n in "abcd" for e in ("json", "png")} <= first.keys()
    assert {
        "results.jsonl",
        "results.csv",
        "config.yaml",
        "a.figure0.png",
        "a.figure1.png",
        "c.figure0.png",
        "c.figure0.pdf",
    } <= first.keys()
    assert run("--input", folder, "--figure", out="again") == 0
    assert files_below(tmp_path / "again") == first
    rows = [json.loads(line) for line in first["results.jsonl"].splitlines()]
    assert [len(r["persons"]) for r in rows] == [2, 2, 1, 0]
    assert rows[2]["model"]["detector"]["provider"] == "CPUExecutionProvider" and "detector" not in rows[0]["model"]
    assert rows[3]["status"] == "ok" and json.loads(first["d.json"])["persons"] == []
    table = list(csv.DictReader(first["results.csv"].decode().splitlines()))
    assert [r["image"][-5:] for r in table] == ["a.jpg", "a.jpg", "b.png", "b.png", "c.png", "d.png"]
    assert table[1]["track"] == "7" and table[5]["person"] == ""
    assert float(table[0]["p_Peace"]) == rows[0]["persons"][0]["probabilities"]["pred"]["Peace"]
    assert table[0]["pred"].split("|") == rows[0]["persons"][0]["pred"] or table[0]["pred"] == ""


def test_boxes_file_and_formats(run: Run, folder: Path, tmp_path: Path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"c.png": {"persons": [{"body": [1, 1, 90, 90]}]}, "d.png": []}))
    assert run("--input", folder / "c.png", folder / "d.png", "--boxes", boxes, "--format", "json,csv") == 0
    assert set(files_below(tmp_path / "out")) == {"c.json", "d.json", "config.yaml", "results.jsonl", "results.csv"}
    assert len(json.loads((tmp_path / "out" / "c.json").read_text())["persons"]) == 1
    assert run("--input", folder / "a.jpg", "--format", "csv", out="table") == 0
    assert set(files_below(tmp_path / "table")) == {"config.yaml", "results.jsonl", "results.csv"}


def test_failed_inputs_are_named_and_the_others_are_written(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "b.boxes.json").write_text(json.dumps({"persons": [*BOXES["persons"], {"body": [900, 900, 990, 990]}]}))
    assert run("--input", folder, folder / "absent.png") == 1
    said = capsys.readouterr().err
    for name in ("broken.jpg", "absent.png", "person 2: body"):
        assert name in said
    assert "Traceback" not in said and "6 images" in said and "3 with errors" in said
    rows = {Path(r["image"]).name: r for _, r in read_rows(tmp_path / "out" / "results.jsonl")}
    assert [rows[n]["status"] for n in ("a.jpg", "broken.jpg", "absent.png", "b.png")] == ["ok", "error", "error", "ok"]
    assert [p["status"] for p in rows["b.png"]["persons"]] == ["ok", "no_face_estimated", "error"]
    assert json.loads((tmp_path / "out" / "broken.json").read_text())["status"] == "error"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--input", "x.jpg", "--checkpoint", "absent.safetensors"], "no such file"),
        (["--input", "x.jpg", "--config", "absent.yaml"], "no such file"),
        (["--input", "x.jpg", "--set", "inference.batchsize=1"], "did you mean"),
        (["--input", "x.jpg", "--boxes", "absent.json"], "no such file"),
        (["--input", "x.jpg", "--device", "turbo"], "turbo"),
    ],
)
def test_wrong_use_is_one_line_and_code_2(
    program: ModuleType,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    said: str,
) -> None:
    fixed = [] if "--checkpoint" in args else ["--checkpoint", str(checkpoint)]
    assert program.main([*args, *fixed, "--output", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("cocoer predict: error:") and said in lines[0]


def test_weights_of_another_model_are_refused_in_a_few_lines(
    program: ModuleType, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--input", "x.jpg", "--config", ROOT / "configs" / "demo_emotic.yaml", "--checkpoint", checkpoint]
    assert program.main([str(a) for a in (*args, "--output", tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) <= 8 and "does not fit" in lines[0] and lines[-1].strip().startswith("... and")


@pytest.mark.parametrize(
    "args", [[], ["--input"], ["--input", "a", "--format", "gif"], ["--input", "a", "--every", "0"]]
)
def test_usage_errors_leave_with_code_2(program: ModuleType, args: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        program.main(args)
    assert left.value.code == 2


def test_resume_does_what_is_left_and_ends_with_the_same_rows(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--input", folder) == 0
    whole = files_below(tmp_path / "out")
    lines = whole["results.jsonl"].splitlines(keepends=True)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "results.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:50])  # torn in mid-line
    seen: list[str] = []
    add = ResultFolder.add
    monkeypatch.setattr(ResultFolder, "add", lambda self, r, *a: (seen.append(r.image), add(self, r, *a))[1])
    assert run("--input", folder, "--resume", out="part") == 0
    assert [Path(n).name for n in seen] == ["c.png", "d.png"]
    mine = files_below(tmp_path / "part")
    assert [json.loads(a)["image"] for a in mine["results.jsonl"].splitlines()] == [
        json.loads(a)["image"] for a in lines
    ]
    assert mine["results.csv"].count(b"\n") == whole["results.csv"].count(b"\n")
    seen.clear()
    assert run("--input", folder, "--resume", out="part") == 0
    assert seen == []
    assert run("--input", folder, out="part") == 0
    assert len(seen) == 4 and files_below(tmp_path / "part")["results.jsonl"] == whole["results.jsonl"]


def test_resume_wants_the_same_weights(
    run: Run, program: ModuleType, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    assert run("--input", folder / "a.jpg", folder / "b.png") == 0
    args = ["--input", folder, "--checkpoint", other, "--resume", "--output", tmp_path / "out"]
    assert program.main([str(a) for a in args]) == 2
    assert "other weights" in capsys.readouterr().err


def test_a_results_file_of_something_else_is_not_continued(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text("not a row\n")
    assert run("--input", folder, "--resume") == 1
    assert "line 1" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_said(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    assert run("--input", folder / "a.jpg") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_stops_with_a_message_and_keeps_whole_files(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, count = Path.write_bytes, 0

    def full(self: Path, content: bytes) -> int:
        nonlocal count
        count += self.suffix == ".png"
        if self.suffix == ".png" and count == 2:
            write(self, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run("--input", folder) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said and "kept" in said and "Traceback" not in said
    left = files_below(tmp_path / "out")
    assert not [n for n in left if "writing" in n]
    rows = [row for _, row in read_rows(tmp_path / "out" / "results.jsonl")]
    assert [Path(r["image"]).name for r in rows] == ["a.jpg"]
    assert whole_image(tmp_path / "out" / "a.png")
    monkeypatch.undo()
    assert run("--input", folder, "--resume") == 0
    assert len(list(read_rows(tmp_path / "out" / "results.jsonl"))) == 4


def test_a_row_that_does_not_fit_is_taken_back(tmp_path: Path) -> None:
    rows = RowsFile(tmp_path / "results.jsonl")
    rows.add(ImageResult("a", 1, 1, ()), 0)

    class Full:
        """A file on a disk with room for half a line."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def tell(self) -> int:
            return int(self.file.tell())

        def write(self, line: bytes) -> None:
            self.file.write(line[:9])
            self.file.flush()
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            self.file.close()

    rows._file = Full(rows._file)  # type: ignore[assignment]
    with pytest.raises(OutputError, match="No space"):
        rows.add(ImageResult("b", 1, 1, ()), 1)
    rows.close()
    assert [row["image"] for _, row in read_rows(tmp_path / "results.jsonl")] == ["a"]


def test_shares_of_several_processes_become_one_file_in_order(tmp_path: Path) -> None:
    for rank in range(3):
        share = ResultFolder(tmp_path, ["csv"], share=(rank, 3))
        for position in range(rank, 10, 3):
            share.add(ImageResult(f"p{position}", 1, 1, ()), f"p{position}", position, None)
        share.close()
    ResultFolder(tmp_path, ["csv"], share=(0, 3)).close()
    consolidate(tmp_path)
    assert [row["image"] for _, row in read_rows(tmp_path / "results.jsonl")] == [f"p{i}" for i in range(10)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.jsonl"]
    assert start_over(tmp_path, resume=True) == {f"p{i}" for i in range(10)}
    assert start_over(tmp_path, resume=False) == set() and not list(tmp_path.iterdir())


def test_two_processes_share_the_work_and_write_each_row_once(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    def start(rank: int, port: int) -> subprocess.Popen[str]:
        env = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
        args = [
            "--input",
            folder,
            "--checkpoint",
            checkpoint,
            "--device",
            "cpu",
            "--output",
            tmp_path / "out",
            "--quiet",
        ]
        return subprocess.Popen([sys.executable, ROOT / "inference.py", *map(str, args)], env=env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip

    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [start(rank, port) for rank in range(2)]
    ended = [p.communicate(timeout=280) for p in both]
    assert [p.returncode for p in both] == [0, 0], ended
    rows = [row for _, row in read_rows(tmp_path / "out" / "results.jsonl")]
    assert [Path(r["image"]).name for r in rows] == ["a.jpg", "b.png", "c.png", "d.png"]
    assert (tmp_path / "out" / "results.csv").exists() and not list((tmp_path / "out").glob("*.part*"))


def test_a_video_gives_a_row_per_frame_and_person(run: Run, tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 128))
    for n in range(4):
        writer.write(lamp_image(128, 128, [(4, 4 + n, 0), (6, 4 + n, 1)])[..., ::-1].copy())
    writer.release()
    assert run("--input", path, "--every", "2") == 0
    rows = [row for _, row in read_rows(tmp_path / "out" / "results.jsonl")]
    assert [(r["frame"], len(r["persons"])) for r in rows] == [(0, 1), (2, 1)]
    assert (tmp_path / "out" / "clip_000002.png").exists()


def test_real_photographs_with_given_boxes(run: Run, tmp_path: Path) -> None:
    from importlib.resources import files

    place = tmp_path / "in"
    place.mkdir()
    Image.fromarray(sample_data.astronaut()).save(place / "astronaut.png")
    (place / "t1.jpg").write_bytes(files("insightface").joinpath("data/images/t1.jpg").read_bytes())
    heads = [(60, 270, 160, 390), (290, 130, 380, 270), (480, 250, 590, 400), (745, 320, 850, 450), (900, 30, 1030, 190),
             (1110, 250, 1220, 390)]  # fmt: skip
    boxes = {
        "astronaut.png": {"persons": [{"body": [20, 0, 430, 512], "head": [150, 20, 290, 210]}]},
        "t1.jpg": {"persons": [{"head": list(head), "id": f"friend {i}"} for i, head in enumerate(heads)]},
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    assert run("--input", place, "--boxes", tmp_path / "boxes.json") == 0
    rows = {Path(row["image"]).name: row for _, row in read_rows(tmp_path / "out" / "results.jsonl")}
    assert len(rows["astronaut.png"]["persons"]) == 1
    assert [p["track"] for p in rows["t1.jpg"]["persons"]] == [f"friend {i}" for i in range(6)]
    assert all(p["status"] == "ok" and p["boxes"]["body_source"] == "estimated" for p in rows["t1.jpg"]["persons"])
    assert whole_image(tmp_path / "out" / "t1.png") >= (1280, 886)


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys\n"
        "from cocoer.cli.main import main\n"
        "try: main(['predict', '--help'])\n"
        "except SystemExit as left: print(left.code, 'torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("0 False")


def test_every_row_is_valid_json_and_names_survive(tmp_path: Path) -> None:
    results.write_json(tmp_path / "ü" / "x.json", ImageResult("日本/é.jpg", 1, 2, ()).to_dict())
    assert json.loads((tmp_path / "ü" / "x.json").read_text("utf-8"))["image"] == "日本/é.jpg"
