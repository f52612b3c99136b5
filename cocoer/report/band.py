"""The warning band above every drawing made with weights that were trained on synthetic scenes."""

from __future__ import annotations

from PIL import Image, ImageDraw

from cocoer.outputs import SYNTHETIC
from cocoer.report import canvas as ink

GROUND: ink.Colour = (255, 176, 0)


def with_band(image: Image.Image, synthetic: bool) -> Image.Image:
    """The image below a band with `outputs.SYNTHETIC`; the image itself if `synthetic` is False.

    image: RGB, any size; the band is as wide and its text is wrapped. Same input, same bytes.
    """
    if not synthetic:
        return image
    em = max(12, min(image.width // 60, 40))
    lines = ink.wrap(SYNTHETIC, em, max(image.width - 2 * em, 6 * em), max_lines=12)
    row = round(1.4 * em)
    high = row * len(lines) + em
    out = Image.new("RGB", (image.width, image.height + high), GROUND)
    draw = ImageDraw.Draw(out)
    for i, line in enumerate(lines):
        ink.write(draw, (em, em / 2 + (i + 0.5) * row), line, em, ink.INK)
    out.paste(image, (0, high))
    return out
