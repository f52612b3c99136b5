"""Check a person index for training and evaluation: one set of checks for `cocoer data check`, `train` and `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cocoer.config import DataConfig
from cocoer.data.batch import PersonRecord
from cocoer.data.index import SIDECAR, read_index, split_path
from cocoer.datasets import dataset_of, find_dataset, written_out
from cocoer.errors import IndexFileError, listed, one_line
from cocoer.files import read_json
from cocoer.names import SPLITS, ClassNames
from cocoer.weights import places


def checked_people(data: DataConfig, split: str, images: bool = True) -> list[PersonRecord]:
    """The persons of one split with labels in the listed spelling, as `data` says; images: look whether the files are there.

    Raises IndexFileError that names file, rows or persons: what `read_index` finds, persons of a single-label data set with
    another number of labels than one, and image files that are not there (unless a crop cache takes their place).
    """
    classes = dataset_of(data).class_names
    records = read_index(data.index, split, classes)
    where = split_path(data.index, split)
    faults = _label_faults(records, classes)
    if faults:
        raise IndexFileError(f"{where}: {len(faults)} persons have not exactly one label:\n  {listed(faults)}")
    missing = _missing_images(records, places.given(data.root)) if images and not data.cache else []
    if missing:
        raise IndexFileError(
            f"{where}: {len(missing)} images are not below {data.root}; is data.root right?\n  {listed(missing)}"
        )
    return records


def labelled_people(data: DataConfig, split: str, images: bool = True) -> list[PersonRecord]:
    """`checked_people`, for what needs labels: training, the choice of the best epoch, evaluation. Raises IndexFileError."""
    records = checked_people(data, split, images)
    if not any(record.labels for record in records):
        raise IndexFileError(
            f"{split_path(data.index, split)}: {len(records)} persons and not one label; training and evaluation need labels"
        )
    return records


def data_of_index(index: Path, root: Path, dataset: str | None = None) -> DataConfig:
    """The `data` section of a config for an index: its data set is `dataset` (a name or file), else what its sidecar says.

    Raises IndexFileError where neither says which data set it is, DatasetError for one that cannot be used.
    """
    place: dict[str, Any] = {"root": str(root), "index": str(index)}
    if dataset is None:
        folder = index if index.is_dir() else index.parent
        try:
            said = read_json(folder / SIDECAR)
            dataset, own = said.get("dataset"), said.get("data")
        except (OSError, ValueError, AttributeError):
            dataset = own = None
        damaged = f"{folder / SIDECAR}: does not say which data set this is as cocoer writes it"
        if own:
            try:
                return DataConfig(**place, **own | {"classes": tuple(own["classes"])})
            except (TypeError, ValueError, KeyError) as err:
                raise IndexFileError(f"{damaged} ({one_line(err)}); say it with --dataset or --config") from None
        if not isinstance(dataset, str | None):
            raise IndexFileError(f"{damaged} (dataset: {dataset!r}); say it with --dataset or --config")
    if not dataset:
        raise IndexFileError(
            f"{index}: no {SIDECAR} says which data set this is, so labels cannot be checked; say it with --dataset or --config"
        )
    entry = find_dataset(dataset)
    if dataset != entry.name:  # a file: its content, for the name alone would not be found
        own = written_out(entry)
        return DataConfig(**place, **own | {"classes": entry.classes})
    return DataConfig(**place, dataset=dataset)


def splits_to_check(index: Path, data: DataConfig | None) -> tuple[list[str], str]:
    """The splits of an index to look at, and a remark on what training would miss, or "".

    data: of a config: exactly the splits that training with it reads, in its order, and they must be there; None = all that
    are there, and train, and val or test, must be. Raises IndexFileError where one is not.
    """
    there = [split for split in SPLITS if split_path(index, split).is_file()]
    wanted = [data.train_split, data.select_split] if data is not None else ["train"]
    if missing := [split for split in SPLITS if split in wanted and split not in there]:
        raise IndexFileError(
            f"{index}: no {missing[0]}.jsonl, and training needs one; found {', '.join(there) or 'no split'}"
        )
    if data is None and there == ["train"]:
        raise IndexFileError(
            f"{index}: neither val.jsonl nor test.jsonl, and training selects its best epoch on one of them"
        )
    if data is not None:
        unread = [split for split in there if split not in wanted]
        remark = f"not looked at, for training with this config does not read it: {', '.join(unread)} (--split)"
        return list(dict.fromkeys(wanted)), remark if unread else ""
    no_val = "val" not in there
    return there, "no val.jsonl: training selects on test here, with --set data.select_split=test" if no_val else ""


def _label_faults(records: Sequence[PersonRecord], classes: ClassNames) -> list[str]:
    """Persons without exactly one label, for a single-label data set in which any person has labels."""
    if classes.multi_label or not any(record.labels for record in records):
        return []
    return [f"{r.key}: {', '.join(r.labels) or 'none'}" for r in records if len(set(r.labels)) != 1]


def _missing_images(records: Sequence[PersonRecord], root: Path) -> list[str]:
    return [image for image in dict.fromkeys(r.image for r in records) if not (root / image).is_file()]
