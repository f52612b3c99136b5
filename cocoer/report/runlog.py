"""The record of a run: every record as one line of `log.jsonl`, and its numbers in TensorBoard.

TensorBoard files are written with the tensorboard package alone, so this module never loads torch.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from cocoer.files import parse_json, write_file

LOG_NAME = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
IMAGE_FOLDER = "images"

_LABELS = ("stage", "split")  # string entries that become part of a scalar's name


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numpy and one-element tensors as numbers, paths as text, NaN and infinities as null.

    Raises TypeError for anything else, naming its type.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "tolist"):  # numpy arrays and scalars, torch tensors: without importing either
        return plain(value.tolist())
    raise TypeError(
        f"a log record holds numbers, text, lists and dicts; got {type(value).__name__}: {value!r}; convert it first"
    )


def scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a record with their TensorBoard names: [stage/]kind[/split]/key, nested keys joined with '/'.

    Lists, text, booleans and the step itself are not scalars. NaN and infinities are kept, TensorBoard shows them.
    """
    stage, split = (str(record[k]) if isinstance(record.get(k), str) else "" for k in _LABELS)
    prefix = "/".join(part for part in (stage, str(record["kind"]), split) if part)

    def walk(name: str, value: Any) -> Iterator[tuple[str, float]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from walk(f"{name}/{key}", inner)
        elif hasattr(value, "tolist"):
            yield from walk(name, value.tolist())
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, float(value)

    for key, value in record.items():
        if key != "step":
            yield from walk(f"{prefix}/{key}", value)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The records of a `log.jsonl`, in order. A last line that a killed run left half written is not returned.

    Raises ValueError, with the line number, for a damaged line elsewhere.
    """
    records = []
    lines = Path(path).read_bytes().split(b"\n")  # what follows the last line break is empty or half a line
    for number, line in enumerate(lines[:-1], start=1):
        try:
            records.append(parse_json(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: wanted one JSON object, got {line[:80]!r}: {error}") from None
    return records


class RunLog:
    """A callable that takes records; hand it to whatever reports progress, and close it (it is a context manager).

    A record is a dict with `kind` (`step`, `eval`, `stage`, ...), and `step` where its numbers belong into TensorBoard.

    folder: gets `log.jsonl`, `tensorboard/` and `images/`.
    resume_step: continue a run from the checkpoint of this step: everything from the first record with a later step
        on is forgotten, so that the log of a killed and resumed run is the log of an uninterrupted one. This asks that
        a checkpoint is written after all records of its step. None: add to what is there.
    resume_stage: steps count from 0 in each stage: only records whose `stage` is this one are compared.
    fresh: forget an earlier run in this folder altogether.
    scalars_every: TensorBoard gets the numbers of `step` records only at multiples of this; the JSON log has all.
    Raises ValueError where the log on disk is damaged before its last line.
    """

    def __init__(
        self,
        folder: str | Path,
        resume_step: int | None = None,
        resume_stage: str | None = None,
        fresh: bool = False,
        scalars_every: int = 1,
    ) -> None:
        if scalars_every < 1:
            raise ValueError(f"scalars_every: wanted a whole number from 1, got {scalars_every}")
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / LOG_NAME
        self._every = scalars_every
        kept = _kept_records(self.path, resume_step, resume_stage, fresh)
        rewrite = fresh or resume_step is not None
        if rewrite:  # earlier scalars beyond the checkpoint would stay visible: write the kept ones anew
            for old in (self.folder / TENSORBOARD_FOLDER).glob("events.out.tfevents.*"):
                old.unlink()
        self._file = self.path.open("a", encoding="utf-8", newline="\n")
        self._events = EventFileWriter(str(self.folder / TENSORBOARD_FOLDER), flush_secs=10)
        for record in kept if rewrite else ():
            self._to_tensorboard(record)

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Append one record; it is on its way to the disk when this returns.

        Raises ValueError for a record without `kind` or with a `step` that is no whole number, and for a closed log.
        """
        if self._file.closed:
            raise ValueError(f"{self.path}: this log is closed; open a new RunLog on the folder")
        if not isinstance(record.get("kind"), str):
            raise ValueError(f"a log record wants a text under 'kind', got {dict(record)!r}")
        step = record.get("step")
        if step is not None and (isinstance(step, bool) or not isinstance(step, int)):
            raise ValueError(f"a log record wants a whole number under 'step', got {step!r}")
        self._file.write(json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        self._to_tensorboard(record)

    def add_image(self, tag: str, image: Image.Image, step: int, stage: str | None = None) -> Path:
        """Keep an image: as PNG in `images/`, as a record of kind `image`, and in TensorBoard. Returns its path."""
        safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in (f"{stage}-{tag}" if stage else tag))
        path = self.folder / IMAGE_FOLDER / f"{safe}-{step:08d}.png"
        write_file(path, image.save)
        record = {"kind": "image", "step": step, "tag": tag, "file": path.relative_to(self.folder)}
        self(record if stage is None else {**record, "stage": stage})
        return path

    def _to_tensorboard(self, record: Mapping[str, Any]) -> None:
        step = record.get("step")
        if step is None or (record["kind"] == "step" and step % self._every):
            return
        if record["kind"] == "image":
            image = self.folder / str(record["file"])
            values = [_image_value(str(record["tag"]), image)] if image.is_file() else []
        else:
            values = [Summary.Value(tag=tag, simple_value=number) for tag, number in scalars(record)]
        if values:
            self._events.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Write what is waiting and close the files; a second call does nothing."""
        self._file.close()
        self._events.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _image_value(tag: str, path: Path) -> Summary.Value:
    """A PNG file as TensorBoard wants it: size, number of channels and the encoded bytes."""
    encoded = path.read_bytes()
    with Image.open(io.BytesIO(encoded)) as image:
        width, height, channels = image.width, image.height, len(image.getbands())
    return Summary.Value(
        tag=tag, image=Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encoded)
    )


def _kept_records(path: Path, step: int | None, stage: str | None, fresh: bool) -> list[dict[str, Any]]:
    """The records that stay, after the file on disk was cut to exactly these (or to whole lines, with nothing to cut)."""
    if fresh:
        path.unlink(missing_ok=True)
    if not path.is_file():
        return []
    records = read_log(path)
    lines = path.read_bytes().split(b"\n")[:-1]
    keep = len(records)
    if step is not None:
        for i, record in enumerate(records):
            at = record.get("step")
            if at is not None and at > step and (stage is None or record.get("stage") == stage):
                keep = i
                break
    size = sum(len(line) + 1 for line in lines[:keep])
    if size != path.stat().st_size:
        with path.open("r+b") as file:
            file.truncate(size)
    return records[:keep]
