"""Registries of exchangeable parts (workspace, pseudo label, fusion, loss) by name, and the plugins that add to them.

    kind            config key                        what a name stands for
    workspace       model.coordination.update         (config) -> Workspace: who leaves, how delta is made, how mappings move
    pseudo_label    model.competition.pseudo_label    (config) -> PseudoLabelRule: the label against which levels are held
    fusion          model.fusion                      (inputs, features, classes) -> module [B, inputs] -> [B, classes]
    loss            loss.name                         (config) -> (logits [B, k], targets [B, k], weights [k] | None) -> [B]

A plugin is code. It is loaded only where the user names it (`--plugin my_rule.py`, or the name of an entry point that an
installed package offers in the group `cocoer.plugins`), never because a config or a weights file says so. docs/extend.md.
Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar

from cocoer.errors import PluginError
from cocoer.names import nearest

Kind = Literal["workspace", "pseudo_label", "fusion", "loss"]

GROUP = "cocoer.plugins"

BUILT_IN: dict[Kind, tuple[str, ...]] = {
    "workspace": ("one", "two", "none", "release"),
    "pseudo_label": ("vocabulary", "fused", "agreement"),
    "fusion": ("ffn",),
    "loss": ("paper",),
}
"""What comes with cocoer; `cocoer.model` builds these itself."""

Made = TypeVar("Made", bound=Callable[..., Any])

_ADDED: dict[Kind, dict[str, Callable[..., Any]]] = {kind: {} for kind in BUILT_IN}
_LOADED: dict[str, str] = {}  # plugin as it was named -> digest of its code


def register(kind: Kind, name: str) -> Callable[[Made], Made]:
    """A decorator that makes a class or function known under a name of its kind; see the module's table for its arguments.

    Raises PluginError for an unknown kind and for a name that is taken.
    """
    if kind not in BUILT_IN:
        near = nearest(kind, BUILT_IN)
        raise PluginError(
            f"register: unknown kind {kind!r}" + (f", did you mean {near!r}?" if near else "") + _listed(BUILT_IN)
        )
    if name in known(kind) or not name.isidentifier():
        raise PluginError(
            f"register: {kind} {name!r}: wanted a new name of letters, digits, _; taken: {', '.join(known(kind))}"
        )

    def remember(made: Made) -> Made:
        _ADDED[kind][name] = made
        return made

    return remember


def known(kind: Kind) -> tuple[str, ...]:
    """Every name of a kind, built in and added."""
    return (*BUILT_IN[kind], *_ADDED[kind])


def added(kind: Kind) -> dict[str, Callable[..., Any]]:
    """What plugins have added, by name."""
    return dict(_ADDED[kind])


def check_name(kind: Kind, name: str) -> str:
    """The name. Raises ValueError, with the nearest and all names, for one that is not known."""
    if name in known(kind):
        return name
    near = nearest(name, known(kind))
    raise ValueError(
        f"one of {', '.join(map(repr, known(kind)))}, got {name!r}"
        + (f"; did you mean {near!r}?" if near else "; a rule of your own is loaded with --plugin FILE")
    )


def load_plugin(name: str) -> None:
    """Run a Python file, or load an installed package's entry point in the group `cocoer.plugins`, once.

    Raises PluginError where there is none, or its code fails; the text names the line.
    """
    if name in _LOADED:
        return
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise PluginError(f"--plugin {name}: no such file")
        content = path.read_bytes()
        spec = importlib.util.spec_from_file_location(f"cocoer_plugin_{hashlib.sha256(content).hexdigest()[:12]}", path)
        assert spec is not None and spec.loader is not None, "a .py file has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        _run(lambda: spec.loader.exec_module(module), name)  # type: ignore[union-attr]
        _LOADED[name] = hashlib.sha256(content).hexdigest()
        return
    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        raise PluginError(
            f"--plugin {name}: wanted a .py file, or an entry point of an installed package in the group {GROUP};"
            f" installed are: {', '.join(sorted(offered)) or 'none'}"
        )
    _run(offered[name].load, name)
    version = offered[name].dist.version if offered[name].dist is not None else ""  # type: ignore[union-attr]
    _LOADED[name] = hashlib.sha256(f"{offered[name].value} {version}".encode()).hexdigest()


def _run(load: Callable[[], object], name: str) -> None:
    """Run a plugin's code; whatever it raises becomes a PluginError that names type, text and line."""
    try:
        load()
    except PluginError as err:
        raise PluginError(f"--plugin {name}: {err}") from None
    except (Exception, SystemExit) as err:  # a script that ends its own process is no plugin
        trace = err.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = f", line {trace.tb_lineno}" if trace is not None else ""
        raise PluginError(f"--plugin {name}{line}: {type(err).__name__}: {err}") from err


def loaded_plugins() -> dict[str, str]:
    """The plugins of this process, as they were named, with a digest of their code: a result depends on it."""
    return dict(_LOADED)


def plugin_words() -> list[str]:
    """The options that load the same plugins in another process."""
    return [word for name in _LOADED for word in ("--plugin", name)]


def _listed(kinds: dict[Kind, tuple[str, ...]]) -> str:
    return f" The kinds are: {', '.join(kinds)}"
