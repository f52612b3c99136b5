"""Over 200 crafted files through the commands: each ends as a row or as one line of error, and none as a traceback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from rights import as_anybody, needs_rights
from safetensors.torch import load_file, save_file
from small_images import promised_png
from test_untrusted_weights import FORGED_DESCRIPTIONS, FORGED_TOWERS, HEADERS, LARGE
from tiny_recognizer import tiny_checkpoint
from training_world import ROOT

from cocoer.cli.main import main
from cocoer.export.onnx_file import sealed
from cocoer.model.checkpoint import read_metadata
from cocoer.weights.catalog import DEMO_CHECKPOINT

MADE: dict[str, int] = {}
"""How many files of each kind the tests made."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def one_line(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., None]]:
    """Runs a command that must fail with code 1 or 2 and one error of a few lines; threads must not die either."""
    died: list[str] = []
    before, threading.excepthook = threading.excepthook, lambda args: died.append(str(args.exc_value))

    def run(*words: object) -> None:
        code = main([str(word) for word in words])
        said = capsys.readouterr().err
        errors = [line for line in said.splitlines() if "error" in line or ": " in line]
        assert code in (1, 2) and errors, (words, code, said)
        assert "Traceback" not in said and "shows where" not in said and len(said) < 4000, said[-2000:]

    yield run
    threading.excepthook = before
    assert died == []


def checkpoints(good: Path, folder: Path) -> Iterator[Path]:
    """Weights files of every kind of damage."""
    about, tensors, whole = read_metadata(good), load_file(good), good.read_bytes()

    def described(name: str, change: Callable[[dict[str, Any]], object]) -> Path:
        tree = json.loads(json.dumps(about))
        change(tree)
        save_file(tensors, folder / name, {"cocoer": json.dumps(tree)})
        return folder / name

    for number, change in enumerate(FORGED_DESCRIPTIONS.values()):
        if "thresholds" not in (read_metadata(good).get("thresholds") or {"classes": 0}):
            about["thresholds"] = {"classes": {"Anger": 0.5}}
        yield described(f"description_{number}.safetensors", change)
    for number, tower in enumerate(FORGED_TOWERS.values()):
        yield described(f"tower_{number}.safetensors", lambda tree, tower=tower: tree.update(tower=tower))
    for number, (key, value) in enumerate(LARGE.items()):

        def enlarge(tree: dict[str, Any], key: str = key, value: Any = value) -> None:
            here = tree["config"]
            *sections, last = key.split(".")
            for section in sections:
                here = here[section]
            here[last] = value

        yield described(f"large_{number}.safetensors", enlarge)
    for number, content in enumerate(HEADERS.values()):
        (folder / f"header_{number}.safetensors").write_bytes(content)
        yield folder / f"header_{number}.safetensors"
    rng = np.random.default_rng(0)
    for number in range(12):  # bits anywhere: header, description, checksums, tensors
        damaged = bytearray(whole)
        damaged[int(rng.integers(0, len(whole) if number % 2 else 4000))] ^= 1 << int(rng.integers(8))
        (folder / f"bit_{number}.safetensors").write_bytes(damaged)
        yield folder / f"bit_{number}.safetensors"
    torch.save({"model": {"w": torch.ones(2)}}, folder / "pickle.safetensors")
    yield folder / "pickle.safetensors"


def test_checkpoints(checkpoint: Path, tmp_path: Path, one_line: Callable[..., None]) -> None:
    files = list(checkpoints(checkpoint, tmp_path))
    MADE["checkpoints"] = len(files)
    for file in files:
        one_line("weights", "verify", file)
    one_line("predict", "--input", ROOT / "test_imgs/demo_01.jpg", "--output", tmp_path / "o", "--checkpoint", files[0])


def onnx_files(folder: Path) -> Iterator[Path]:
    """Files that call themselves ONNX, some with a right seal."""
    x = onnx.helper.make_tensor_value_info("head", onnx.TensorProto.FLOAT, ["B", 3, 8, 8])
    y = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["B", 3, 8, 8])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["head"], ["probabilities"])], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    plain = model.SerializeToString()
    for text in (
        "[]",
        "{",
        "null",
        "5",
        '{"format_version": 1}',
        '{"format_version": 1, "config": {}, "classes": []}',
        "[" * 9000,
    ):
        onnx.helper.set_model_props(model, {"cocoer": text})
        yield _written(folder, sealed(model.SerializeToString()))
    for content in (b"", b"\x00" * 100, plain, sealed(plain), sealed(b""), sealed(b"\x08\x0a"), plain[:40], b"\xff" * 4096,
                    sealed(plain[:40]), sealed(plain) + b"x", plain + sealed(plain)):  # fmt: skip
        yield _written(folder, content)


def _written(folder: Path, content: bytes, suffix: str = ".onnx") -> Path:
    path = folder / f"{len(list(folder.iterdir()))}{suffix}"
    path.write_bytes(content)
    return path


def test_onnx_files(tmp_path: Path, one_line: Callable[..., None]) -> None:
    folder = tmp_path / "onnx"
    folder.mkdir()
    files = list(onnx_files(folder))
    MADE["onnx"] = len(files)
    for file in files:
        one_line("predict", "--input", ROOT / "test_imgs/demo_01.jpg", "--output", tmp_path / "o", "--checkpoint", file)


YAMLS = [
    "a: &a [x]\nb: *a\n", "[" * 4000, "{a: " * 4000, "a: " + "9" * 6000, "a: !!python/object:os.system\n",
    "? [a]\n: b\n", "a: \x07",
    "a: 1\n---\nb: 2\n", "a: *b\n", "a:\n\t- b\n", "[]", "text", "5", "base: 5\n", "base: c.yaml\n",
    "base: /etc/passwd\n", "base: .\n",
    "base: [a]\n", "model: 5\n", "model: {attention: {blocks: 1000000}}\n", "model: {attention: {blocks: .inf}}\n",
    "model: {attention: {blocks: -1}}\n", "model: {attention: {blocks: 1.5}}\n", "model: {tokens: {size: 1e30}}\n",
    "optim: {lr: .nan}\n", "optim: {lr: 2024-01-05}\n", "data: {root: 5}\n", "data: {image_size: 99999999}\n",
    "run: {seed: -5}\n", "run: {seeds: [" + "1, " * 2000 + "1]}\n", "model: {vocabulary: {prompt: '{emotion!r:>99}'}}\n",
    "model: {vocabulary: {prompt: '{'}}\n", "model: {vocabulary: {prompt: x}}\n", "inference: {max_pixels: 0}\n", "nothing: 1\n",
    "model: {nothing: 1}\n", "model:\n  backbone: {name: rexnet}\n", "model: {mode: both}\n", "1: 2\n", "null: 1\n", "- a\n",
    "model: !!binary aaaa\n", "model: !!set {a}\n", "# " + "x" * 300_000,
]  # fmt: skip


def test_yaml_files(tmp_path: Path, one_line: Callable[..., None]) -> None:
    MADE["yaml"] = len(YAMLS)
    for text in YAMLS:
        (tmp_path / "c.yaml").write_text(text)
        one_line("describe", "--config", tmp_path / "c.yaml")


LINE = {"image": "a.png", "width": 8, "height": 8, "person": 0, "body": [0, 0, 8, 8], "head": [1, 1, 4, 4],
        "head_source": "annotated", "labels": ["Anger"], "vad": None, "split": "train"}  # fmt: skip
LINES: list[Any] = [
    {"labels": [1, 2]}, {"labels": "Anger"}, {"labels": [None]}, {"labels": {"a": 1}}, {"labels": 5}, {"image": 5}, {"image": ""},
    {"image": None}, {"width": "8"}, {"width": 1e400}, {"width": float("nan")}, {"width": 10**30}, {"width": True}, {"width": -1},
    {"height": 1.5}, {"person": "0"}, {"person": [0]}, {"body": "abcd"}, {"body": [0, 0, 8]}, {"body": [0, 0, float("inf"), 8]},
    {"body": [0, 0, "8", 8]}, {"body": {"x": 1}}, {"body": 5}, {"head": [8, 8, 0, 0]}, {"head": [[1], 2, 3, 4]}, {"vad": "5"},
    {"vad": [1, 2]}, {"vad": [None, 1, 2]}, {"vad": [1, 2, 1e400]}, {"split": 5}, {"split": []}, {"head_source": {}},
]  # fmt: skip
RAW_LINES = ["[" * 9000, "null", "5", '"a"', "{", "[]", "\x00", '{"image": "\\ud800"}', "9" * 6000, '{"a":' * 3000]


def test_index_files(tmp_path: Path, one_line: Callable[..., None]) -> None:
    texts = [json.dumps(LINE | change) for change in LINES] + RAW_LINES
    MADE["index"] = len(texts)
    (tmp_path / "root").mkdir()
    for text in texts:
        (tmp_path / "train.jsonl").write_text(text + "\n")
        one_line("data", "check", tmp_path / "train.jsonl", "--root", tmp_path / "root")


def images(folder: Path) -> None:
    """Images of every format: cut, spoiled, too large, of another kind."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    for suffix, kind in (
        (".jpg", "JPEG"),
        (".png", "PNG"),
        (".gif", "GIF"),
        (".webp", "WEBP"),
        (".tif", "TIFF"),
        (".bmp", "BMP"),
    ):
        buffer = io.BytesIO()
        noise.save(buffer, kind)
        whole = buffer.getvalue()
        for number in range(6):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 20):
                damaged[place] = int(rng.integers(256))
            (folder / f"spoiled_{kind}_{number}{suffix}").write_bytes(damaged)
        for share in (0.1, 0.5, 0.9):
            (folder / f"cut_{kind}_{share}{suffix}").write_bytes(whole[: int(share * len(whole))])
    for name, size in (
        ("wide", (2**31 - 1, 1)),
        ("large", (12_200, 12_200)),
        ("none", (0, 5)),
        ("huge", (2**31 - 1, 2**31 - 1)),
    ):
        (folder / f"{name}.png").write_bytes(promised_png(*size, colour=0))
    for name, content in {"empty": b"", "text": b"hello", "zip": b"PK\x03\x04" + b"0" * 99, "svg": b"<svg/>"}.items():
        (folder / f"{name}.png").write_bytes(content)
    (folder / "folder.png").mkdir()
    (folder / "away.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")


def test_images_are_rows(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    images(folder)
    names = sorted(p.name for p in folder.iterdir() if p.name != "folder.png")
    (tmp_path / "boxes.json").write_text(json.dumps({name: {"persons": [{"body": [1, 1, 20, 20]}]} for name in names}))
    code = main(["predict", "--input", str(folder), "--output", str(tmp_path / "out"), "--checkpoint", str(checkpoint),
                 "--boxes", str(tmp_path / "boxes.json"), "--format", "json", "--quiet", "--device", "cpu"])  # fmt: skip
    said = capsys.readouterr().err
    rows = [
        json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text(encoding="utf-8").split("\n") if line
    ]
    assert code == 1 and "Traceback" not in said
    assert sorted(Path(row["image"]).name for row in rows) == names
    assert all(row["message"] and "\n" not in row["message"] for row in rows if row["status"] == "error")
    assert sum(row["status"] == "error" for row in rows) > 25
    MADE["images"] = len(names)


def test_there_were_over_two_hundred() -> None:
    if len(MADE) < 5:
        pytest.skip("counts the files of the tests above, which did not all run in this process")
    assert sum(MADE.values()) > 200, MADE


# ---- the machine is against us ------------------------------------------------------------------------------------


def command(*words: object, **more: Any) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in more.pop("without", ())} | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([*map(str, words)], capture_output=True, text=True, cwd=ROOT, env=env, timeout=600, **more)


@pytest.mark.parametrize("kilobytes", [300_000, 900_000, 1_600_000])
def test_little_memory_is_one_line(kilobytes: int, tmp_path: Path) -> None:
    predict = f"{sys.executable} -m cocoer predict --input test_imgs/demo_01.jpg --output {tmp_path}"
    done = command("bash", "-c", f"ulimit -v {kilobytes}; exec {predict}")
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "error" in done.stderr


@pytest.mark.parametrize("device", ["mps", "xpu", "meta", "cuda", "cuda:99", "cpu:1", "hpu", ""])
def test_a_device_that_is_not_there_is_one_line(device: str, one_line: Callable[..., None], tmp_path: Path) -> None:
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is one")
    one_line("predict", "--input", ROOT / "test_imgs/demo_01.jpg", "--output", tmp_path, "--device", device)


def test_without_home_and_passwd_entry_nothing_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    from cocoer.model.release.convert import clip_places
    from cocoer.weights import places

    def nobody(*_: object) -> Any:
        raise KeyError("no entry")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(places, "CLONE", None)
    assert all(root.is_absolute() for root in places.roots())
    assert places.find("~/nowhere") is None and clip_places()
    assert main(["weights", "list"]) == 0


def test_a_fault_that_nobody_expected_is_one_line_and_a_traceback_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(argv: object) -> int:
        raise LookupError("first line\nsecond line")

    monkeypatch.setattr("cocoer.cli.describe.main", broken)
    assert main(["describe"]) == 1
    said = capsys.readouterr().err
    assert (
        said
        == "cocoer describe: error: LookupError: first line second line (`cocoer --debug describe ...` shows where)\n"
    )
    assert main(["--debug", "describe"]) == 1
    assert "Traceback" in capsys.readouterr().err


INTO_A_CLOSED_FOLDER = {
    "prepare demo": "prepare demo --output {closed}/new",
    "prepare emotic": "prepare emotic --root . --output {closed}",
    "prepare caers": "prepare caers --root . --output {closed}",
    "prepare table": "prepare table --folder . --output {closed}/a/b",
    "data convert": "data convert a --format tandon-csv --root . --output {closed}",
    "weights convert": "weights convert --release GWT.pth --output {closed}/x",
    "weights pack": "weights pack a.safetensors --output {closed}/x.safetensors",
    "calibrate": "calibrate --checkpoint a.safetensors --output {closed}/x.safetensors",
    "export": "export --checkpoint {demo} --output {closed}/x.onnx",
    "evaluate": "evaluate --checkpoint a.safetensors --device cpu --output {closed}",
    "explain": "explain --input a.jpg --output {closed}",
    "cases": "cases index --output {closed}",
    "conflict": "conflict --quick --output {closed}",
    "agreement": "agreement --quick --output {closed}",
    "readings": "readings --quick --output {closed}",
    "vlm": "vlm --input a.jpg --output {closed}",
    "demo": "demo --output {closed}",
    "predict": "predict {root}/test_imgs/demo_01.jpg --output {closed} --device cpu",
    "train": "train --config {root}/configs/demo_emotic.yaml --device cpu --set run.dir={closed}",
    "an unreadable image": "predict {tmp}/closed.jpg --output {tmp}/out --device cpu",
    "unreadable weights": "predict {root}/test_imgs/demo_01.jpg --checkpoint {tmp}/closed.safetensors --output {tmp}/out",
    "an unreadable index": "data check {tmp}/closed.jsonl --root . --dataset emotic",
    "unreadable annotations": "prepare table {tmp}/closed.csv --root . --output {tmp}/out2",
    "unreadable boxes": "predict {root}/test_imgs/demo_01.jpg --boxes {tmp}/closed.json --output {tmp}/out",
}


@needs_rights
def test_what_may_not_be_read_or_written_is_one_line(tmp_path: Path) -> None:
    """One process without root's rights runs every command; afterwards the closed folder is empty as before."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    for name in ("closed.jpg", "closed.safetensors", "closed.jsonl", "closed.csv", "closed.json"):
        (tmp_path / name).touch(mode=0)
    (tmp_path / "here").mkdir()
    words = {"closed": closed, "demo": DEMO_CHECKPOINT, "root": ROOT, "tmp": tmp_path}
    lines = {name: line.format(**words).split() for name, line in INTO_A_CLOSED_FOLDER.items()}
    program = (
        "import contextlib, io, json, os; from cocoer.cli.main import main; found = {}\n"
        f"os.chdir({str(tmp_path / 'here')!r})\n"
        f"for name, line in {lines!r}.items():\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as said:\n"
        "        try: code = main(line)\n"
        "        except SystemExit as left: code = left.code\n"
        "    found[name] = code, said.getvalue()\n"
        "print(json.dumps(found))"
    )
    done = command(sys.executable, "-W", "ignore", "-c", program, preexec_fn=as_anybody)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == INTO_A_CLOSED_FOLDER.keys()
    for name, (code, said) in dict(found).items():
        good = code in (1, 2) and str(closed) in said and "ermission denied" in said
        if good and "Traceback" not in said and "shows where" not in said:
            del found[name]
    assert not found
    assert os.listdir(closed) == []
