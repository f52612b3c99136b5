"""What competition by agreement costs: the same model under the paper's rule and under agreement, in turns, beside the floor.

Agreement reads every crop with CLIP. Where V-I looks at the whole image alone (`model.vocabulary.view: context`, the paper's),
that is two more passes of the tower for each person.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from cocoer.benchmark.model import Floor, Row, floor_forward, random_model, timed
from cocoer.benchmark.timing import Clock, Task, peak_mb, take_turns
from cocoer.benchmark.variants import InferenceVariant, person_batch
from cocoer.config import Config, change_config
from cocoer.inference.recognizer import Recognizer

PAPER, AGREEMENT = "the paper's rule", "agreement"


def measure_agreement(
    config: Config, device: torch.device, batches: Sequence[int], seconds: float, clock: Clock = time.perf_counter
) -> Iterator[Row]:
    """Two rows per number of persons, one per rule; `ratio` is against the floor, as in the model's rows.

    The published update has its own competition without agreement, so in release mode agreement runs with the paper's update.
    clock: see `take_turns`.
    """
    changes = ["model.competition.rule=agreement"]
    if config.model.coordination.update == "release":
        changes.append("model.coordination.update=one")
    made = {PAPER: change_config(config, ["model.competition.rule=paper"]), AGREEMENT: change_config(config, changes)}
    models = {name: random_model(own, device) for name, own in made.items()}
    floor = Floor(models[PAPER]).to(device).eval()
    ways = {name: InferenceVariant(name, Recognizer(models[name], own, device)) for name, own in made.items()}
    for persons in batches:
        batch = person_batch(config, persons, device)
        tasks: dict[str, Task] = {"floor": floor_forward(floor, batch, device, False)}
        tasks |= {name: way.task(batch) for name, way in ways.items()}
        peaks = {name: peak_mb(task, device) for name, task in tasks.items()}
        timings = take_turns(tasks, seconds, device, least=3, clock=clock, warm=0)  # all have run by now
        for name in ways:
            variant, times = f"{name}, view {config.model.vocabulary.view}", timed(timings, name, persons)
            yield Row("agreement", variant, config.model.mode, str(device), "float32", peak_mb=peaks[name], **times)
