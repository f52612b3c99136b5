"""The contact sheet of the demo world, and a few images with their boxes to try inference on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cocoer.boxes import Box
from cocoer.data.synthetic.emotions import ARCHETYPE_NAMES, WorldOptions
from cocoer.data.synthetic.world import DrawnImage, ImagePlan, draw_image, plan_image, png_mark
from cocoer.files import write_file, write_text

SPLIT = "sheet"
"""Seeds of its own: no image of the sheet is in a train, val or test split."""
TILE, CAPTION, HEADER, COLUMNS = (272, 204), 44, 34, 6
_SEARCH = 20_000


def write_sheet(path: Path, seed: int, options: WorldOptions, num_people: int = 24) -> None:
    """Write a PNG of people with their labels, every archetype among them, and NAME.boxes.json with their boxes beside it.

    The level that contradicts is named.

    About one in four is contradicted, whatever the options' share, so that both kinds can be seen.
    """
    show = replace(options, contradicted_share=0.5)
    wanted = [(ARCHETYPE_NAMES[i % len(ARCHETYPE_NAMES)], i % 4 == 3) for i in range(num_people)]
    rows = -(-num_people // COLUMNS)
    sheet = Image.new(
        "RGB", (COLUMNS * (TILE[0] + 8) + 8, HEADER + rows * (TILE[1] + CAPTION + 8) + 8), (250, 250, 248)
    )
    title = "The demo world of cocoer: synthetic people and their labels (a demonstration, not photographs)"
    ImageDraw.Draw(sheet).text((8, 8), title, fill=(30, 30, 40), font=ImageFont.load_default(18))
    used: set[int] = set()
    persons: list[dict[str, list[float]]] = []
    for place, (archetype, contradicted) in enumerate(wanted):
        index = next(
            i for i, plan in _plans(seed, show)
            if i not in used and len(plan.people) == 1 and plan.people[0].archetype == archetype
            and (plan.people[0].contradicted_level is not None) == contradicted
            and (plan.people[0].strong or place >= len(ARCHETYPE_NAMES))
        )  # fmt: skip
        used.add(index)
        image = draw_image(seed, SPLIT, index, show)
        at = 8 + (place % COLUMNS) * (TILE[0] + 8), HEADER + 8 + (place // COLUMNS) * (TILE[1] + CAPTION + 8)
        sheet.paste(_tile(image), at)
        persons.append({"body": _on_sheet(image, image.people[0].body_xyxy, at),
                        "head": _on_sheet(image, image.people[0].head_xyxy, at)})  # fmt: skip
    drawn = sheet.quantize(256, dither=Image.Dither.NONE)
    write_file(path, lambda unfinished: drawn.save(unfinished, optimize=True, pnginfo=png_mark()))
    write_text(path.with_suffix(".boxes.json"), json.dumps({"persons": persons}, indent=2) + "\n")


def write_demo_images(folder: Path, seed: int, options: WorldOptions, num_images: int = 8) -> list[str]:
    """Write `demo_01.jpg`.. each with `demo_01.boxes.json` beside it; returns the names.

    Every third shows two people, and every fourth a person whose levels contradict each other.
    """
    names, used = [], set()
    for i in range(num_images):
        people = 2 if i % 3 == 2 else 1
        index, _ = next(
            (k, p) for k, p in _plans(seed, options)
            if len(p.people) == people and p.scene not in used and p.people[0].strong
            and any(q.contradicted_level is not None for q in p.people) == (i % 4 == 3)
        )  # fmt: skip
        image = draw_image(seed, SPLIT, index, options)
        used.add(plan_image(seed, SPLIT, index, options).scene)
        name = f"demo_{i + 1:02d}"
        write_file(folder / f"{name}.jpg", partial(image.image.save, quality=92))
        persons = [{"body": list(p.body_xyxy), "head": list(p.head_xyxy)} for p in image.people]
        write_text(folder / f"{name}.boxes.json", json.dumps({"persons": persons}, indent=2) + "\n")
        names.append(name)
    return names


def _plans(seed: int, options: WorldOptions) -> Iterator[tuple[int, ImagePlan]]:
    for i in range(_SEARCH):
        yield i, plan_image(seed, SPLIT, i, options)


def _cut(image: DrawnImage) -> Box:
    """The part of an image that its tile shows, in the tile's shape, around its person."""
    person = image.people[0]
    width, height = image.image.size
    cut_w = min(width, height * TILE[0] / TILE[1])
    cut_h = cut_w * TILE[1] / TILE[0]
    middle = (person.body_xyxy[0] + person.body_xyxy[2]) / 2
    left = min(max(0.0, middle - cut_w / 2), width - cut_w)
    top = min(max(0.0, person.head_xyxy[1] - 0.12 * cut_h), height - cut_h)
    return left, top, left + cut_w, top + cut_h


def _on_sheet(image: DrawnImage, box: Box, at: tuple[int, int]) -> list[float]:
    """A box of the image in pixels of the sheet, cut at its tile, whose corner is `at`."""
    left, top, right, bottom = _cut(image)
    sx, sy = TILE[0] / (right - left), TILE[1] / (bottom - top)
    ends = zip(box, (left, top) * 2, (sx, sy) * 2, TILE * 2, at * 2, strict=True)
    return [round(corner + min(max(0.0, (v - start) * scale), side), 1) for v, start, scale, side, corner in ends]


def _tile(image: DrawnImage) -> Image.Image:
    """An image cut to the tile's shape around its person, with the labels under it."""
    person = image.people[0]
    crop = image.image.resize(TILE, Image.Resampling.LANCZOS, box=_cut(image))
    tile = Image.new("RGB", (TILE[0], TILE[1] + CAPTION), (250, 250, 248))
    tile.paste(crop, (0, 0))
    draw = ImageDraw.Draw(tile)
    text = ", ".join(person.plan.labels)
    size = 15
    while size > 9 and draw.textlength(text, font=ImageFont.load_default(size)) > TILE[0]:
        size -= 1
    draw.text((0, TILE[1] + 3), text, fill=(30, 30, 40), font=ImageFont.load_default(size))
    level = person.plan.contradicted_level
    if level is not None:
        draw.text((0, TILE[1] + 22), f"the {level} contradicts", fill=(190, 40, 40), font=ImageFont.load_default(13))
    return tile
