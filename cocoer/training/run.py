"""A whole training run: vocabulary stage, then recognition stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from torch import Tensor

from cocoer.config import Config
from cocoer.data.batch import Batch
from cocoer.data.loaders import PersonDataset, build_dataset
from cocoer.data.validate import labelled_people
from cocoer.errors import CheckpointError
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_state, read_tensors
from cocoer.model.level_model import LevelModel
from cocoer.model.tensor_file import read_tensor_file, write_tensors
from cocoer.model.vocabulary import VocabularyBranch
from cocoer.runtime import Runtime, seed_everything
from cocoer.training.embedding_cache import KnownEmbeddings, open_embeddings
from cocoer.training.initial import config_to_build, start_from
from cocoer.training.recognition_stage import (
    FitResult,
    Log,
    Sink,
    check_batch,
    fit_recognition,
    prepare,
    quiet_loader,
    restore,
)
from cocoer.training.resume import Start, TrainingProgress, check_persons
from cocoer.training.signals import StopSignals
from cocoer.training.vocabulary_stage import embed_images, fit_vocabulary

Stage = Literal["both", "vocabulary", "recognition"]

VOCABULARY_FILE = "vocabulary.safetensors"


class Stopped(Exception):
    """A signal came during the vocabulary stage, which is quick and simply done again."""


def fit(
    config: Config, runtime: Runtime, start: Start, sink: Sink, *, stage: Stage = "both",
    begin: Callable[[], None] = lambda: None,
) -> FitResult:  # fmt: skip
    """Train as the config says, for its `run.seed`, from `start` (see `resume.find_start`).

    begin: called once when model, data and state have been found fit, before anything is trained or written.

    Writes best.safetensors, last.safetensors, vocabulary.safetensors and states/ into run.dir. SIGTERM and SIGUSR1 finish
    the step, save the state and return with `stopped_by` set.
    Raises CheckpointError for files that cannot be written or do not fit, NonFiniteLoss, and what the data loaders raise.
    """
    sink = sink if runtime.is_main else Sink(lambda record: None)
    seed = config.run.seed
    seed_everything(seed)
    model = build_model(config_to_build(config) if start.folder is None else config, pretrained=start.folder is None)
    if start.folder is not None:
        load_state(model, read_tensors(start.folder), f"training state {start.folder}")
    elif config.model.initial is not None:
        for line in start_from(model, config.classes, config.model.initial):
            sink.say(line)
    model.to(runtime.device)
    check_batch(config, runtime.world_size)
    for split in (config.data.train_split, config.data.select_split):
        labelled_people(config.data, split)  # before minutes of work, and as `cocoer data check` does
    people = build_dataset(config.data, config.data.train_split, seed, train=True)
    check_persons(start, [r.key for r in people.records])
    _check_vocabulary(config, model, start, stage)
    begin()
    with StopSignals() as stop:
        try:
            known = known_embeddings(config, model, runtime, people, stop)
            if start.folder is None:
                vocabulary_stage(config, model, people, known, runtime, sink.log, stage, stop)
        except Stopped:
            return FitResult(TrainingProgress(), stop.received, None, {})
        if stage == "vocabulary":
            return FitResult(TrainingProgress(), None, None, {})
        seed_everything(seed, 1 + runtime.rank)  # whether the first stage ran in this process leaves no trace
        run = prepare(config, model, people, known, runtime, sink, stop)
        place = restore(run, start)
        return fit_recognition(run, place)


def _check_vocabulary(config: Config, model: LevelModel, start: Start, stage: Stage) -> None:
    """CheckpointError where only the recognition stage is requested and the vocabulary stage has not been trained."""
    file = Path(config.run.dir) / VOCABULARY_FILE
    wanted = stage == "recognition" and start.folder is None and config.vocabulary_stage.epochs > 0
    if wanted and model.vocabulary is not None and not file.is_file():
        raise CheckpointError(
            f"{file}: no such file. Train it with `--stage vocabulary` first, or skip the stage with"
            " --set vocabulary_stage.epochs=0"
        )


def known_embeddings(
    config: Config, model: LevelModel, runtime: Runtime, people: PersonDataset, stop: StopSignals
) -> KnownEmbeddings | None:
    """CLIP's embeddings of the training persons from `data.embeddings`, computed first where there are none; or None.

    Raises Stopped when a signal comes meanwhile, CheckpointError for a file that does not fit.
    """
    branch, data = model.vocabulary, config.data
    if branch is None or data.embeddings is None:
        return None

    def compute() -> Tensor:
        return embedded(config, branch, runtime, stop)[0]

    return open_embeddings(Path(data.embeddings), data.train_split, branch, people, data.image_size, runtime, compute)


def embedded(config: Config, branch: VocabularyBranch, runtime: Runtime, stop: StopSignals) -> tuple[Tensor, Tensor]:
    """Unit-norm embeddings [n, e] and labels [n, k] of the training persons, not augmented, in the order of the index."""
    people = build_dataset(config.data, config.data.train_split, config.run.seed, train=False)
    loader = quiet_loader(config, config.data.train_split, runtime, people, config.vocabulary_stage.batch_size)
    order = [r.key for r in people.records]
    return embed_images(branch, until_stopped(loader, stop), order, runtime, progress=True)


def vocabulary_stage(
    config: Config,
    model: LevelModel,
    people: PersonDataset,
    known: KnownEmbeddings | None,
    runtime: Runtime,
    log: Log,
    stage: Stage,
    stop: StopSignals,
) -> None:
    """Train omega, or read it where only the recognition stage was asked for. known: embeddings of `people`, or None.

    Raises Stopped when a signal comes meanwhile, CheckpointError when `--stage recognition` finds no
    vocabulary.safetensors in run.dir.
    """
    branch, wanted = model.vocabulary, config.vocabulary_stage
    if branch is None or wanted.epochs == 0:
        return
    file = Path(config.run.dir) / VOCABULARY_FILE
    if stage == "recognition":
        load_state(branch.alignment, read_tensor_file(file, "vocabulary stage").tensors, str(file))
        return
    if known is None:
        embeddings, targets = embedded(config, branch, runtime, stop)
    elif people.targets is None:
        raise ValueError("the vocabulary stage needs labels; no person in the index has one")
    else:
        embeddings, targets = known.table, people.targets.to(runtime.device)
    fit_vocabulary(branch, branch.own_view(embeddings), targets, wanted, config.run.seed, log)
    if runtime.is_main:
        tensors = {name: value.detach().cpu().contiguous() for name, value in branch.alignment.state_dict().items()}
        write_tensors(file, tensors)


def until_stopped(batches: Iterable[Batch], stop: StopSignals) -> Iterator[Batch]:
    """The batches; raises Stopped before the next one when a signal came."""
    for batch in batches:
        if stop.received:
            raise Stopped(stop.received)
        yield batch
