"""Sizes and shapes that keep the code readable: files, functions, parameters; tensor shapes of every forward."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_FILE_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 400, 60, 8


def modules() -> Iterator[tuple[str, str]]:
    """Path and text of every module of the package."""
    for path in sorted((ROOT / "cocoer").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def oversized(name: str, text: str) -> Iterator[str]:
    """The functions of a module that are too long or have too many parameters (`self` and `cls` do not count)."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            given = node.args
            names = [
                a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg) if a
            ]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if lines > MOST_FUNCTION_LINES or count > MOST_PARAMETERS:
                yield f"{name}: {node.name}: {lines} lines, {count} parameters"


def test_no_file_is_longer_than_one_sitting() -> None:
    assert [name for name, text in modules() if len(text.splitlines()) > MOST_FILE_LINES] == []


def test_no_function_is_longer_than_a_screen_or_has_many_parameters() -> None:
    assert [line for name, text in modules() for line in oversized(name, text)] == []


def test_what_is_too_large_is_found() -> None:
    body = "\n".join("    a += 1" for _ in range(MOST_FUNCTION_LINES))
    many = ", ".join(f"a{i}" for i in range(MOST_PARAMETERS + 1))
    text = f"def long(a):\n{body}\ndef many({many}): ...\nclass C:\n    def fine(self, {many[:-4]}): ...\n"
    assert [line.split(": ")[1] for line in oversized("m.py", text)] == ["long", "many"]


def test_every_forward_states_shapes() -> None:
    bare = [
        f"{name}: {node.lineno}"
        for name, text in modules()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name == "forward" and "[" not in (ast.get_docstring(node) or "")
    ]
    assert bare == []


def test_what_a_clone_is_known_by_lies_at_its_top() -> None:
    folders = ["cocoer", "configs", "scripts", "checkpoints", "test_imgs", "tests"]
    files = ["requirements.txt", "inference.py", "train.py", "README.md"]
    assert [name for name in folders + files if not (ROOT / name).exists()] == []
