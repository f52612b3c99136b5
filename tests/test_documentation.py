"""The commands of README.md and docs: every one is a command that its parser takes; the pages that a new user reads first run.

A command that needs gated data, downloads, a GPU, hours or another tool is named with its reason in `NEEDS`.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_recognizer import ROOT

from cocoer.cli.main import COMMANDS, PREPARED, main

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "MODEL_CARD.md", *sorted((ROOT / "docs").glob("*.md"))]
DOORS = {"inference.py": "predict", "train.py": "train", "app.py": "app"}
NEEDS = {
    r"EMOTIC|emotic\.yaml|data/emotic|outputs/emotic": "EMOTIC, which is gated",
    r"CAER|caers": "CAER-S, which is gated",
    r"GWT|checkpoints/release": "the authors' checkpoint",
    r"^cocoer (weights fetch|setup)": "the network",
    r"outputs/demo": "what `make demo` makes",
    r"\ba\.jpg|IMAGE|boxes\.json|walk\.mp4": "images of the reader's own",
    r"^cocoer doctor": "its answer is about the machine",
    r"^cocoer app": "runs until it is stopped",
}


class Parsed(Exception):
    """A parser took the line."""


def blocks(page: Path) -> Iterator[str]:
    """The lines of a page's shell blocks: continued lines joined, remarks cut off, the block's own variables filled in."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    for block in (text for language, text in fenced if language in ("", "bash", "sh")):
        variables: dict[str, str] = {}
        for raw in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"\s+#.*", "", raw).strip()
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            if assigned := re.fullmatch(r"([A-Z_]+)=(.*)", line):
                variables[assigned.group(1)] = assigned.group(2).strip("\"'")
            yield line


def words_of(line: str) -> list[str] | None:
    """The words after `cocoer`, or None for another program's line. A form with choices in it is no command to type."""
    line = re.sub(r"^([A-Z_]+=\S+ )+", "", line)
    if re.search(r"\[--|\.\.\.|…|\||<[a-z]", line):
        return None
    try:
        words = shlex.split(line)
    except ValueError:
        return None
    if words[:1] == ["torchrun"]:
        script = next((i for i, word in enumerate(words) if word in DOORS), None)
        words = [] if script is None else ["python", *words[script:]]
    if words[:2] in (["python", "-m"], ["python3", "-m"]) and words[2:3] == ["cocoer"]:
        return words[3:]
    if words[:1] == ["python"] and words[1:2] and words[1] in DOORS:
        return [DOORS[words[1]], *words[2:]]
    return words[1:] if words[:1] == ["cocoer"] else None


def commands() -> list[tuple[str, str, list[str]]]:
    return [(page.name, line, words) for page in PAGES for line in blocks(page) if (words := words_of(line))]


def test_every_command_of_the_pages_is_taken_by_its_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in ("parse_args", "parse_intermixed_args"):
        original = getattr(argparse.ArgumentParser, entry)

        def parse(self: argparse.ArgumentParser, *args: object, original: Any = original, **settings: object) -> None:
            original(self, *args, **settings)
            raise Parsed

        monkeypatch.setattr(argparse.ArgumentParser, entry, parse)
    found = commands()
    assert len(found) > 40
    wrong = []
    for page, line, words in found:
        if "--plugin" in words:  # the command line takes it before any command's parser
            place = words.index("--plugin")
            assert (ROOT / words[place + 1]).is_file() or not words[place + 1].startswith("docs/"), line
            words = [*words[:place], *words[place + 2 :]]
        name, rest = words[0].replace("-", "_"), words[1:]
        if name == "prepare":
            name, rest = f"prepare_{rest[0]}", rest[1:]
        if name.removeprefix("prepare_") not in {**COMMANDS, **PREPARED}:
            wrong.append(f"{page}: {line}: no such command")
            continue
        try:
            importlib.import_module(f"cocoer.cli.{name}").main(rest)
        except Parsed:
            continue
        except SystemExit as err:
            if err.code != 0:
                wrong.append(f"{page}: {line}")
        else:
            wrong.append(f"{page}: {line}: nothing was parsed")
    assert not wrong, "\n".join(wrong)


RUN = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("install", "inference", "explain"))]
RUNNABLE = [
    words
    for page in RUN
    for line in blocks(page)
    if (words := words_of(line)) and not any(re.search(mark, shlex.join(["cocoer", *words])) for mark in NEEDS)
]


def test_enough_of_the_pages_runs_here() -> None:
    assert {words[0] for words in RUNNABLE} >= {"predict", "explain"}


@pytest.mark.parametrize("words", RUNNABLE, ids=lambda words: " ".join(words))
def test_the_commands_of_the_first_pages_run(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a folder that holds what a clone holds, so that results do not land in this one."""
    for name in ("test_imgs", "configs", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0


def test_one_style_of_options() -> None:
    """What goes out is --output everywhere, and --set takes several values at once in every command that has it."""
    for file in sorted((ROOT / "cocoer" / "cli").glob("*.py")):
        text = file.read_text(encoding="utf-8")
        assert '"--out"' not in text, file.name
        for options in re.findall(r'add_argument\(\s*"--set",(.*?)\)\n', text, re.S):
            assert 'nargs="+"' in options and 'action="extend"' in options, file.name
