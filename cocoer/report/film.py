"""The annotated MP4 of a tracked video: every frame with boxes, ids and the two most probable emotions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from cocoer.errors import MissingExtra
from cocoer.files import new_beside, put_in_place
from cocoer.outputs import ImageResult, PersonPrediction
from cocoer.report import canvas as ink
from cocoer.report.band import with_band
from cocoer.report.layout import place_plates

ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""Of PyAV, the best first; the last is in every build."""

LONGEST = 1920
"""Larger frames are reduced to this longer side."""

_LABELS = 2


def track_colour(track: str | int | None) -> ink.Colour:
    """One colour per track id, the same in every frame."""
    if isinstance(track, int):
        return ink.PERSON_COLOURS[track % len(ink.PERSON_COLOURS)]
    return ink.PERSON_COLOURS[sum(str(track).encode()) % len(ink.PERSON_COLOURS)]


def label_of(person: PersonPrediction) -> list[str]:
    """The label of a person in a frame: its id, and the most probable emotions of the fused prediction."""
    track = person.boxes.track if person.boxes is not None else None
    title = f"#{track}" if track is not None else "no id"
    if person.status == "error":
        return [title, "not scored"]
    by_name = person.probabilities.get("pred", {})
    return [title, *(f"{name} {by_name[name]:.2f}" for name in sorted(by_name, key=lambda n: -by_name[n])[:_LABELS])]


def draw_frame(image: Image.Image, result: ImageResult) -> Image.Image:
    """One frame, annotated, RGB; all frames of a video have the same size, with even sides.

    image: the frame, any size; boxes are scaled from result.width x result.height to it.
    """
    scale = min(1.0, LONGEST / max(image.size))
    wide, high = (max(2, int(v * scale) // 2 * 2) for v in image.size)
    drawing = image.convert("RGB").resize((wide, high), Image.Resampling.BILINEAR)
    sx, sy = wide / (result.width or wide), high / (result.height or high)
    draw = ImageDraw.Draw(drawing, "RGBA")
    em, people = max(12, round(max(wide, high) / 60)), [p for p in result.persons if p.boxes is not None]
    scaled = [
        [(b[0] * sx, b[1] * sy, b[2] * sx, b[3] * sy) for b in (p.boxes.body, p.boxes.head)] for p in people if p.boxes
    ]
    texts = [label_of(person) for person in people]
    sizes = [
        (max(ink.text_width(t, em, i == 0) for i, t in enumerate(rows)) + em, round(1.35 * em) * len(rows) + em // 2)
        for rows in texts
    ]
    places = place_plates(sizes, [b for b, _ in scaled], [h for _, h in scaled], (0, 0, wide, high), 3, True, True)
    for person, (body, head), rows, place in zip(people, scaled, texts, places, strict=True):
        assert person.boxes is not None, "people have boxes"
        colour = track_colour(person.boxes.track)
        ink.outline(draw, body, colour, 3, person.boxes.body_source == "estimated")
        ink.outline(draw, head, ink.mix(colour, ink.PAPER, 0.55), 2, person.boxes.head_source == "estimated")
        if place is not None:
            _plate(draw, place, rows, colour, em, body)
    banded = with_band(drawing, result.synthetic)
    return banded if banded.height % 2 == 0 else banded.crop((0, 0, banded.width, banded.height - 1))


def _plate(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int, int, int],
    rows: Sequence[str],
    colour: ink.Colour,
    em: int,
    body: Sequence[float],
) -> None:
    x1, y1, x2, y2 = place
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    draw.line(
        [middle, (min(max(middle[0], body[0]), body[2]), min(max(middle[1], body[1]), body[3]))], fill=colour, width=2
    )
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=(17, 20, 24, 215))
    draw.rectangle((x1, y1, x1 + 3, y2 - 1), fill=colour)
    for i, row in enumerate(rows):
        ink.write(draw, (x1 + em // 2, y1 + em // 4 + (i + 0.5) * round(1.35 * em)), row, em, ink.PAPER, bold=i == 0)


class FilmWriter:
    """An MP4 that grows frame by frame beside its place and is put there by `close`.

    rate: frames per second. Raises MissingExtra where PyAV is not installed.
    """

    def __init__(self, path: Path, rate: float) -> None:
        try:
            import av
        except ImportError as err:
            raise MissingExtra("track", err) from None
        self.path = path
        self._av: Any = av
        path.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished = new_beside(path)
        self._file = av.open(str(self._unfinished), "w", format="mp4")
        self._rate = Fraction(rate).limit_denominator(1001)
        self._stream: Any = None

    def add(self, frame: Image.Image) -> None:
        """Append one frame, RGB; all have the size of the first, whose sides are even."""
        if self._stream is None:
            encoder = next(name for name in ENCODERS if self._can(name))
            self._stream = self._file.add_stream(encoder, rate=self._rate)
            self._stream.width, self._stream.height = frame.size
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"crf": "23", "preset": "veryfast"} if encoder == "libx264" else {}
        if frame.size != (self._stream.width, self._stream.height):
            frame = ink.fit_inside(frame, self._stream.width, self._stream.height).resize(
                (self._stream.width, self._stream.height)
            )
        for packet in self._stream.encode(self._av.VideoFrame.from_image(frame)):
            self._file.mux(packet)

    def _can(self, encoder: str) -> bool:
        try:
            self._av.Codec(encoder, "w")
        except (ValueError, self._av.error.FFmpegError):
            return False
        return True

    def close(self) -> Path:
        """Finish the file and put it in place."""
        for packet in self._stream.encode() if self._stream is not None else ():
            self._file.mux(packet)
        self._file.close()
        put_in_place(self._unfinished, self.path)
        return self.path

    def give_up(self) -> None:
        """Remove the unfinished file."""
        self._file.close()
        self._unfinished.unlink(missing_ok=True)
