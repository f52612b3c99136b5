"""YAML files of anybody: plain values only, numbers as in YAML 1.2, and no more of them than the file has letters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from cocoer.errors import ConfigError

MOST_BYTES = 200_000
"""PyYAML reads about 100 kB a second; the largest config of cocoer has 4 kB."""


class _Yaml12Loader(yaml.SafeLoader):
    """PyYAML reads `6e-5` as text (YAML 1.1); in YAML 1.2, and for everybody who writes configs, it is a number.

    Aliases (`*name`) are refused: nested, a few lines of them become more values than a machine has room for.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Called by PyYAML for each value."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(problem="an alias (*name); write the value out", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


def parse_yaml(path: str | Path) -> Any:
    """What a YAML file holds: plain values, numbers as in YAML 1.2. Raises ConfigError for a file that cannot be read so."""
    path = Path(path)
    try:
        with path.open("rb") as file:
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
    except (RecursionError, ValueError, OverflowError) as err:
        if isinstance(err, ConfigError):
            raise
        raise ConfigError(f"config {path}: is not YAML of a config: {err}") from None


def parse_value(text: str) -> Any:
    """What a YAML text of one value holds, for `--set`. Raises ConfigError."""
    try:
        return yaml.load(text, Loader=_Yaml12Loader)
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError):
        raise ConfigError(f"{text!r} is not a YAML value") from None
