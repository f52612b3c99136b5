"""One style of options: the same name means the same in every command, and every option says what it does."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from cocoer.cli.main import COMMANDS, PREPARED
from cocoer.cli.options import OPTIONS, whole_numbers

MODULES = sorted({name for name in COMMANDS if name != "prepare"} | {f"prepare_{what}" for what in PREPARED})
MAY_DIFFER = {
    "--checkpoint": "one, or one a seed",
    "--clip": "files of different weights, or towers",
    "--drop-overlap": "one command has a longer form of it, --drop",
    "--from": "one file, or several",
    "--images": "a number, or a folder",
    "--input": "one image, or many",
    "--json": "a file, or the terminal",
    "--near": "one command also asks whether to look at all",
    "--resume": "of a state that is named, or of the only one",
    "--train": "a split's size, or an order",
}


class _Seen(Exception):
    """Carries a command's parser out of its `main`."""


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options of a command and of its subcommands, without --help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from options_of(below)
        elif "--help" not in action.option_strings:
            yield action


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, argparse.Action]]]:
    """Name of an option or of a place -> the commands that have it."""

    def carry(self: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _Seen(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", carry)
    everywhere = defaultdict(list)
    for module in MODULES:
        with pytest.raises(_Seen) as seen:
            import_module(f"cocoer.cli.{module}").main([])
        for action in options_of(seen.value.args[0]):
            everywhere[action.option_strings[-1] if action.option_strings else action.dest].append((module, action))
    return everywhere


def test_every_option_says_what_it_does(found: dict[str, list[tuple[str, argparse.Action]]]) -> None:
    silent = [f"{command} {name}" for name, uses in found.items() for command, action in uses if not action.help]
    assert len(found) > 100 and not silent


def test_a_name_takes_the_same_kind_of_value_everywhere(found: dict[str, list[tuple[str, argparse.Action]]]) -> None:
    """A number is a number; a path may be text until it is opened."""

    def kind(action: argparse.Action) -> tuple[str, Any]:
        made = action.type
        number = "number" if made in (int, float) or getattr(made, "__name__", "") == "_count" else "words"
        return ("switch" if action.nargs == 0 else number), action.nargs

    differ = {name for name, uses in found.items() if name.startswith("--") and len({kind(a) for _, a in uses}) > 1}
    assert differ <= MAY_DIFFER.keys(), differ - MAY_DIFFER.keys()


def test_what_several_commands_share_is_called_the_same(found: dict[str, list[tuple[str, argparse.Action]]]) -> None:
    names = {name for name, uses in found.items() if any(a.help != argparse.SUPPRESS for _, a in uses)}
    assert {"--root", "--index", "--checkpoint", "--output", "--set", "--persons", "--force"} <= names
    assert not names & {"--num", "--count", "--overwrite", "--weights", "--ckpt", "--out", "--data-root"}
    assert OPTIONS.keys() <= names, "an option that nobody has"


def test_numbers_of_an_option() -> None:
    assert whole_numbers("0,5") == (0, 5)
    for wrong in ("", "x", "0,0", "-1", "1,,2"):
        with pytest.raises(argparse.ArgumentTypeError, match="wanted different whole numbers like 0,1,2"):
            whole_numbers(wrong)
