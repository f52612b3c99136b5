"""BoLD (Body Language Dataset) as its readers describe it. Untested on the real files: they are given on request only.

    annotations/train.csv, val.csv    no header: video, person, first frame, last frame, 26 shares of annotators, valence,
                                      arousal, dominance, gender, age, ethnicity, confidence of the annotation
    videos/<video>.mp4                the clips
    joints/<video>.npy                float [n, 2 + 18 * 3]: frame, person, then x, y, confidence of 18 OpenPose joints

Column order and file names are those that published loaders of the data set use. A clip becomes one image, the middle
one of the person's frames, written once to `frames/` below the root; clips of one film are one group.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cocoer.data.array_file import map_array
from cocoer.data.decode import image_path
from cocoer.data.prepare.table.rows import Row
from cocoer.datasets import find_dataset
from cocoer.errors import AnnotationError, OutputError
from cocoer.files import open_table, write_bytes

LABEL_SHARE = 0.5
"""A category counts for a person where at least this share of the annotators chose it."""

_JOINT_CONFIDENCE = 0.1
_MARGIN = 0.1  # of the joints' extent: skin and clothes reach beyond the joints
_COLUMNS = 4 + 26 + 3 + 3 + 1


def read_bold(folder: Path) -> Iterator[Row]:
    """One row per annotated person of train and val. Raises AnnotationError where the layout is another."""
    files = [path for split in ("train", "val") if (path := folder / "annotations" / f"{split}.csv").is_file()]
    if not files:
        raise AnnotationError(f"{folder}: wanted BoLD's annotations/train.csv and val.csv in it, found neither")
    for path in files:
        with open_table(path) as file:
            for number, values in enumerate(csv.reader(file), start=1):
                if values:
                    yield _row(f"{path.name} row {number}", values, path.stem, folder)


def _row(where: str, values: list[str], split: str, folder: Path) -> Row:
    classes = find_dataset("bold").classes
    if len(values) != _COLUMNS:
        return Row(where, fault=f"{len(values)} values for the {_COLUMNS} columns of BoLD")
    try:
        video, person = PurePosixPath(values[0]), int(float(values[1]))
        middle = (int(float(values[2])) + int(float(values[3]))) // 2
        shares = [float(v) for v in values[4:30]]
        labels = tuple(name for name, share in zip(classes, shares, strict=True) if share >= LABEL_SHARE)
        image_path(folder / "videos", values[0], follow_links=True)  # nothing is read or written elsewhere
        body = _body(folder / "joints" / video.with_suffix(".npy"), person, middle)
        image = _frame(folder, video, middle)
    except OutputError:
        raise
    except (ValueError, OSError, OverflowError) as err:
        return Row(where, values[0], fault=str(err))
    film = video.parts[-2] if len(video.parts) > 1 else video.stem
    return Row(where, image, labels, body, None, split, film)


def _body(path: Path, person: int, frame: int) -> tuple[float, ...]:
    """The box round the person's visible joints in a frame, with a margin. Raises ValueError where none is visible."""
    joints = map_array(path)
    if joints.ndim != 2 or joints.shape[1] != 56 or joints.dtype.kind not in "iuf" or not len(joints):
        raise ValueError(f"{path.name}: wanted joints [n, 56], got {joints.shape}")
    first = joints[:, 0].min()  # files count their frames from an offset
    mine = joints[(joints[:, 0] - first == frame) & (joints[:, 1] == person), 2:].reshape(-1, 3)
    seen = mine[mine[:, 2] >= _JOINT_CONFIDENCE, :2]
    if len(seen) < 2:
        raise ValueError(f"{path.name}: frame {frame} shows no joints of person {person}")
    low, high = seen.min(0), seen.max(0)
    margin = _MARGIN * (high - low)
    return tuple(float(v) for v in (*(low - margin), *(high + margin)))


def _frame(folder: Path, video: PurePosixPath, frame: int) -> str:
    """The path of a clip's frame as an image below the root; written where it is not there yet."""
    name = f"frames/{video.with_suffix('')}/{frame:05d}.png"
    if not (folder / name).is_file():
        import cv2

        clip = cv2.VideoCapture(str(folder / "videos" / video))
        clip.set(cv2.CAP_PROP_POS_FRAMES, frame)
        read, pixels = clip.read()
        clip.release()
        if not read:
            raise ValueError(f"videos/{video}: frame {frame} cannot be read")
        write_bytes(folder / name, cv2.imencode(".png", pixels)[1].tobytes())
    return name
