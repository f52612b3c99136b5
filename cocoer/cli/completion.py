"""Shell completion: commands, and each command's own options, by argcomplete (docs/install.md says how to switch it on).

The shell runs `cocoer` with the line so far in its environment. A command's parser is built by the command itself, so there its
`parse_args` answers the shell instead of parsing; torch is behind the parsers and is not loaded.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from importlib import import_module


def wanted() -> bool:
    """Whether the shell asks for completions."""
    return "_ARGCOMPLETE" in os.environ


def complete(modules: Mapping[str, str]) -> None:
    """Answer the shell. modules: a command, of one word or two, -> the name of its module in `cocoer.cli`."""
    import argcomplete

    program, _, typed = os.environ.get("COMP_LINE", "").partition(" ")
    name = max((name for name in modules if typed.startswith(f"{name} ")), key=len, default="")
    before = name or ("prepare" if typed.startswith("prepare ") else "")
    cut = len(before) + 1 if before else 0  # the command is no word of the parser that answers
    os.environ["COMP_LINE"] = f"{program} {typed[cut:]}"
    os.environ["COMP_POINT"] = str(int(os.environ.get("COMP_POINT", "0")) - cut)
    if name:
        argparse.ArgumentParser.parse_args = lambda self, *_, **__: argcomplete.autocomplete(self)  # type: ignore[assignment, method-assign]
        import_module(f"cocoer.cli.{modules[name]}").main([])
        return
    parser = argparse.ArgumentParser(prog=program)
    words = [name.removeprefix("prepare ") for name in modules if name.startswith("prepare ") == (before == "prepare")]
    parser.add_argument("command", choices=sorted({*words, *([] if before else ["prepare"])}))
    argcomplete.autocomplete(parser)
