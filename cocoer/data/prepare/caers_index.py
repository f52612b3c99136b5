"""Build a person index from CAER-S images: splits, duplicates, one person per image, and a reason for every dropped image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cocoer.data.batch import PersonRecord
from cocoer.data.files import FileFacts, scan_files
from cocoer.data.people import Detections
from cocoer.data.prepare.caers import CaersImage, FaceList, choose_person, duplicate_report
from cocoer.data.prepare.detections import DetectAll
from cocoer.data.prepare.heads import shares
from cocoer.data.prepare.near_duplicates import NEAR, look_hashes, near_groups, stratified_split
from cocoer.data.prepare.published_counts import CAERS_COUNTS, compare_counts, label_counts
from cocoer.datasets import CAERS_CLASSES
from cocoer.errors import CaersError, StrictError, listed

SplitRule = Literal["original", "community", "disjoint"]

FAULTS: tuple[str, ...] = ("missing file", "unreadable image")
"""Reasons (by their beginning) that are faults of the data; `--strict` refuses them."""


@dataclass
class CaersIndex:
    """The result. sidecar: everything that `sidecar.json` says of the preparation."""

    records: list[PersonRecord]
    sidecar: dict[str, Any] = field(default_factory=dict)


def build_caers_index(
    images: Sequence[CaersImage],
    data_root: Path,
    split: SplitRule = "original",
    faces: FaceList | None = None,
    detect: DetectAll | None = None,
    near: int = NEAR,
    seed: int = 0,
    strict: bool = False,
) -> CaersIndex:
    """The index of a whole data set, one person an image.

    split: `original` follows the folders; `community` follows the face lists, which take val and test out of the test folder;
    `disjoint` draws 70/10/20 % of each class so that no two splits share an image or a near-duplicate (`near` bits of 64), and
    leaves out byte-identical repeats.
    Raises CaersError for `community` without a list of val, StrictError, where `strict`, for a broken image.
    """
    facts = scan_files(data_root, [i.path for i in images], follow_links=True)
    dropped = {i.path: facts[i.path].error for i in images if facts[i.path].error}
    splits, extra = _split(images, data_root, facts, dropped, split, faces, near, seed)
    found: dict[str, Detections] = {}
    if detect is not None:
        found, errors = detect({i.path: facts[i.path].content for i in images if i.path not in dropped})
        dropped |= {path: f"unreadable image: {why}" for path, why in errors.items()}
    if strict:
        _refuse_faults(dropped)
    records, reasons = _records([i for i in images if i.path not in dropped], splits, facts, faces, found)
    sidecar = _report(images, records, facts, dropped, split)
    return CaersIndex(records, sidecar | extra | {"listed_faces_not_used": reasons})


def _split(
    images: Sequence[CaersImage],
    data_root: Path,
    facts: Mapping[str, FileFacts],
    dropped: dict[str, str],
    rule: SplitRule,
    faces: FaceList | None,
    near: int,
    seed: int,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Split by path; images that a rule leaves out go to `dropped`. Also the duplicates, for the sidecar."""
    content = {path: fact.content for path, fact in facts.items()}
    by_folder = {i.path: i.folder for i in images if i.path not in dropped}
    duplicates = {"by_folder": duplicate_report(images, content, by_folder)}
    lists = {"face_lists": faces.report} if faces else {}
    if rule == "original":
        return by_folder, {"duplicates": duplicates} | lists
    if rule == "community":
        splits = _listed_splits(images, dropped, faces)
        return splits, {"duplicates": duplicates | {"in_index": duplicate_report(images, content, splits)}} | lists
    splits, groups = _disjoint(images, data_root, content, dropped, near, seed)
    duplicates["in_index"] = duplicate_report(images, content, splits)
    return splits, {"duplicates": duplicates, "near_duplicates": groups} | lists


def _listed_splits(images: Sequence[CaersImage], dropped: dict[str, str], faces: FaceList | None) -> dict[str, str]:
    if faces is None or not any(split == "val" for split, _ in faces.faces.values()):
        raise CaersError(
            "--split community: wanted the community's face lists (--faces FOLDER with train.txt, val.txt, test.txt), for they "
            "say which images are val; without them use --split disjoint or original"
        )
    splits = {}
    for image in images:
        if image.path in dropped:
            continue
        if image.key in faces.faces:
            splits[image.path] = faces.faces[image.key][0]
        else:
            dropped[image.path] = "not in the face lists"
    return splits


def _disjoint(
    images: Sequence[CaersImage],
    data_root: Path,
    content: Mapping[str, str],
    dropped: dict[str, str],
    near: int,
    seed: int,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Splits by path that share no near-duplicate, and what was found."""
    first: dict[str, CaersImage] = {}
    for image in images:
        if image.path in dropped:
            continue
        other = first.setdefault(content[image.path], image)
        if other is not image:
            contrary = f", which is labelled {other.label}" if other.label != image.label else ""
            dropped[image.path] = f"byte-identical to {other.path}{contrary}"
    unique = list(first.values())
    hashes = look_hashes(data_root, [image.path for image in unique])
    dropped |= {path: f"unreadable image: {value}" for path, value in hashes.items() if isinstance(value, str)}
    kept = [image for image in unique if image.path not in dropped]
    groups = near_groups([value for value in hashes.values() if isinstance(value, int)], near)
    chosen = stratified_split([(image.label,) for image in kept], groups, seed)
    sizes = Counter(groups.tolist())
    return {image.path: split for image, split in zip(kept, chosen, strict=True)}, {
        "bits": near,
        "groups_of_two_or_more": sum(n > 1 for n in sizes.values()),
        "images_in_them": sum(n for n in sizes.values() if n > 1),
        "largest_group": max(sizes.values(), default=0),
        "seed": seed,
    }


def _records(
    images: Sequence[CaersImage],
    splits: Mapping[str, str],
    facts: Mapping[str, FileFacts],
    faces: FaceList | None,
    found: Mapping[str, Detections],
) -> tuple[list[PersonRecord], dict[str, int]]:
    records, reasons = [], Counter[str]()
    for image in images:
        size = facts[image.path].width, facts[image.path].height
        listed = faces.faces.get(image.key, ("", None))[1] if faces else None
        person, fault = choose_person(found.get(image.path), listed, *size)
        if fault:
            reasons[fault] += 1
        extra: dict[str, Any] = {"body_source": person.body_source}
        scores = (("head_score", person.head_score), ("body_score", person.body_score))
        extra |= {name: score for name, score in scores if score is not None}
        records.append(
            PersonRecord(image.path, *size, 0, person.body, person.head, person.head_source, (image.label,), None,
                         splits[image.path], extra)
        )  # fmt: skip
    return records, dict(reasons)


def _refuse_faults(dropped: Mapping[str, str]) -> None:
    bad = [f"{path}: {why}" for path, why in dropped.items() if why.startswith(FAULTS)]
    if bad:
        raise StrictError(f"--strict: {len(bad)} images would be dropped:\n  {listed(bad, 20)}")


def _report(
    images: Sequence[CaersImage],
    records: Sequence[PersonRecord],
    facts: Mapping[str, FileFacts],
    dropped: Mapping[str, str],
    rule: SplitRule,
) -> dict[str, Any]:
    labels = label_counts(records, CAERS_CLASSES)
    persons = {split: sum(counts.values()) for split, counts in labels.items()}
    return {
        "dataset": "caers",
        "split": rule,
        "counts": {split: {"persons": n, "labels": labels[split]} for split, n in persons.items()},
        "against_published": compare_counts({rule: CAERS_COUNTS.get(rule, {})}, {rule: persons})[rule],
        "folders": dict(Counter(i.folder for i in images)),
        "sizes": dict(Counter(f"{f.width}x{f.height}" for f in facts.values() if not f.error).most_common(10)),
        "heads": shares((r.split, r.head_source) for r in records),
        "bodies": shares((r.split, r.extra["body_source"]) for r in records),
        "skipped_because": dict(Counter(_kind(why) for why in dropped.values())),
        "skipped": [{"image": path, "reason": why} for path, why in dropped.items()],
    }


def _kind(why: str) -> str:
    """The reason without what is special to one image."""
    return "byte-identical to another" if why.startswith("byte-identical") else why.split(":")[0]
