"""Many images through one recogniser: read and detect in one thread, recognise in another, results in input order.

Memory does not grow with the input: a few images are on their way at any time, bounded in number and in pixels.
Batches depend on the input alone and never on timing, so two runs give the same bytes.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from PIL import Image

from cocoer.data.decode import decode_image
from cocoer.data.inputs import InputItem
from cocoer.data.transforms import LevelCrops
from cocoer.errors import CocoerError, ImageError, one_line
from cocoer.export.onnx_file import OnnxFile
from cocoer.inference.predictions import error_prediction
from cocoer.inference.prepared import PreparedImage
from cocoer.inference.recognizer import Recognizer
from cocoer.outputs import ImageResult, PersonPrediction

PersonsOf = Callable[[InputItem], "list[Any] | None"]
"""The boxes that the user gave for an item, or None where people are to be detected. May raise BoxesError."""

LOG = logging.getLogger(__name__)

MOST_PIXELS = 64_000_000
"""Pixels of images that may wait between the two threads, and as many again for a batch to fill; at least one image."""

SMALL_NETWORK = 20_000_000
"""Parameters below which threads inside a network do not pay."""


def share_cores(recognizer: Recognizer) -> None:
    """For a program that owns its process: let detection and recognition of small networks run side by side on the CPU.

    One thread each, because small networks gain little from a second one: with the demonstration's weights on 2 cores a
    folder takes 2.3 s instead of 3.0 s so. Large networks share all cores as the system deals them out, and GPUs need no help.
    """
    if isinstance(recognizer.model, OnnxFile):  # its threads sleep while they wait; torch has none
        return
    import torch

    small = sum(p.numel() for p in recognizer.model.parameters()) < SMALL_NETWORK
    if recognizer.device.type == "cpu" and small:
        torch.set_num_threads(1)
        recognizer.detector_threads = 1


@dataclass
class _Waiting:
    """An image on its way: prepared by the reader, then filled with answers."""

    item: InputItem
    prepared: PreparedImage | None = None
    image: Image.Image | None = None
    fault: str = ""
    answers: dict[int, PersonPrediction] = field(default_factory=dict)
    """By the person's number."""

    @property
    def unanswered(self) -> list[tuple[int, LevelCrops]]:
        """(number, crops) of the persons that have no answer yet."""
        crops = self.prepared.crops if self.prepared else {}
        return [(number, crop) for number, crop in crops.items() if number not in self.answers]

    @property
    def missing(self) -> int:
        """How many persons have no answer yet."""
        return len(self.unanswered)

    @property
    def pixels(self) -> int:
        """What it holds in memory, in pixels of the kept image."""
        return self.image.width * self.image.height if self.image else 0


def predict_many(
    recognizer: Recognizer,
    items: Iterable[InputItem],
    persons_of: PersonsOf = lambda item: None,
    keep_side: int = 0,
    prefetch: int = 16,
) -> Generator[tuple[ImageResult, InputItem, Image.Image | None], None, None]:
    """One result per item, in order, with the image for drawing on.

    keep_side: longest side of the image that comes back, larger ones reduced (the result keeps the full size and boxes);
    0 = none comes back. prefetch: images that may wait between the threads.
    Whatever is wrong with one input (an unreadable image, wrong boxes, a missing detector, a fault in a library) makes a
    result or a person with status `error`; the others go on.
    """
    reader = _Reader(recognizer, items, persons_of, keep_side, prefetch)
    reader.start()
    waiting: deque[_Waiting] = deque()
    most = 2 * recognizer.config.inference.batch_size
    try:
        for entry in reader.entries():
            waiting.append(entry)
            crowded = len(waiting) >= most or sum(w.pixels for w in waiting) >= MOST_PIXELS
            while _missing(waiting) >= recognizer.config.inference.batch_size or (crowded and _missing(waiting)):
                _score(recognizer, waiting)
            yield from _finished(recognizer, waiting)
        while _missing(waiting):
            _score(recognizer, waiting)
        yield from _finished(recognizer, waiting)
    finally:
        reader.stop()


def _missing(waiting: Iterable[_Waiting]) -> int:
    return sum(entry.missing for entry in waiting)


def _score(recognizer: Recognizer, waiting: Iterable[_Waiting]) -> None:
    """One batch: the first persons without an answer, over as many images as it takes. If it fails, each person by itself."""
    everyone = ((entry, number, crops) for entry in waiting for number, crops in entry.unanswered)
    batch = list(islice(everyone, recognizer.config.inference.batch_size))
    try:
        answers = recognizer.score([crops for *_, crops in batch])
    except Exception as err:  # noqa: BLE001 - whatever it was (no memory left, a fault in a library), the others go on
        fault = error_prediction(0, _told(batch[0][0].item.name, err))
        alone = len(batch) == 1
        answers = [fault if alone else _scored_alone(recognizer, entry.item, crops) for entry, _, crops in batch]
    for (entry, number, _), answer in zip(batch, answers, strict=True):
        entry.answers[number] = answer


def _scored_alone(recognizer: Recognizer, item: InputItem, crops: LevelCrops) -> PersonPrediction:
    """One person's answer, or what went wrong."""
    try:
        return recognizer.score([crops])[0]
    except Exception as err:  # noqa: BLE001 - as above
        return error_prediction(0, _told(item.name, err))


def _told(name: str, err: Exception) -> str:
    """An unexpected fault, on one line; its traceback goes to the log, where --debug shows it."""
    LOG.debug("%s: %s", name, type(err).__name__, exc_info=err)
    if isinstance(err, MemoryError):
        return f"{name}: does not fit into memory; make the image smaller"
    return f"{name}: {type(err).__name__}: {one_line(err)} (--debug shows where)"


def _finished(
    recognizer: Recognizer, waiting: deque[_Waiting]
) -> Iterator[tuple[ImageResult, InputItem, Image.Image | None]]:
    """Results of the images at the front that lack nothing."""
    while waiting and not waiting[0].missing:
        entry = waiting.popleft()
        prepared = entry.fault if entry.prepared is None else entry.prepared
        yield recognizer.result(entry.item.name, prepared, entry.answers, entry.item.frame), entry.item, entry.image


class _Reader(threading.Thread):
    """Decodes, detects and crops ahead of the recogniser; its queue is bounded in entries and pixels."""

    def __init__(
        self, recognizer: Recognizer, items: Iterable[InputItem], persons_of: PersonsOf, keep_side: int, prefetch: int
    ) -> None:
        super().__init__(name="cocoer-reader", daemon=True)
        self._recognizer, self._items, self._persons_of = recognizer, items, persons_of
        self._keep_side = keep_side
        self._queue: queue.Queue[_Waiting | BaseException | None] = queue.Queue(max(1, prefetch))
        self._room = threading.Condition()
        self._pixels = 0
        self._stopped = threading.Event()

    def run(self) -> None:
        """Put every item through `_prepare`; whatever is raised goes to the consumer."""
        try:
            for item in self._items:
                if self._stopped.is_set():
                    return
                self._put(self._prepare(item))
            self._put(None)
        except BaseException as err:  # noqa: BLE001 - handed over and raised in the consumer's thread
            self._put(err)

    def entries(self) -> Iterator[_Waiting]:
        """What the thread has prepared, in order. Raises what stopped it."""
        while (entry := self._queue.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            with self._room:
                self._pixels -= entry.pixels
                self._room.notify()
            yield entry

    def stop(self) -> None:
        """End the thread, whatever it waits for."""
        self._stopped.set()
        with self._room:
            self._room.notify()
        while self.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self.join(0.02)

    def _put(self, entry: _Waiting | BaseException | None) -> None:
        if isinstance(entry, _Waiting):
            with self._room:
                while self._pixels and self._pixels + entry.pixels > MOST_PIXELS and not self._stopped.is_set():
                    self._room.wait()
                self._pixels += entry.pixels
        self._queue.put(entry)

    def _prepare(self, item: InputItem) -> _Waiting:
        """One item decoded, its people found, its crops made; or its fault."""
        if item.fault:
            return _Waiting(item, fault=item.fault)
        try:
            most = self._recognizer.config.inference.max_pixels
            image = decode_image(_source(item), most) if item.pixels is None else item.pixels
            prepared = self._recognizer.prepare(image, self._persons_of(item))
            kept = _reduced(image, self._keep_side) if self._keep_side else None
        except CocoerError as err:
            LOG.debug("%s: %s", item.name, type(err).__name__, exc_info=err)
            return _Waiting(_without_pixels(item), fault=str(err))
        except Exception as err:  # noqa: BLE001 - the last barrier: one bad input must not end the run
            return _Waiting(_without_pixels(item), fault=_told(item.name, err))
        return _Waiting(_without_pixels(item), prepared, kept)


def _source(item: InputItem) -> Any:
    if item.source is None:
        raise ImageError(f"{item.name}: nothing to decode")
    return item.source


def _without_pixels(item: InputItem) -> InputItem:
    """The item without its frame, which would stay in memory until the result is written."""
    return replace(item, pixels=None) if item.pixels else item


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """The image, no side longer than `side` pixels."""
    longest = max(image.size)
    if longest <= side:
        return image
    size = tuple(max(1, round(v * side / longest)) for v in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
