"""Configs that differ from a full model in one setting: their description, row of the paper, and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cocoer.config import Config, load_config
from cocoer.config_file import config_head
from cocoer.errors import TableError
from cocoer.paper import PaperRow

BASELINES, ABLATIONS, STUDIES = "baselines", "ablations", "studies"
KINDS: tuple[str, ...] = (ABLATIONS, BASELINES, STUDIES)
"""Folders of `configs/`: rows of the paper's tables; single levels and changes of ours; what is in no table."""


@dataclass(frozen=True)
class Variant:
    """A config that is one step away from the full model. paper: its row there; every ablation has one, nothing else has.

    weights: of its runs; wanted: where they would lie. train: the command that makes them. same_as_full: whether it is the
    full model itself under another name; its figure is then the full model's, and it is not trained again.
    """

    config: Path
    kind: str
    what: str
    paper: PaperRow | None
    same_as_full: bool
    weights: tuple[Path, ...]
    wanted: Path
    train: str

    @property
    def family(self) -> str:
        """What the config changes, by the first word of its name."""
        return self.config.stem.partition("_")[0]


def find_variants(configs: Path, trained: Path, dataset: str, demo: str = "") -> list[Variant]:
    """Every config of a data set in the folders `KINDS`, with its weights in the folders of these names in `trained`.

    Weights lie in NAME/best.safetensors, or NAME/seed-N/best.safetensors for several seeds. demo: the command that trains a
    variant on synthetic scenes, followed by its name; without it the variant's own config is trained.
    Raises TableError for an ablation without its row of the paper, another config with one, and a config without `what`;
    ConfigError for a row that the paper does not have.
    """
    out = []
    for kind in KINDS:
        for config in sorted((configs / kind).glob("*.yaml")):
            head, loaded = config_head(config), load_config(config)
            if not head.what or (head.paper is None) == (kind == ABLATIONS):
                raise TableError(
                    f"{config}: wanted `what: a few words`" + (" and `paper: {table, row}`" if kind == ABLATIONS else "")
                    + f", got what {head.what!r}, paper {head.paper}"
                )  # fmt: skip
            if loaded.data.dataset != dataset and (kind == ABLATIONS or not demo):
                continue  # the demo lays settings of ours over its own config, whatever data set they were written for
            full = load_config(configs / f"{loaded.data.dataset}.yaml")
            train = f"{demo} {config.stem}" if demo else f"python train.py --config configs/{kind}/{config.name}"
            folder = trained / kind / config.stem
            out.append(
                Variant(
                    config, kind, head.what, head.paper, what_matters(loaded) == what_matters(full), weights_of(folder),
                    folder / "best.safetensors", train,
                )
            )  # fmt: skip
    return out


def what_matters(config: Config) -> tuple[object, ...]:
    """A config without where it writes: two of the same are one model."""
    return config.data, config.model, config.loss, config.optim, config.vocabulary_stage


def weights_of(folder: Path) -> tuple[Path, ...]:
    """The weights that training leaves in a run's folder: one per seed, or the only ones; empty where there are none."""
    return tuple(sorted(folder.glob("seed-*/best.safetensors"))) or tuple(folder.glob("best.safetensors"))


def chosen_variants(variants: Sequence[Variant], names: Sequence[str]) -> list[Variant]:
    """What the names stand for: a config's name, one of `KINDS` or `all`; without those that are the full model itself.

    Raises TableError for another name.
    """
    known = {v.config.stem: [v] for v in variants} | {kind: [v for v in variants if v.kind == kind] for kind in KINDS}
    known["all"] = list(variants)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TableError(f"--with: wanted names out of {', '.join(sorted(known))}; got {', '.join(unknown)}")
    return list(dict.fromkeys(v for name in names for v in known[name] if not v.same_as_full))
