"""What the demo world draws, as a few numbers an image: every shape's place, colour and width, the boxes and the pixels.

PYTHONPATH=. python tests/drawn_world.py        # writes tests/data/drawn_world.json anew, after a wanted change
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageDraw

from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.world import draw_image

FILE = Path(__file__).with_name("data") / "drawn_world.json"
IMAGES = {"emotic": 240, "caers": 60}
SHAPES = ("polygon", "ellipse", "line")


def mark(values: list[float]) -> float:
    """One number for a list in its order: a mean whose weights, of 0.5 to 1.5, differ from place to place."""
    weights = np.arange(1, len(values) + 1) * 0.6180339887 % 1 + 0.5
    return float(weights @ np.array(values) / max(1, len(values)))


def flat(value: Any) -> list[float]:
    """The numbers of nested sequences, in order; nothing for None and words."""
    if isinstance(value, bool | str) or value is None:
        return []
    return [float(value)] if isinstance(value, int | float | np.number) else [x for inner in value for x in flat(inner)]


@contextmanager
def shapes_seen() -> Iterator[list[tuple[str, Any, dict[str, Any]]]]:
    """(shape, its points, its options) of everything that is drawn by Pillow, not what one shape draws by another."""
    seen: list[tuple[str, Any, dict[str, Any]]] = []
    inside = [False]
    real = {name: getattr(ImageDraw.ImageDraw, name) for name in SHAPES}

    def seeing(name: str) -> Callable[..., None]:
        def draw(self: Any, points: Any, *more: Any, **options: Any) -> None:
            first, inside[0] = not inside[0], True
            if first:
                seen.append((name, points, options))
            real[name](self, points, *more, **options)
            inside[0] = not first

        return draw

    for name in SHAPES:
        setattr(ImageDraw.ImageDraw, name, seeing(name))
    try:
        yield seen
    finally:
        for name in SHAPES:
            setattr(ImageDraw.ImageDraw, name, real[name])


def row(dataset: str, index: int) -> list[float]:
    """[shapes, places in pixels, colours, widths, boxes in pixels, mean and deviation of the pixels] of one image."""
    with shapes_seen() as seen:
        drawn = draw_image(0, "train", index, WorldOptions(dataset=dataset))
    pixels = np.asarray(drawn.image, dtype=np.float64)
    columns = [[x for _, points, _ in seen for x in flat(points)]]
    columns += [[x for _, _, options in seen for x in flat(options.get(name))] for name in ("fill", "width")]
    columns += [[x for person in drawn.people for x in (*person.body_xyxy, *person.head_xyxy)]]
    return [len(seen), *(round(mark(column), 5) for column in columns), round(pixels.mean(), 3), round(pixels.std(), 3)]


def rows() -> dict[str, list[list[float]]]:
    """Data set -> the row of each image."""
    return {dataset: [row(dataset, index) for index in range(count)] for dataset, count in IMAGES.items()}


if __name__ == "__main__":
    lines = [f'"{name}": [\n' + ",\n".join(map(json.dumps, found)) + "\n]" for name, found in rows().items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
