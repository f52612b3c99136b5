"""What a command says never ends its work and never commands the terminal."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_recognizer import tiny_checkpoint

from cocoer.cli.main import main
from cocoer.cli.talk import SteadyStream, shortened, steady_streams
from cocoer.report.text import escaped, printable

NAMES = ["写真.jpg", "b\x1b[2J\x1b]0;owned\x07.jpg", "c\nd.jpg", "e\u202egpj.jpg", "f.jpg", "g.jpg"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A run over images with hostile and foreign names, and the folder for its output folders."""
    place = tmp_path_factory.mktemp("talk")
    (place / "in").mkdir()
    for i, name in enumerate(NAMES):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "in" / name)
    (place / "in" / "h\x1b[31m.jpg").write_bytes(b"no image")
    boxes = {name: [{"body": [2, 2, 30, 38]}] for name in (*NAMES, "h\x1b[31m.jpg")}
    (place / "boxes.json").write_text(json.dumps(boxes))
    words = [
        "predict",
        "--input",
        str(place / "in"),
        "--boxes",
        str(place / "boxes.json"),
        "--format",
        "json",
        "--device",
        "cpu",
    ]
    return [*words, "--checkpoint", str(tiny_checkpoint(place / "weights"))], place


def rows(place: Path, name: str) -> int:
    return (place / name / "results.jsonl").read_bytes().count(b"\n")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_letters_gets_them_escaped_and_all_is_written(
    command: tuple[list[str], Path], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, place = command
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding))
    assert main([*words, "--output", str(place / encoding)]) == 1
    said, fault = out.getvalue().decode(encoding), err.getvalue().decode(encoding)
    monkeypatch.undo()
    assert rows(place, encoding) == len(NAMES) + 1
    assert ("写真" if encoding == "utf-8" else r"\u5199\u771f.jpg") in said
    assert "\x1b" not in said and "\x07" not in said and "\u202e" not in said
    assert r"b\x1b[2J\x1b]0;owned\x07.jpg" in said and r"c\nd.jpg" in said and r"e\u202egpj.jpg" in said
    assert "\x1b" not in fault and r"h\x1b[31m.jpg: wanted an image" in fault


@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
def test_a_closed_pipe_stops_the_talking_and_not_the_work(
    command: tuple[list[str], Path], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, place = command
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        for name in ("stdout", "stderr"):
            if which in (name, "both"):
                monkeypatch.setattr(sys, name, nobody)
        assert main([*words, "--output", str(place / which)]) == 1
        monkeypatch.undo()
    assert rows(place, which) == len(NAMES) + 1


def test_head_gets_its_line_and_closed_streams_are_no_file_of_the_users(command: tuple[list[str], Path]) -> None:
    """A closed stream would else give its number to the first file that is opened, and what libraries print would land there."""
    words, place = command
    line = f"{shlex.join([sys.executable, '-m', 'cocoer', *words, '--output', str(place / 'head')])} <&- 2>&- | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and rows(place, "head") == len(NAMES) + 1
    for path in (place / "head").glob("*.json"):
        json.loads(path.read_bytes())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_answers_that_a_full_disk_swallowed_are_said() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cocoer", "--version"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1 and "standard output cannot be written: No space left" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_what_a_terminal_would_obey_is_escaped_and_the_rest_is_not() -> None:
    assert escaped("é 写\tx\n") == "é 写\tx\n"
    assert printable("a\nb\tc\rd\x1be\x9bf\u2028g\ud800h") == r"a\nb\tc\rd\x1be\x9bf\u2028g\ud800h"
    assert shortened("a\u2028b\nc") == "a\u2028b\nc"
    assert shortened("\n".join("abcdefghij"), 4) == "a\nb\nc\n  ... and 7 more"


def test_a_steady_stream_lets_progress_bars_through() -> None:
    inside = io.StringIO()
    steady = SteadyStream(inside)
    for text in ("\r 50%|#####", "\x1b[A", "\x1b[A\x1b[A", "name\x1b[A\rspoof", "\n"):
        steady.write(text)
    assert inside.getvalue() == "\r 50%|#####" + "\x1b[A" * 3 + "name\\x1b[A\\rspoof\n" and not steady.lost


def test_streams_are_put_back() -> None:
    before = sys.stdout, sys.stderr
    with steady_streams(), pytest.raises(KeyError), steady_streams():
        raise KeyError
    assert (sys.stdout, sys.stderr) == before
