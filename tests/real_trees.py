"""Small trees in exactly the formats that people download, written with nothing of ours: scipy, Pillow, plain files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

NAN = float("nan")


def struct(rows: list[dict[str, Any]], names: list[str] | None = None) -> np.ndarray:
    """A 1xN MATLAB struct array; fields in the order of the first row, or as named for an empty one."""
    fields = list(rows[0]) if rows else (names or ["unused"])
    out = np.empty((1, len(rows)), dtype=[(f, object) for f in fields])
    for i, row in enumerate(rows):
        for f in fields:
            out[0, i][f] = row[f]
    return out


def cell(words: list[str]) -> np.ndarray:
    """A 1xK MATLAB cell of char."""
    out = np.empty((1, len(words)), dtype=object)
    for i, word in enumerate(words):
        out[0, i] = word
    return out


def scalar(value: float) -> np.ndarray:
    return np.array([[value]])


def continuous(rows: list[tuple[float, float, float]]) -> np.ndarray:
    names = ["valence", "arousal", "dominance"]
    return struct([dict(zip(names, map(scalar, row), strict=True)) for row in rows], names)


def person(
    body: Any = (10, 10, 50, 70),
    labels: list[list[str]] | None = None,
    vad: list[tuple[float, float, float]] | None = None,
    combined: list[str] | None = None,
    split: str = "train",
) -> dict[str, Any]:
    """One person with the fields of the split, in the order of the release."""
    labels = [["Happiness", "Engagement"]] if labels is None else labels
    vad = [(5, 6, 7)] * len(labels) if vad is None else vad
    box = body if isinstance(body, np.ndarray) else np.array([body])
    out: dict[str, Any] = {
        "body_bbox": box,
        "annotations_categories": struct([{"categories": cell(names)} for names in labels], ["categories"]),
    }
    if split != "train":
        union = sorted({name for names in labels for name in names}) if combined is None else combined
        out["combined_categories"] = cell(union)
    out["annotations_continuous"] = continuous(vad)
    if split != "train":
        mean = tuple(float(np.nanmean(column)) for column in zip(*vad, strict=True)) if vad else (NAN,) * 3
        out["combined_continuous"] = continuous([mean])
    return out | {"gender": "Male", "age": "Adult"}


def image(
    filename: str,
    persons: list[dict[str, Any]],
    folder: str = "mscoco/images",
    size: tuple[int, int] | None = (80, 100),
) -> dict[str, Any]:
    """One image's row. size: first and second stored value (n_col, n_row)."""
    database: dict[str, Any] = {"name": folder.split("/")[0]}
    if folder.startswith("mscoco"):
        database["info"] = struct([{"image_id": scalar(42), "annotations_id": scalar(7)}])
    stored = struct([{"n_col": scalar(size[0]), "n_row": scalar(size[1])}]) if size else np.empty((0, 0))
    return {
        "filename": filename,
        "folder": folder,
        "image_size": stored,
        "original_database": struct([database]),
        "person": struct(persons),
    }


def save_annotations(path: Path, **splits: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: struct(rows) for name, rows in splits.items()}, format="5")
    return path


def save_image(path: Path, width: int = 80, height: int = 100, seed: int = 0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    form = options.pop("format", "JPEG" if path.suffix == ".jpg" else "PNG")
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path, form, **options)
    return path


def save_tree(
    root: Path, images: str = "emotic", mat: str = "Annotations/Annotations.mat", **splits: list[dict[str, Any]]
) -> Path:
    """An EMOTIC tree: the annotations and an image (80x100, its own content) for every row that has none yet."""
    save_annotations(root / mat, **splits)
    rows = [row for split in splits.values() for row in split]
    for seed, row in enumerate(rows):
        path = root / images / row["folder"] / row["filename"]
        if not path.exists():
            save_image(path, seed=seed)
    return root


def small_splits() -> dict[str, list[dict[str, Any]]]:
    """A well-behaved data set of five persons."""
    return {
        "train": [
            image("a.jpg", [person(), person((30, 20, 79, 99), [["Sadness"]])]),
            image("b.jpg", [person()], "framesdb/images"),
        ],
        "val": [image("c.jpg", [person(split="val", labels=[["Anger"], ["Fear", "Anger"]])])],
        "test": [image("d.jpg", [person(split="test")], "ade20k/images")],
    }


def save_caers(
    root: Path, train: dict[str, int], test: dict[str, int], folders: tuple[str, str] = ("train", "test")
) -> Path:
    """A CAER-S tree: class folder -> number of images, every image its own."""
    seed = 1000
    for folder, counts in zip(folders, (train, test), strict=True):
        for name, count in counts.items():
            for i in range(count):
                save_image(root / folder / name / f"{i + 1:04d}.png", 64, 48, seed)
                seed += 1
    return root
