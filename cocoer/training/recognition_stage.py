"""The recognition stage: epochs of steps, an evaluation after each, the best weights, and training states on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from cocoer.config import Config
from cocoer.data.index import is_synthetic
from cocoer.data.loaders import PersonDataset, Sample, build_loader
from cocoer.data.sampler import PersonBatchSampler
from cocoer.errors import CheckpointError, ConfigError
from cocoer.evaluation.evaluate import evaluate
from cocoer.evaluation.summary import fitted_thresholds, headline, summarise
from cocoer.model.checkpoint import save_weights
from cocoer.model.level_model import LevelModel
from cocoer.runtime import Runtime, memory_gib, random_state, restore_random_state, seed_everything
from cocoer.training.embedding_cache import KnownEmbeddings
from cocoer.training.examples import Show, examples
from cocoer.training.learner import Learner, build_learner, training_mode
from cocoer.training.resume import Start, TrainingProgress, persons_fingerprint, states_folder
from cocoer.training.schedule import learning_rate
from cocoer.training.signals import StopSignals, shield_worker
from cocoer.training.state import save_state
from cocoer.training.step import grouped, step_facts, train_step

Log = Callable[[dict[str, Any]], None]
"""Takes one record a step, epoch and evaluation; see `report.runlog` for one."""

BEST_FILE, LAST_FILE = "best.safetensors", "last.safetensors"


@dataclass(frozen=True)
class Sink:
    """Where a run's results go, on rank 0 only.

    show: takes a few validation persons after each evaluation, or None. note: stored in every weights file.
    tower_dtype: how best and last weights store the frozen CLIP tower (torch.float16 halves it). say: takes a line for the user.
    """

    log: Log
    show: Show | None = None
    note: str = ""
    tower_dtype: torch.dtype | None = None
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class FitResult:
    """How a run ended. stopped_by: the signal that ended it early, else None. best: headline of best.safetensors, 0..1.

    summary: all numbers of the last evaluation, empty where none was done.
    """

    place: TrainingProgress
    stopped_by: str | None
    best: float | None
    summary: dict[str, Any]


@dataclass
class Run:
    """The parts of a recognition run, made once."""

    config: Config
    runtime: Runtime
    sink: Sink
    learner: Learner
    train: DataLoader[Sample]
    select: DataLoader[Sample]
    persons: str
    stop: StopSignals

    @property
    def sampler(self) -> PersonBatchSampler:
        """Which persons come when."""
        sampler = self.train.batch_sampler
        assert isinstance(sampler, PersonBatchSampler), "build_loader makes this sampler"
        return sampler

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.run.dir)


def check_batch(config: Config, world_size: int) -> None:
    """ConfigError unless `optim.batch_size`, which counts the persons of all processes, can be shared out equally."""
    if config.optim.batch_size % world_size:
        raise ConfigError(
            f"optim.batch_size: {config.optim.batch_size} persons cannot be shared out equally to {world_size} processes; it"
            f" counts all of them together, so wanted a multiple of {world_size}"
        )


def quiet_loader(
    config: Config,
    split: str,
    runtime: Runtime,
    people: PersonDataset | None = None,
    batch_size: int | None = None,
    train: bool = False,
) -> DataLoader[Sample]:
    """A loader of this process's share of a split, that takes nothing from the global random state.

    batch_size: persons over all processes; default: `optim.batch_size`. Batches to train on are checked (`check_batch`).
    """
    size = -(-(batch_size or config.optim.batch_size) // runtime.world_size)
    seed = config.run.seed
    loader = build_loader(config.data, split, size, seed, train, share=runtime.share, dataset=people)
    loader.generator = torch.Generator().manual_seed(seed)
    loader.worker_init_fn = shield_worker
    return loader


def prepare(
    config: Config,
    model: LevelModel,
    people: PersonDataset,
    embeddings: KnownEmbeddings | None,
    runtime: Runtime,
    sink: Sink,
    stop: StopSignals,
) -> Run:
    """Optimizer, wrapping, averages and loaders of the recognition stage."""
    counts = None if people.targets is None else people.targets.sum(0)
    learner = build_learner(config, model, runtime, counts, embeddings)
    train = quiet_loader(config, config.data.train_split, runtime, people, train=True)
    select = quiet_loader(config, config.data.select_split, runtime)
    keys = [r.key for r in people.records]
    return Run(config, runtime, sink, learner, train, select, persons_fingerprint(keys), stop)


def restore(run: Run, start: Start) -> TrainingProgress:
    """Optimizer, average and random generators as they were when the state was saved; the weights are loaded already."""
    if start.training is None:
        return TrainingProgress()
    training, learner, runtime = start.training, run.learner, run.runtime
    learner.optimizer.load_state_dict(training["optimizer"])
    if learner.average is not None:
        learner.average.load(training["average"])
    if training["world_size"] == runtime.world_size:
        restore_random_state(training["random"][runtime.rank], runtime.device)
    else:
        seed_everything(run.config.run.seed, 1_000_003 * start.place.step + runtime.rank + 1)
    return start.place


def fit_recognition(run: Run, place: TrainingProgress) -> FitResult:
    """Epochs until the last one, max_steps or a signal; an evaluation after each."""
    config, limit = run.config, run.config.run.max_steps
    summary: dict[str, Any] = {}
    while True:
        if place.position == 0 and place.evaluated < place.epoch:
            summary, place = select_best(run, replace(place, evaluated=place.epoch))
            save_training(run, place)
        if place.epoch >= config.optim.epochs or (limit is not None and place.step >= limit):
            break
        place, stopped_by = train_epoch(run, place)
        if stopped_by:
            save_training(run, place)
            return FitResult(place, stopped_by, place.best, summary)
        if limit is not None and place.step >= limit and place.position:
            save_training(run, place)  # before the evaluation below, of which an uninterrupted run knows nothing
    if place.position or not summary:
        summary, seen = select_best(run, place)
        return FitResult(place, None, seen.best, summary)
    return FitResult(place, None, place.best, summary)


def train_epoch(run: Run, place: TrainingProgress) -> tuple[TrainingProgress, str | None]:
    """Train from `place` to the end of its epoch, max_steps or a signal; the place reached, and the signal's name."""
    config, learner, runtime = run.config, run.learner, run.runtime
    training_mode(learner.model, learner.frozen_norms)
    run.sampler.set_state(place.epoch, place.position)
    epoch, used = place.epoch, 0
    total = -(-len(run.sampler) // config.optim.accumulate)
    groups = grouped(run.train, config.optim.accumulate)
    bar = tqdm(groups, desc=f"epoch {epoch + 1}", total=total, leave=False, disable=None if runtime.is_main else True)
    clock = time.perf_counter()
    for group in bar:
        facts = step_facts(group, run.stop.received is not None, runtime)
        rate = learning_rate(place.step, epoch, config.optim)
        where = f"step {place.step + 1}, epoch {epoch + 1}"
        values = train_step(learner, group, facts, rate, runtime, where)
        used += len(group)
        reached = run.sampler.state_after(used)
        place = replace(place, step=place.step + 1, epoch=reached.epoch, position=reached.position)
        now = time.perf_counter()
        speed = {"persons_per_second": facts.persons / (now - clock), "memory_gib": memory_gib(runtime.device)}
        clock = now
        head = {"kind": "step", "stage": "recognition", "step": place.step, "epoch": epoch + 1, "lr": rate}
        run.sink.log(head | {"order": facts.order} | values | speed)
        bar.set_postfix(loss=f"{values['loss']:.3f}", refresh=False)
        if facts.stop:
            return place, run.stop.received or "a signal to another process"
        if place.step == config.run.max_steps:
            break
        every = config.run.checkpoint_every
        if every and place.step % every == 0 and place.position:  # an epoch's end is saved after its evaluation
            save_training(run, place)
    return place, None


@contextmanager
def averaged(run: Run) -> Iterator[None]:
    """While active the model holds the weights that are evaluated: the average where there is one."""
    average = run.learner.average
    with average.swapped_in(run.learner.model) if average is not None else nullcontext():
        yield


def select_best(run: Run, place: TrainingProgress) -> tuple[dict[str, Any], TrainingProgress]:
    """Evaluate on the selection split, log it, write last.safetensors and, where it is the best so far, best.safetensors."""
    config, runtime, model = run.config, run.runtime, run.learner.model
    split, classes, multi_label = config.data.select_split, config.classes, config.multi_label
    dataset = run.select.dataset
    assert isinstance(dataset, PersonDataset), "build_loader makes this dataset"
    _equal_buffers(run)
    with averaged(run):
        result = evaluate(
            model, run.select, multi_label=multi_label, order=[r.key for r in dataset.records], runtime=runtime,
            precision=config.optim.precision, progress=True,
        )  # fmt: skip
        summary = summarise(result, classes, multi_label, split)
        value = headline(result, multi_label)
        epoch = place.epoch + (1 if place.position else 0)
        run.sink.log({"kind": "eval", "stage": "recognition", "step": place.step, "epoch": epoch} | summary)
        if runtime.is_main:
            thresholds = fitted_thresholds(result, classes, split) if multi_label else {}
            facts = {"epoch": epoch, "step": place.step, "seed": config.run.seed, "selected_on": split}
            for name in (LAST_FILE, BEST_FILE):
                # between epochs (max_steps) the best of the epochs stays: an uninterrupted run has no such evaluation
                better = place.best is None or (value > place.best and not place.position)
                if name == LAST_FILE or better:
                    _save(run, run.folder / name, summary | facts, thresholds, run.sink.tower_dtype)
            if run.sink.show is not None:
                run.sink.show(place.step, examples(model, dataset, config, runtime))
    if place.best is None or value > place.best:
        place = replace(place, best=value, best_epoch=epoch)
    return summary, place


def _save(
    run: Run,
    path: Path,
    metrics: Mapping[str, Any] = MappingProxyType({}),
    thresholds: Mapping[str, Any] = MappingProxyType({}),
    dtype: torch.dtype | None = None,
) -> None:
    """The model's weights with the run's note; see `save_weights`."""
    data = run.config.data
    save_weights(
        path, run.learner.model, run.config, metrics=metrics, thresholds=thresholds, note=run.sink.note,
        synthetic=is_synthetic(data.index, data.root), dtype=dtype,
    )  # fmt: skip


def _equal_buffers(run: Run) -> None:
    """Batch-norm statistics of rank 0 on every process, so that all evaluate one model."""
    if run.runtime.world_size > 1:
        for buffer in run.learner.model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def save_training(run: Run, place: TrainingProgress) -> None:
    """Write the training state; every process takes part, rank 0 writes. Raises CheckpointError on every process."""
    runtime, learner, config = run.runtime, run.learner, run.config
    random = runtime.gather(random_state(runtime.device))
    problem = None
    if runtime.is_main:
        training = {
            "place": asdict(place),
            "world_size": runtime.world_size,
            "persons": run.persons,
            "optimizer": learner.optimizer.state_dict(),
            "average": None if learner.average is None else learner.average.weights,
            "random": random,
        }
        try:
            states, keep = states_folder(config), config.run.keep_checkpoints
            save_state(states, place.step, lambda path: _save(run, path), training, keep)
        except CheckpointError as err:
            problem = err
    text = runtime.from_main(None if problem is None else str(problem))
    if text is not None:
        raise CheckpointError(text) from problem
