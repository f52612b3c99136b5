"""`cocoer COMMAND ...` and `python -m cocoer COMMAND ...`: finds the command's module and hands it the rest of the line.

A fault that a command does not expect is one line and exit code 1; `cocoer --debug COMMAND ...` prints its traceback too.

A command's module is imported only when it is asked for, so that `cocoer --help` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from cocoer import __version__, ideas
from cocoer.cli import completion
from cocoer.cli.named_files import named_files
from cocoer.cli.talk import steady_streams
from cocoer.errors import CocoerError, MissingExtra, OverwritesInput, PluginError
from cocoer.names import nearest
from cocoer.paths import keep_inputs, refuse_input

COMMANDS = {
    "predict": "emotions of the people in images and videos",
    "annotate": "an archive of images into a Parquet data set, on one machine or many",
    "train": "train a model from a config",
    "evaluate": "weights on a split: mAP or accuracy with intervals, exclusions",
    "prepare": "build a person index: emotic, caers, table, demo; near-duplicates in one: near",
    "data": "check, show and convert a person index",
    "setup": "photos: fetch, check, convert and try what photographs need",
    "weights": "list, fetch, verify and convert weights",
    "calibrate": "probabilities that can be believed, fitted on val",
    "explain": "where each level looks for an emotion",
    "cases": "case studies of a split as one HTML page",
    "tables": "the paper's tables, measured",
    "conflict": "the conflict benchmark",
    "agreement": "what a competition by agreement is worth",
    "readings": "readings of Algorithm 1 against each other on synthetic scenes",
    "export": "ONNX or torch.export file of a checkpoint",
    "benchmark": "speed and memory on this machine",
    "vlm": "questions to a vision-language model",
    "describe": "parts, parameters and shapes of a config's model",
    "doctor": "what is installed and what is missing",
    "demo": "the whole system on synthetic scenes",
    "app": "a page in the browser",
}
_NO_MEMORY = (
    "allocate memory",
    "bad_alloc",
    "failed to map segment",
    "Cannot allocate",
    "start new thread",
    "not enough memory",
)
"""Messages of libraries that run out of memory."""

PREPARED = {
    "emotic": "EMOTIC's folder",
    "caers": "CAER-S's folder",
    "table": "any other data set: CSV, JSON lines, Parquet, COCO, Label Studio, CVAT, class folders",
    "near": "near-duplicates across the splits of an index: marked, or left out of train",
    "demo": "synthetic scenes with people",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 some inputs or the run failed, 2 wrong usage.

    A closed pipe does not stop the work; output that a full disk lost makes the code 1.
    """
    if completion.wanted():
        modules = {name: name for name in COMMANDS if name != "prepare"}
        completion.complete(modules | {f"prepare {what}": f"prepare_{what}" for what in PREPARED})
        return 0
    with steady_streams() as (out, err):
        code = _run(argv)
        out.flush()
        if out.lost not in (0, errno.EPIPE):
            print(f"cocoer: error: standard output cannot be written: {os.strerror(out.lost)}", file=err)
            return code or 1
        return code


def _run(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    debug = words[:1] == ["--debug"]
    words = words[debug:]
    if words[:1] in (["-V"], ["--version"]):
        print(f"cocoer {__version__}")
        return 0
    try:
        words = _with_plugins(words)
    except PluginError as err:
        print(f"cocoer: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cocoer: stopped", file=sys.stderr)
        return 130
    name = _chosen(words, "cocoer", COMMANDS)
    if name is None:
        return 0 if words else 2
    if name == "":
        return 2
    rest = words[1:]
    if name == "prepare":
        what = _chosen(rest, "cocoer prepare", PREPARED)
        if not what:
            return 0 if what is None and rest else 2
        name, rest = f"prepare_{what}", rest[1:]
    if name == "train":  # first of all: torch takes seconds to load, and a signal meanwhile has its exit code too
        from cocoer.training.signals import leave_on_signals

        leave_on_signals()
    try:
        inputs, outputs = named_files(words)
        with keep_inputs(inputs):
            for output in outputs:
                if not output.is_dir():
                    refuse_input(output)
            code: int = import_module(f"cocoer.cli.{name}").main(rest)
    except MissingExtra as err:
        print(f"cocoer {words[0]}: error: {err}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as err:  # cocoer without its dependencies: an exported file needs only a few of them
        if (err.name or "cocoer").split(".")[0] == "cocoer":
            raise
        print(f"cocoer {words[0]}: error: {err.name} is not installed: pip install cocoer", file=sys.stderr)
        return 2
    except OverwritesInput as err:
        print(f"cocoer {words[0]}: error: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"cocoer {words[0]}: stopped", file=sys.stderr)
        return 130
    except CocoerError as err:  # one that the command itself did not expect, and that explains itself
        return _told(words[0], str(err), debug, "")
    except OSError as err:
        if not isinstance(err.filename, str | bytes) or not err.strerror:
            return _told(words[0], _explained(err), debug, _hint(words[0]))
        return _told(words[0], f"{os.fsdecode(err.filename)}: {err.strerror}", debug, "")
    except Exception as err:  # noqa: BLE001 - last resort: one line, and the traceback with --debug
        return _told(words[0], _explained(err), debug, _hint(words[0]))
    return code


def _hint(command: str) -> str:
    return f" (`cocoer --debug {command} ...` shows where)"


def _told(command: str, text: str, debug: bool, hint: str) -> int:
    """Print the error that ended the command, with its traceback under --debug. Returns the exit code."""
    if debug:
        traceback.print_exc()
    print(f"cocoer {command}: error: {text}{'' if debug else hint}", file=sys.stderr)
    return 1


def _explained(err: Exception) -> str:
    """An unexpected exception, in one line."""
    said = " ".join(str(err).split())[:300]
    if isinstance(err, MemoryError) or any(mark in said for mark in _NO_MEMORY):
        return f"out of memory ({type(err).__name__}: {said or 'no more to be had'}); give the program more, or smaller inputs"
    if isinstance(err, OSError):
        return said or type(err).__name__
    return f"{type(err).__name__}: {said}"


def _with_plugins(words: list[str]) -> list[str]:
    """The words without `--plugin FILE`, which every command takes anywhere; each plugin is loaded. Raises PluginError."""
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word == "--plugin" or word.startswith("--plugin="):
            plugin = word.partition("=")[2] or next(waiting, "")
            if not plugin:
                raise PluginError("--plugin: wanted a .py file or the name of an installed plugin after it")
            ideas.load_plugin(plugin)
        else:
            rest.append(word)
    return rest


def _chosen(words: Sequence[str], program: str, choices: dict[str, str]) -> str | None:
    """The command that the first word names; None after printing help, "" after printing an error."""
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: {program} COMMAND ... [--plugin FILE]   ({program} COMMAND --help tells the options)\n")
        print("\n".join(f"  {name:<10} {what}" for name, what in choices.items()))
        return None
    if words[0] in choices:
        return words[0]
    near = nearest(words[0], choices)
    hint = f"; did you mean '{near}'?" if near else ""
    print(f"{program}: unknown command '{words[0]}'{hint} Choices: {', '.join(choices)}", file=sys.stderr)
    return ""
