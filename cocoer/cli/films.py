"""What `cocoer predict --track` makes of videos besides rows: an annotated MP4 and a timeline figure each."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cocoer.inference.predictions import LabelRule
    from cocoer.outputs import ImageResult
    from cocoer.report.film import FilmWriter
    from cocoer.report.timeline import Timeline

USUAL_RATE = 25.0
"""Frames per second of a video that does not say."""


def frame_rate(path: str | Path) -> float:
    """Frames per second from the video's header."""
    import cv2

    video = cv2.VideoCapture(str(path))
    rate = float(video.get(cv2.CAP_PROP_FPS))
    video.release()
    return rate if 0.1 < rate < 1000 else USUAL_RATE


def tracked(
    results: Generator[tuple[ImageResult, Any, Any], None, None], rule: LabelRule, folder: Path, every: int
) -> Generator[tuple[ImageResult, Any, Any], None, None]:
    """The results with ids and smoothed probabilities; STEM.mp4 and STEM.timeline.png are written as each video ends.

    every: the results have every n-th frame. Raises MissingExtra and OutputError; then no incomplete file is left.
    """
    from cocoer.inference.tracking import track

    film: _Film | None = None
    with closing(results), closing(track(results, rule, frame_rate)) as stream:
        try:
            for result, item, image in stream:
                if film is not None and (result.frame is None or film.name != result.image):
                    film.finish()
                    film = None
                if result.frame is not None and image is not None:
                    film = film or _Film(result.image, folder / item.stem.rsplit("_", 1)[0], every)
                    film.add(result, image)
                yield result, item, image
            if film is not None:
                film.finish()
                film = None
        finally:
            if film is not None:
                film.give_up()


class _Film:
    """One video being written. name: the input's name in the results. stem: path of its files without the suffix."""

    def __init__(self, name: str, stem: Path, every: int) -> None:
        from cocoer.report.film import FilmWriter
        from cocoer.report.timeline import Timeline

        rate = frame_rate(name)
        self.name, self._stem = name, stem
        self._writer: FilmWriter = FilmWriter(stem.with_name(f"{stem.name}.mp4"), rate / every)
        self._timeline: Timeline = Timeline(rate, every)

    def add(self, result: ImageResult, image: Any) -> None:
        """The next frame."""
        from cocoer.report.film import draw_frame

        self._timeline.add(result)
        self._writer.add(draw_frame(image, result))

    def finish(self) -> None:
        """Put the files in place; without a tracked person there is no timeline."""
        from cocoer.report.plots import save

        self._writer.close()
        if self._timeline.people:
            title = f"{self._stem.name}: fused answer, smoothed along each track"
            save(self._timeline.figure(title), self._stem.with_name(f"{self._stem.name}.timeline.png"))

    def give_up(self) -> None:
        """Remove the unfinished file."""
        self._writer.give_up()
