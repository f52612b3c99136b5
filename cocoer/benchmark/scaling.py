"""Cost as work grows: loader, images end to end, memory over many images, persons an image, classes, workspace size.

The images are noise with smooth shapes, written for the measurement; nothing here depends on what they show.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from cocoer.benchmark.model import Row, random_model, workspace_task
from cocoer.benchmark.throughput import measure_throughput, write_images
from cocoer.benchmark.timing import Clock, Task, Timings, memory_mb, peak_mb, take_turns
from cocoer.config import Config
from cocoer.data.inputs import InputItem
from cocoer.inference.pipeline import predict_many
from cocoer.inference.recognizer import Recognizer
from cocoer.model.competition import compete
from cocoer.model.coordination import coordinate
from cocoer.model.level_head import HeadParameters
from cocoer.model.losses import competition_weights
from cocoer.names import LEVELS
from cocoer.outputs import PersonBoxes

PERSONS_A_IMAGE = (1, 2, 4, 8, 16, 32, 64)
WORKSPACE_PERSONS = (1, 8, 64, 256, 1024, 4096)
CLASS_COUNTS = (7, 26, 100, 300, 1000)
_DISTINCT_IMAGES = 20
_WORKSPACE_BATCH = 64  # persons, where the number of classes is varied


def measure_data(config: Config, device: torch.device, persons: int = 96) -> Iterator[Row]:
    """The loader on one core, decoding and from the cache; and the recogniser from JPEG files to results, boxes given."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure_throughput(Path(folder), persons, config.data.image_size)
    for variant, rate in (("loader, decoding", found.decoding), ("loader, from cache", found.cached)):
        yield Row("data", variant, config.model.mode, "cpu", "float32", 16, total_ms=16_000 / rate, persons_per_s=rate)
    recognizer = Recognizer(random_model(config, device), config, device)
    size = recognizer.config.inference.batch_size
    with tempfile.TemporaryDirectory() as folder:
        items = _items(Path(folder), 3 * size)
        list(_results(recognizer, items[:size]))
        start = time.perf_counter()
        count = sum(1 for _ in _results(recognizer, items))
        seconds = time.perf_counter() - start
    row = Row("data", "end to end from JPEG", config.model.mode, str(device), "float32", size)
    yield replace(row, total_ms=1000 * seconds * size / count, persons_per_s=count / seconds)


def measure_memory(
    config: Config, device: torch.device, images: int = 2000, settled: int = 200, clock: Clock = time.perf_counter
) -> Iterator[Row]:
    """Memory after `settled` images and at their end, through the same pipeline as `inference.py`; time at 1, 10, 100, ...

    The second row's `ratio` is memory at the end over memory at `settled`: 1.02 is two per cent of growth. The rows of the
    series `images` give the time from the start to so many results, and memory then. clock: see `take_turns`.
    Raises ValueError where there is nothing to compare.
    """
    if not 0 < settled < images:
        raise ValueError(f"memory: wanted more images than the {settled} that settle it, got {images}")
    recognizer = Recognizer(random_model(config, device), config, device)
    marks = {settled, images, *(10**i for i in range(len(str(images))))}
    seen: dict[int, tuple[float, float]] = {}  # ms and MB
    with tempfile.TemporaryDirectory() as folder:
        items = _items(Path(folder), images)
        list(_results(recognizer, items[:1]))
        start = clock()
        for number, _ in enumerate(_results(recognizer, items), start=1):
            if number in marks:
                seen[number] = (1000 * (clock() - start), memory_mb())
    before, after = seen[settled][1], seen[images][1]
    rate = 1000 * images / seen[images][0]
    row = Row("memory", f"after {settled} images", config.model.mode, str(device), "float32", 1, peak_mb=before)
    yield row
    yield replace(row, variant=f"after {images} images", peak_mb=after, ratio=after / before, persons_per_s=rate)
    for number in sorted(seen.keys() - {settled}):
        spent, memory = seen[number]
        series = replace(row, what="scaling", variant="images", work=number, total_ms=spent, peak_mb=memory)
        yield replace(series, persons_per_s=1000 * number / spent)


def _items(folder: Path, count: int) -> list[InputItem]:
    """`count` images of one person each; a few files, each read many times."""
    records = write_images(folder, min(count, _DISTINCT_IMAGES), (640, 480))
    files = [folder / record.image for record in records]
    return [InputItem(i, f"{i}.jpg", str(i), files[i % len(files)]) for i in range(count)]


def _results(recognizer: Recognizer, items: Sequence[InputItem]) -> Iterator[object]:
    """Results of images whose one person is given."""
    person = PersonBoxes((128.0, 48.0, 384.0, 456.0), (211.0, 58.0, 301.0, 168.0))
    return iter(predict_many(recognizer, items, lambda _: [person]))


def measure_persons(
    config: Config, device: torch.device, seconds: float, clock: Clock = time.perf_counter
) -> Iterator[Row]:
    """One image with 1 to 64 persons, from pixels to results."""
    recognizer = Recognizer(random_model(config, device), config, device)
    pixels = torch.randint(0, 256, (480, 640, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    tasks: dict[str, Task] = {}
    for count in PERSONS_A_IMAGE:
        boxes = [_person_at(9.0 * i) for i in range(count)]
        tasks[str(count)] = lambda boxes=boxes: recognizer(pixels, boxes)  # type: ignore[misc]
    timings = take_turns(tasks, seconds, device, least=3, clock=clock)
    for name, task in tasks.items():
        row = _series_row(config, device, "persons in one image", (int(name), int(name)), timings, task)
        yield replace(row, total_ms=timings.median(name))


def _person_at(x: float) -> PersonBoxes:
    """A person whose body starts at column x."""
    return PersonBoxes((x, 10.0, x + 60.0, 400.0), (x + 10.0, 12.0, x + 50.0, 80.0))


def measure_workspace(
    config: Config, device: torch.device, seconds: float, clock: Clock = time.perf_counter
) -> Iterator[Row]:
    """Competition and coordination alone: 1 to 4096 persons with the config's classes, then 7 to 1000 classes."""
    model = random_model(config, device)
    by_persons = {n: workspace_task(model, n, device) for n in WORKSPACE_PERSONS}
    yield from _workspace_rows(config, device, by_persons, seconds, "workspace, by persons", clock)
    features = config.model.level_head.feature_size
    by_classes = {k: classes_task(k, features, _WORKSPACE_BATCH, device) for k in CLASS_COUNTS}
    yield from _workspace_rows(config, device, by_classes, seconds, "workspace, by classes", clock)


def _workspace_rows(
    config: Config, device: torch.device, tasks: dict[int, Task], seconds: float, series: str, clock: Clock
) -> Iterator[Row]:
    """A row per task; its name is how much there is to do."""
    timings = take_turns({str(work): task for work, task in tasks.items()}, seconds, device, clock=clock)
    for work, task in tasks.items():
        size = (work, work if series.endswith("persons") else _WORKSPACE_BATCH)
        yield replace(_series_row(config, device, series, size, timings, task), workspace_ms=timings.median(str(work)))


def _series_row(
    config: Config, device: torch.device, series: str, size: tuple[int, int], timings: Timings, task: Task
) -> Row:
    """A row of a series but for its time. size: how much there is to do, which names the task, and persons."""
    (work, persons), name = size, str(size[0])
    row = Row("scaling", series, config.model.mode, str(device), "float32", persons, work=work)
    rate, memory = 1000 * persons / timings.median(name), peak_mb(task, device)
    return replace(row, persons_per_s=rate, peak_mb=memory, spread_ms=timings.quartiles(name), rounds=timings.count)


def classes_task(classes: int, features: int, persons: int, device: torch.device) -> Task:
    """Algorithm 1 for a made-up data set of so many classes (the real ones have 26 and 7)."""
    rng = torch.Generator().manual_seed(0)

    def made(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng).to(device)

    count = len(LEVELS)
    heads = HeadParameters(
        0.1 * made(count, classes, features),
        made(count, classes),
        1 + 0.1 * made(count, features),
        made(count, features),
    )
    pre, label = made(persons, count, features), (made(persons, classes) > 1).float()
    sq_norm = pre.square().sum(-1)

    def run() -> object:
        with torch.inference_mode():
            weights = competition_weights("dynamic", label)
            competition = compete(heads.features(pre), heads, label, weights, multi_label=True)
            return coordinate(pre, sq_norm, heads, competition)

    return run
