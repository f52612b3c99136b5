"""Measure one set of weights on one split; the result is stored and never measured twice.

A finished run is a folder named by a hash of the weights, the data and the overrides. It holds `scores.npz` and, written
last, `result.json` with the checksum of the scores: without it the run is not done, and half of it is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from cocoer.config import Config, change_config, check_classes
from cocoer.data.array_file import read_arrays
from cocoer.data.batch import Batch, PersonRecord, targets_of
from cocoer.data.index import data_lines, read_index
from cocoer.data.loaders import PersonDataset, build_loader
from cocoer.datasets import DatasetEntry, find_dataset
from cocoer.errors import TableError
from cocoer.evaluation.evaluate import Evaluation, evaluate
from cocoer.evaluation.numbers import label_numbers, numbers_of, weights_facts
from cocoer.files import file_sha256, read_json, write_file, write_text
from cocoer.ideas import loaded_plugins
from cocoer.model.checkpoint import Loaded, find_weights, load_weights, read_metadata
from cocoer.names import ClassNames
from cocoer.provenance import git_revision
from cocoer.runtime import Runtime

Scores = NDArray[np.float32]
Kind = Literal["model", "clip"]

CLIP_WHOLE, CLIP_VIEW = "clip_whole_image", "clip_as_the_branch_looks"

_FORMAT = 3  # of a stored run; a change of what is measured raises it


@dataclass(frozen=True)
class Target:
    """The persons on which weights are measured. digest: of index, image sizes in bytes, split and limit."""

    entry: DatasetEntry
    root: Path
    split: str
    records: tuple[PersonRecord, ...]
    digest: str
    limit: int | None

    @property
    def index(self) -> Path:
        """Folder of the person index."""
        return self.root / "index"

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.entry.name

    @property
    def classes(self) -> ClassNames:
        """The k class names."""
        return self.entry.class_names

    @property
    def multi_label(self) -> bool:
        """Several labels a person (as in EMOTIC)."""
        return self.entry.multi_label

    @property
    def contradicted(self) -> list[str | None]:
        """Per person the level that contradicts the label; synthetic scenes alone know."""
        return [r.contradicted_level for r in self.records]

    @property
    def synthetic(self) -> bool:
        """Whether these are drawn scenes and not photographs."""
        return any("synthetic" in r.extra for r in self.records)


@dataclass(frozen=True)
class Measurement:
    """What one measurement gave. numbers: plain values, shares in 0..1. scores: source -> [n, k]. targets: [n, k]."""

    numbers: Mapping[str, Any]
    scores: Mapping[str, Scores]
    targets: Scores


def open_target(root: str | Path, dataset: str, split: str = "test", limit: int | None = None) -> Target:
    """The split of the prepared data at `root` (its person index in `root/index`); limit: its first persons only.

    dataset: a name or file, as `find_dataset` takes it. Raises DatasetError for an unknown one,
    IndexFileError for a missing index, an unknown label or a person twice, TableError where no person has a label
    or an image is missing.
    """
    root, entry = Path(root), find_dataset(dataset)
    records = read_index(root / "index", split, entry.class_names)[:limit]
    if not any(r.labels for r in records):
        raise TableError(
            f"{root / 'index'}: split {split!r} has {len(records)} persons and not one label, so nothing can be measured;"
            " prepare the data again with their annotations, or choose another split"
        )
    found = hashlib.sha256(json.dumps([_FORMAT, entry.name, split, limit]).encode())
    try:
        for line in data_lines(records, root):
            found.update(line)
    except OSError as err:
        raise TableError(
            f"{err.filename}: named in the index, but {err.strerror}; DATA must be the images' root"
        ) from None
    return Target(entry, root, split, tuple(records), found.hexdigest(), limit)


def check_weights(paths: Sequence[str | Path], target: Target) -> list[Path]:
    """The weights files that the names stand for, each for the target's classes.

    Raises CheckpointError for a missing or damaged file or other classes, TableError for the same file twice.
    """
    files = [find_weights(path) for path in paths]
    for file in files:
        check_classes(read_metadata(file), target.classes, f"weights {file}")
    for file in files:
        if files.count(file) > 1:
            raise TableError(f"weights {file}: given {files.count(file)} times; each seed counts once, so name it once")
    return files


def stored_run(identity: Sequence[Any], store: Path, make: Callable[[], Measurement]) -> Measurement:
    """The run of this identity (plain values): read from `store` where it is done, else made now and stored.

    Raises TableError for a damaged stored run, and what `make` raises.
    """
    name = hashlib.sha256(json.dumps([_FORMAT, *identity]).encode()).hexdigest()[:20]
    if (store / name / "result.json").is_file():
        return read_run(store / name)
    run = make()
    run = replace(run, numbers=dict(run.numbers) | {"commit": git_revision()})
    _write_run(store / name, run)
    return run


def measure(
    weights: Path, target: Target, overrides: Sequence[str], store: Path, runtime: Runtime,
    *, kind: Kind = "model", batch_size: int = 64, resamples: int = 500,
) -> Measurement:  # fmt: skip
    """The run of these weights under these overrides: from `store` where it is done, else done now and stored.

    kind: `model` = the whole model; `clip` = cosine of the V-I tower's image embedding with the prompts' text embeddings.
    Raises TableError for a damaged stored run, ScoreError for scores that are not finite (person and class named).
    """
    checksum = file_sha256(weights)

    def make() -> Measurement:
        loaded = load_weights(weights, runtime.device, lambda stored: _at(stored, target, overrides))
        people = PersonDataset(target.records, target.root, target.classes, loaded.config.data.image_size)
        loader = build_loader(loaded.config.data, target.split, batch_size, dataset=people)
        keys = [r.key for r in target.records]
        if kind == "model":
            result = evaluate(
                loaded.model, loader, multi_label=target.multi_label, order=keys, runtime=runtime, progress=True
            )
        else:
            result = _zero_shot(loaded, loader, target, runtime)
        numbers = target_numbers(result, target, resamples)
        if kind == "model" and target.multi_label:
            numbers["labels"] = label_numbers(result, loaded)
        numbers["weights"] = weights_facts(loaded) | {"file": weights.as_posix(), "sha256": checksum}
        numbers["overrides"] = list(overrides)
        return Measurement(numbers, result.probabilities, result.targets)

    plugins = sorted(loaded_plugins().values())  # a row of a plugin's rule is that of its code, not of its name
    identity = [checksum, target.digest, sorted(overrides), kind, resamples, *([plugins] if plugins else [])]
    return stored_run(identity, store, make)


def averaged(runs: Sequence[Measurement], target: Target, resamples: int) -> Measurement:
    """Late fusion of models that were trained apart: the mean of their fused answers on the same persons, nothing learned."""
    keys = tuple(r.key for r in target.records)
    mean: Scores = np.stack([run.scores["pred"] for run in runs]).mean(0)
    result = Evaluation(keys, runs[0].targets, {"pred": mean})
    numbers = target_numbers(result, target, resamples)
    del numbers["headline"]  # no single evaluation gives it
    numbers |= {"weights": runs[0].numbers["weights"], "commit": runs[0].numbers["commit"], "overrides": []}
    return Measurement(numbers, result.probabilities, result.targets)


def _at(stored: Config, target: Target, overrides: Sequence[str]) -> Config:
    """The stored config with the target's places; a crop cache of other data must not speak for these."""
    data = replace(stored.data, root=str(target.root), index=str(target.index), cache=None)
    return change_config(replace(stored, data=data), overrides)


@torch.inference_mode()
def cosines(
    scored: Callable[[Batch], dict[str, Tensor]], batches: Iterable[Batch], target: Target, runtime: Runtime, what: str
) -> Evaluation:
    """Scores of CLIP without training: a batch on the device -> source -> cosines [B, k]. what: names it on the progress bar."""
    found: dict[str, list[Tensor]] = {}
    targets = []
    for batch in tqdm(batches, desc=what, leave=False, disable=None):
        targets.append(targets_of(batch))
        for name, values in scored(batch.to(runtime.device)).items():
            found.setdefault(name, []).append(values.cpu())
    scores = {name: torch.cat(parts).numpy() for name, parts in found.items()}
    return Evaluation(tuple(r.key for r in target.records), torch.cat(targets).numpy(), scores)


def _zero_shot(loaded: Loaded, batches: Any, target: Target, runtime: Runtime) -> Evaluation:
    """Cosines [n, k] of CLIP's image embedding with the text embeddings that the checkpoint holds."""
    branch = loaded.model.vocabulary
    if branch is None:
        raise TableError(f"weights {loaded.path}: no V-I branch, so no CLIP tower to ask; leave the zero-shot row out")
    texts = F.normalize(branch.text_embeddings.float(), dim=-1)

    def scored(batch: Batch) -> dict[str, Tensor]:
        views = {CLIP_WHOLE: (batch.context,), CLIP_VIEW: branch.seen(batch.head, batch.body, batch.context)}
        return {name: branch.image_embedding(*crops) @ texts.T for name, crops in views.items()}

    return cosines(scored, batches, target, runtime, "CLIP")


def target_numbers(result: Evaluation, target: Target, resamples: int) -> dict[str, Any]:
    """The numbers of an evaluation on the target's persons."""
    return numbers_of(result, target.classes, target.multi_label, target.split, target.contradicted, resamples)


def _write_run(folder: Path, run: Measurement) -> None:
    """The scores first, `result.json` with their checksum last."""
    scores = folder / "scores.npz"
    arrays: dict[str, Any] = {f"p_{name}": values for name, values in run.scores.items()}

    write_file(scores, lambda unfinished: np.savez_compressed(unfinished, targets=run.targets, **arrays))
    text = json.dumps({"scores_sha256": file_sha256(scores), "numbers": run.numbers}, indent=1) + "\n"
    write_text(folder / "result.json", text)


def read_run(folder: Path) -> Measurement:
    """A stored run. Raises TableError for a truncated or changed file, and says which."""
    file, scores = folder / "result.json", folder / "scores.npz"
    try:
        content = read_json(file)
        numbers, wanted = content["numbers"], content["scores_sha256"]
        if file_sha256(scores) != wanted:
            raise ValueError(f"{scores.name} is not the file that was written with it")
        arrays = read_arrays(scores)
        by_source = {name[2:]: array for name, array in arrays.items() if name.startswith("p_")}
        return Measurement(numbers, by_source, arrays["targets"])
    except (ValueError, KeyError, TypeError, OSError) as err:
        raise TableError(
            f"{file}: truncated or damaged results file ({err}); delete the folder {folder} and run the same command again,"
            " which repeats this measurement"
        ) from None
