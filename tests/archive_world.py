"""An archive of tiny images and seeded weights for the tests of `cocoer annotate`, and its answers as plain rows."""

from __future__ import annotations

import io
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
from PIL import Image
from tiny_recognizer import lamp_image, tiny_checkpoint

from cocoer.cli import annotate


def image(number: int) -> bytes:
    """A PNG in which the tiny detectors find number % 4 people, a little different for every number."""
    lamps = [(5 + number % 6, 3 + 5 * place, 1) for place in range(number % 4)]
    pixels = lamp_image(128, 128, lamps)
    pixels[-8:, :, 2] = np.arange(128, dtype=np.uint8) + number % 100
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_images(folder: Path, count: int) -> None:
    """`count` images in folders of a hundred."""
    for number in range(count):
        place = folder / f"{number // 100:03d}" / f"{number:06d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image(number))


def write_shard(place: Path, members: dict[str, bytes]) -> None:
    """A WebDataset shard."""
    with tarfile.open(place, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def weights(folder: Path) -> Path:
    """The tiny model's."""
    return tiny_checkpoint(folder)


def run(*words: object) -> int:
    """`cocoer annotate ...`."""
    return annotate.main([*map(str, words), "--quiet", "--device", "cpu"])


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """Id -> row; every id once."""
    found = pyarrow.dataset.dataset(out, format="parquet").to_table().to_pylist()
    by_id = {row["id"]: row for row in found}
    assert len(by_id) == len(found), "an image stands in the data set twice"
    return by_id


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal, numbers to 1e-6 of themselves or of 1."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{number}]")
    elif isinstance(one, float):
        assert math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6), f"{where}: {one} and {other}"
    else:
        assert one == other, f"{where}: {one} and {other}"
