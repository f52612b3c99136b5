"""Build a person index from EMOTIC's rows and images: every box is valid, and every dropped person has a reason."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cocoer.boxes import Box, as_box, clip_box
from cocoer.data.batch import PersonRecord
from cocoer.data.files import FileFacts, scan_files
from cocoer.data.people import Detections
from cocoer.data.prepare.detections import DetectAll
from cocoer.data.prepare.emotic import EmoticTree, RawImage, RawPerson
from cocoer.data.prepare.heads import Candidate, Head, HeadKey, choose_heads, head_key, match_faces
from cocoer.data.prepare.leaks import Leaks, NearSearch, find_leaks
from cocoer.data.prepare.published_counts import EMOTIC_COUNTS, EMOTIC_LABELS, compare_counts, label_counts
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.errors import StrictError, listed
from cocoer.names import SPLITS

FAULTS: tuple[str, ...] = ("missing file", "unreadable image", "body box")
"""Reasons (by their beginning) that are faults of the data; `--strict` refuses them. The others are rules of the selection."""

MIN_BODY = 1.0
"""Pixels. What is left of a body after clipping must be at least this wide and high."""


@dataclass(frozen=True)
class HeadSource:
    """Where head boxes come from: a file's candidates, a detector, or (neither) estimates alone."""

    given: Mapping[HeadKey, Candidate] | None = None
    detect: DetectAll | None = None
    rule: str = "one_to_one"

    def look(self, images: Mapping[str, str]) -> tuple[dict[str, Detections], dict[str, str]]:
        """As `DetectAll`; nothing where there is no detector."""
        return ({}, {}) if self.detect is None else self.detect(images)


@dataclass
class _Person:
    """One person on the way into the index."""

    image: RawImage
    path: str
    number: int
    raw: RawPerson
    body: Box | None = None
    clipped: bool = False
    reason: str = ""


@dataclass
class EmoticIndex:
    """The result. sidecar: everything that `sidecar.json` says of the preparation."""

    records: list[PersonRecord]
    sidecar: dict[str, Any] = field(default_factory=dict)


def build_emotic_index(
    images: Sequence[RawImage],
    tree: EmoticTree,
    heads: HeadSource | None = None,
    drop_overlap: bool = False,
    require_vad: bool = False,
    strict: bool = False,
    near: NearSearch | None = None,
) -> EmoticIndex:
    """The index of a whole data set.

    Boxes are clipped with the size of the decoded image, never with the stored one. drop_overlap: leave out of train what is
    also in val or test, by path or content. require_vad: leave out persons without valid VAD, as the usual converter does.
    near: also look for images that look like another split's, mark the persons of val and test whose image looks like one of
    train, and drop those of train where it says so.
    Raises StrictError, where `strict`, for a missing or broken image and for an unusable body box.
    """
    heads = heads or HeadSource()
    prefix = tree.images.resolve().relative_to(tree.data_root.resolve())
    persons = _number_persons(images, prefix)
    paths = list(dict.fromkeys((prefix / image.name).as_posix() for image in images))
    facts = scan_files(tree.data_root, paths, follow_links=True)
    for person in persons:
        _judge(person, facts[person.path], require_vad)
    overlap = find_overlap(persons, facts)
    if drop_overlap:
        for person in persons:
            others = overlap.of_train.get(person.path, "") if person.image.split == "train" else ""
            if others and not person.reason:
                person.reason = f"overlap with {others}"
    leaks = None if near is None else _leaks(persons, tree, near)
    found, unreadable = heads.look({p.path: facts[p.path].content for p in persons if not p.reason})
    for person in persons:
        if not person.reason and person.path in unreadable:
            person.reason = f"unreadable image: {unreadable[person.path]}"
    kept = [p for p in persons if not p.reason]
    if strict:
        _refuse_faults(persons)
    chosen, head_report = choose_heads(
        _candidates(heads, kept, found),
        [_body(p) for p in kept],
        [(facts[p.path].width, facts[p.path].height) for p in kept],
        [p.image.split for p in kept],
    )
    records = [_record(p, facts[p.path], head, leaks) for p, head in zip(kept, chosen, strict=True)]
    sidecar = _report(images, persons, records, facts, prefix, tree, overlap)
    near_report = {} if leaks is None else {"near_duplicates": leaks.report}
    return EmoticIndex(records, sidecar | {"heads": head_report} | near_report)


def _number_persons(images: Sequence[RawImage], prefix: Path) -> list[_Person]:
    """Persons with their number in the image; an image that is listed twice in a split goes on counting."""
    counts: Counter[tuple[str, str]] = Counter()
    persons = []
    for image in images:
        path = (prefix / image.name).as_posix()
        for raw in image.persons:
            persons.append(_Person(image, path, counts[image.split, path], raw))
            counts[image.split, path] += 1
    return persons


def _judge(person: _Person, facts: FileFacts, require_vad: bool) -> None:
    """Clip the body, or say why the person is left out."""
    if facts.error:
        person.reason = facts.error
        return
    person.reason = body_fault(person.raw.body)
    if not person.reason:
        whole = as_box(person.raw.body)
        try:
            person.body = clip_box(whole, facts.width, facts.height)
        except ValueError:
            person.reason = "body box: outside the image"
            return
        person.clipped = person.body != whole
        if min(person.body[2] - person.body[0], person.body[3] - person.body[1]) < MIN_BODY:
            person.reason = "body box: under one pixel inside the image"
    if not person.reason and not person.raw.labels:
        person.reason = "no category" if person.raw.annotators else "no annotator"
    if not person.reason and require_vad and person.raw.vad is None:
        person.reason = "no valid VAD"


def body_fault(values: Sequence[float]) -> str:
    """Why the values are no box, or ""."""
    if len(values) != 4:
        return f"body box: {len(values)} values instead of 4"
    if not all(math.isfinite(v) for v in values):
        return "body box: NaN or infinite"
    x1, y1, x2, y2 = values
    if x2 < x1 or y2 < y1:
        return "body box: inverted"
    return "body box: no area" if x2 == x1 or y2 == y1 else ""


def _refuse_faults(persons: Sequence[_Person]) -> None:
    bad = [p for p in persons if p.reason.startswith(FAULTS)]
    if bad:
        lines = [f"{p.image.split} {p.path} person {p.number}: {p.reason}" for p in bad]
        raise StrictError(f"--strict: {len(bad)} persons would be dropped:\n  {listed(lines, 20)}")


# ---------------------------------------------------------------------------------------------------------------- overlap


@dataclass
class Overlap:
    """Images of train that are also elsewhere. of_train: image path -> the other splits, as words; "" for none."""

    of_train: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


def find_overlap(persons: Sequence[_Person], facts: Mapping[str, FileFacts]) -> Overlap:
    """Which images several splits share, by path and by content, and how many persons have the same box in both."""
    splits_of_content: dict[str, set[str]] = defaultdict(set)
    splits_of_path: dict[str, set[str]] = defaultdict(set)
    boxes: dict[str, set[tuple[str, tuple[float, ...]]]] = {split: set() for split in SPLITS}
    for person in persons:
        content = facts[person.path].content or person.path
        splits_of_path[person.path].add(person.image.split)
        splits_of_content[content].add(person.image.split)
        boxes[person.image.split].add((content, person.raw.body))
    out = Overlap()
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        paths = [p for p, splits in splits_of_path.items() if {first, second} <= splits]
        contents = {c for c, splits in splits_of_content.items() if {first, second} <= splits}
        inside = Counter(p.image.split for p in persons if (facts[p.path].content or p.path) in contents)
        out.report[f"{first}/{second}"] = {
            "images_by_path": len(paths),
            "images_by_content": len(contents),
            "identical_person_boxes": len(boxes[first] & boxes[second]),
            f"{first}_persons_in_them": inside[first],
            f"{second}_persons_in_them": inside[second],
        }
    for path, splits in splits_of_path.items():
        if "train" in splits:
            others = (splits | splits_of_content[facts[path].content or path]) - {"train"}
            out.of_train[path] = " and ".join(sorted(others))
    return out


def _leaks(persons: Sequence[_Person], tree: EmoticTree, near: NearSearch) -> Leaks:
    """Near-duplicates across splits among the persons kept so far; where they are dropped, those of train get a reason."""
    kept = [p for p in persons if not p.reason]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for person in kept:
        counts[person.path][person.image.split] += 1
    leaks = find_leaks(counts, tree.data_root, near.bits, near.clip)
    for person in kept if near.drop else ():
        others = leaks.elsewhere(person.path, "train") if person.image.split == "train" else ""
        if others:
            person.reason = f"near-duplicate in {others}"
    return leaks


# ------------------------------------------------------------------------------------------------------------------ heads


def _candidates(heads: HeadSource, kept: Sequence[_Person], found: Mapping[str, Detections]) -> list[Candidate]:
    """What is known of each kept person's head: the annotation's own box first, then the file's or the detector's."""
    candidates = [Candidate() for _ in kept]
    together: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, person in enumerate(kept):
        together[person.image.split, person.path].append(place)
        if person.raw.head is not None:
            candidates[place] = Candidate(person.raw.head, "annotated")
        elif heads.given is not None:
            candidates[place] = heads.given.get(head_key(person.image.name, person.number), Candidate())
    for (_, path), places in together.items():
        if path in found:
            matched = match_faces([_body(kept[i]) for i in places], found[path], heads.rule)
            for place, candidate in zip(places, matched, strict=True):
                candidates[place] = candidate if kept[place].raw.head is None else candidates[place]
    return candidates


def _body(person: _Person) -> Box:
    assert person.body is not None, "a person without a reason to be dropped has a clipped body"
    return person.body


def _record(person: _Person, facts: FileFacts, head: Head, leaks: Leaks | None) -> PersonRecord:
    extra: dict[str, Any] = {} if head.score is None else {"head_score": head.score}
    extra |= {k: v for k, v in (("gender", person.raw.gender), ("age", person.raw.age)) if v}
    extra |= {} if leaks is None else leaks.marks(person.path, person.image.split)
    return PersonRecord(
        image=person.path,
        width=facts.width,
        height=facts.height,
        person=person.number,
        body=_body(person),
        head=head.box,
        head_source=head.source,
        labels=person.raw.labels,
        vad=person.raw.vad,
        split=person.image.split,
        extra=extra,
    )


# ----------------------------------------------------------------------------------------------------------------- report


def _report(
    images: Sequence[RawImage],
    persons: Sequence[_Person],
    records: Sequence[PersonRecord],
    facts: Mapping[str, FileFacts],
    prefix: Path,
    tree: EmoticTree,
    overlap: Overlap,
) -> dict[str, Any]:
    labels = label_counts(records, EMOTIC_CLASSES)
    here = {
        "images in the annotations": dict(Counter(i.split for i in images)),
        "persons in the annotations": dict(Counter(p.image.split for p in persons)),
        "persons with valid VAD and box": dict(Counter(r.split for r in records if r.vad is not None)),
        "persons with a category": dict(Counter(r.split for r in records)),
    }
    return {
        "dataset": "emotic",
        "release": tree.release,
        "counts": _counts(images, persons, records),
        "labels": labels,
        "against_published": {
            "counts": compare_counts(EMOTIC_COUNTS[tree.release], here),
            "labels": compare_counts(EMOTIC_LABELS[tree.release], labels),
        },
        "stored_sizes": stored_sizes(images, facts, prefix),
        "clipped_boxes": dict(Counter(p.image.split for p in persons if p.clipped and not p.reason)),
        "without_vad": dict(Counter(r.split for r in records if r.vad is None)),
        "overlap": overlap.report,
        "repeated_persons": _count_duplicates(records),
        "skipped_because": dict(sorted(Counter(_kind(p.reason) for p in persons if p.reason).items())),
        "skipped": [
            {"split": p.image.split, "image": p.path, "person": p.number, "reason": p.reason}
            for p in persons
            if p.reason
        ],
    }


def _kind(reason: str) -> str:
    """The reason without what is special to one file."""
    return "unreadable image" if reason.startswith("unreadable image") else reason


def _counts(
    images: Sequence[RawImage], persons: Sequence[_Person], records: Sequence[PersonRecord]
) -> dict[str, dict[str, Any]]:
    kept = Counter((p.image.split, p.image.source) for p in persons if not p.reason)
    out: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        out[split] = {
            "images": len({r.image for r in records if r.split == split}),
            "persons": sum(r.split == split for r in records),
            "skipped": sum(p.image.split == split and bool(p.reason) for p in persons),
            "persons_by_source": {s: n for (where, s), n in sorted(kept.items()) if where == split},
            "images_listed": sum(i.split == split for i in images),
        }
    return out


def stored_sizes(images: Sequence[RawImage], facts: Mapping[str, FileFacts], prefix: Path) -> dict[str, dict[str, int]]:
    """Per source, how the annotation's size compares with the decoded one: equal, square, swapped, missing, wrong.

    `square` images cannot tell; `missing` also counts zeros. Nothing is ever clipped with the stored size.
    """
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        fact = facts[(prefix / image.name).as_posix()]
        if not fact.error:
            seen[image.source][_compare_size(image.stored_size, fact.width, fact.height)] += 1
    return {source: dict(sorted(counts.items())) for source, counts in sorted(seen.items())}


def _compare_size(stored: tuple[float, float] | None, width: int, height: int) -> str:
    if stored is None or not all(math.isfinite(v) and v > 0 for v in stored):
        return "missing"
    first, second = stored
    if (first, second) == (float(width), float(height)):
        return "square" if width == height else "equal"
    return "swapped" if (second, first) == (float(width), float(height)) else "wrong"


def _count_duplicates(records: Sequence[PersonRecord]) -> dict[str, int]:
    """Duplicates per split: persons with the same image and box as another. They are kept, as in all published counts."""
    seen = Counter((r.split, r.image, r.body) for r in records)
    return dict(Counter({s: sum(n - 1 for (split, _, _), n in seen.items() if split == s) for s in SPLITS}))
