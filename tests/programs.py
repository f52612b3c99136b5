"""Commands and programs as modules, and what they leave in a folder."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def load_program(name: str) -> ModuleType:
    """A command's module, or by its path from the root a program of scripts/, without running it."""
    return load_file(ROOT / name) if name.endswith(".py") else importlib.import_module(f"cocoer.cli.{name}")


def load_file(path: Path) -> ModuleType:
    """The module in a file, loaded once in a process."""
    name = f"{path.stem}_program"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    return sys.modules[name]


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path in it."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
