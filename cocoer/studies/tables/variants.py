"""The ablation and baseline configs: what each is, the paper's table it belongs to, and the place of its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cocoer.errors import TableError
from cocoer.yaml_file import parse_yaml

_ABLATION = re.compile(r"# Ablation: (?P<what>.+) \((?P<place>Tab\. \d|Fig\. \d); paper figure: not at hand\)\.")
_BASELINE = re.compile(r"# Baseline: (?P<what>[^:;]+)[:;].+")

TABLE_4: Mapping[str, tuple[str, ...]] = {
    "parts of the model": ("without",),
    "losses combined": ("losses",),
    "weights of the losses (beta)": ("beta",),
    "weight of |delta|^2 (alpha)": ("alpha",),
    "tokens and features": ("patch", "size"),
}
"""The five subjects of the paper's Table 4 a to e, with the families of config names; which letter is which is not at hand."""

BASELINES = "baselines"


@dataclass(frozen=True)
class Variant:
    """A config that is one step away from the full model. place: the paper's table or figure, or `baselines`.

    weights: of its runs; wanted: where they would lie. train: the command that makes them.
    """

    config: Path
    what: str
    place: str
    weights: tuple[Path, ...]
    wanted: Path
    train: str

    @property
    def family(self) -> str:
        """What the config changes, by the first word of its name."""
        return self.config.stem.partition("_")[0]


def find_variants(configs: Path, trained: Path, demo: str = "") -> list[Variant]:
    """Every config in `configs/ablations` and `configs/baselines`, with its weights in the folders of these names in `trained`.

    Weights lie in NAME/best.safetensors, or NAME/seed-N/best.safetensors for several seeds. demo: the command that trains a
    variant on synthetic scenes, followed by its name; without it the variant's own config is trained.
    Raises TableError for a config whose first line does not say what it is.
    """
    out = []
    for kind, pattern in (("ablations", _ABLATION), (BASELINES, _BASELINE)):
        for config in sorted((configs / kind).glob("*.yaml")):
            first = config.read_text(encoding="utf-8").partition("\n")[0]
            found = pattern.fullmatch(first)
            if found is None:
                wanted = (
                    "Ablation: WHAT (Tab. 4; paper figure: not at hand)."
                    if kind == "ablations"
                    else "Baseline: WHAT: MORE"
                )
                raise TableError(f"{config}: wanted a first line like '# {wanted}', got {first!r}")
            place = found["place"] if kind == "ablations" else BASELINES
            train = f"{demo} {config.stem}" if demo else f"python train.py --config configs/{kind}/{config.name}"
            folder = trained / kind / config.stem
            out.append(Variant(config, found["what"], place, weights_of(folder), folder / "best.safetensors", train))
    return out


def weights_of(folder: Path) -> tuple[Path, ...]:
    """The weights that training leaves in a run's folder: one per seed, or the only ones; empty where there are none."""
    return tuple(sorted(folder.glob("seed-*/best.safetensors"))) or tuple(folder.glob("best.safetensors"))


def own_settings(config: Path) -> list[str]:
    """What a variant's file says beyond its base and its folder, as `a.b=c`: to be laid over another base, such as the demo's."""
    tree: dict[str, Any] = parse_yaml(config)
    return [
        f"{key}={json.dumps(value)}" for key, value in _leaves(tree) if key != "base" and not key.startswith("run.")
    ]


def _leaves(tree: Mapping[str, Any], place: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = f"{place}{key}"
        out += _leaves(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return out


def chosen_variants(variants: Sequence[Variant], names: Sequence[str]) -> list[Variant]:
    """The variants that the names stand for: a config's name, `ablations`, `baselines` or `all`. TableError for another name."""
    known = {v.config.stem: [v] for v in variants}
    known["all"] = list(variants)
    known[BASELINES] = [v for v in variants if v.place == BASELINES]
    known["ablations"] = [v for v in variants if v.place != BASELINES]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TableError(f"--with: wanted names out of {', '.join(sorted(known))}; got {', '.join(unknown)}")
    return list(dict.fromkeys(v for name in names for v in known[name]))
