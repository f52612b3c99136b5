"""The logic of the web page: recognise an image, and explain the prediction of one person.

Knows no web framework: `app.py` lays out the page and hands its events here. Whatever is wrong with an image, with boxes or
with weights is a `ViewError` whose text can be shown to the person at the page; the files that were sent appear in it without
the folder in which the server put them.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cocoer.data.boxes_file import GivenBoxes
from cocoer.data.decode import decode_image
from cocoer.data.transforms import LevelCrops, make_batch
from cocoer.errors import BoxesError, ViewError
from cocoer.inference.explain import explain
from cocoer.inference.recognizer import Recognizer
from cocoer.outputs import Explanation, ImageResult

MOST_PIXELS = 50_000_000
"""Larger images are refused before they are unpacked: 150 MB as RGB, and a camera's 50 megapixels still pass."""

MOST_PERSONS = 100
"""Boxes of more people than this are refused; each is a pass through three backbones."""

MOST_KEPT = 4
"""Images that stay in memory for further questions."""


@dataclass(frozen=True)
class ViewedImage:
    """An image that was recognised. token: names it in later questions. crops: per person, None where it was not scored."""

    token: str
    image: Image.Image
    result: ImageResult
    crops: tuple[LevelCrops | None, ...]


class Viewer:
    """Answers a page's questions with one recogniser, one at a time; the last `kept` images can be asked about.

    Calls from several threads wait for each other: Grad-CAM hangs hooks into the model, which other passes would meet.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        most_pixels: int = MOST_PIXELS,
        most_persons: int = MOST_PERSONS,
        kept: int = MOST_KEPT,
    ) -> None:
        self.recognizer = recognizer
        self.most_pixels, self.most_persons, self.kept = most_pixels, most_persons, kept
        self._images: OrderedDict[str, ViewedImage] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    @property
    def emotions(self) -> tuple[str, ...]:
        """The classes that can be explained."""
        return self.recognizer.config.classes

    def view(self, path: str | Path, boxes: str | Path | None = None) -> ViewedImage:
        """Recognise the people of an image file; it can be recalled by its token afterwards.

        boxes: a boxes file (`data.boxes_file`) for this image, in place of detection; without one, NAME.boxes.json beside
        the image is taken where it is there. Raises ViewError for an image, boxes, detectors or weights that cannot be used.
        """
        path = Path(path)
        shown = _without_folders(path, boxes)
        with self._one_at_a_time, told(shown):
            image = decode_image(path, self.most_pixels)
            given = GivenBoxes(boxes, single=True)(path.name, path)
            if given is not None and len(given) > self.most_persons:
                raise BoxesError(f"boxes: wanted at most {self.most_persons} people, got {len(given)}")
            recognizer = self.recognizer
            prepared = recognizer.prepare(image, given)
            scored = prepared.crops
            answers = dict(zip(scored, recognizer.score(list(scored.values())), strict=True))
            crops = tuple(who.crops for who in prepared.persons)
            result = recognizer.result(path.name, prepared, answers)
            viewed = ViewedImage(secrets.token_urlsafe(16), image, result, crops)
            self._images[viewed.token] = viewed
            while len(self._images) > self.kept:
                self._images.popitem(last=False)
        return viewed

    def recall(self, token: str) -> ViewedImage:
        """An image that was viewed. Raises ViewError where newer ones have taken its place."""
        with self._one_at_a_time:
            if token not in self._images:
                raise ViewError(f"This image is not kept any more (the last {self.kept} are). Drop it again.")
            self._images.move_to_end(token)
            return self._images[token]

    def explain(self, token: str, person: int, emotion: str | None = None) -> Explanation:
        """Saliency and attention of one person, by its place in the result. emotion: None = its most probable one.

        Raises ViewError for an image that is gone, a person that is not there or was not scored, an emotion that does not
        exist (the nearest is named), and weights without gradients.
        """
        viewed = self.recall(token)
        if not 0 <= person < len(viewed.crops):
            raise ViewError(f"person: wanted 0 to {len(viewed.crops) - 1}, got {person}")
        crops = viewed.crops[person]
        if crops is None:
            raise ViewError(f"person {person}: {viewed.result.persons[person].message}")
        with self._one_at_a_time, told():
            model, config = self.recognizer.model, self.recognizer.config
            return explain(model, config, make_batch([crops], [token]), emotion)[0]


@contextmanager
def told(shown: Callable[[str], str] = str) -> Iterator[None]:
    """Faults of images, boxes, detectors, weights and memory become `ViewError`s; shown: makes a text fit to be shown."""
    try:
        yield
    except (ValueError, OSError, RuntimeError, MemoryError) as err:
        raise ViewError(shown(str(err)) or f"This did not work: {type(err).__name__}.") from err


def _without_folders(*paths: str | Path | None) -> Callable[[str], str]:
    """Replaces paths in a text by the files' names."""

    def shown(text: str) -> str:
        for path in paths:
            if path is not None:
                text = text.replace(str(path), Path(path).name)
        return text

    return shown
