"""Find where a run starts: from scratch, or from a training state that fits its config."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cocoer.config import Config, check_classes, config_from_dict, config_to_dict
from cocoer.config_file import leaves
from cocoer.errors import CheckpointError
from cocoer.model.checkpoint import read_metadata
from cocoer.training.state import find_latest, read_training, set_aside_torn

MAY_DIFFER = (
    "run.dir", "run.seeds", "run.max_steps", "run.checkpoint_every", "run.keep_checkpoints", "run.log_every", "run.threads",
    "data.root", "data.index", "data.allow_outside", "data.workers", "data.cache", "optim.epochs", "inference",
)  # fmt: skip
"""Config keys (and sections) that a resumed run may change, because the steps already taken do not depend on them."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a run is. step: optimizer steps done. epoch, position: epochs done, and persons used of the present one.

    evaluated: epochs whose evaluation is done. best, best_epoch: the highest headline so far and its epoch, from 1.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    evaluated: int = 0
    best: float | None = None
    best_epoch: int | None = None


@dataclass(frozen=True)
class Start:
    """A run's beginning. folder and training: the state it goes on from, or None. messages: what the user must be told."""

    folder: Path | None
    training: Mapping[str, Any] | None
    messages: tuple[str, ...]

    @property
    def place(self) -> TrainingProgress:
        """Where the run goes on."""
        return TrainingProgress(**self.training["place"]) if self.training else TrainingProgress()


def states_folder(config: Config) -> Path:
    """Where the training states of a run are."""
    return Path(config.run.dir) / "states"


def persons_fingerprint(keys: Sequence[str]) -> str:
    """A short text that differs when the persons or their order differ."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]


def config_differences(before: Config, now: Config, allowed: Sequence[str] = MAY_DIFFER) -> list[str]:
    """One line per key that differs and is not allowed to: `optim.lr: was 0.1, is now 0.2`."""
    old, new = dict(leaves(config_to_dict(before))), dict(leaves(config_to_dict(now)))
    return [
        f"{key}: was {old.get(key)!r}, is now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not any(key == a or key.startswith(f"{a}.") for a in allowed)
    ]


def find_start(config: Config, resume: str | None, world_size: int = 1, tidy: bool = True) -> Start:
    """Where this run begins.

    resume: None = from nothing; `latest` = the newest complete state of run.dir, or nothing where there is none (so that
    an elastic restart can always ask for it); otherwise the folder of one state.
    tidy: set newer torn states aside under another name; only one process does that.
    Raises CheckpointError when run.dir already holds states and no resume was asked for, when the state is torn, when it
    was made for other classes, or with a config that differs in a key that matters (every difference is listed).
    """
    states = states_folder(config)
    if resume is None:
        if any(states.glob("step-*")):
            raise CheckpointError(
                f"{states}: holds training states of an earlier run. Go on with --resume latest, start over with --force,"
                " or choose another folder with --set run.dir=FOLDER"
            )
        return Start(None, None, ())
    messages: list[str] = []
    if resume == "latest":
        found = find_latest(states)
        messages += [f"SKIPPED a training state that is not complete: {line}" for line in found.skipped]
        if tidy:
            set_aside_torn(states, found.folder)
        if found.folder is None:
            return Start(None, None, (*messages, f"{states}: no complete training state; starting from the beginning"))
        folder = found.folder
    else:
        folder = Path(resume)
        if not folder.is_dir():
            raise CheckpointError(
                f"--resume {resume}: no such folder; wanted `latest` or a folder {states}/step-NNNNNNNN"
            )
    training = read_training(folder)
    _check_config(folder, config)
    if training["world_size"] != world_size:
        messages.append(
            f"the state was written by {training['world_size']} processes and goes on with {world_size}, which share the same"
            f" {config.optim.batch_size * config.optim.accumulate} persons of a step in another way: the run is no longer bit for"
            " bit the uninterrupted one"
        )
    start = Start(folder, training, ())
    place = start.place
    messages.append(
        f"going on from {folder}: step {place.step}, epoch {place.epoch + 1}, person {place.position} of it"
    )
    return Start(folder, training, tuple(messages))


def _check_config(folder: Path, config: Config) -> None:
    """CheckpointError unless the state's classes and config are those of this run."""
    metadata = read_metadata(folder)
    check_classes(metadata, config.classes, f"training state {folder}")
    differences = config_differences(config_from_dict(metadata["config"], f"config in {folder}"), config)
    if differences:
        raise CheckpointError(
            f"training state {folder}: was made with another config, so going on would give a model that no config describes:\n  "
            + "\n  ".join(differences)
            + f"\nSet these keys back, or start a new run in another run.dir. Only these may differ: {', '.join(MAY_DIFFER)}"
        )


def check_persons(start: Start, keys: Sequence[str]) -> None:
    """CheckpointError unless the training persons are the ones that the state has seen, in the same order."""
    if start.training is not None and start.training["persons"] != persons_fingerprint(keys):
        raise CheckpointError(
            f"training state {start.folder}: was made with other training persons, or in another order, than the {len(keys)}"
            " of this index. Restore the index it was made with (data.index), or start a new run"
        )
