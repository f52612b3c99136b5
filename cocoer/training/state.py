"""Training states on disk: complete or absent; loading never executes code (docs/training.md#interrupted-and-resumed-runs).

A state is a folder `step-00000123` with `model.safetensors` (weights and config, usable for inference as it is),
`training.pt` (optimizer, average, random generators, place in the data) and `manifest.json` (size and sha256 of both).
It is written under another name, every file synced, the manifest last, then renamed; older ones go only afterwards.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from cocoer.errors import CheckpointError
from cocoer.files import file_sha256, put_in_place, read_json, remove_folder, sync_file, sync_folder
from cocoer.model.checkpoint import FILE_NAME

TRAINING_FILE = "training.pt"
MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Found:
    """The newest complete state and what is wrong with newer ones, each as one line."""

    folder: Path | None
    skipped: tuple[str, ...]


def save_state(
    states: Path, step: int, save_model: Callable[[Path], object], training: Mapping[str, Any], keep: int = 2
) -> Path:
    """Write the state of optimizer step `step` and remove all but the newest `keep`.

    save_model: writes the model's weights to the path it is given. training: tensors and plain values only.
    A kill at any moment leaves every earlier state, or this one, complete.
    Raises CheckpointError (place, reason, remedy) where the disk is full or not writable; earlier states are untouched.
    """
    final = states / f"step-{step:08d}"
    unfinished = states / f"step-{step:08d}.writing"
    try:
        states.mkdir(parents=True, exist_ok=True)
        for leftover in (*states.glob("step-*.writing"), *states.glob("step-*.removing")):
            shutil.rmtree(leftover)
        unfinished.mkdir()
        save_model(unfinished / FILE_NAME)
        torch.save(dict(training), unfinished / TRAINING_FILE)
        files = {}
        for name in (FILE_NAME, TRAINING_FILE):
            sync_file(unfinished / name)
            files[name] = {"bytes": (unfinished / name).stat().st_size, "sha256": file_sha256(unfinished / name)}
        (unfinished / MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=1), encoding="utf-8")
        sync_file(unfinished / MANIFEST)
        sync_folder(unfinished)
        if final.exists():  # the same step again, after a resume that skipped it as torn
            remove_folder(final)
        put_in_place(unfinished, final)
        for old in sorted(p for p in states.iterdir() if _NAME.fullmatch(p.name) and p.name < final.name)[
            : -keep + 1 or None
        ]:
            remove_folder(old)
    except (OSError, RuntimeError, SafetensorError) as err:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CheckpointError(
            f"training state {final}: cannot be written: {err}. Wanted a writable folder with room for the weights three"
            " times over; earlier states are untouched. Free some space and go on with --resume latest"
        ) from err
    return final


def why_torn(folder: Path) -> str | None:
    """What is wrong with a state folder, or None where every file is whole (sizes and sha256 as in its manifest)."""
    try:
        manifest = read_json(folder / MANIFEST)
        for name in (FILE_NAME, TRAINING_FILE):
            wanted = manifest["files"][name]
            size = (folder / name).stat().st_size
            if size != wanted["bytes"]:
                return f"{name} has {size} bytes, {wanted['bytes']} were written"
            if file_sha256(folder / name) != wanted["sha256"]:
                return f"{name} is not what was written (sha256 differs)"
    except FileNotFoundError as err:
        return f"{Path(str(err.filename)).name} is missing"
    except (OSError, ValueError, KeyError, TypeError) as err:
        return f"{MANIFEST} cannot be read ({type(err).__name__}: {err})"
    return None


def find_latest(states: Path) -> Found:
    """The newest complete state below `states`; every newer one that is not complete is named with the reason."""
    skipped: list[str] = []
    candidates = [p for p in states.glob("step-*") if p.is_dir() and re.match(r"step-\d{8}", p.name)]
    for folder in sorted(candidates, key=lambda p: p.name, reverse=True):
        if folder.name.endswith((".removing", ".torn")):
            continue
        reason = "was not finished" if not _NAME.fullmatch(folder.name) else why_torn(folder)
        if reason is None:
            return Found(folder, tuple(skipped))
        skipped.append(f"{folder}: {reason}")
    return Found(None, tuple(skipped))


def set_aside_torn(states: Path, complete: Path | None) -> None:
    """Rename states newer than `complete` that carry a good name and are torn to `.torn`, out of the way of new ones."""
    for folder in states.glob("step-*"):
        newer = complete is None or folder.name > complete.name
        if newer and _NAME.fullmatch(folder.name) and why_torn(folder) is not None:
            target = folder.with_name(folder.name + ".torn")
            shutil.rmtree(target, ignore_errors=True)
            put_in_place(folder, target)


def read_training(folder: Path) -> dict[str, Any]:
    """The training part of a complete state, on the CPU. Raises CheckpointError for one that is torn or executes code."""
    reason = why_torn(folder)
    if reason is not None:
        raise CheckpointError(f"training state {folder}: {reason}; use --resume latest for the newest complete one")
    try:
        loaded: dict[str, Any] = torch.load(folder / TRAINING_FILE, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as err:
        raise CheckpointError(
            f"training state {folder}: {TRAINING_FILE} holds more than tensors and plain values: {err}"
        ) from None
    return loaded
