"""Forty drawn people with five emotions of one's own, and their annotations (SYNTHETIC): python make_people.py FOLDER [COUNT]

Writes FOLDER/photos/000.png ... (each with its box in 000.boxes.json) and FOLDER/people.csv with file, x1, y1, x2, y2, feeling.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

FEELINGS = {  # shirt, mouth: how far its corners are up or down, how far it is open
    "joy": ((240, 190, 40), -8, 4),
    "grief": ((70, 90, 150), 8, 0),
    "rage": ((200, 50, 40), 5, 6),
    "calm": ((90, 170, 110), -2, 0),
    "fright": ((150, 110, 190), 0, 10),
}
WIDTH, HEIGHT = 200, 150


def draw(rng: np.random.Generator, feeling: str) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """One scene of 200 x 150 pixels and the person's body box in it."""
    shirt, corners, opened = FEELINGS[feeling]
    ground = Image.fromarray(rng.integers(90, 200, (5, 7, 3), dtype=np.uint8))
    image = ground.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    x, y = int(rng.integers(20, 110)), int(rng.integers(8, 24))
    pen.rounded_rectangle((x, y + 52, x + 70, y + 122), 18, fill=shirt)
    pen.ellipse((x + 12, y, x + 58, y + 56), fill=(236, 200, 170))
    for eye in (x + 26, x + 44):
        pen.ellipse((eye - 3, y + 20, eye + 3, y + 26), fill=(30, 30, 30))
    mouth = [(x + 24, y + 40 + corners), (x + 35, y + 40), (x + 46, y + 40 + corners), (x + 35, y + 42 + opened)]
    pen.polygon(mouth, fill=(150, 40, 50))
    return image, (x, y, x + 70, y + 122)


def main(folder: Path, count: int = 40) -> None:
    """Draw everything."""
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    with (folder / "people.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "x1", "y1", "x2", "y2", "feeling"])
        for i in range(count):
            feeling = list(FEELINGS)[i % 5]
            image, box = draw(rng, feeling)
            image.save(folder / "photos" / f"{i:03d}.png")
            beside = folder / "photos" / f"{i:03d}.boxes.json"  # what `cocoer predict` takes in place of detection
            beside.write_text(json.dumps({"persons": [{"body": box}]}), encoding="utf-8")
            rows.writerow([f"{i:03d}.png", *box, feeling])


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
