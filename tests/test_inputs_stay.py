"""No command writes over what it reads, or over what it did not write: each through the whole command line."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from tiny_recognizer import lamp_image, tiny_checkpoint

from cocoer.cli.main import COMMANDS, main
from cocoer.cli.named_files import OUTPUT_OPTIONS, named_files
from cocoer.errors import OutputError, OverwritesInput
from cocoer.files import hold_folder, open_input, read_file, write_text
from cocoer.paths import keep_inputs
from cocoer.scale.dataset import settle
from cocoer.scale.places import place_of
from cocoer.weights.catalog import DEMO_CHECKPOINT

LABELS = ("Anger", "Happiness", "Sadness", "Fear")
RESULT = DEMO_CHECKPOINT.with_name("result.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights in `w`, images and index in `d`."""
    root = tmp_path_factory.mktemp("made")
    tiny_checkpoint(root / "w")
    (root / "d/index").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(lamp_image(64, 64, [(2, 2, 0), (number, 5, 2)])).save(root / f"d/{number}.png")
    for split in ("train", "val", "test"):
        lines = [
            {"image": f"{n}.png", "width": 64, "height": 64, "person": 0, "body": [0, 0, 60, 60], "head": [8, 8, 30, 30],
             "head_source": "annotated", "labels": [LABELS[n]], "vad": None, "split": split} for n in range(4)
        ]  # fmt: skip
        (root / f"d/index/{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "d/index/sidecar.json").write_text(json.dumps({"dataset": "emotic", "skipped": []}))
    return root


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working folder, with a photo and its boxes."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "img").mkdir()
    shutil.copy(tmp_path / "d/0.png", tmp_path / "img/a.png")
    (tmp_path / "img/a.boxes.json").write_text(
        json.dumps({"persons": [{"body": [0, 0, 60, 60], "head": [8, 8, 30, 30]}]})
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


WEIGHTS = "--checkpoint w/tiny.safetensors --device cpu"
OVER = {
    "calibrate": f"calibrate {WEIGHTS} --root d --index d/index --output w/tiny.safetensors",
    "calibrate by another name": f"calibrate {WEIGHTS} --root d --index d/index --output w/TINY.safetensors",
    "calibrate by a link": f"calibrate {WEIGHTS} --root d --index d/index --output link.safetensors",
    "calibrate a folder": "calibrate --checkpoint p --root d --index d/index --output p/model.safetensors",
    "pack": "weights pack w/tiny.safetensors --output=w/tiny.safetensors",
    "card over weights": "describe --card w/tiny.safetensors --outp w/tiny.safetensors",
    "card over a result": "describe --card w/tiny.safetensors --from result.json --output result.json",
    "persons over the index": f"evaluate {WEIGHTS} --root d --index d/index --output o --jsonl d/index/test.jsonl",
    "persons over an image": f"evaluate {WEIGHTS} --root d --index d/index --output o --jsonl d/0.png",
    "scores over scores": f"evaluate {WEIGHTS} --root d --index d/index --output o --against o/scores.npz",
    "sheet over an image": "data show d/index --root d --output d/0.png",
    "table over its rows": "prepare table d/train.jsonl --output d --heads estimate --dataset emotic",
    "an index over the table": "prepare table rows.csv --root d --output mine --heads estimate --dataset emotic",
    "convert": "data convert rows.csv --format tandon-csv --root d --output mine",
    "questions over an index": f"vlm --index v/questions.jsonl --root d {WEIGHTS} --output v --num 1",
    "cases over an image": f"cases cases/index --root cases {WEIGHTS} --output cases --num 4",
    "rows over rows": "benchmark --check rows.json --json rows.json",
}


@pytest.mark.parametrize("case", OVER)
def test_no_output_has_the_path_of_an_input(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "link.safetensors").symlink_to("w/tiny.safetensors")
    os.link(here / "w/tiny.safetensors", here / "w/TINY.safetensors")
    (here / "p").mkdir()
    shutil.copy(here / "w/tiny.safetensors", here / "p/model.safetensors")
    shutil.copy(RESULT, here / "result.json")
    shutil.copy(here / "d/index/train.jsonl", here / "d/train.jsonl")
    (here / "rows.json").write_text("[]")
    (here / "rows.csv").write_text('image,body,labels\n0.png,"0,0,40,40",Anger\n')
    for folder in ("mine", "v", "o"):
        (here / folder).mkdir()
    (here / "mine/val.jsonl").write_text("a file of my own\n")
    shutil.copy(here / "d/index/test.jsonl", here / "v/questions.jsonl")
    (here / "o/scores.npz").write_bytes(b"scores")
    shutil.copytree(here / "d", here / "cases")
    (here / "cases/0.png").rename(here / "cases/case_000.png")
    index = here / "cases/index/test.jsonl"
    index.write_text(index.read_text().replace("0.png", "case_000.png"))
    before = content(here)
    assert main(OVER[case].split()) == 2
    said = capsys.readouterr().err
    assert "is read by this command" in said or "is no part of an index" in said, said
    assert content(here) == before
    assert (here / "link.safetensors").is_symlink()


def test_every_option_that_names_an_output_is_known() -> None:
    """OUTPUT_OPTIONS are options of the parsers, and whatever else a parser says it writes is among them."""
    found: dict[str, set[str]] = {}
    for name in (
        *(c for c in COMMANDS if c != "prepare"),
        *(f"prepare_{w}" for w in ("emotic", "caers", "table", "demo")),
    ):
        for option, text in options_of(name):
            found.setdefault(option, set()).add(text)
    assert set(OUTPUT_OPTIONS) <= found.keys()
    for option, texts in found.items():
        if any(
            text.lower().startswith(("write ", "also write ", "the png to write", "where results go")) for text in texts
        ):
            assert option in (*OUTPUT_OPTIONS, "--card"), option  # the card of these weights


def options_of(command: str) -> Iterator[tuple[str, str]]:
    """(option, help) of a command, as its parser is asked for them."""
    seen: list[argparse.ArgumentParser] = []
    inner = argparse.ArgumentParser.parse_known_args

    def spy(self: argparse.ArgumentParser, *_: Any, **__: Any) -> Any:
        seen.append(self)
        raise SystemExit(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", spy)
        with pytest.raises(SystemExit):
            import_module(f"cocoer.cli.{command}").main([])
        if command == "annotate":
            with pytest.raises(SystemExit):
                import_module(f"cocoer.cli.{command}").main(["flatten"])
    assert argparse.ArgumentParser.parse_known_args is inner and seen
    waiting = seen
    while waiting:
        for action in waiting.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += list(action.choices.values())
            for option in action.option_strings:
                yield option, action.help or ""


@pytest.mark.parametrize(
    ("words", "inputs", "outputs"),
    [
        ("calibrate --checkpoint a --output b", ["a"], ["b"]),
        ("calibrate --checkpoint=a --output=b", ["a"], ["b"]),
        ("describe --card a --outp b", ["a"], ["b"]),
        ("data show i --output b", ["i/sidecar.json", "i/train.jsonl", "i/val.jsonl", "i/test.jsonl"], ["b"]),
        ("train --config a --set run.dir=i model.backbone.weights=b", ["a", "b"], ["i"]),
        ("tables --clip RN50=a --output i", ["a"], ["i"]),
        ("evaluate --checkpoint zero-shot:RN50=a --jsonl b", ["a"], ["b"]),
        ("prepare table --folder i --output i", [], ["i"]),
        ("predict --input a nowhere b\0c --boxes b", ["a", "b"], []),
    ],
)
def test_files_on_a_command_line(
    words: str, inputs: list[str], outputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("i").mkdir()
    for name in ("a", "b"):
        Path(name).touch()
    found = named_files(words.split(" "))
    there = [str(path) for path in found[0] if path.name != "model.safetensors"]
    assert sorted(there) == sorted(inputs) and [str(path) for path in found[1]] == outputs


@pytest.mark.parametrize("name", ["a.txt", "A.TXT", "./x/../a.txt", "soft", "hard"])
def test_the_writer_of_files_knows_an_input_by_any_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "a.txt").write_text("mine")
    (tmp_path / "soft").symlink_to("a.txt")
    os.link(tmp_path / "a.txt", tmp_path / "hard")
    (tmp_path / "A.TXT").touch(exist_ok=True)  # on a file system that tells case, a file of its own
    with keep_inputs([tmp_path / "a.txt"]):
        with pytest.raises(OverwritesInput, match="is read by this command"):
            write_text(tmp_path / name, "new")
        write_text(tmp_path / "b.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "mine"
    write_text(tmp_path / "a.txt", "new")  # afterwards it is a file like any other


# ---- files of others ----------------------------------------------------------------------------------------------


def test_an_index_replaces_an_index_and_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "prepare table d/index/train.jsonl --root d --output new --heads estimate --dataset emotic"
    words = line.split()
    assert main(words) == 0
    (here / "new/sidecar.json").unlink()  # as a killed run leaves it: the sidecar comes last
    assert main(words) == 0
    for name, text in {
        "val.jsonl": '{"image": "a.png", "caption": "mine"}\n',
        "sidecar.json": '{"notes": "mine"}',
    }.items():
        (here / "other").mkdir()
        (here / "other" / name).write_text(text)
        capsys.readouterr()
        assert main([word.replace("new", "other") for word in words]) == 2
        assert f"{name}: is no part of an index" in capsys.readouterr().err
        assert {p.name: p.read_text() for p in (here / "other").iterdir()} == {name: text}
        shutil.rmtree(here / "other")


DEMO = ["--train", "1", "--val", "1", "--test", "1", "--force"]


@pytest.mark.parametrize("layout", ["emotic", "both", "caers"])
def test_drawing_anew_removes_what_was_drawn_alone(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "demo", "--output", str(tmp_path), "--dataset", layout, *DEMO]
    real = tmp_path / ("emotic" if layout != "caers" else "CAER-S") / ("Annotations" if layout != "caers" else "train")
    real.mkdir(parents=True)
    (real / "mine.txt").write_text("mine")
    assert main(words) == 1
    assert "was not drawn by cocoer, and it stays" in capsys.readouterr().err
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [real / "mine.txt"]
    shutil.rmtree(real.parent)
    assert main(words) == 0
    roots = [tmp_path / "emotic", tmp_path / "caers"] if layout == "both" else [tmp_path]
    for root in roots:  # half drawn: killed before the sidecar
        (root / "index/sidecar.json").unlink()
    assert main(words) == 0
    assert all((root / "index/sidecar.json").is_file() for root in roots)


def test_a_real_data_set_beside_a_drawn_one_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "demo", "--output", str(tmp_path), "--dataset", "caers", *DEMO]
    assert main(words) == 0
    (tmp_path / "emotic/Annotations").mkdir(parents=True)
    (tmp_path / "emotic/Annotations/Annotations.mat").write_text("mine")
    assert main(words) == 1 and "emotic: was not drawn" in capsys.readouterr().err
    assert (tmp_path / "emotic/Annotations/Annotations.mat").read_text() == "mine"


def test_a_study_does_not_clear_a_folder_that_it_did_not_draw(tmp_path: Path) -> None:
    from cocoer.studies.conflict.world import Tree

    (tmp_path / "train/index").mkdir(parents=True)
    (tmp_path / "train/index/sidecar.json").write_text('{"splits": "mine"}')
    with pytest.raises(OutputError, match="was not drawn by cocoer"):
        Tree(tmp_path / "train", {"test": 1}, 0, 0.0).draw(1)
    assert (tmp_path / "train/index/sidecar.json").read_text() == '{"splits": "mine"}'


@pytest.mark.parametrize("name", ["config.yaml", "log.jsonl", "report.md", "best.safetensors", "last.safetensors"])
def test_a_training_begins_in_no_folder_with_somebody_elses_files(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "run").mkdir()
    (here / "run" / name).write_text("mine")
    config = DEMO_CHECKPOINT.parents[2] / "configs/demo_emotic.yaml"
    words = [
        "train",
        "--config",
        str(config),
        "--device",
        "cpu",
        "--set",
        "run.dir=run",
        "data.root=d",
        "data.index=d/index",
    ]
    assert main(words) == 1
    assert f"{name}: was left by no training, and it stays" in capsys.readouterr().err
    assert {p.name: p.read_text() for p in (here / "run").iterdir()} == {name: "mine"}


def test_the_config_of_a_run_may_be_its_own_unless_it_is_changed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cocoer.cli.train import arguments, check_run_folder
    from cocoer.config import load_config

    base = DEMO_CHECKPOINT.parents[2] / "configs/demo_emotic.yaml"
    (here / "run").mkdir()
    (here / "run/config.yaml").write_text(f"# my words\nbase: {base}\nrun: {{dir: run}}\n")
    for more, fits in (([], True), (["--set", "optim.lr=0.5"], False)):
        args = arguments(["--config", "run/config.yaml", *more])
        config = load_config(args.config, args.overrides)
        if fits:
            check_run_folder(config, Path(args.config))
        else:
            with pytest.raises(OverwritesInput, match="copy it elsewhere"):
                check_run_folder(config, Path(args.config))


def test_a_twin_does_not_replace_somebody_elses_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "w/tiny.onnx").write_text("mine")
    assert main(["export", "--checkpoint", "w/tiny.safetensors"]) == 2
    assert "was not exported by cocoer, and it stays" in capsys.readouterr().err
    assert (here / "w/tiny.onnx").read_text() == "mine"


def test_an_explanation_takes_a_free_name_and_its_own_again(here: Path) -> None:
    words = f"explain --input img/a.png {WEIGHTS} --output img --emotion Anger".split()
    photo = here / "img/a_person0_Anger_saliency.png"
    shutil.copy(here / "d/1.png", photo)
    before = photo.read_bytes()
    for _ in range(2):
        assert main(words) == 0
    assert photo.read_bytes() == before
    stem = "a_person0_Anger.cocoer"
    assert {p.name for p in (here / "img").glob("*.json")} == {"a.boxes.json", f"{stem}.json"}
    assert (here / "img" / f"{stem}_saliency.png").is_file()


def test_a_parquet_file_of_others_in_a_data_set_stays(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"annotate img --output set {WEIGHTS} --quiet".split()
    assert main(words) == 0
    table = pyarrow.table({"id": ["x"], "status": ["ok"]})
    pyarrow.parquet.write_table(table, here / "set/mine.parquet")
    (part,) = (here / "set").glob("part-*.parquet")
    whole = part.read_bytes()
    for damage in (lambda b: b, lambda b: b[:50], lambda b: b""):
        mine = here / "set/mine.parquet"
        mine.write_bytes(damage(mine.read_bytes()))
        kept = mine.read_bytes()
        capsys.readouterr()
        assert main(words) == 2
        assert "mine.parquet: is no file of this data set, and it stays" in capsys.readouterr().err
        assert mine.read_bytes() == kept and part.read_bytes() == whole
    mine.unlink()
    part.write_bytes(whole[:100])  # torn, and ours
    done, remarks = settle(place_of(str(here / "set")))
    assert len(done) == 0 and "unfinished" in remarks[0] and not part.exists()
    assert main(["annotate", "flatten", "set", "--table", "set/people.parquet"]) == 2
    assert "whose readers take every .parquet" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["link", "notes", "folder"])
def test_answers_replace_answers_alone(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "o").mkdir()
    (here / "mine.txt").write_text("mine\n")
    answers = here / "o/answers.jsonl"
    {
        "link": lambda: answers.symlink_to("../mine.txt"),
        "notes": lambda: shutil.copy(here / "mine.txt", answers),
        "folder": answers.mkdir,
    }[kind]()
    line = f"vlm --input img/a.png {WEIGHTS} --output o --endpoint http://127.0.0.1:9/v1 --model m --attempts 1 --variants prompt"
    assert main(line.split()) in (1, 2)
    assert "answers.jsonl: is not a file that cocoer vlm wrote, and it stays" in capsys.readouterr().err
    assert (here / "mine.txt").read_text() == "mine\n" and (kind == "folder" or answers.read_text() == "mine\n")
    with pytest.raises(SystemExit, match="2"):
        main([*line.split(), "--timeout", "inf"])


@pytest.mark.parametrize("text", [b"my notes", b"a" * 70_000, b"x\ny", b"[" * 100, b"\xff\xfe"])
def test_rows_that_cocoer_did_not_write_are_never_cut(
    text: bytes, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "o").mkdir()
    (here / "o/results.jsonl").write_bytes(text)
    for more in ([], ["--resume"]):
        assert main(f"predict img d --output o {WEIGHTS} --quiet".split() + more) in (1, 2)
        assert (here / "o/results.jsonl").read_bytes() == text


@pytest.mark.parametrize("torn", [b'{"image": "img/a.p', b'{"ima', b"", b"\0" * 5000])
def test_a_torn_row_of_ours_is_cut(torn: bytes, here: Path) -> None:
    (here / "o").mkdir()
    (here / "o/results.jsonl").write_bytes(torn)
    assert main(f"predict img d/1.png --output o {WEIGHTS} --quiet --resume --format json".split()) == 0
    rows = [json.loads(line) for line in (here / "o/results.jsonl").read_text().split("\n") if line]
    assert [row["image"] for row in rows] == ["img/a.png", "d/1.png"]


@pytest.mark.parametrize("kind", ["hard link", "link", "pipe", "folder", "large"])
def test_what_stands_in_the_place_of_a_lock_and_is_none_stays(kind: str, tmp_path: Path) -> None:
    lock, photo = tmp_path / "o/.cocoer.lock", tmp_path / "photo.png"
    lock.parent.mkdir()
    photo.write_bytes(b"photo")
    make: dict[str, Callable[[], object]] = {
        "hard link": lambda: os.link(photo, lock),
        "link": lambda: lock.symlink_to(photo),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
        "large": lambda: lock.write_bytes(b"x" * 5000),
    }
    make[kind]()
    mode = os.lstat(lock)
    with (
        pytest.raises(OutputError, match=r"\.cocoer\.lock: is no lock of cocoer, and it stays"),
        hold_folder(lock.parent),
    ):
        pass
    assert photo.read_bytes() == b"photo" and os.lstat(lock).st_ino == mode.st_ino


# ---- reading ------------------------------------------------------------------------------------------------------


def test_a_pipe_that_nobody_writes_does_not_keep_a_command_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "pipe") == b""
    with pytest.raises(OSError, match="wanted a file, got a device"):
        open_input("/dev/zero")


def test_a_pipe_that_somebody_writes_is_read_to_its_end() -> None:
    read, write = os.pipe()
    try:
        if os.fork() == 0:
            os.close(read)
            for _ in range(50):
                os.write(write, b"x" * 10_000)
            os._exit(0)
        os.close(write)
        assert len(read_file(f"/dev/fd/{read}")) == 500_000
    finally:
        os.close(read)
        os.wait()


FIFOS = {
    "result": "tables --from pipe --output o",
    "index": f"evaluate {WEIGHTS} --root d --index pipes --output o",
    "heads": "prepare table rows.csv --root d --output o --heads boxes pipe",
    "rows": "prepare table pipe --format csv --root d --output o --heads estimate",
    "xml": "prepare table pipe --format cvat --root d --output o --heads estimate",
    "parquet": "prepare table pipe --format parquet --root d --output o --heads estimate",
    "manifest": f"annotate pipe.parquet --output o {WEIGHTS}",
    "classes": "prepare table rows.csv --root d --output o --heads estimate --classes pipe",
    "boxes": f"predict img/a.png --boxes pipe {WEIGHTS} --output o",
    "convert": "data convert pipe --format tandon-csv --root d --output o",
    "weights": "predict img/a.png --checkpoint pipe --device cpu --output o",
}


@pytest.mark.parametrize("case", FIFOS)
def test_a_pipe_in_the_place_of_a_file_is_one_error(case: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(here / "pipe")
    os.mkfifo(here / "pipe.parquet")
    (here / "pipes").mkdir()
    os.mkfifo(here / "pipes/test.jsonl")
    (here / "rows.csv").write_text('image,body,labels\n0.png,"0,0,40,40",Anger\n')
    assert main(FIFOS[case].split()) in (1, 2)
    said = capsys.readouterr().err
    assert ("Traceback" not in said and "shows where" not in said and "error" in said) or said.startswith("data: ")


# ---- results of others --------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "seed": lambda r: r["model"].update(seed=[1]),
    "no seed": lambda r: r["model"].pop("seed"),
    "settings": lambda r: r["model"].update(settings={}),
    "selected_on": lambda r: r["model"].update(selected_on=["a"]),
    "model": lambda r: r.update(model=[]),
    "data": lambda r: r.update(data="x"),
    "data set": lambda r: r["data"].update(dataset=["x"]),
    "title": lambda r: r["data"].pop("title"),
    "hash": lambda r: r["data"].update(sha256=5),
    "persons": lambda r: r["data"].update(persons="many"),
    "name": lambda r: r.update(name=5),
    "metric": lambda r: r.update(metric=["mAP"]),
    "definition": lambda r: r.update(definition=5),
    "revision": lambda r: r.update(revision=None),
    "command": lambda r: r.update(command=["a"]),
    "versions": lambda r: r.update(versions=5),
    "interval": lambda r: r.update(interval=5),
    "synthetic": lambda r: r.update(synthetic="no"),
    "above 1": lambda r: r["numbers"]["headline"].update(low=0, value=10**400, high=10**401),
    "infinite": lambda r: r["numbers"]["headline"].update(high=float("inf")),
    "groups": lambda r: r["numbers"].update(groups=[1]),
    "a group": lambda r: r["numbers"].update(groups={"gender": 5}),
    "deep": lambda r: r["numbers"].update(groups={"gender": {"groups": {"Male": {}}}}),
    "calibration": lambda r: r["numbers"].update(calibration={"before": "x"}),
    "robustness": lambda r: r["numbers"].update(robustness=[{}]),
    "conditions": lambda r: r["numbers"].update(robustness={"conditions": 5}),
    "numbers": lambda r: r.update(numbers="x"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_result_is_named_in_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads(RESULT.read_text())
    DAMAGES[case](result)
    file = tmp_path / "damaged.json"
    file.write_text(json.dumps(result))
    for words in (
        ["tables", "--from", file, "--output", tmp_path / "o"],
        ["describe", "--card", DEMO_CHECKPOINT, "--from", file],
    ):
        assert main([str(word) for word in words]) == 1
        said = capsys.readouterr().err
        assert f"{file}: a damaged result" in said and "shows where" not in said and said.count("\n") == 1, said
    assert not (tmp_path / "o").exists()


def test_what_a_result_says_is_text_on_the_page(tmp_path: Path) -> None:
    result = json.loads(RESULT.read_text())
    bad = "<script>alert(1)</script>"
    result |= {"name": bad, "command": bad, "revision": f"'\"><img src=x onerror={bad}>"}
    result["data"]["title"] = f"</title>{bad}"
    (tmp_path / "r.json").write_text(json.dumps(result))
    assert main(["tables", "--from", str(tmp_path / "r.json"), "--output", str(tmp_path / "o")]) == 0
    page = next((tmp_path / "o").glob("*.html")).read_text()
    assert "<script>alert" not in page and "<img src=x" not in page and "&lt;script&gt;alert(1)" in page


def test_sizes_on_the_command_line_have_a_bound(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = f"evaluate {WEIGHTS} --root d --index d/index --output o"
    annotate = f"annotate img --output o {WEIGHTS}"
    for line in (f"{evaluate} --resamples 0", f"{evaluate} --resamples 1000000000000", f"{evaluate} --batch-size 0",
                 "tables d --resamples 1000000000000", f"{annotate} --chunk {10**30}"):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            main(line.split())
        assert "wanted" in (said := capsys.readouterr().err) or "wants" in said
    assert main(f"annotate x-{{0..99999999999}}.tar --output o {WEIGHTS}".split()) == 2
    assert "wanted at most 1,000,000" in capsys.readouterr().err


def test_a_drawn_mark_of_another_kind_is_a_faulty_row(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = here / "d/index/test.jsonl"
    first, *rest = index.read_text().splitlines()
    for mark in ("x", [1], {"contradicted_level": "tail"}, {"contradicted_level": ["head"]}):
        index.write_text("\n".join([json.dumps(json.loads(first) | {"synthetic": mark}), *rest]) + "\n")
        assert main(f"evaluate {WEIGHTS} --root d --index d/index --output o".split()) == 1
        assert "row 1: synthetic: wanted" in capsys.readouterr().err


def test_scores_that_are_no_numbers_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = np.array([f"{n}.png#0" for n in range(4)])
    np.savez(here / "s.npz", keys=keys, pred=np.zeros((4, 26), complex))
    line = f"evaluate {WEIGHTS} --root d --index d/index --output o --resamples 10 --against s.npz"
    assert main(line.split()) == 1
    assert "--against s.npz: " in capsys.readouterr().err
