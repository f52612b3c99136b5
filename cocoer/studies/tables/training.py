"""What `--train` of the tables trains: the full model once per seed, and the ablations and baselines that were asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cocoer.config_file import own_settings
from cocoer.studies.tables.measurements import Target
from cocoer.studies.tables.variants import Variant
from cocoer.training.launch import TrainingRun, seeds_of, train_all


@dataclass(frozen=True)
class TrainingPlan:
    """What is the same for all trainings of one page.

    config: of the full model. folder: its runs go to `folder/seed-N`; those of variants to `trained/KIND/NAME/seed-N`.
    overlay: variants are their settings over `config` (the demo), in place of their own file. overrides: `a.b=c` over each.
    """

    config: Path
    folder: Path
    trained: Path
    root: Path
    seeds: tuple[int, ...]
    overrides: tuple[str, ...] = ()
    overlay: bool = False
    note: str = ""

    def runs(self, variants: Sequence[Variant] = ()) -> list[TrainingRun]:
        """One per seed of the full model, then of each variant."""
        places = [f"data.root={json.dumps(str(self.root))}", f"data.index={json.dumps(str(self.root / 'index'))}"]
        out = seeds_of(TrainingRun(self.config, (*places, *self.overrides), self.note), self.seeds, self.folder)
        for variant in variants:
            own = own_settings(variant.config) if self.overlay else []
            config = self.config if self.overlay else variant.config
            run = TrainingRun(config, (*own, *places, *self.overrides), self.note)
            out += seeds_of(run, self.seeds, self.trained / variant.kind / variant.config.stem)
        return out


def train_plan(plan: TrainingPlan, variants: Sequence[Variant], device: str, jobs: int) -> list[Path]:
    """Train what is not done; the full model's weights, one per seed. Raises TrainingError and what the checks raise."""
    return train_all(plan.runs(variants), device, jobs)[: len(plan.seeds)]


def trainable(target: Target) -> bool:
    """Whether there are persons to train on and to select with, beside those to be measured."""
    files = [target.index / f"{split}.jsonl" for split in ("train", "val")]
    return all(file.is_file() and file.stat().st_size for file in files)
