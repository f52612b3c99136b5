"""Config files: a head that says what the file is, a base, and the settings that differ from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cocoer.config_values import merged
from cocoer.errors import ConfigError, PaperError
from cocoer.paper import PaperRow, paper_table
from cocoer.yaml_file import parse_yaml


@dataclass(frozen=True)
class ConfigHead:
    """The head of a config file, beside its settings; a base's head is not inherited.

    base: the file that it lays its settings over, or None. what: what it is, in a few words, or empty.
    paper: the row of the paper's tables that it stands for (`paper: {table, row}`), or None.
    """

    base: str | None
    what: str
    paper: PaperRow | None


def config_head(path: str | Path) -> ConfigHead:
    """The head of a config file. Raises ConfigError, for a table or row that the paper does not have too."""
    return split_head(Path(path))[0]


def split_head(path: Path) -> tuple[ConfigHead, dict[str, Any]]:
    """A file's head, and its settings without those of its base."""
    loaded = parse_yaml(path)
    if loaded is None:
        loaded = {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"config {path}: wanted a mapping of sections, got {type(loaded).__name__}")
    base, what, paper = (loaded.pop(key, None) for key in ("base", "what", "paper"))
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"config {path}: `base:` wants the name of one file, got {base!r}")
    if not isinstance(what, str | None):
        raise ConfigError(f"config {path}: `what:` wants a few words, got {what!r}")
    if paper is not None and not (isinstance(paper, dict) and set(paper) == {"table", "row"}):
        raise ConfigError(f"config {path}: `paper:` wants the keys table and row, got {paper!r}")
    try:
        row = paper_table(str(paper["table"])).row(str(paper["row"])) if paper else None
    except PaperError as err:
        raise ConfigError(f"config {path}: paper: {err}") from None
    return ConfigHead(base, what or "", row), loaded


def read_settings(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings in a file, laid over those that its `base:` names (relative to the file)."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: `base:` leads back to this file: {' -> '.join(p.name for p in (*seen, path))}")
    head, settings = split_head(path)
    if head.base is None:
        return settings
    return merged(read_settings(path.parent / head.base, (*seen, path.resolve())), settings)


def own_settings(path: str | Path) -> list[str]:
    """A file's settings without those of its base and its run folder, as `a.b=c` overrides for another config."""
    return [
        f"{key}={json.dumps(value)}" for key, value in leaves(split_head(Path(path))[1]) if not key.startswith("run.")
    ]


def leaves(tree: Mapping[str, Any], place: str = "") -> list[tuple[str, Any]]:
    """Every value of nested mappings with its path, (`a.b.c`, value), in their order."""
    out: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = f"{place}{key}"
        out += leaves(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return out
