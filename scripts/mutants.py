"""Would the tests notice? One change at a time in the code, seeded and sampled, and the tests of the changed module.

    python scripts/mutants.py --sample 60 --seed 0            # or: make mutants ARGS="--sample 60"
    python scripts/mutants.py --only cocoer/model/losses.py --sample 20

A change is a constant plus one, a comparison with its edge moved or turned round, or an operator exchanged. Each runs in a child
process, forked after torch is loaded, against the test files that import the module, its namesake first, until one fails.
A change that no test notices is a survivor; those that change nothing stand in scripts/mutants_equal.txt with the reason, and are
told apart. Exit code 0: at least 90 of 100 noticed. 1: fewer. 2: wrong usage, or a test fails without any change.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import functools
import importlib.machinery
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cocoer/model", "cocoer/data", "cocoer/evaluation")
EQUAL = Path(__file__).with_name("mutants_equal.txt")
WANTED = 0.9
_WAITING = 20
OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change. number: of the node, in the order of `ast.walk`. text: its first line of code."""

    file: str
    number: int
    line: int
    text: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text}: {self.before} -> {self.after}"


def changed(node: ast.AST) -> bool:
    """Change the node in place; False where it is nothing that is changed."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        node.value += 1
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPERATORS:
        node.ops = [OPERATORS[type(node.ops[0])]()]  # type: ignore[list-item]
    elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OPERATORS:
        node.op = OPERATORS[type(node.op)]()  # type: ignore[assignment]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node.op = ast.UAdd()
    else:
        return False
    return True


def mutants_of(file: str) -> Iterator[Mutant]:
    """Every change of a module. Annotations are left out: nothing reads them when the code runs."""
    source = (ROOT / file).read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    said = [getattr(node, name, None) for node in ast.walk(tree) for name in ("annotation", "returns")]
    words = {id(inner) for node in said if isinstance(node, ast.AST) for inner in ast.walk(node)}
    for number, node in enumerate(ast.walk(tree)):
        other = copy.deepcopy(node) if id(node) not in words else ast.Pass()
        with contextlib.suppress(ValueError):
            if changed(other):
                line = getattr(node, "lineno", 1)
                yield Mutant(file, number, line, lines[line - 1].strip(), ast.unparse(node), ast.unparse(other))


@functools.cache
def imports(folder: str) -> dict[str, set[str]]:
    """Each module below a folder -> the dotted names that it imports."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        names = found.setdefault(path.relative_to(ROOT).as_posix(), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "load_program":  # a command, in tests
                names |= {f"cocoer.cli.{given.value}" for given in node.args if isinstance(given, ast.Constant)}
    return found


@functools.cache
def tests_of(file: str) -> list[str]:
    """The test files that import the module; where there is none, those that import one that imports it, step by step."""
    reached: set[str] = set()
    users = {file}
    while users - reached:
        reached |= users
        names = {user.removesuffix(".py").replace("/", ".") for user in users}
        found = {test for test, used in imports("tests").items() if used & names}
        found = {test for test in found if "/test_" in test}
        if found:
            return sorted(found)
        users = {module for module, used in imports("cocoer").items() if used & names}
    return []


def in_child(work: Callable[[], int], limit: int) -> tuple[int, float]:
    """`work`'s exit code in a forked child, and the seconds it computed; -1 where it was stopped at the limit.

    What counts is computing, not waiting, so a busy machine changes nothing; one that only waits is stopped too, later.
    """
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        code = 3
        with contextlib.suppress(BaseException):
            code = work()
        os._exit(code)
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            return max(-1, os.waitstatus_to_exitcode(status)), used.ru_utime + used.ru_stime
        if time.monotonic() - start > _WAITING * limit:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -1, float(limit)
        time.sleep(0.05)


def run_tests(file: str, mutant: Mutant | None) -> int:
    """pytest's exit code on the test file, with the mutant in place of its module; 0 = all pass, so nothing was noticed."""
    import pytest

    if mutant is not None:
        tree = ast.parse((ROOT / mutant.file).read_text(encoding="utf-8"))
        changed(next(node for number, node in enumerate(ast.walk(tree)) if number == mutant.number))
        code = compile(ast.fix_missing_locations(tree), str(ROOT / mutant.file), "exec")
        real: Any = importlib.machinery.SourceFileLoader.get_code

        def get_code(self: Any, name: str) -> Any:
            return code if Path(self.path) == ROOT / mutant.file else real(self, name)

        importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    return int(pytest.main(["-q", "-x", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", file]))


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=80, help="how many changes (default: 80)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="FILE", help=f"modules; default: all of {', '.join(PACKAGES)}")
    parser.add_argument("--skip", nargs="+", default=[], metavar="FOLDER", help="leave out the modules below a folder")
    parser.add_argument("--limit", type=int, default=120, help="CPU seconds for the tests of one change (default: 120)")
    parser.add_argument(
        "--seconds",
        metavar="FILE",
        help="JSON of seconds per test file, kept from run to run; the files in it are taken as passing without a change",
    )
    parser.add_argument(
        "--most", type=float, default=60.0, help="test files slower than this, in seconds, are left out"
    )
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    files = args.only or [f.relative_to(ROOT).as_posix() for p in PACKAGES for f in sorted((ROOT / p).rglob("*.py"))]
    files = [file for file in files if not file.startswith(tuple(args.skip))]
    everything = [mutant for file in files for mutant in mutants_of(file) if tests_of(file)]
    untested = [file for file in files if not tests_of(file) and any(mutants_of(file))]
    chosen = random.Random(args.seed).sample(everything, min(args.sample, len(everything)))
    print(
        f"{len(chosen)} of {len(everything)} changes in {len(files)} modules; no test imports {', '.join(untested) or 'none'}"
    )
    for library in ("torch", "torchvision", "open_clip", "sklearn.metrics", "scipy.optimize", "PIL.Image", "pytest"):
        importlib.import_module(library)
    equal = (
        {line.split(" | ")[0] for line in EQUAL.read_text().splitlines() if " | " in line} if EQUAL.is_file() else set()
    )
    scratch = Path(args.seconds) if args.seconds else None
    took: dict[str, float] = json.loads(scratch.read_text()) if scratch and scratch.is_file() else {}
    green, timed = set(took), set[str]()  # pass without a change; of these, measured in this run
    survivors: list[Mutant] = []
    same = 0
    for place, mutant in enumerate(chosen, start=1):
        named = f"tests/test_{Path(mutant.file).stem}.py"
        noticed, seconds = False, 0.0
        for test in sorted(tests_of(mutant.file), key=lambda test: (test != named, took.get(test, args.most / 4))):
            if took.get(test, 0.0) >= args.most:
                continue
            code, used = in_child(lambda m=mutant, t=test: run_tests(t, m), args.limit)  # type: ignore[misc]
            seconds += used
            if code == 0:
                took[test] = used
            elif test not in green or (code == -1 and test not in timed):
                alone, took[test] = in_child(lambda t=test: run_tests(t, None), args.limit)  # type: ignore[misc]
                if alone > 0:
                    print(f"{test} fails without any change (pytest's exit code {alone})", file=sys.stderr)
                    return 2
                green.add(test)
                timed.add(test)
            noticed = code != 0 and took[test] < args.most
            if scratch:
                scratch.write_text(json.dumps(took, indent=0))
            if noticed:
                break
        word = "noticed" if noticed else "changes nothing" if str(mutant) in equal else "SURVIVED"
        same += word == "changes nothing"
        survivors += [mutant] if word == "SURVIVED" else []
        print(
            f"{place:3} {word:15} {seconds:5.1f} s  {mutant.file}:{mutant.line}: {mutant.before} -> {mutant.after}",
            flush=True,
        )
    counted = len(chosen) - same
    share = 1 - len(survivors) / counted if counted else 1.0
    print(
        f"{counted - len(survivors)} of {counted} noticed ({share:.0%}); {same} more change nothing (scripts/mutants_equal.txt)"
    )
    return 0 if share >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
