"""Many images through one recogniser: read and detect in one thread, recognise in another, results in input order.

Memory does not grow with the input: a few images are on their way at any time, bounded in number and in pixels.
Batches depend on the input alone and never on timing, so two runs give the same bytes.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from cocoer.data.decode import decode_image
from cocoer.data.inputs import InputItem
from cocoer.errors import BoxesError, DetectorError, ImageError, MissingWeights
from cocoer.inference.predictions import Answer
from cocoer.inference.recognizer import PreparedImage, Recognizer
from cocoer.outputs import ImageResult

PersonsOf = Callable[[InputItem], "list[Any] | None"]
"""The boxes that the user gave for an item, or None where people are to be detected. May raise BoxesError."""

MOST_PIXELS = 64_000_000
"""Pixels of images that may wait between the two threads, and as many again for a batch to fill; at least one image."""

SMALL_NETWORK = 20_000_000
"""Parameters below which threads inside a network do not pay."""


def share_cores(recognizer: Recognizer) -> None:
    """For a program that owns its process: let detection and recognition of small networks run side by side on the CPU.

    One thread each, because small networks gain little from a second one: with the demonstration's weights on 2 cores a
    folder takes 2.3 s instead of 3.0 s so. Large networks share all cores as the system deals them out, and GPUs need no help.
    """
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
    answers: list[Answer] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Persons that have no answer yet."""
        return len(self.prepared.crops) - len(self.answers) if self.prepared else 0

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
    An unreadable image, wrong boxes or a detector that is needed and missing make a result with status `error`.
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
    """One batch: the first persons without an answer, over as many images as it takes."""
    room, parts = recognizer.config.inference.batch_size, []
    for entry in waiting:
        if entry.missing and room and entry.prepared:
            count = min(room, entry.missing)
            start = len(entry.answers)
            parts.append((entry, entry.prepared.crops[start : start + count]))
            room -= count
    answers = iter(recognizer.score([crops for _, part in parts for crops in part]))
    for entry, part in parts:
        entry.answers += [next(answers) for _ in part]


def _finished(
    recognizer: Recognizer, waiting: deque[_Waiting]
) -> Iterator[tuple[ImageResult, InputItem, Image.Image | None]]:
    """Results of the images at the front that lack nothing."""
    while waiting and not waiting[0].missing:
        entry = waiting.popleft()
        yield _result(recognizer, entry), entry.item, entry.image


def _result(recognizer: Recognizer, entry: _Waiting) -> ImageResult:
    if entry.prepared is None:
        return ImageResult(
            entry.item.name, 0, 0, (), "error", entry.fault, model=recognizer.about, frame=entry.item.frame
        )
    persons = recognizer.predictions(entry.prepared, iter(entry.answers))
    size = entry.prepared.width, entry.prepared.height
    about = recognizer.about | ({"detector": entry.prepared.detector} if entry.prepared.detector else {})
    return ImageResult(entry.item.name, *size, tuple(persons), model=about, frame=entry.item.frame)


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
            image = item.pixels if item.pixels is not None else decode_image(_source(item))
            prepared = self._recognizer.prepare(image, self._persons_of(item))
        except (ImageError, BoxesError, MissingWeights, DetectorError) as err:
            return _Waiting(item, fault=str(err))
        except MemoryError:
            return _Waiting(item, fault=f"{item.name}: does not fit into memory; make the image smaller")
        kept = _reduced(image, self._keep_side) if self._keep_side else None
        return _Waiting(_without_pixels(item), prepared, kept)


def _source(item: InputItem) -> Any:
    if item.source is None:
        raise ImageError(f"{item.name}: nothing to decode")
    return item.source


def _without_pixels(item: InputItem) -> InputItem:
    """The item without its frame, which would stay in memory until the result is written."""
    return InputItem(item.position, item.name, item.stem, item.source, item.frame) if item.pixels else item


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """The image, no side longer than `side` pixels."""
    longest = max(image.size)
    if longest <= side:
        return image
    size = tuple(max(1, round(v * side / longest)) for v in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
