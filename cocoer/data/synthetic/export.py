"""Write the demo world to disk in the real formats: an EMOTIC tree, a CAER-S tree, and the person index of both.

A count of EMOTIC is a number of persons, a count of CAER-S a number of images (one person each). Images are drawn by
`workers` processes; the bytes on disk depend on the seed and the counts only, not on the number of workers.
"""

from __future__ import annotations

import json
import multiprocessing
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from cocoer.data.batch import PersonRecord
from cocoer.data.decode import DEMO_MARK
from cocoer.data.synthetic.annotations import ImageRow, PersonRow, write_annotations
from cocoer.data.synthetic.copies import CHANGES, moved_people
from cocoer.data.synthetic.drawn import mark_drawn
from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.traps import add_traps
from cocoer.data.synthetic.world import ImagePlan, Person, draw_image, plan_image, png_mark
from cocoer.datasets import find_dataset
from cocoer.errors import UsageError
from cocoer.files import write_file, write_text
from cocoer.names import LEVELS, SPLITS

FOLDERS: tuple[str, ...] = ("mscoco", "mscoco", "mscoco", "framesdb", "framesdb", "emodb_small", "ade20k")
ANNOTATORS: dict[str, int] = {"train": 1, "val": 5, "test": 3}
CAERS_TRAIN_NAMES: dict[str, str] = {"Anger": "Angry"}
"""Real copies of CAER-S spell this class differently in the train folder."""
JPEG_QUALITY = 88
FEW = 64
"""Minimum number of images for starting processes; for fewer, starting takes longer than drawing."""

_COPIES = 100_000
"""Numbers of near-duplicates in a split start here, beyond those of the images that are drawn."""


@dataclass(frozen=True)
class Job:
    """One image to draw: where it comes from and where it goes (relative to the root)."""

    seed: int
    split: str
    index: int
    options: WorldOptions
    max_people: int
    path: str


@dataclass(frozen=True)
class Drawn:
    """What is left of an image once its file is written."""

    job: Job
    width: int
    height: int
    people: tuple[Person, ...]
    copied: Mapping[str, str] = field(default_factory=dict)
    """Of a near-duplicate: `copy_of`, the path of the image that it is a copy of, and `change`, the name of what changed."""


def write_emotic(
    root: Path, counts: Mapping[str, int], seed: int = 0, options: WorldOptions | None = None, traps: bool = False,
    workers: int = 1, copies: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Write `<root>/emotic/...`, `<root>/Annotations/Annotations.mat` and `<root>/index/`; counts are persons a split.

    `traps` adds the rows of `traps.add_traps` to the mat file (never to the index). copies: so many images of train are in test
    too, changed (`copies.CHANGES`). Returns the index's sidecar. Raises UsageError for more copies than train has images.
    """
    options = replace(options or WorldOptions(), dataset="emotic")
    _check_copies(copies, len(_emotic_jobs("train", counts.get("train", 0), seed, options)))
    mark_drawn(root)
    splits: dict[str, list[ImageRow]] = {}
    index: dict[str, list[PersonRecord]] = {}
    train: list[Drawn] = []
    for split in SPLITS:
        rows, lines = [], []
        images = list(
            _draw_all(root, _emotic_jobs(split, counts.get(split, 0), seed, options), workers, f"emotic {split}")
        )
        train = images if split == "train" else train
        if split == "test":
            images += _copy(root, train, [_emotic_path("test", _COPIES + i) for i in range(copies)])
        for drawn in images:
            row = _image_row(drawn)
            rows.append(row)
            lines += _index_lines(
                drawn, [(p.combined_categories, p.combined_continuous) for p in row.persons], described=True
            )
        splits[split], index[split] = rows, lines
    trapped = add_traps(splits) if traps else []
    write_annotations(root / "Annotations" / "Annotations.mat", splits)
    return _write_index(root, index, seed, options, {"traps": trapped})


def write_caers(
    root: Path, counts: Mapping[str, int], seed: int = 0, options: WorldOptions | None = None, workers: int = 1,
    copies: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Write `<root>/CAER-S/{train,test}/<Class>/NNNN.png` and `<root>/index/`; counts are images a split.

    CAER-S has no val folder: images of val lie in `test`, after those of the test split, as the community's lists
    have it; then come the `copies`, as `write_emotic` has them. Returns the index's sidecar. Raises UsageError as that does.
    """
    options = replace(options or WorldOptions(), dataset="caers")
    _check_copies(copies, counts.get("train", 0))
    mark_drawn(root)
    used: Counter[str] = Counter()
    index: dict[str, list[PersonRecord]] = {}
    train: list[Drawn] = []
    for split in ("train", "test", "val"):
        jobs = []
        for i in range(counts.get(split, 0)):
            label = plan_image(seed, split, i, options, 1).people[0].labels[0]
            folder = f"train/{CAERS_TRAIN_NAMES.get(label, label)}" if split == "train" else f"test/{label}"
            used[folder] += 1
            jobs.append(Job(seed, split, i, options, 1, f"CAER-S/{folder}/{used[folder]:04d}.png"))
        images = list(_draw_all(root, jobs, workers, f"caers {split}"))
        train = images if split == "train" else train
        index[split] = _caers_lines(images)
    paths = []
    for drawn in train[:copies]:
        folder = f"test/{drawn.people[0].plan.labels[0]}"
        used[folder] += 1
        paths.append(f"CAER-S/{folder}/{used[folder]:04d}.png")
    index["test"] += _caers_lines(_copy(root, train, paths))
    return _write_index(root, {s: index[s] for s in SPLITS}, seed, options, {})


def _caers_lines(images: Iterable[Drawn]) -> list[PersonRecord]:
    return [line for drawn in images for line in _index_lines(drawn, [(p.plan.labels, None) for p in drawn.people])]


def _check_copies(copies: int, images: int) -> None:
    if copies > images:
        raise UsageError(
            f"near-duplicates: wanted at most as many as train has images, {images}, got {copies}; draw more of train, or fewer"
        )


def _copy(root: Path, train: Sequence[Drawn], paths: Sequence[str]) -> list[Drawn]:
    """Near-duplicates in test of the first images of train, each kind of change in turn, written to `paths`."""
    copies = []
    for place, (drawn, path) in enumerate(zip(train, paths, strict=False)):
        change = CHANGES[place % len(CHANGES)]
        with Image.open(root / drawn.job.path) as image:
            changed = change.pixels(image.convert("RGB"))
        _save(changed, root / path)
        people = moved_people(drawn.people, change, drawn.width, drawn.height)
        job = replace(drawn.job, split="test", index=_COPIES + place, path=path)
        copies.append(Drawn(job, *changed.size, people, {"copy_of": drawn.job.path, "change": change.name}))
    return copies


def _emotic_jobs(split: str, num_persons: int, seed: int, options: WorldOptions) -> list[Job]:
    """Images until `num_persons` are reached; the last image may show fewer people than planned."""
    jobs: list[Job] = []
    while num_persons > 0:
        i = len(jobs)
        plan: ImagePlan = plan_image(seed, split, i, options, num_persons)
        jobs.append(Job(seed, split, i, options, len(plan.people), _emotic_path(split, i)))
        num_persons -= len(plan.people)
    return jobs


def _emotic_path(split: str, index: int) -> str:
    """A file name as each source of EMOTIC has it, unique over the splits."""
    folder = FOLDERS[zlib.crc32(f"{split}/{index}".encode()) % len(FOLDERS)]
    number = SPLITS.index(split) * 200_000 + index + 1
    name = {
        "mscoco": f"COCO_{'train' if split == 'train' else 'val'}2014_{number:012d}.jpg",
        "framesdb": f"frame_{number:08d}.jpg",
        "emodb_small": f"{zlib.crc32(str(number).encode()):08x}{number:07d}.jpg",
        "ade20k": f"ADE_{'train' if split == 'train' else 'val'}_{number:08d}.jpg",
    }[folder]
    return f"emotic/{folder}/images/{name}"


def _draw_one(root: Path, job: Job) -> Drawn:
    image = draw_image(job.seed, job.split, job.index, job.options, job.max_people)
    _save(image.image, root / job.path)
    return Drawn(job, *image.image.size, image.people)


def _save(image: Image.Image, path: Path) -> None:
    """As JPEG or PNG, by the ending, with the comment that says that it is drawn."""
    image.info["comment"] = DEMO_MARK.encode()  # Pillow writes it into a JPEG
    options: dict[str, Any] = (
        {"quality": JPEG_QUALITY} if path.suffix == ".jpg" else {"compress_level": 4, "pnginfo": png_mark()}
    )
    write_file(path, partial(image.save, **options), durable=False)  # the sidecar says that all are there


def _draw_all(root: Path, jobs: list[Job], workers: int, words: str) -> Iterator[Drawn]:
    """Draw and save all images, in order; a progress bar on a terminal."""

    def bar(drawn: Iterable[Drawn]) -> Iterator[Drawn]:
        yield from tqdm(drawn, total=len(jobs), desc=words, unit="image", disable=None)

    if workers <= 1 or len(jobs) < FEW:
        yield from bar(_draw_one(root, job) for job in jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from bar(pool.map(_draw_one, [root] * len(jobs), jobs, chunksize=16))


def _image_row(drawn: Drawn) -> ImageRow:
    _, folder, _, name = drawn.job.path.split("/")
    number = int("".join(c for c in name.split("_")[-1] if c.isdigit())) if folder == "mscoco" else 0
    swapped = folder == "emodb_small"  # the release stores the height first there
    return ImageRow(
        filename=name,
        folder=f"{folder}/images",
        size=(drawn.height, drawn.width) if swapped else (drawn.width, drawn.height),
        database=folder,
        info=(number, 900_000 + number) if folder == "mscoco" else None,
        persons=[_person_row(drawn.job, i, p) for i, p in enumerate(drawn.people)],
    )


def _person_row(job: Job, number: int, person: Person) -> PersonRow:
    """Several annotators in val and test: each names some of the labels, all together name all of them."""
    rng = np.random.default_rng([job.seed, zlib.crc32(f"{job.split}/annotators".encode()), job.index, number])
    labels, count = person.plan.labels, ANNOTATORS[job.split]
    chosen = rng.random((count, len(labels))) < (0.6 if count > 1 else 1.0)
    chosen[rng.integers(count, size=len(labels)), np.arange(len(labels))] = True
    chosen[np.arange(count), rng.integers(len(labels), size=count)] = True
    jitter = rng.integers(-1, 2, size=(count, 3)) if count > 1 else np.zeros((1, 3))
    vad = np.clip(np.array(person.plan.vad) + jitter, 1, 10)
    mean = np.rint(vad.mean(axis=0))
    return PersonRow(
        body=person.body_xyxy,
        categories=[tuple(name for name, named in zip(labels, row, strict=True) if named) for row in chosen],
        continuous=[(float(v), float(a), float(d)) for v, a, d in vad],
        combined_categories=labels,
        combined_continuous=(float(mean[0]), float(mean[1]), float(mean[2])),
        gender=person.plan.gender,
        age=person.plan.age,
    )


def _index_lines(
    drawn: Drawn, truth: list[tuple[tuple[str, ...], tuple[float, float, float] | None]], described: bool = False
) -> list[PersonRecord]:
    """The index's lines; described: with gender and age, which EMOTIC's annotations have and CAER-S lacks."""
    lines = []
    for i, (person, (labels, vad)) in enumerate(zip(drawn.people, truth, strict=True)):
        plan = person.plan
        shown = dict(zip(LEVELS, plan.archetypes, strict=True))
        extra: dict[str, Any] = {"gender": plan.gender, "age": plan.age} if described else {}
        extra["synthetic"] = {
            "contradicted_level": plan.contradicted_level, "archetypes": shown, "captions": list(person.captions),
        } | dict(drawn.copied)  # fmt: skip
        lines.append(
            PersonRecord(
                drawn.job.path, drawn.width, drawn.height, i, person.body_xyxy, person.head_xyxy, "annotated", labels, vad,
                drawn.job.split, extra,
            )
        )  # fmt: skip
    return lines


def _write_index(
    root: Path, index: dict[str, list[PersonRecord]], seed: int, options: WorldOptions, more: dict[str, Any]
) -> dict[str, Any]:
    """Write one JSONL a split and the sidecar; returns the sidecar."""
    folder = root / "index"
    counts = {}
    for split, lines in index.items():
        write_text(folder / f"{split}.jsonl", "".join(line.to_line() + "\n" for line in lines))
        labels = Counter(label for line in lines for label in line.labels)
        levels = Counter(line.contradicted_level or "none" for line in lines)
        counts[split] = {
            "persons": len(lines),
            "images": len({line.image for line in lines}),
            "labels": {name: labels[name] for name in find_dataset(options.dataset).class_names},
            "contradicted_level": {name: levels[name] for name in ("none", *LEVELS)},
        }
    sidecar = {
        "synthetic": True,
        "note": "Drawn by the demo world of cocoer; a demonstration, not photographs and not EMOTIC or CAER-S.",
        "dataset": options.dataset,
        "seed": seed,
        "contradicted_share": options.contradicted_share,
        "conflict_level": options.conflict_level,
        "detector": None,
        "skipped": [],
        "splits": counts,
        **more,
    }
    write_text(folder / "sidecar.json", json.dumps(sidecar, indent=2) + "\n")
    return sidecar
