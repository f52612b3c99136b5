"""Detect faces and persons with insightface, from local model files; nothing is downloaded.

Any SCRFD or RetinaFace-style detector in ONNX that insightface's own loader understands will do: `det_10g.onnx` of the
pack buffalo_l, `scrfd_person_2.5g.onnx`, or the small ones of the demo world; and those of `detect_permissive`.
insightface (and onnxruntime with it) is imported when the first detector is built, not with this module.
"""

from __future__ import annotations

import importlib
import math
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cocoer.config import DetectorConfig
from cocoer.data.people import Detections
from cocoer.errors import DetectorError, MissingPackage, MissingWeights, first_line
from cocoer.weights import places
from cocoer.weights.catalog import find_detector

YUNET = "yunet"
"""A face detector with this in its file's name is YuNet, whose layout is its own."""

PERSON_NMS = 0.5
"""Two person boxes that overlap more are one person: the value of insightface's person example and of the published code."""

DEMO_KEY = "cocoer_synthetic"
"""Metadata of a detector's .onnx file that was trained on the demo world (`scripts/train_demo_detectors.py` writes it)."""

FACE_NMS = 0.4
"""insightface's own value for faces."""

NO_WINDOWS = "pip uninstall -y opencv-python && pip install opencv-python-headless"
"""What helps where OpenCV, which insightface brings, lacks the system's window libraries (libGL.so.1)."""

_APP = "insightface.app"


@dataclass(frozen=True)
class DetectorInfo:
    """What runs, for reports and results: file names and the onnxruntime providers that really execute.

    demo: one of them was trained on the demo world, so it means nothing on photographs.
    """

    face: str
    person: str
    face_provider: str
    person_provider: str
    demo: bool = False

    def to_dict(self) -> dict[str, str]:
        """As written in a result."""
        return {
            "face": self.face,
            "person": self.person,
            "provider": self.face_provider
            if self.face_provider == self.person_provider
            else f"{self.face_provider}, {self.person_provider}",
        }


class PeopleDetector:
    """Faces and bodies in an image.

    face, person: .onnx files; for people also torchvision's .pth. input_size: side of the square that the image is
    scaled into, pixels; a model exported for one fixed size keeps its own.
    device: `auto`, `cpu` or `cuda`. threads: of onnxruntime, 0 = its choice.
    Raises MissingWeights for a file that is not there, DetectorError for one that is no detector or a device that is not there.
    """

    def __init__(
        self,
        face: Path,
        person: Path,
        input_size: int = 640,
        face_threshold: float = 0.5,
        person_threshold: float = 0.5,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        providers = choose_providers(device)
        self.input_size = input_size
        self._face: Finder
        self._person: Finder
        if YUNET in face.name:
            from cocoer.data.detect_permissive import YuNetFaces

            self._face = YuNetFaces(_there(face, "face"), input_size, face_threshold, FACE_NMS)
        else:
            self._face = _Insightface(face, "face", providers, input_size, face_threshold, FACE_NMS, threads)
        if person.suffix == ".pth":
            from cocoer.data.detect_permissive import CocoPersons

            self._person = CocoPersons(_there(person, "person"), input_size, person_threshold, PERSON_NMS, device)
        else:
            self._person = _Insightface(person, "person", providers, input_size, person_threshold, PERSON_NMS, threads)
        self._lock = threading.Lock()
        demo = self._face.demo or self._person.demo
        self.info = DetectorInfo(face.name, person.name, self._face.provider, self._person.provider, demo)
        if device.startswith("cuda") and "CPU" in self.info.to_dict()["provider"]:
            raise DetectorError(
                f"--device {device}: onnxruntime fell back to {self.info.to_dict()['provider']} for the detectors, so CUDA or "
                "cuDNN does not fit; run `cocoer doctor`, or use --device cpu"
            )

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """What is in an image: uint8 [H, W, 3], RGB, upright. Boxes are pixels of it, cut at its border, best first.

        Safe to call from several threads (one runs at a time).
        """
        height, width = image.shape[:2]
        bgr = np.ascontiguousarray(_paddable(image)[..., ::-1])  # insightface reads images as OpenCV does
        with self._lock:
            bodies, body_scores = _detect(self._person, bgr, width, height)
            faces, face_scores = _detect(self._face, bgr, width, height)
        return Detections(bodies, body_scores, faces, face_scores)


def build_detector(config: DetectorConfig, device: str = "auto", threads: int = 0) -> PeopleDetector:
    """The detectors a config names. Raises MissingWeights with file, place and command for one that is not there."""
    face, person = find_detector(config.face, "face"), find_detector(config.person, "person")
    return PeopleDetector(
        face, person, config.input_size, config.face_threshold, config.person_threshold, device, threads
    )


def available_providers() -> list[str]:
    """The providers of the installed onnxruntime. Raises DetectorError where it cannot be imported."""
    try:
        import onnxruntime
    except ImportError as err:
        raise DetectorError(
            f"onnxruntime cannot be imported ({err}); install exactly one of onnxruntime and onnxruntime-gpu, "
            "see `cocoer doctor`"
        ) from None
    return list(onnxruntime.get_available_providers())


Provider = str | tuple[str, dict[str, int]]


def choose_providers(device: str) -> list[Provider]:
    """onnxruntime providers for `auto`, `cpu` or `cuda[:N]`; `auto` takes CUDA where this onnxruntime has it.

    Raises DetectorError for `cuda` where onnxruntime has no CUDA.
    """
    if device == "cpu":
        return ["CPUExecutionProvider"]
    has_cuda = "CUDAExecutionProvider" in available_providers()
    if device.startswith("cuda") and not has_cuda:
        raise DetectorError(
            f"--device {device}: this onnxruntime has no CUDA; `{places.installs_gpu_runtime()}`, "
            "or give boxes (--boxes), or use --device cpu"
        )
    if not has_cuda:
        return ["CPUExecutionProvider"]
    number = device.partition(":")[2]
    cuda: Provider = (
        ("CUDAExecutionProvider", {"device_id": int(number)}) if number.isdigit() else "CUDAExecutionProvider"
    )
    return [cuda, "CPUExecutionProvider"]


def _model_zoo() -> ModuleType:
    """insightface's loader of detectors.

    The package imports its `app` by itself, which nothing here uses and which brings in SciPy and scikit-image: three
    quarters of a second of the first answer. So an empty module takes its place during the import.
    """
    if "insightface" in sys.modules:
        return importlib.import_module("insightface.model_zoo")
    sys.modules[_APP] = stand_in = ModuleType(_APP)
    try:
        found = importlib.import_module("insightface.model_zoo")
    finally:
        del sys.modules[_APP]
    package = sys.modules["insightface"]
    if getattr(package, "app", None) is stand_in:
        del package.app
    return found


class Finder(Protocol):
    """One detector. provider: what executes it, which is not always what was asked for. demo: trained on synthetic scenes."""

    provider: str
    demo: bool

    def rows(self, bgr: NDArray[np.uint8]) -> NDArray[np.float64]:
        """uint8 [H, W, 3], BGR -> [N, 5]: x1, y1, x2, y2 in its pixels, and the score."""
        ...


class _Insightface:
    """A detector by insightface's loader, ready for images."""

    def __init__(
        self,
        path: Path,
        kind: str,
        providers: list[Provider],
        input_size: int,
        threshold: float,
        nms: float,
        threads: int,
    ) -> None:
        _there(path, kind)
        import onnxruntime

        try:
            get_model = _model_zoo().get_model
        except ModuleNotFoundError as err:
            raise MissingPackage("insightface", "finding people", str(err.name), "or give boxes (--boxes)") from None
        except ImportError as err:
            raise DetectorError(f"insightface cannot be imported ({first_line(err)}); {NO_WINDOWS}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # onnxruntime's hints about graph shapes are not for users of this program
        # Waiting threads sleep: spinning ones would take the cores from the recogniser, which runs at the same time.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # A name that ends in .onnx is opened as it is; download=False is insightface's default, said here once more.
            self._model: Any = get_model(str(path), providers=providers, sess_options=options, download=False)
        except Exception as err:  # noqa: BLE001 - onnxruntime, onnx and protobuf each raise their own classes for a bad file
            raise DetectorError(
                f"{kind} detector {path}: cannot be loaded ({first_line(err)}); check it with `cocoer weights verify`"
            ) from None
        if (task := getattr(self._model, "taskname", None)) != "detection":
            raise DetectorError(
                f"{kind} detector {path}: wanted an SCRFD or RetinaFace detector, insightface sees "
                f"{task or 'no known model'} in it"
            )
        if (wants := len(self._model.session.get_inputs())) != 1:
            raise DetectorError(
                f"{kind} detector {path}: wanted a detector, which takes an image, got a model of {wants} inputs"
            )
        self._model.prepare(0, input_size=(input_size, input_size), det_thresh=threshold, nms_thresh=nms)
        self.provider = str(self._model.session.get_providers()[0])
        self.demo = bool(self._model.session.get_modelmeta().custom_metadata_map.get(DEMO_KEY))

    def rows(self, bgr: NDArray[np.uint8]) -> NDArray[np.float64]:
        """As `Finder.rows`."""
        return np.asarray(self._model.detect(bgr)[0], dtype=np.float64).reshape(-1, 5)


def _there(path: Path, kind: str) -> Path:
    if not path.is_file():
        raise MissingWeights(f"{kind} detector {path}: no such file; see `cocoer weights list`")
    return path


def _detect(
    finder: Finder, bgr: NDArray[np.uint8], width: int, height: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes [N, 4] and scores [N] of one detector, inside the width x height image, best first."""
    rows = finder.rows(bgr)
    rows = rows[np.isfinite(rows).all(1)]
    rows[:, [0, 2]] = rows[:, [0, 2]].clip(0, width)
    rows[:, [1, 3]] = rows[:, [1, 3]].clip(0, height)
    rows = rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    return rows[:, :4], rows[:, 4].clip(0, 1)


def _paddable(image: NDArray[np.uint8], longest: int = 64) -> NDArray[np.uint8]:
    """The image, padded below or right until no side is more than `longest` times the other.

    insightface scales the long side to its input and would scale the short side of a 20,000 x 1 image to zero.
    """
    height, width = image.shape[:2]
    tall, wide = max(height, math.ceil(width / longest)), max(width, math.ceil(height / longest))
    if (tall, wide) == (height, width):
        return image
    padded = np.zeros((tall, wide, 3), dtype=np.uint8)
    padded[:height, :width] = image
    return padded
