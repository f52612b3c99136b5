"""Detection and recognition of a folder, each alone and together: does the pipeline of `inference.py` cost only the slower one?

The demonstration's weights, detectors and images, because detection needs something to find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from cocoer.benchmark.model import Row
from cocoer.benchmark.timing import Task, take_turns
from cocoer.data.decode import decode_image
from cocoer.data.inputs import InputItem
from cocoer.inference.pipeline import predict_many, share_cores
from cocoer.inference.prepared import PreparedImage
from cocoer.inference.recognizer import Recognizer

_DETECTION, _RECOGNITION, _TOGETHER = "detection alone", "recognition alone", "detection and recognition together"


def measure_overlap(
    checkpoint: Path, images: Sequence[Path], device: str, seconds: float, count: int = 256
) -> Iterator[Row]:
    """Reading and detecting `count` images, recognising the people found, and both through `predict_many`.

    The cores are shared as in `inference.py`. The last row's `ratio` is together / the slower of the two alone, median
    over the rounds. `batch` is the number of images.
    Raises ValueError without images.
    """
    if not images:
        raise ValueError("overlap: wanted images of the demonstration (test_imgs/demo_*.jpg), found none")
    recognizer = Recognizer.from_checkpoint(checkpoint, device=device)
    threads = torch.get_num_threads()
    share_cores(recognizer)
    items = [InputItem(i, f"{i}.jpg", str(i), images[i % len(images)]) for i in range(count)]
    tasks = _tasks(recognizer, items)
    try:
        timings = take_turns(tasks, seconds, torch.device(recognizer.about["device"]), least=3)
    finally:
        torch.set_num_threads(threads)
    slower = max((_DETECTION, _RECOGNITION), key=timings.median)
    for name in tasks:
        mode, device = recognizer.config.model.mode, str(recognizer.about["device"])
        row = Row("overlap", name, mode, device, "float32", count, total_ms=timings.median(name))
        row = replace(row, spread_ms=timings.quartiles(name), rounds=timings.count)
        if name == _TOGETHER:
            row = replace(row, floor_ms=timings.median(slower), ratio=timings.ratio(name, slower))
        yield row


def _tasks(recognizer: Recognizer, items: Sequence[InputItem]) -> dict[str, Task]:
    """The three things to time, on the same images."""
    size = recognizer.config.inference.batch_size

    def read(item: InputItem) -> PreparedImage:
        return recognizer.prepare(decode_image(item.source))  # type: ignore[arg-type]  # every item here is a file

    crops = [crop for item in items for crop in read(item).crops.values()]

    def detect() -> None:
        for item in items:
            read(item)

    def recognise() -> None:
        for start in range(0, len(crops), size):
            recognizer.score(crops[start : start + size])

    def together() -> None:
        for _ in predict_many(recognizer, items):
            pass

    return {_DETECTION: detect, _RECOGNITION: recognise, _TOGETHER: together}
