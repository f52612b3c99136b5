"""The ablation configs, each with the paper's table it belongs to and the place of its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cocoer.engine.table_runs import TableError

_ABLATION = re.compile(r"# Ablation: (?P<what>.+) \((?P<place>Tab\. \d|Fig\. \d); paper figure: not at hand\)\.")


@dataclass(frozen=True)
class Ablation:
    """A config under configs/ablations: the paper's table or figure it belongs to, and where its weights would lie."""

    config: Path
    what: str
    place: str
    weights: tuple[Path, ...]
    wanted: Path


def find_ablations(configs: Path, weights: Path) -> list[Ablation]:
    """Every config under `configs`, with the weights of its runs under `weights/NAME/` (one run, or seed-0, seed-1 ..).

    Raises TableError for a config whose first line does not say what it ablates.
    """
    out = []
    for config in sorted(configs.glob("*.yaml")):
        first = config.read_text(encoding="utf-8").partition("\n")[0]
        found = _ABLATION.fullmatch(first)
        if found is None:
            raise TableError(
                f"{config}: wanted a first line like '# Ablation: WHAT (Tab. 4; paper figure: not at hand).'"
            )
        folder = weights / config.stem
        files = tuple(sorted(folder.glob("seed-*/best.safetensors"))) or tuple(folder.glob("best.safetensors"))
        out.append(Ablation(config, found["what"], found["place"], files, folder / "best.safetensors"))
    return out
