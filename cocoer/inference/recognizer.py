"""The recogniser: images (and boxes, if you have them) in, one `PersonPrediction` per person out.

Two doors: `Recognizer(...)` takes images in pixels, `predict_tensors` takes batches in model units. It never prints,
changes no global state, and answers do not depend on batch size, order or neighbours (beyond float rounding).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cocoer.config import Config, change_config, load_config
from cocoer.data.batch import Batch
from cocoer.data.boxes_file import person_from
from cocoer.data.decode import decode_image
from cocoer.data.people import people_from_detections
from cocoer.data.transforms import LevelCrops, crop_levels, make_batch
from cocoer.errors import BoxesError, ImageError
from cocoer.export.onnx_model import SUFFIX as EXPORTED_SUFFIX
from cocoer.export.onnx_model import ExportedModel, load_exported
from cocoer.files import file_sha256
from cocoer.inference.acceleration import accelerated
from cocoer.inference.predictions import Answer, LabelRule, answers_of, error_prediction
from cocoer.model.simplex_qp import require_finite
from cocoer.model.zero_shot import load_model
from cocoer.outputs import PersonBoxes, PersonPrediction
from cocoer.runtime import choose_device
from cocoer.weights.catalog import DEMO_CHECKPOINT

if TYPE_CHECKING:
    from cocoer.data.detect import PeopleDetector
    from cocoer.model.level_model import LevelModel, ModelOutput
    from cocoer.model.zero_shot import ZeroShot

ImageInput = str | Path | Image.Image | NDArray[np.uint8]
"""A file, a PIL image, or uint8 [H, W, 3], RGB."""

Persons = Sequence[PersonBoxes | Mapping[str, Any]]
"""Boxes of the people in one image, xyxy in its pixels: see `data.boxes_file`."""


@dataclass(frozen=True)
class PreparedImage:
    """An image cut up for the model.

    width, height: pixels. rows: per person its boxes, or what is wrong with them. crops: of the persons without a fault,
    in order. detector: what found the people, or None where boxes were given.
    """

    width: int
    height: int
    rows: tuple[PersonBoxes | str, ...]
    crops: tuple[LevelCrops, ...]
    detector: Mapping[str, str] | None = None


class Recognizer:
    """A model in eval mode on a device, with its preprocessing, thresholds and detectors.

    model, config: as `checkpoint.load_weights` gives them; the model is folded and laid out in place, as the switches in
    `config.inference` say (`acceleration`). device: where the model is. detector: called with uint8
    [H, W, 3] RGB for images that come without boxes; None builds the config's insightface detectors when first needed.
    fitted: thresholds of the fused answer per class name. about: what results say of the weights.
    """

    def __init__(
        self,
        model: LevelModel | ExportedModel | ZeroShot,
        config: Config,
        device: torch.device | str = "cpu",
        detector: PeopleDetector | None = None,
        fitted: Mapping[str, float] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.config = config
        self._forward = accelerated(self.model, config.inference, self.device)
        self.rule = LabelRule.of(config, fitted)
        self.preprocess = {
            "channel_order": config.inference.channel_order,
            "image_size": config.data.image_size,
            "mean_std": "imagenet",
        }
        self.detector_threads = 0  # CPU threads of detectors that are yet to be built; 0 = as onnxruntime chooses
        self._about = dict(about or {})
        self._detector = detector
        self._building = threading.Lock()

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path = DEMO_CHECKPOINT,
        device: str = "auto",
        overrides: Sequence[str] = (),
        detector: PeopleDetector | None = None,
    ) -> Recognizer:
        """The recogniser of a weights file, which brings its config along. Default: the synthetic demonstration's weights.

        path: weights; or an .onnx file by cocoer export, which onnxruntime runs on the CPU whatever `device` says; or
        `zero-shot`, `zero-shot:TOWER[=FILE]` for CLIP alone, without weights of CocoER (`model.zero_shot`).

        device: `auto`, `cpu`, `cuda`, `cuda:N`. overrides: `inference.batch_size=4` and the like, over the file's config.
        Raises CheckpointError (missing or wrong file), ConfigError (bad override), ValueError (a device that is not there).
        """
        return cls._loaded(Path(path), device, None, overrides, detector)

    @classmethod
    def from_config(
        cls,
        config: str | Path,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        overrides: Sequence[str] = (),
        detector: PeopleDetector | None = None,
    ) -> Recognizer:
        """The recogniser that a YAML config describes, with the weights of a checkpoint.

        checkpoint: default `best.safetensors` in the config's run folder. The weights must fit the config's model.
        Raises as `from_checkpoint` does.
        """
        wanted = load_config(config, overrides)
        weights = Path(checkpoint) if checkpoint is not None else Path(wanted.run.dir) / "best.safetensors"
        return cls._loaded(weights, device, wanted, overrides, detector)

    @classmethod
    def _loaded(
        cls,
        path: Path,
        device: str,
        config: Config | None,
        overrides: Sequence[str],
        detector: PeopleDetector | None,
    ) -> Recognizer:
        if path.suffix == EXPORTED_SUFFIX:
            if config is not None:
                raise ValueError(f"{path}: an exported file brings its own config; leave the config out")
            model, stored, metadata = load_exported(path, overrides)
            fitted = _fitted(metadata, overrides)
            return cls(model, stored, "cpu", detector, fitted, _about(path, stored, metadata))
        chosen = choose_device(device)
        loaded = load_model(path, chosen, change=lambda stored: config or change_config(stored, overrides))
        fitted = _fitted(loaded.metadata, overrides)
        return cls(
            loaded.model, loaded.config, chosen, detector, fitted, _about(loaded.path, loaded.config, loaded.metadata)
        )

    @overload
    def __call__(self, images: ImageInput, persons: Persons | None = None) -> list[PersonPrediction]: ...
    @overload
    def __call__(
        self, images: list[ImageInput] | tuple[ImageInput, ...], persons: Sequence[Persons | None] | None = None
    ) -> list[list[PersonPrediction]]: ...
    def __call__(self, images: Any, persons: Any = None) -> Any:
        """Who feels what in an image: one prediction per person, in the order of `persons` or from left to right.

        images: one image, or a list of them (then a list of lists comes back, and persons are batched over the images).
        persons: boxes of the people (`PersonBoxes`, or mappings with `body`, `head`, `id`); for a list one entry per
        image, None where people are to be detected. A person whose boxes are wrong gets a row with status `error`.
        Raises ImageError for an image that cannot be used, MissingWeights where a detector is needed and not there.
        """
        if not isinstance(images, list | tuple):
            return self([images], [persons])[0]
        given = list(persons) if persons is not None else [None] * len(images)
        if len(given) != len(images):
            raise ValueError(f"persons: wanted one entry for each of the {len(images)} images, got {len(given)}")
        prepared = [self.prepare(as_image(image), who) for image, who in zip(images, given, strict=True)]
        answers = iter(self.score([crops for image in prepared for crops in image.crops]))
        return [self.predictions(image, answers) for image in prepared]

    def prepare(self, image: Image.Image, persons: Persons | None = None) -> PreparedImage:
        """Find (or check) the people of an image and crop their three levels. image: RGB, upright.

        Raises MissingWeights or DetectorError where people must be detected and cannot be.
        """
        width, height = image.size
        rows: list[PersonBoxes | str] = []
        found_by = None
        if persons is None:
            rule = self.config.inference.detector.faces_to_bodies
            rows += people_from_detections(self.detector(np.asarray(image)), width, height, rule)
            found_by = self.detector.info.to_dict()
        else:
            rows += [_checked(raw, width, height) for raw in persons]
        size = self.config.data.image_size
        crops = tuple(self._crop(image, who, size) for who in rows if isinstance(who, PersonBoxes))
        return PreparedImage(width, height, tuple(rows), crops, found_by)

    def score(self, crops: Sequence[LevelCrops]) -> list[Answer]:
        """What the model says of each person, in order; at most `inference.batch_size` persons a forward pass."""
        out: list[Answer] = []
        step = self.config.inference.batch_size
        for start in range(0, len(crops), step):
            part = crops[start : start + step]
            batch = make_batch(part, [str(i) for i in range(start, start + len(part))])
            out += answers_of(self.predict_tensors(batch), self.rule)
        return out

    def predictions(self, prepared: PreparedImage, answers: Any) -> list[PersonPrediction]:
        """The rows of one image. answers: an iterator that gives one `Answer` per person without a fault."""
        return [
            error_prediction(index, who)
            if isinstance(who, str)
            else next(answers).prediction(index, who, self.preprocess)
            for index, who in enumerate(prepared.rows)
        ]

    @torch.inference_mode()
    def predict_tensors(self, batch: Batch) -> ModelOutput:
        """The inside door: crops [B, 3, S, S] and boxes in the S x S frame -> everything the model knows, on the model's device.

        Raises ValueError for tensors of another shape, or with NaN or infinity in them.
        """
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
        with self._building:
            if self._detector is None:
                from cocoer.data.detect import build_detector

                self._detector = build_detector(self.config.inference.detector, str(self.device), self.detector_threads)
            return self._detector

    @property
    def about(self) -> dict[str, Any]:
        """What every image's result says about the model that made it."""
        return {**self._about, "device": str(self.device)}

    def _crop(self, image: Image.Image, who: PersonBoxes, size: int) -> LevelCrops:
        crops = crop_levels(image, who.body, who.head, size)
        if self.config.inference.channel_order == "rgb":
            return crops
        return replace(crops, pixels=np.ascontiguousarray(crops.pixels[..., ::-1]))


def as_image(image: ImageInput) -> Image.Image:
    """Any accepted image as a PIL image in mode RGB, upright.

    Raises ImageError for a file that cannot be read or an array of another type or shape.
    """
    if isinstance(image, str | Path):
        return decode_image(image)
    if isinstance(image, Image.Image):
        return image if image.mode == "RGB" else image.convert("RGB")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ImageError(f"image: wanted uint8 [H, W, 3] in RGB, got {image.dtype} {list(image.shape)}")
        return Image.fromarray(np.ascontiguousarray(image))
    raise ImageError(f"image: wanted a path, a PIL image or a uint8 [H, W, 3] array, got {type(image).__name__}")


def _checked(raw: PersonBoxes | Mapping[str, Any], width: int, height: int) -> PersonBoxes | str:
    """The person's boxes, or what is wrong with them."""
    try:
        return person_from(raw, width, height)
    except BoxesError as err:
        return str(err)


def _fitted(metadata: Mapping[str, Any], overrides: Sequence[str]) -> Mapping[str, float]:
    """The thresholds per class that were found in training, unless the user set one of their own."""
    explicit = any(text.startswith("inference.thresholds.fused") for text in overrides)
    found: Mapping[str, float] = {} if explicit else (metadata.get("thresholds") or {}).get("classes", {})
    return found


def _about(path: Path, config: Config, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Which weights: name, checksum, data set, mode and what the file says of itself."""
    return {
        "weights": metadata.get("name", path.name),
        "sha256": file_sha256(path),
        "dataset": config.data.dataset,
        "mode": metadata.get("mode", config.model.mode),
        "note": str(metadata.get("note", "")),
    }
