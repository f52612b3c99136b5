"""Faulty and unusual rows that a reader of EMOTIC must handle, added to regular ones on request."""

from __future__ import annotations

from dataclasses import replace

from cocoer.data.synthetic.annotations import ImageRow

NAN = float("nan")


def _with(row: ImageRow, **changes: object) -> ImageRow:
    """The image with its first person only, and that person changed."""
    return replace(row, persons=[replace(row.persons[0], **changes)])  # type: ignore[arg-type]


def add_traps(splits: dict[str, list[ImageRow]]) -> list[dict[str, str]]:
    """Append trap rows, in place, to each split (train, val and test must each hold an image).

    Returns what was added: split, file name and what is wrong. No image is added: the rows repeat existing ones.
    """
    train, val, test = splits["train"], splits["val"], splits["test"]
    base = train[0]
    width, height = max(base.size), max(base.size)  # a border that surely lies outside
    person = base.persons[0]
    x1, y1, x2, y2 = person.body
    added: list[tuple[str, ImageRow, str]] = [
        ("train", _with(base, categories=[person.categories[0][:1]]), "a single category"),
        ("train", _with(base, continuous=[(NAN, NAN, NAN)]), "NaN VAD"),
        ("train", _with(base, categories=[], continuous=[]), "no annotator"),
        ("train", _with(base, body=(-12.0, y1, x2, y2)), "body past the left border"),
        ("train", _with(base, body=(x1, -9.0, x2, y2)), "body past the top border"),
        ("train", _with(base, body=(x1, y1, width + 31.0, y2)), "body past the right border"),
        ("train", _with(base, body=(x1, y1, x2, height + 17.0)), "body past the lower border"),
        ("train", _with(base, body=(NAN, y1, x2, y2)), "NaN in the body box"),
        ("train", _with(base, body=(x2, y1, x1, y2)), "inverted body box"),
        ("train", _with(base, body=(x1, y1, x1, y2)), "body box without width"),
        ("train", _with(base, body=(x1 + 0.5, y1 + 0.25, x2 - 0.5, y2 - 0.25)), "fractional body box"),
        ("val", _with(val[0], categories=[("Anger",), ("Anger", "Fear"), ("Fear",)], combined_categories=("Anger", "Fear"),
                      continuous=[(3.0, 7.0, 6.0)] * 3, combined_continuous=(3.0, 7.0, 6.0)), "three annotators"),
        ("val", replace(base, persons=[replace(p, combined_categories=p.categories[0]) for p in base.persons]),
         "an image that is also in train"),
        ("test", _with(test[0], categories=[()], combined_categories=()), "an empty union of categories"),
    ]  # fmt: skip
    for split, row, _ in added:
        splits[split].append(row)
    return [{"split": split, "filename": row.filename, "what": what} for split, row, what in added]
