"""Single values of a config: parsing `--set KEY=VALUE`, and error messages for wrong values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cocoer.errors import ConfigError
from cocoer.names import nearest
from cocoer.yaml_file import parse_value


def merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, mapping by mapping."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return out


def apply_override(root: type, tree: dict[str, Any], text: str) -> dict[str, Any]:
    """The tree with one `a.b=c` applied; root: the dataclass that the whole tree is read into. Raises ConfigError."""
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set wants section.key=value, got {text!r}")
    try:
        leaf = _as_wanted(value, _type_at(root, path))
    except ConfigError as err:
        raise ConfigError(f"--set {key}: {err}") from None
    for name in reversed(path):
        leaf = {name: leaf}
    return merged(tree, leaf)


def _as_wanted(text: str, wanted: Any) -> Any:
    """The value of a `--set` for a key of this type: a text stays a text (`001`, `2024-01-05`, `a #1`, `no`).

    Quotes around a text are removed, as in YAML; `null` is None for a key that may be None.
    """
    kinds = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    kinds = tuple(get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds)
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    a_text = str in kinds or any(isinstance(choice, str) for choice in choices)
    a_number = any(kind in (int, float, bool) for kind in kinds) or not all(isinstance(c, str) for c in choices)
    if not a_text or a_number or text[:1] in ("[", "{", '"', "'"):
        return parse_value(text)
    return None if type(None) in kinds and text in ("", "null", "~") else text


def _type_at(root: type, path: Sequence[str]) -> Any:
    """The type that a key of the config wants; None for a section and for a key that is not there."""
    here: Any = root
    for name in path:
        here = get_type_hints(here, include_extras=True).get(name) if dataclasses.is_dataclass(here) else None
    return here


def _keys_at(root: type, loc: Sequence[Any]) -> list[str]:
    """The keys that are allowed at a place of the config, given as a path of names."""
    here: Any = root
    for name in loc:
        hints = get_type_hints(here) if dataclasses.is_dataclass(here) else {}
        here = hints.get(str(name))
    return [f.name for f in dataclasses.fields(here)] if dataclasses.is_dataclass(here) else []


def explain(root: type, error: Mapping[str, Any]) -> str:
    """One of pydantic's errors as one line: place, wanted, got, choices; root: the dataclass that was read."""
    loc = [part for part in error["loc"] if not (isinstance(part, str) and part.startswith("constrained"))]
    place = ".".join(str(part) for part in loc)
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        keys = _keys_at(root, loc[:-1])
        hint = nearest(str(loc[-1]), keys)
        return (
            f"{place}: unknown key" + (f", did you mean {hint!r}?" if hint else "") + f" Keys here: {', '.join(keys)}"
        )
    if error["type"] == "literal_error":
        hint = nearest(str(error["input"]), _choices_at(root, loc))
        return f"{place}: wanted one of {', '.join(map(repr, _choices_at(root, loc)))}, got {error['input']!r:.200}" + (
            f"; did you mean {hint!r}?" if hint else ""
        )
    if error["type"] == "dataclass_type":
        return f"{place}: wanted a section with the keys {', '.join(_keys_at(root, loc))}, got {error['input']!r:.200}"
    if error["type"] == "value_error":
        return f"{place}: wanted {str(error['msg']).removeprefix('Value error, ')}"
    wanted = error["msg"].removeprefix("Input should be ")
    return f"{place}: wanted {wanted}, got {error['input']!r:.200}"


def _choices_at(root: type, loc: Sequence[Any]) -> list[str]:
    """The values a `Literal` key may take."""
    here: Any = root
    for name in loc:
        here = get_type_hints(here)[str(name)]
    return [str(choice) for choice in get_args(here)] if get_origin(here) is Literal else []
