"""What detectors are built with, what they are shown, and what becomes of what they say: without a model file."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray

from cocoer.config import DetectorConfig
from cocoer.data import detect
from cocoer.data.detect import PeopleDetector, build_detector
from cocoer.data.detect_permissive import CocoPersons, YuNetFaces
from cocoer.errors import DetectorError


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Files that are there, and that nothing opens."""
    for name in ("face.onnx", "person.onnx"):
        (tmp_path / name).touch()
    return tmp_path / "face.onnx", tmp_path / "person.onnx"


class FakeModel:
    """Stands for a model of insightface: keeps what it is prepared with, and sees what it is told to."""

    def __init__(self, task: str | None = "detection") -> None:
        self.taskname, self.session, self.prepared = task, self, {}
        self.seen = np.empty((0, 5))

    def get_inputs(self) -> list[str]:
        return ["image"]

    def get_providers(self) -> list[str]:
        return ["First", "Second"]

    def get_modelmeta(self) -> Any:
        return type("Meta", (), {"custom_metadata_map": {}})

    def prepare(self, device: int, **given: Any) -> None:
        self.prepared = {"device": device} | given

    def detect(self, bgr: NDArray[np.uint8]) -> tuple[NDArray[np.float64], None]:
        return self.seen, None


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[tuple[FakeModel, dict[str, Any]]]:
    """The fakes that a detector loads, face first, with the options of each."""
    made: list[tuple[FakeModel, dict[str, Any]]] = []

    def get_model(path: str, **options: Any) -> FakeModel:
        made.append((FakeModel(), options))
        return made[-1][0]

    monkeypatch.setattr(detect, "_model_zoo", lambda: type("Zoo", (), {"get_model": staticmethod(get_model)}))
    return made


def test_a_detector_is_prepared_as_its_arguments_say(
    files: tuple[Path, Path], models: list[tuple[FakeModel, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NMS 0.4 for faces and 0.5 for persons are insightface's own values."""
    usual = DetectorConfig()
    PeopleDetector(*files, device="cpu")
    size = (usual.input_size,) * 2
    assert [model.prepared for model, _ in models] == [
        {"device": 0, "input_size": size, "det_thresh": usual.face_threshold, "nms_thresh": 0.4},
        {"device": 0, "input_size": size, "det_thresh": usual.person_threshold, "nms_thresh": 0.5},
    ]
    sessions = [options["sess_options"] for _, options in models]
    assert [(s.intra_op_num_threads, s.log_severity_level) for s in sessions] == [(0, 3)] * 2  # 3: errors alone
    assert sessions[0].get_session_config_entry("session.intra_op.allow_spinning") == "0"
    models.clear()
    monkeypatch.setattr(detect, "find_detector", lambda name, kind: files[kind == "person"])
    build_detector(usual, "cpu")
    assert [options["sess_options"].intra_op_num_threads for _, options in models] == [0, 0]
    models.clear()
    PeopleDetector(*files, 96, 0.25, 0.75, "cpu", 2)
    assert [(m.prepared["input_size"], m.prepared["det_thresh"]) for m, _ in models] == [
        ((96, 96), 0.25),
        ((96, 96), 0.75),
    ]
    assert [options["sess_options"].intra_op_num_threads for _, options in models] == [2, 2]


@pytest.mark.parametrize(
    ("task", "said"), [(None, "sees no known model in it"), ("recognition", "sees recognition in it")]
)
def test_a_model_of_another_task_is_named(
    task: str | None, said: str, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = type("Zoo", (), {"get_model": staticmethod(lambda path, **options: FakeModel(task))})
    monkeypatch.setattr(detect, "_model_zoo", lambda: zoo)
    with pytest.raises(DetectorError, match=said):
        PeopleDetector(*files, input_size=64, device="cpu")


def test_what_a_detector_says_is_cut_sorted_and_cleaned(
    files: tuple[Path, Path], models: list[tuple[FakeModel, dict[str, Any]]]
) -> None:
    detector = PeopleDetector(*files, device="cpu")
    models[0][0].seen = np.array([
        [10, 10, 20, 20, 0.5], [-5, -6, 200, 300, 1.25], [1, 2, 3, 4, -0.5], [30, 10, 50, np.nan, 0.9],
        [60, 10, 60, 20, 0.9], [10, 40, 20, 40, 0.9], [-20, 5, -1, 10, 0.9], [5, -20, 10, -1, 0.9], [70, 5, 70.5, 5.5, 0.75],
    ])  # fmt: skip
    seen = detector(np.zeros((80, 100, 3), np.uint8))
    assert seen.faces.tolist() == [[0, 0, 100, 80], [70, 5, 70.5, 5.5], [10, 10, 20, 20], [1, 2, 3, 4]]
    assert seen.face_scores.tolist() == [1, 0.75, 0.5, 0] and seen.bodies.shape == (0, 4)


@pytest.mark.parametrize(
    ("shape", "padded"),
    [
        ((1, 64), (1, 64)),
        ((1, 65), (2, 65)),
        ((64, 1), (64, 1)),
        ((65, 1), (65, 2)),
        ((3, 640), (10, 640)),
        ((9, 7), (9, 7)),
    ],
)
def test_no_side_is_more_than_64_times_the_other(shape: tuple[int, int], padded: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 7, np.uint8)
    made = detect._paddable(image)
    assert made.shape == (*padded, 3) and (made[: shape[0], : shape[1]] == 7).all() and made.sum() == image.sum()


# ------------------------------------------------------------------------------------------------ detectors of other makers


class Net:
    """Stands for OpenCV's YuNet: keeps what it is shown."""

    def __init__(self, found: NDArray[np.float32] | None) -> None:
        self.found, self.size = found, (0, 0)

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = size

    def detect(self, bgr: NDArray[np.uint8]) -> tuple[int, NDArray[np.float32] | None]:
        self.shown = bgr
        return 1, self.found


def yunet(found: NDArray[np.float32] | None, side: int, monkeypatch: pytest.MonkeyPatch) -> tuple[YuNetFaces, Net]:
    net = Net(found)
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *given: net)
    return YuNetFaces(Path("yunet.onnx"), side, 0.5, 0.4), net


@pytest.mark.parametrize(
    ("width", "height", "size", "way"),
    [
        (200, 100, (64, 32), cv2.INTER_AREA), (100, 200, (32, 64), cv2.INTER_AREA), (400, 20, (64, 32), cv2.INTER_AREA),
        (20, 400, (32, 64), cv2.INTER_AREA), (64, 16, (64, 32), cv2.INTER_LINEAR), (40, 30, (64, 48), cv2.INTER_LINEAR),
    ],
)  # fmt: skip
def test_yunet_sees_the_longer_side_scaled_and_its_boxes_come_back(
    width: int, height: int, size: tuple[int, int], way: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is x, y, width, height, five points and the score; no side is under 32 pixels, YuNet's largest stride."""
    row = np.array([[10, 5, 20, 8, *range(100, 110), 0.75]], np.float32)
    finder, net = yunet(row, 64, monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    across, down = width / size[0], height / size[1]
    np.testing.assert_allclose(finder.rows(image), [[10 * across, 5 * down, 30 * across, 13 * down, 0.75]])
    assert net.size == size
    np.testing.assert_array_equal(net.shown, cv2.resize(image, size, interpolation=way))
    assert yunet(None, 64, monkeypatch)[0].rows(image).shape == (0, 5)


class Frcnn(torch.nn.Module):
    """Stands for torchvision's Faster R-CNN: keeps what it is built with and shown."""

    given: ClassVar[dict[str, Any]] = {}

    def __init__(self, **given: Any) -> None:
        super().__init__()
        Frcnn.given = given

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        self.shown = images
        boxes = torch.arange(12.0).reshape(3, 4)
        return [{"labels": torch.tensor([1, 2, 1]), "boxes": boxes, "scores": torch.tensor([0.9, 0.8, 0.7])}]


def test_torchvisions_persons_are_its_class_1_of_91_in_the_images_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torchvision.models.detection.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1
    names = weights.meta["categories"]
    usual = inspect.signature(torchvision.models.detection.FasterRCNN).parameters
    monkeypatch.setattr(torchvision.models.detection, "fasterrcnn_mobilenet_v3_large_fpn", Frcnn)
    torch.save({}, tmp_path / "coco.pth")
    finder = CocoPersons(tmp_path / "coco.pth", 320, 0.25, 0.5, "auto")
    assert names.index("person") == 1 and Frcnn.given == {
        "weights": None, "weights_backbone": None, "num_classes": len(names), "min_size": 320,
        "max_size": usual["max_size"].default, "box_score_thresh": 0.25, "box_nms_thresh": 0.5,
    }  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    rows = finder.rows(image)
    np.testing.assert_allclose(rows, [[0, 1, 2, 3, 0.9], [8, 9, 10, 11, 0.7]], rtol=1e-6)
    (shown,) = finder._model.shown  # type: ignore[union-attr]
    np.testing.assert_allclose(shown.numpy(), image[..., ::-1].transpose(2, 0, 1) / 255.0, rtol=1e-6)
    CocoPersons(tmp_path / "coco.pth", 2000, 0.25, 0.5, "cpu")
    assert Frcnn.given["max_size"] == 2000
    assert finder.provider == "torch on cpu" or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: module)
    for device, wanted in (("cpu", "cpu"), ("auto", "cuda"), ("cuda:1", "cuda:1")):
        assert CocoPersons(tmp_path / "coco.pth", 320, 0.25, 0.5, device).provider == f"torch on {wanted}"
