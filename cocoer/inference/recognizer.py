"""The recogniser: images (and boxes, if you have them) in, one `PersonPrediction` per person out.

Two doors: `Recognizer(...)` takes images in pixels, `predict_tensors` takes batches in model units. It never prints,
changes no global state, and answers do not depend on batch size, order or neighbours (beyond float rounding).
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from PIL import Image

from cocoer.calibration import Calibration
from cocoer.config import Config, load_config
from cocoer.data.decode import Source, decode_image
from cocoer.data.transforms import LevelCrops, make_batch
from cocoer.errors import CheckpointError, ForkError, ImageError, SyntheticWeightsWarning
from cocoer.export.onnx_file import OnnxFile, check_switches
from cocoer.inference.answers import People
from cocoer.inference.hub import HubMethods
from cocoer.inference.parts import load_parts
from cocoer.inference.predictions import LabelRule, Scores, answers_of, error_prediction, placed
from cocoer.inference.prepared import Persons, PreparedImage, prepare_image
from cocoer.outputs import SYNTHETIC, ImageResult, PersonPrediction
from cocoer.weights.catalog import DEMO_CHECKPOINT, detector_settings
from cocoer.weights.routes import detector_for, named_checkpoint

if TYPE_CHECKING:
    import torch

    from cocoer.data.batch import Batch
    from cocoer.data.detect import PeopleDetector
    from cocoer.export.onnx_model import ExportedModel
    from cocoer.inference.acceleration import Forward
    from cocoer.model.level_model import LevelModel, ModelOutput
    from cocoer.model.zero_shot import ZeroShot


class Recognizer(HubMethods):
    """A model in eval mode on a device, with its preprocessing, thresholds and detectors.

    model, config: as `checkpoint.load_weights` gives them; the model is folded and laid out in place, as the switches in
    `config.inference` say (`acceleration`). Or an exported file, which runs on the CPU and needs no torch. device: where the
    model is. detector: called with uint8 [H, W, 3] RGB for images that come without boxes; None builds the config's insightface
    detectors when first needed.
    fitted: thresholds of the fused answer per class name. about: what results say of the weights; where it says
    `synthetic`, each recogniser warns once (SyntheticWeightsWarning) and every answer says so. calibration: see `LabelRule`.

    Several threads may use one recogniser. A pickle or a copy of one that was made from a file loads that file again; a
    process that was forked off cannot use it and is told so (docs/inference.md, "Several processes").
    """

    def __init__(
        self,
        model: LevelModel | ExportedModel | ZeroShot | OnnxFile,
        config: Config,
        device: torch.device | str = "cpu",
        detector: PeopleDetector | None = None,
        fitted: Mapping[str, float] | None = None,
        about: Mapping[str, Any] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.model: Any = model
        self.device: Any = "cpu"
        self.config = config
        self._forward: Forward | None = None
        if isinstance(model, OnnxFile):
            check_switches(config.inference)
        else:
            import torch

            from cocoer.inference.acceleration import accelerated

            self.device = torch.device(device)
            self.model = model.to(self.device).eval()
            self._forward = accelerated(self.model, config.inference, self.device)
        self.rule = LabelRule.of(config, fitted, calibration)
        self.preprocess = {
            "channel_order": config.inference.channel_order,
            "image_size": config.data.image_size,
            "mean_std": "imagenet",
        }
        self.detector_threads = 0  # CPU threads of detectors that are yet to be built; 0 = as onnxruntime chooses
        self._about = dict(about or {}) | ({"calibrated_on": calibration.split} if calibration else {})
        self.synthetic = bool(self._about.get("synthetic"))
        if self.synthetic:
            warnings.warn(
                f"{self._about.get('weights', 'weights')}: {SYNTHETIC}", SyntheticWeightsWarning, stacklevel=4
            )
        self._detector = detector
        self._building = threading.Lock()
        self._process = os.getpid()
        self._source: _Source | None = None

    @classmethod
    def from_options(
        cls,
        config: str | None,
        checkpoint: str | Path | None,
        device: str,
        overrides: Sequence[str],
        detector: str | None = None,
        verify: bool = True,
    ) -> Recognizer:
        """What the options --config, --checkpoint, --device, --set and --detector of a command ask for.

        Without a config the weights bring theirs. Without weights those are taken that `cocoer setup photos` chose, else, and
        for the demonstration's own config, those of the synthetic demonstration. detector: a key of `catalog.DETECTORS`, under
        the overrides; None: what goes with the weights. Does not warn of synthetic weights: the command says it in its own words.
        Raises as `from_checkpoint` does.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntheticWeightsWarning)
            if config is None:
                kind = detector or detector_for(checkpoint)
                return cls.from_checkpoint(named_checkpoint(checkpoint), device, overrides, kind, verify)
            shipped = DEMO_CHECKPOINT if Path(config).stem == DEMO_CHECKPOINT.stem else None
            weights = named_checkpoint(checkpoint) if checkpoint else shipped
            return cls.from_config(config, weights, device, overrides, detector, verify)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path = DEMO_CHECKPOINT,
        device: str = "auto",
        overrides: Sequence[str] = (),
        detector: PeopleDetector | str | None = None,
        verify: bool = True,
    ) -> Recognizer:
        """The recogniser of a weights file, which brings its config along. Default: the synthetic demonstration's weights.

        path: weights; or an .onnx file by cocoer export, which onnxruntime runs on the CPU whatever `device` says; or
        `zero-shot`, `zero-shot:TOWER[=FILE]` for CLIP alone, without weights of CocoER (`model.zero_shot`); or `release`, the
        authors' weights as `cocoer setup photos` converted them, or `demo`.

        detector: what finds the people, or `insightface`, `permissive` or `demo`, as `--detector` takes them; None: what goes
        with the weights. verify: compare the weights with the checksums in their file; False reads a changed file, and results
        say so. device: `auto`, `cpu`, `cuda`, `cuda:N`. overrides: `inference.batch_size=4` and the like, over the file's config.
        Raises CheckpointError (missing or wrong file), ConfigError (bad override), ValueError (a device that is not there).
        """
        found = detector or detector_for(path)
        return cls._loaded(_Source(Path(named_checkpoint(path)), device, None, tuple(overrides), found, verify))

    @classmethod
    def from_config(
        cls,
        config: str | Path,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        overrides: Sequence[str] = (),
        detector: PeopleDetector | str | None = None,
        verify: bool = True,
    ) -> Recognizer:
        """The recogniser that a YAML config describes, with the weights of a checkpoint.

        checkpoint: default `best.safetensors` in the config's run folder. The weights must fit the config's model.
        Raises as `from_checkpoint` does.
        """
        settings = detector_settings(detector) if isinstance(detector, str) else ()
        wanted = load_config(config, [*settings, *overrides])
        weights = Path(checkpoint) if checkpoint is not None else Path(wanted.run.dir) / "best.safetensors"
        found = None if isinstance(detector, str) else detector
        return cls._loaded(_Source(weights, device, wanted, tuple(overrides), found, verify))

    @classmethod
    def _loaded(cls, source: _Source) -> Recognizer:
        if isinstance(source.detector, str):
            settings = detector_settings(source.detector)
            source = replace(source, overrides=(*settings, *source.overrides), detector=None)
        path = source.path
        parts = load_parts(path, source.device, source.config, source.overrides, source.verify)
        found = None if isinstance(source.detector, str) else source.detector
        made = cls(parts.model, parts.config, parts.device, found, parts.fitted, parts.about, parts.calibration)
        whole = path.absolute() if path.exists() else path  # a name that is no file here means what it meant
        made._source = replace(source, path=whole, device=str(made.device))
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied as the file it was made from, with the settings it was made with.

        Raises TypeError for one that was made from a model in memory. Where the file has changed when it is loaded again, that
        is a CheckpointError.
        """
        if self._source is None:
            raise TypeError(
                "a recogniser made from a model in memory cannot be pickled or copied; write the model with save_weights and"
                " make the recogniser with Recognizer.from_checkpoint"
            )
        return _rebuilt, (self._source, self._about["sha256"], self.detector_threads)

    def _check_process(self) -> None:
        """ForkError in a process that was forked off the one that made this recogniser."""
        if os.getpid() != self._process:
            raise ForkError(
                f"this recogniser was made in process {self._process} and process {os.getpid()} was forked off it: threads and"
                " devices do not come along, and a call would wait for ever. Make the recogniser in the worker, or start workers"
                ' with the method "spawn" (docs/inference.md, "Several processes")'
            )

    @overload
    def __call__(self, images: Source, persons: Persons | None = None) -> People: ...
    @overload
    def __call__(
        self, images: list[Source] | tuple[Source, ...], persons: Sequence[Persons | None] | None = None
    ) -> list[People]: ...
    def __call__(self, images: Any, persons: Any = None) -> Any:
        """Who feels what in an image: a list with one prediction per person, in the order of `persons` or from left to right.

        images: one image in any form that `decode.decode_image` takes (a path, bytes, an open file, a PIL image, an array), or a
        list of them (then a list of lists comes back, and persons are batched over the images).
        persons: boxes of the people (`PersonBoxes`, or mappings with `body`, `head`, `id`); for a list one entry per
        image, None where people are to be detected. A person whose boxes are wrong gets a row with status `error`.
        Raises ImageError for an image that cannot be used, MissingWeights where a detector is needed and not there.
        """
        if not isinstance(images, list | tuple):
            return self([images], [persons])[0]
        given = list(persons) if persons is not None else [None] * len(images)
        if len(given) != len(images):
            raise ValueError(f"persons: wanted one entry for each of the {len(images)} images, got {len(given)}")
        return self._people(
            [(image, self.prepare(self._decoded(image), who)) for image, who in zip(images, given, strict=True)]
        )

    def stream(
        self, images: Iterable[Source], persons: Iterable[Persons | None] = (), progress: bool = False
    ) -> Iterator[People]:
        """The people of one image after another, in order, while memory stays what a few images need.

        images, persons: as `__call__` takes them, of any number; images beyond the last entry of `persons` are searched for
        people. progress: show a bar. An image that cannot be read gives an empty list whose `result` says why.
        """
        from tqdm import tqdm

        pairs = zip(images, chain(persons, repeat(None)), strict=False)
        length = len(images) if isinstance(images, Sized) else None
        with tqdm(total=length, unit="image", disable=not progress) as bar:
            while chunk := list(islice(pairs, self.config.inference.batch_size)):
                found: list[tuple[Source, PreparedImage | str]] = []
                for image, who in chunk:
                    try:
                        found.append((image, self.prepare(self._decoded(image), who)))
                    except ImageError as err:
                        found.append((image, str(err)))
                yield from self._people(found)
                bar.update(len(chunk))

    def _decoded(self, image: Source) -> Image.Image:
        """Any form of an image as RGB pixels, if it is no larger than the config allows."""
        return decode_image(image, self.config.inference.max_pixels)

    def _people(self, images: Sequence[tuple[Source, PreparedImage | str]]) -> list[People]:
        """The answers for prepared images (a text says why there is none), persons batched over the images."""
        crops = {
            (n, person): crops
            for n, (_, image) in enumerate(images) if isinstance(image, PreparedImage)
            for person, crops in image.crops.items()
        }  # fmt: skip
        answers: list[dict[int, PersonPrediction]] = [{} for _ in images]
        for (n, person), answer in zip(crops, self.score(list(crops.values())), strict=True):
            answers[n][person] = answer
        out = []
        for (source, image), found in zip(images, answers, strict=True):
            name = str(source) if isinstance(source, str | Path) else "image"
            out.append(People(self.result(name, image, found), source))
        return out

    def prepare(self, image: Image.Image, persons: Persons | None = None) -> PreparedImage:
        """Find (or check) the people of an image and crop their three levels. image: RGB, upright.

        Raises MissingWeights or DetectorError where people must be detected and cannot be.
        """
        self._check_process()
        return prepare_image(image, persons, self.config, lambda: self.detector)

    def score(self, crops: Sequence[LevelCrops]) -> list[PersonPrediction]:
        """What the model says of each person, in order; at most `inference.batch_size` persons per forward pass."""
        out: list[PersonPrediction] = []
        step = self.config.inference.batch_size
        for start in range(0, len(crops), step):
            part = crops[start : start + step]
            if isinstance(self.model, OnnxFile):
                self._check_process()
                scores = Scores.of_file(self.model.score(part), self.config.model.competition.rule == "agreement")
            else:
                batch = make_batch(part, [str(i) for i in range(start, start + len(part))])
                scores = Scores.of_output(self.predict_tensors(batch), self.config.multi_label)
            out += answers_of(scores, self.rule)
        return out

    def result(
        self,
        name: str,
        prepared: PreparedImage | str,
        answers: Mapping[int, PersonPrediction],
        frame: int | None = None,
    ) -> ImageResult:
        """What is said of one image; prepared: a text says why nothing is. answers: as `predictions` takes them."""
        if isinstance(prepared, str):
            return ImageResult(name, 0, 0, (), "error", prepared, model=self.about, frame=frame)
        about = self.about | ({"detector": prepared.detector} if prepared.detector else {})
        rows, size = tuple(self.predictions(prepared, answers)), (prepared.width, prepared.height)
        return ImageResult(name, *size, rows, message=prepared.remark, model=about, frame=frame)

    def predictions(self, prepared: PreparedImage, answers: Mapping[int, PersonPrediction]) -> list[PersonPrediction]:
        """The rows of one image. answers: of the persons without a fault, by their number, as `PreparedImage.crops`."""
        rows = [
            error_prediction(number, who.fault) if who.boxes is None
            else placed(answers[number], number, who.boxes, self.preprocess)
            for number, who in enumerate(prepared.persons)
        ]  # fmt: skip
        return [replace(row, synthetic=self.synthetic) for row in rows]

    def predict_tensors(self, batch: Batch) -> ModelOutput:
        """The inside door: crops [B, 3, S, S] and boxes in the S x S frame -> everything the model knows, on the model's device.

        Raises ValueError for tensors of another shape, or with NaN or infinity in them.
        """
        self._check_process()
        import torch

        from cocoer.inference.acceleration import accelerated
        from cocoer.model.simplex_qp import require_finite

        if self._forward is None:  # an exported file, which was loaded without torch
            from cocoer.export.onnx_model import as_model

            cpu = torch.device("cpu")
            self._forward = accelerated(as_model(self.model, self.config), self.config.inference, cpu)
        with torch.inference_mode():
            require_finite(
                head=batch.head,
                body=batch.body,
                context=batch.context,
                head_xyxy=batch.head_xyxy,
                body_xyxy=batch.body_xyxy,
            )  # or a bad crop would look like bad weights
            return self._forward(batch)

    @property
    def detector(self) -> PeopleDetector:
        """The detectors, built when first asked for. Raises MissingWeights or DetectorError."""
        self._check_process()
        with self._building:
            if self._detector is None:
                from cocoer.data.detect import build_detector

                self._detector = build_detector(self.config.inference.detector, str(self.device), self.detector_threads)
            return self._detector

    @property
    def about(self) -> dict[str, Any]:
        """What every image's result says about the model that made it."""
        return {**self._about, "device": str(self.device)}


@dataclass(frozen=True)
class _Source:
    """What a recogniser is loaded from."""

    path: Path
    device: str
    config: Config | None
    overrides: tuple[str, ...]
    detector: PeopleDetector | str | None
    verify: bool


def _rebuilt(source: _Source, sha256: str, detector_threads: int) -> Recognizer:
    """A pickled recogniser, loaded again. Raises CheckpointError where its file is another one now."""
    made = Recognizer._loaded(source)
    if made.about["sha256"] != sha256:
        raise CheckpointError(
            f"{source.path}: has changed since this recogniser was pickled (SHA-256 {sha256[:12]}... then,"
            f" {made.about['sha256'][:12]}... now); restore the file, or make a new recogniser"
        )
    made.detector_threads = detector_threads
    return made
