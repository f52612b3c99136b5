"""Unpack the files that the published code preprocesses, where you made them: images as PNG and a person index.

    python unpack_release_pickles.py emotic_pre/val_info.pkl OUTPUT [--dataset caers]

Reads `{split}_info.pkl` with `{split}_image.pkl` beside it (5-tuples), or `{split}_info.npy` (a dict of 7-tuples), and writes
OUTPUT/images/*.png and OUTPUT/index/{split}.jsonl, which cocoer reads with data.root=OUTPUT data.index=OUTPUT/index.
These files are pickles, and reading a pickle can run any code: unpack only what you made yourself. Needs numpy and Pillow, not
cocoer, so it runs in the environment in which the files were made. The channel order of the images is kept; the published
code does not state it, so look at a contact sheet (`cocoer data show`).
"""

import argparse
import io
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
from PIL import Image

EMOTIC = (
    "Affection", "Anger", "Annoyance", "Anticipation", "Aversion", "Confidence", "Disapproval", "Disconnection",
    "Disquietment", "Doubt/Confusion", "Embarrassment", "Engagement", "Esteem", "Excitement", "Fatigue", "Fear",
    "Happiness", "Pain", "Peace", "Pleasure", "Sadness", "Sensitivity", "Suffering", "Surprise", "Sympathy", "Yearning",
)  # fmt: skip
CAERS = ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
SPLITS = ("train", "val", "test")


def persons(source: Path):
    """(image uint8 [H, W, 3], labels, body xyxy, head xyxy) of every person in the file."""
    if source.suffix == ".npy":
        content = np.load(source, allow_pickle=True).item()
        for rows in content.values():
            for image, _, _, labels, _, body, head in rows:
                yield image, labels, body, head
        return
    with source.open("rb") as file:
        rows = pickle.load(file)  # noqa: S301 - the reader's own file, see above
    with source.with_name(source.name.replace("_info", "_image")).open("rb") as file:
        images = pickle.load(file)  # noqa: S301
    for key, labels, _, body, head in rows:
        yield images[key], labels, body, head


def box(values, width, height):
    """Four numbers inside the image."""
    x1, y1, x2, y2 = (float(v) for v in np.asarray(values).ravel())
    return [round(v, 2) for v in (max(x1, 0), max(y1, 0), min(x2, width), min(y2, height))]


def main(argv=None):
    """Unpack; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="{split}_info.pkl or {split}_info.npy")
    parser.add_argument("output", type=Path, help="folder for images/ and index/")
    parser.add_argument("--dataset", choices=("emotic", "caers"), default="emotic")
    args = parser.parse_args(argv)
    split = next((name for name in SPLITS if name in args.source.stem), None)
    if split is None:
        parser.error(f"wanted a file name with train, val or test in it, got {args.source.name}")
    classes = EMOTIC if args.dataset == "emotic" else CAERS
    for name in ("images", "index"):
        (args.output / name).mkdir(parents=True, exist_ok=True)
    written, count, left_out = {}, {}, 0
    unfinished = args.output / "index" / f".{split}.{os.getpid()}.unfinished"
    with unfinished.open("x", encoding="utf-8") as lines:
        for image, labels, body, head in persons(args.source):
            image = np.asarray(image)
            height, width = image.shape[:2]
            name = written.setdefault(id(image), f"images/{split}_{len(written):06d}.png")
            if name not in count:
                buffer = io.BytesIO()
                Image.fromarray(image).save(buffer, "PNG")
                (args.output / name).write_bytes(buffer.getvalue())
            marked = [c for c, on in zip(classes, np.asarray(labels).ravel(), strict=True) if on > 0]
            if not marked:
                left_out += 1
                continue
            person = {
                "image": name, "width": width, "height": height, "person": count.get(name, 0),
                "body": box(body, width, height), "head": box(head, width, height), "head_source": "annotated",
                "labels": marked, "vad": None, "split": split,
            }  # fmt: skip
            count[name] = count.get(name, 0) + 1
            lines.write(json.dumps(person) + "\n")
    os.replace(unfinished, args.output / "index" / f"{split}.jsonl")
    print(f"{sum(count.values())} persons, {left_out} without a label left out -> {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
