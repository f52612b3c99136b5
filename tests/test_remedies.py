"""Every command that the package or a page names is one that its own parser takes: command, options, choices."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cocoer.cli.main import COMMANDS, PREPARED

ROOT = Path(__file__).resolve().parents[1]
DOORS = {"inference.py": "predict", "train.py": "train", "app.py": "app"}
START = re.compile(r"(?:\bcocoer|python(?:3)? -m cocoer|python(?:3)? (?:inference|train|app)\.py)(?=[ ])[^\n`|;]*")

PREFIX = re.compile(r"cocoer( [a-zX]+)*( --gpu)?:")
"""How a command begins what it says of itself."""


class Parsed(Exception):
    """The command line was accepted."""


def texts_of_package() -> Iterator[tuple[str, str]]:
    """Every text in code, f-strings with their values as X; docstrings too."""
    for path in sorted((ROOT / "cocoer").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
            elif isinstance(node, ast.JoinedStr):
                parts = [str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values]
                yield f"{path.relative_to(ROOT)}:{node.lineno}", "".join(parts)


def quoted_commands() -> list[tuple[str, str]]:
    """(place, command) for all that stands in backquotes or begins a line of an example."""
    found: dict[str, str] = {}
    for place, text in texts_of_package():
        spans = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        spans += [re.split(r"\s{2,}", line.strip())[0] for line in text.split("\n")]
        for span in spans:
            whole = " ".join(span.split())
            if START.match(whole + " ") and not PREFIX.match(whole):
                found.setdefault(whole, place)
    return [(place, command) for command, place in sorted(found.items())]


def module_and_words(command: str) -> tuple[str, list[str]] | None:
    """The module of cocoer.cli and the words for it; None for a name alone or one with a placeholder for the command."""
    command = re.sub(r"^python3? (inference|train|app)\.py", lambda m: f"cocoer {DOORS[m.group(1) + '.py']}", command)
    command = re.sub(r"^python3? -m cocoer", "cocoer", command)
    command = re.split(r"\s{2,}| \(|\s#|, | >", command)[0].rstrip("\\ ")  # a line may go on below
    words = shlex.split(command.replace("'s ", "s ").replace("s' ", "s "), posix=True)[1:]
    words = [w for w in words if w != "..." and not w.startswith("$")]  # a variable of the shell holds further options
    if not words or words[0] == "COMMAND" or set(words[0]) == {"X"} or words[0].startswith("-"):
        return None
    assert words[0] in COMMANDS, f"no command is called {words[0]!r}"
    if words[0] == "prepare":
        if len(words) == 1 or words[1] == "X":
            return None
        assert words[1] in PREPARED, f"nothing is prepared under the name {words[1]!r}"
        return f"prepare_{words[1]}", words[2:]
    return words[0], words[1:]


def faults_of(command: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is wrong with a command. What is required may be left out, as a message names what matters."""
    try:
        found = module_and_words(command)
    except (ValueError, AssertionError) as err:  # an open quote, no such command
        return [str(err)]
    if found is None or "--help" in found[1]:
        return []
    name, words = found
    wrong: list[str] = []

    def parse_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        parser = self
        given = list(words)
        while given and (sub := _subparsers(parser)):
            if given[0] not in sub:
                if given[0].isupper():
                    raise Parsed
                wrong.append(f"{given[0]!r} is none of {', '.join(sub)}")
                raise Parsed
            parser, given = sub[given[0]], given[1:]
        known = {option: action for action in parser._actions for option in action.option_strings}
        for word in given:
            option = word.partition("=")[0]
            if option.startswith("--") and option not in known:
                wrong.append(f"no option {option}; there are {', '.join(sorted(known))}")
        for option, value in pairwise(given):
            choices = known[option].choices if option in known else None
            if (
                choices is not None
                and not value.startswith("--")
                and not value.isupper()
                and value not in map(str, choices)
            ):
                wrong.append(f"{option} {value}: wanted one of {', '.join(map(str, choices))}")
        raise Parsed

    for way in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, way, parse_args)
    with pytest.raises(Parsed):
        importlib.import_module(f"cocoer.cli.{name}").main(words)
    return wrong


@pytest.mark.parametrize(("place", "command"), quoted_commands())
def test_a_command_that_a_message_names_is_one(place: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not faults_of(command, monkeypatch), f"{place}: `{command}`"


@pytest.mark.parametrize(
    "command",
    [
        "cocoer predit --input X", "cocoer weights fech resnet50", "cocoer predict --inptu X", "cocoer prepare coco --root X",
        "cocoer data convert X --format nothing", "python train.py --confg configs/emotic.yaml", "python -m cocoer exprt",
    ],
)  # fmt: skip
def test_a_command_that_is_none_is_found(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults_of(command, monkeypatch)


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def test_there_are_commands_to_check() -> None:
    """The search finds the ones that are known to be there."""
    commands = [command for _, command in quoted_commands()]
    for known in ("cocoer weights list", "cocoer weights verify", "cocoer prepare table --help"):
        assert any(command.startswith(known) for command in commands), known
    assert len(commands) > 40


@pytest.mark.parametrize(
    "command", ["weights list", "doctor", "prepare table --help", "data check --help", "predict --help"]
)
def test_cheap_remedies_run(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from cocoer.cli.main import main

    try:
        code = main(command.split())
    except SystemExit as err:
        code = int(err.code or 0)
    assert code in ((0, 1) if command == "doctor" else (0,)) and capsys.readouterr().out


def test_an_index_without_its_images_does_not_complain_of_an_option_that_nobody_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cocoer.cli.main import main

    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "sidecar.json").write_text('{"data_root": "absent/folder", "dataset": "emotic"}')
    (tmp_path / "index" / "train.jsonl").write_text("")
    with pytest.raises(SystemExit) as left:
        main(["data", "check", str(tmp_path / "index")])
    said = capsys.readouterr().err
    assert left.value.code == 2 and "absent/folder, and there is no such folder; say with --root" in said
    with pytest.raises(SystemExit):
        main(["data", "check", str(tmp_path / "index"), "--root", "nowhere"])
    assert "--root: wanted a folder, got nowhere" in capsys.readouterr().err


# ---- advice without a whole command: an option, a key of the config, `--set KEY=VALUE` -------------------------------

OTHERS = {"--golden", "--standalone", "--nproc-per-node", "--force-reinstall", "--no-deps", "--porcelain",
          "--untracked-files", "--line",
          "--whole-images", "--epochs", "--lr", "--table"}  # fmt: skip
"""Options of other programs: git, pip, torchrun, a style sheet, scripts/; and of `annotate flatten`, whose parser is its own."""


def messages_of_package() -> Iterator[tuple[str, str]]:
    """`texts_of_package` without docstrings, and the pages that results become."""
    for path in sorted((ROOT / "cocoer").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        silent: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and isinstance(node.body[0], ast.Expr):
                silent.add(id(node.body[0].value))
            elif isinstance(node, ast.JoinedStr):
                silent.update(map(id, node.values))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
            elif isinstance(node, ast.JoinedStr):
                parts = [str(v.value) if isinstance(v, ast.Constant) else "X" for v in node.values]
                yield f"{path.relative_to(ROOT)}:{node.lineno}", "".join(parts)
    for path in sorted((ROOT / "cocoer").rglob("*.html")):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def all_options(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every option of every command."""
    found = {"--plugin", "--debug", "--version"}

    def parse_args(self: argparse.ArgumentParser, *_: Any, **__: Any) -> Any:
        waiting = [self]
        for parser in waiting:
            waiting += _subparsers(parser).values()
            found.update(option for action in parser._actions for option in action.option_strings)
        raise Parsed

    for way in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, way, parse_args)
    for name in [*(c for c in COMMANDS if c != "prepare"), *(f"prepare_{what}" for what in PREPARED)]:
        with pytest.raises(Parsed):
            importlib.import_module(f"cocoer.cli.{name}").main([])
    return found


def config_keys(tree: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield above + key
        if isinstance(value, dict):
            yield from config_keys(value, f"{above}{key}.")


def test_an_option_or_key_that_a_message_names_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from cocoer.config import Config, change_config, config_to_dict
    from cocoer.errors import ConfigError

    tree = config_to_dict(Config())
    options, keys = all_options(monkeypatch) | OTHERS, set(config_keys(tree))
    key = re.compile(rf"(?<![\w./])((?:{'|'.join(tree)})(?:\.[a-z_]+)+)(?![\w/(])")
    wrong, settings = [], 0
    for place, text in messages_of_package():
        wrong += [
            f"{place}: no option {o}" for o in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text) if o not in options
        ]
        files = (
            ".onnx",
            ".pkl",
            ".boxes_file",
            ".safetensors",
            ".md",
            ".py",
            ".html",
            ".json",
        )  # `model.onnx` and the like
        wrong += [f"{place}: no key {k}" for k in key.findall(text) if k not in keys and not k.endswith(files)]
        for setting in re.findall(r"--set ([a-z_.]+=[^\s,;)'\"`]+)", text):
            settings += 1
            name, _, value = setting.partition("=")
            try:
                change_config(Config(), [f"{name}={'640' if value == 'X' else value}"])
            except ConfigError as err:
                wrong.append(f"{place}: --set {setting}: {err}")
    assert not wrong, "\n".join(wrong)
    assert settings > 5 and len(options) > 100


@pytest.mark.parametrize("text", ["use --no-such-option", "set model.backbon.weights", "--set run.seeed=1"])
def test_advice_that_is_none_is_found(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_remedies.messages_of_package", lambda: [("here", text)])
    with pytest.raises(AssertionError, match="here: "):
        test_an_option_or_key_that_a_message_names_is_one(monkeypatch)


def test_a_sheet_wants_a_name_of_an_image_before_it_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cocoer.cli.main import main

    for name in ("sheet", "sheet.xyz"):
        with pytest.raises(SystemExit):
            main(["data", "show", str(tmp_path), "--root", str(tmp_path), "--output", str(tmp_path / name)])
        assert "ends in .png or .jpg" in capsys.readouterr().err
