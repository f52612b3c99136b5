"""YAML from untrusted files: plain values only, numbers as in YAML 1.2, no aliases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cocoer.errors import ConfigError
from cocoer.files import open_input

MOST_BYTES = 200_000
"""PyYAML reads about 100 kB a second; the largest config of cocoer has 4 kB."""


_OF_YAML_1_1 = ("bool", "int", "float", "timestamp", "value", "merge")


class _Yaml12Loader(yaml.SafeLoader):
    """A safe loader with the numbers of YAML 1.2.

    PyYAML reads `6e-5` as a text, `010` as 8, `1:30` as 90, `no` as false and `2024-01-05` as a date (YAML 1.1); for
    the authors of configs, these are a number, 10, and three texts.

    Aliases (`*name`) are refused: nested, a few lines of them become more values than a machine has room for. So is a key that
    occurs twice, because one of its two values would be lost without an error.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Called by PyYAML for each value."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(problem="an alias (*name); write the value out", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Called by PyYAML for each mapping."""
        first: dict[Any, Any] = {}
        for key_node, _ in node.value:
            key = key_node.value
            if key in first:
                lines = first[key].start_mark.line + 1, key_node.start_mark.line + 1
                problem = f"the key {key!r} occurs twice, in lines {lines[0]} and {lines[1]}; merge the two"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            first[key] = key_node
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        """Called by PyYAML for each whole number."""
        text = node.value.replace("_", "")
        return int(text, 0) if text.lstrip("+-").lower().startswith(("0x", "0o", "0b")) else int(text)


_Yaml12Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in pairs if tag.rsplit(":", 1)[1] not in _OF_YAML_1_1]
    for letter, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^([-+]?[0-9][0-9_]*|[-+]?0[xX][0-9a-fA-F]+|[-+]?0o[0-7]+|[-+]?0b[01]+)$"),
    list("-+0123456789"),
)
_Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _Yaml12Loader.construct_yaml_int)

_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+0123456789."),
)


def parse_yaml(path: str | Path) -> Any:
    """What a YAML file holds: plain values, numbers as in YAML 1.2. Raises ConfigError for a file that cannot be read so."""
    path = Path(path)
    try:
        with open_input(path) as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ConfigError(f"config {path}: wanted at most {MOST_BYTES:,} bytes of YAML; is this the file you mean?")
        return yaml.load(text.decode("utf-8-sig"), Loader=_Yaml12Loader)
    except FileNotFoundError:
        raise ConfigError(f"config {path}: no such file; the ones that come with cocoer are in configs/") from None
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"config {path}: cannot be read: {err}") from None
    except yaml.YAMLError as err:
        raise ConfigError(f"config {path}: is not YAML: {' '.join(str(err).split())}") from None
    except (RecursionError, ValueError, OverflowError, TypeError) as err:  # TypeError: a list as a key
        if isinstance(err, ConfigError):
            raise
        raise ConfigError(f"config {path}: is not YAML of a config: {err}") from None


def parse_value(text: str) -> Any:
    """What a YAML text of one value holds, for `--set`. Raises ConfigError."""
    try:
        return yaml.load(text, Loader=_Yaml12Loader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError, TypeError):
        raise ConfigError(f"{text!r} is not a YAML value") from None
