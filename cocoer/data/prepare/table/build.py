"""Build a person index from the rows of any source: checked, completed and split, with a reason for every dropped row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cocoer.boxes import Box
from cocoer.data.batch import PersonRecord
from cocoer.data.files import FileFacts, scan_files
from cocoer.data.people import Detections
from cocoer.data.prepare.caers import choose_person
from cocoer.data.prepare.emotic_index import HeadSource
from cocoer.data.prepare.heads import Candidate, choose_heads, head_key, match_faces, shares
from cocoer.data.prepare.near_duplicates import NEAR, look_hashes, near_groups, stratified_split
from cocoer.data.prepare.published_counts import compare_counts, label_counts
from cocoer.data.prepare.table import splits as s
from cocoer.data.prepare.table.people import (
    NO_LABEL,
    Person,
    check_convention,
    find_classes,
    find_images,
    judge_boxes,
    judge_labels,
)
from cocoer.data.prepare.table.rows import Reading, Row
from cocoer.datasets import DatasetEntry, LabelKind, written_out
from cocoer.errors import AnnotationError, StrictError, listed
from cocoer.names import SPLITS, nearest


@dataclass(frozen=True)
class TableOptions:
    """How rows become an index.

    entry: the data set, or None to make one of the labels: `name`, `classes` (None = those that are found, alphabetical) and
    `kind` (None = by the number of labels). reading, said: box convention, and whether the caller named it. heads: where heads
    come from. drop_overlap: leave out of train what shares an image or a group with val or test. near: bits of 64 by which
    near-duplicates may differ. strict: refuse in place of leaving out.
    """

    entry: DatasetEntry | None = None
    name: str = "table"
    classes: Sequence[str] | None = None
    kind: LabelKind | None = None
    reading: Reading = field(default_factory=Reading)
    said: bool = False
    heads: HeadSource = field(default_factory=HeadSource)
    drop_overlap: bool = False
    near: int = NEAR
    seed: int = 0
    strict: bool = False


@dataclass
class TableIndex:
    """The result. entry: the data set of the index. sidecar: everything that `sidecar.json` says of the preparation."""

    records: list[PersonRecord]
    entry: DatasetEntry
    sidecar: dict[str, Any] = field(default_factory=dict)


def build_table_index(rows: Sequence[Row], root: Path, options: TableOptions) -> TableIndex:
    """The index of all rows, whose image paths are relative to `root`.

    Raises AnnotationError where nothing sensible can be made (one class, another box convention, no person left, an empty split),
    StrictError, where `options.strict`, for every row that would be left out for a fault and for splits that share something.
    """
    people = find_images(rows, root)
    facts = scan_files(root, list(dict.fromkeys(p.path for p in people if not p.reason)))
    entry = options.entry or find_classes(people, options.kind, options.classes, options.name)
    check_convention(people, facts, options.reading, options.said)
    judge_labels(people, entry.class_names)
    clipped = judge_boxes(people, facts)
    _judge_repeats(people)
    split_report = _split(people, facts, root, options)
    found, unreadable = options.heads.look({p.path: facts[p.path].content for p in people if not p.reason})
    for person in people:
        if not person.reason and person.path in unreadable:
            person.reason = f"unreadable image: {unreadable[person.path]}"
    if options.strict:
        _refuse(people, split_report)
    kept = [p for p in people if not p.reason]
    if not kept:
        raise AnnotationError("no person could be used:\n  " + "\n  ".join(_because(people)))
    if split_report["splits"] == "made" and (empty := s.empty_splits([p.split for p in kept])):
        raise AnnotationError(
            f"no person is left for {', '.join(empty)}: {split_report['largest_group']} of {len(kept)} persons are tied together"
            " by group, image or likeness. Lower --near, name splits in a column, or give more persons"
        )
    records, head_report = _records(kept, facts, found, options.heads)
    return TableIndex(
        records, entry, _report(people, records, entry, split_report) | {"clipped_boxes": clipped} | head_report
    )


def _judge_repeats(people: Sequence[Person]) -> None:
    """The same body in the same image is the same person: the first row counts."""
    first: dict[tuple[str, Box | None], Person] = {}
    for person in people:
        if person.reason:
            continue
        if person.body is None and person.head is not None:
            key: tuple[str, Box | None] = (f"{person.path}#head", person.head)
        else:
            key = (person.path, person.body)
        other = first.setdefault(key, person)
        if other is not person:
            what = "the same person" if person.body or person.head else "the same image without a box"
            contrary = "" if other.labels == person.labels else ", with other labels"
            person.reason = f"{what} as {other.row.where}{contrary}"


def _split(
    people: Sequence[Person], facts: Mapping[str, FileFacts], root: Path, options: TableOptions
) -> dict[str, Any]:
    """Assign a split to every person; returns how it was chosen."""
    usable = [p for p in people if not p.reason]
    if not any(p.row.split for p in usable):
        return _made(usable, facts, root, options)
    for person in usable:
        split = s.split_named(person.row.split)
        if split is None:
            near = nearest(person.row.split, SPLITS) if person.row.split else None
            said = f"unknown split {person.row.split!r}" + (f", did you mean {near!r}?" if near else "")
            person.reason = said if person.row.split else "no split, while other rows have one"
        person.split = split or ""
    usable = [p for p in usable if not p.reason]
    where = [p.row.where for p in usable]
    chosen = [p.split for p in usable]
    shared = {
        what: s.shared_across(chosen, keys)
        for what, keys in (
            ("groups", [p.row.group for p in usable]),
            ("images", [facts[p.path].content for p in usable]),
        )
    }
    if options.drop_overlap:
        for what, pairs in shared.items():
            for pair, by_key in pairs.items():
                for i in (i for members in by_key.values() for i in members if pair.startswith("train/")):
                    if usable[i].split == "train":
                        usable[i].reason = f"overlap with {pair.partition('/')[2]} ({what})"
    return {"splits": "given", "shared": {what: s.shared_report(pairs, where) for what, pairs in shared.items()}}


def _made(
    usable: Sequence[Person], facts: Mapping[str, FileFacts], root: Path, options: TableOptions
) -> dict[str, Any]:
    """Splits that cut no group, image or set of near-duplicates in two; 70/10/20 % of each class as nearly as that allows."""
    hashes = look_hashes(root, list(dict.fromkeys(p.path for p in usable)))
    for person in usable:
        if isinstance(hashes[person.path], str):
            person.reason = f"unreadable image: {hashes[person.path]}"
    kept = [p for p in usable if not p.reason]
    readable = {path: value for path, value in hashes.items() if isinstance(value, int)}
    alike = dict(zip(readable, near_groups([*readable.values()], options.near).tolist(), strict=True))
    ties = [
        (f"like {alike[p.path]}", facts[p.path].content, f"group {p.row.group}" if p.row.group else "") for p in kept
    ]
    groups = s.joined_groups(ties)
    for person, split in zip(kept, stratified_split([p.labels for p in kept], groups, options.seed), strict=True):
        person.split = split
    sizes = Counter(groups.tolist())
    return {
        "splits": "made",
        "near": options.near,
        "seed": options.seed,
        "groups": len(sizes),
        "largest_group": max(sizes.values(), default=0),
    }


def _records(
    kept: Sequence[Person], facts: Mapping[str, FileFacts], found: Mapping[str, Detections], heads: HeadSource
) -> tuple[list[PersonRecord], dict[str, Any]]:
    """Bodies and heads of all persons: from the rows, else detected, else estimated."""
    sizes = [(facts[p.path].width, facts[p.path].height) for p in kept]
    bodies: list[Box] = []
    body_sources: list[str] = []
    candidates: list[Candidate] = []
    for person, size in zip(kept, sizes, strict=True):
        if person.body is not None:
            bodies.append(person.body)
            body_sources.append("annotated")
            candidates.append(Candidate(person.head, "annotated") if person.head else Candidate())
        else:
            whole, _ = choose_person(found.get(person.path), person.head, *size)
            bodies.append(whole.body)
            body_sources.append(whole.body_source)
            known = whole.head_source != "estimated"
            candidates.append(Candidate(whole.head, whole.head_source, whole.head_score) if known else Candidate())
    numbers = _numbers(kept)
    together: dict[str, list[int]] = defaultdict(list)
    for i, person in enumerate(kept):
        if person.body is not None and person.head is None:
            together[person.path].append(i)
            if heads.given is not None:
                candidates[i] = heads.given.get(head_key(person.path, numbers[i]), Candidate())
    for path, places in together.items():
        if path in found:
            for i, candidate in zip(
                places, match_faces([bodies[i] for i in places], found[path], heads.rule), strict=True
            ):
                candidates[i] = candidate
    chosen, report = choose_heads(candidates, bodies, sizes, [p.split for p in kept])
    records = []
    for i, person in enumerate(kept):
        extra: dict[str, Any] = {"body_source": body_sources[i]}
        extra |= {} if chosen[i].score is None else {"head_score": chosen[i].score}
        extra |= {"group": person.row.group} if person.row.group else {}
        records.append(
            PersonRecord(person.path, *sizes[i], numbers[i], bodies[i], chosen[i].box, chosen[i].source, person.labels, None,
                         person.split, extra)
        )  # fmt: skip
    return records, {"heads": report, "bodies": shares((r.split, r.extra["body_source"]) for r in records)}


def _numbers(kept: Sequence[Person]) -> list[int]:
    """The number of each person within its image."""
    counts: Counter[str] = Counter()
    out = []
    for person in kept:
        out.append(counts[person.path])
        counts[person.path] += 1
    return out


def _refuse(people: Sequence[Person], split_report: Mapping[str, Any]) -> None:
    """StrictError that lists what would be left out, and what splits share."""
    bad = [p for p in people if p.reason and p.reason != NO_LABEL]
    lines = [listed([f"{p.row.where}: {p.path}: {p.reason}" for p in bad], 20)] if bad else []
    lines += shared_lines(split_report)
    if lines:
        raise StrictError(f"--strict: {len(bad)} persons would be left out:\n  " + "\n  ".join(lines))


def shared_lines(split_report: Mapping[str, Any]) -> list[str]:
    """One line per pair of splits that share a group or an image, with counts and rows."""
    return [
        f"{pair} share {found['shared']} {what} with {found['persons']} persons, first {found['first']!r}"
        f" ({', '.join(found['first_at'])})"
        for what, pairs in split_report.get("shared", {}).items()
        for pair, found in pairs.items()
    ]


def _because(people: Sequence[Person]) -> list[str]:
    """Every kind of reason with its count and the first row that has it, most frequent first."""
    kinds: dict[str, list[Person]] = defaultdict(list)
    for person in people:
        if person.reason:
            kinds[reason_kind(person.reason)].append(person)
    return [
        f"{len(found)} x {kind} (first: {found[0].row.where})"
        for kind, found in sorted(kinds.items(), key=lambda item: -len(item[1]))
    ]


def reason_kind(reason: str) -> str:
    """The reason without what is special to one row."""
    for start in ("unreadable image", "the same person", "the same image without a box"):
        if reason.startswith(start):
            return f"{start}, with other labels" if reason.endswith("with other labels") else start
    return reason


def _report(
    people: Sequence[Person], records: Sequence[PersonRecord], entry: DatasetEntry, split_report: Mapping[str, Any]
) -> dict[str, Any]:
    labels = label_counts(records, entry.classes)
    persons = {split: sum(r.split == split for r in records) for split in SPLITS}
    return {
        "dataset": entry.name,
        "data": written_out(entry),
        "counts": {
            s_: {"persons": n, "images": len({r.image for r in records if r.split == s_})} for s_, n in persons.items()
        },
        "labels": labels,
        "classes_without_train": [name for name in entry.classes if not labels["train"][name]],
        "against_published": {
            release: compare_counts(known.counts, {"persons": persons}) for release, known in entry.published.items()
        },
        "split": dict(split_report),
        "skipped_because": _because(people),
        "skipped": [{"where": p.row.where, "image": p.path, "reason": p.reason} for p in people if p.reason],
    }
