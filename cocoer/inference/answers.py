"""The result for one image: a list of people that can also be shown as a table, a drawing or HTML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from PIL import Image

from cocoer.data.decode import Source, decode_image
from cocoer.outputs import ImageResult, PersonPrediction

if TYPE_CHECKING:
    from pandas import DataFrame


class People(list[PersonPrediction]):
    """One image's people, in order; an ordinary list of `PersonPrediction` otherwise.

    result: the same as an `ImageResult`, with the image's size and the model that answered. The image itself is not kept:
    `drawing`, `show` and a notebook's cell read it again from `source` (a path, bytes, a PIL image, an array).
    """

    def __init__(self, result: ImageResult, source: Source) -> None:
        super().__init__(result.persons)
        self.result, self.source = result, source

    def to_dict(self) -> dict[str, Any]:
        """What `cocoer predict` writes as the image's JSON."""
        return self.result.to_dict()

    def to_frame(self) -> DataFrame:
        """A pandas table with a flat row per person: the columns of results.csv. Raises MissingExtra without pandas."""
        return to_frame([self])

    def drawing(self) -> Image.Image:
        """The image with all people's boxes and emotions. Raises ImageError where the image cannot be read (again)."""
        from cocoer.report.draw import draw_result

        return draw_result(decode_image(self.source), self.result)

    def show(self) -> None:
        """Open the drawing in the system's image viewer. Raises ImageError as `drawing` does."""
        self.drawing().show(title=self.result.image)

    def _repr_html_(self) -> str:
        """The drawing and the most probable emotions, for a notebook's cell."""
        from cocoer.report.notebook import people_html

        return people_html(self.drawing() if self.result.status != "error" else None, self.result)


def to_frame(answers: Iterable[People]) -> DataFrame:
    """The table of many images' people, one row a person. Raises MissingExtra without pandas."""
    from cocoer.report.notebook import people_frame

    return people_frame([people.result for people in answers])
