"""The files that a command line names: inputs, which no command writes over, and outputs.

Every word that is the path of something is an input, unless it follows an option of `OUTPUT_OPTIONS`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cocoer.names import SPLITS

OUTPUT_OPTIONS = (
    "--output",
    "--table",
    "--jsonl",
    "--json",
    "--plot",
    "--publish",
    "--sheet",
    "--images",
    "--trained",
)
"""Options of all commands after which the place of an output stands; the tests hold this list against the parsers."""

_OUTPUT_KEYS = ("run.dir",)
_INSIDE = (*(f"{split}.jsonl" for split in SPLITS), "sidecar.json", "model.safetensors")
"""What of a folder that is an input is read: a person index, and weights."""


def named_files(words: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The inputs and the outputs among the words of a command; paths where something stands.

    Of folders their index and weights are inputs, unless the same folder is an output too, which `cocoer prepare` may fill anew.
    """
    found: dict[bool, list[Path]] = {False: [], True: []}
    for text, is_output in _values(words):
        if text and "\0" not in text and _exists(text):
            found[is_output].append(Path(text))
    outputs = found[True]
    inputs = []
    for path in found[False]:
        if not path.is_dir():
            inputs.append(path)
        elif words[0] not in ("prepare", "data") or not any(path.samefile(place) for place in outputs):
            inputs += [path / name for name in _INSIDE]
    return inputs, outputs


def _values(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Every text that may be a path, and whether it is an output's: words, what stands after `=`, also of `NAME=FILE`."""
    option = ""
    for word in words[1:]:
        name, mark, value = word.partition("=")
        if word.startswith("--"):
            option = name
            if mark:
                yield value, _is_output(name)
            continue
        is_output = _is_output(option)
        yield word, is_output
        if mark:
            yield value.rpartition("=")[2], name in _OUTPUT_KEYS
        if is_output:
            option = ""  # a positional may follow


def _is_output(option: str) -> bool:
    """Whether an option, perhaps shortened as argparse lets it be, names an output."""
    return len(option) > 2 and any(known.startswith(option) for known in OUTPUT_OPTIONS)


def _exists(text: str) -> bool:
    try:
        return os.path.lexists(text)
    except (OSError, ValueError):
        return False
