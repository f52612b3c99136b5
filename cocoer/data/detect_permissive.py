"""Detectors whose licences also allow commercial use: YuNet for faces (through OpenCV), torchvision's COCO detector for people.

Both are called as insightface's are: BGR in, rows x1, y1, x2, y2, score out, so `detect.PeopleDetector` takes either kind.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cocoer.errors import DetectorError, one_line

PERSON_LABEL = 1
"""COCO's number of the class person in torchvision's detectors."""

COCO_CLASSES = 91
_LARGEST = 1333  # torchvision's own limit of the longer side


class YuNetFaces:
    """Faces by YuNet (Wu et al. 2023) in OpenCV's own runtime.

    file: the .onnx of OpenCV Zoo. input_size: the longer side of the image that it sees, pixels. threshold: least score.
    Raises DetectorError for a file that OpenCV cannot read.
    """

    provider = "OpenCV"
    demo = False

    def __init__(self, file: Path, input_size: int, threshold: float, nms: float) -> None:
        self._side = input_size
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it warns of a default that it has itself
        try:
            self._net = cv2.FaceDetectorYN.create(str(file), "", (input_size, input_size), threshold, nms)
        except cv2.error as err:
            raise DetectorError(
                f"face detector {file}: OpenCV cannot read it ({one_line(err)}); "
                "check it with `cocoer weights verify yunet`"
            ) from None
        finally:
            cv2.utils.logging.setLogLevel(level)

    def rows(self, bgr: NDArray[np.uint8]) -> NDArray[np.float64]:
        """uint8 [H, W, 3], BGR -> [N, 5]: x1, y1, x2, y2 in its pixels, and the score."""
        height, width = bgr.shape[:2]
        scale = self._side / max(height, width)
        size = max(32, round(width * scale)), max(32, round(height * scale))
        self._net.setInputSize(size)
        found: object = self._net.detect(
            cv2.resize(bgr, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        )[1]
        rows = np.asarray([] if found is None else found, dtype=np.float64).reshape(-1, 15)
        boxes = rows[:, [0, 1, 2, 3, 14]]  # x, y, w, h, then five points, then the score
        boxes[:, 2:4] += boxes[:, :2]
        boxes[:, [0, 2]] *= width / size[0]
        boxes[:, [1, 3]] *= height / size[1]
        return boxes


class CocoPersons:
    """People by torchvision's Faster R-CNN with MobileNetV3-Large FPN, trained on COCO.

    file: torchvision's own .pth. input_size: the shorter side that it sees, pixels. Runs where torch runs.
    Raises DetectorError for a file that does not fit.
    """

    demo = False

    def __init__(self, file: Path, input_size: int, threshold: float, nms: float, device: str) -> None:
        from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

        self._device = torch.device(
            "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
        )
        self.provider = f"torch on {self._device}"
        model = fasterrcnn_mobilenet_v3_large_fpn(
            weights=None,
            weights_backbone=None,
            num_classes=COCO_CLASSES,
            min_size=input_size,
            max_size=max(input_size, _LARGEST),
            box_score_thresh=threshold,
            box_nms_thresh=nms,
        )
        try:
            _refuse_packed(file)
            model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as err:  # noqa: BLE001 - a forged pickle can make an unpickler raise anything
            raise DetectorError(
                f"person detector {file}: wanted torchvision's fasterrcnn_mobilenet_v3_large_fpn for COCO, got something else "
                f"({one_line(err)}); check it with `cocoer weights verify coco-persons`"
            ) from None
        self._model = model.to(self._device).eval()

    @torch.inference_mode()
    def rows(self, bgr: NDArray[np.uint8]) -> NDArray[np.float64]:
        """uint8 [H, W, 3], BGR -> [N, 5]: x1, y1, x2, y2 in its pixels, and the score; people only."""
        rgb = torch.from_numpy(np.ascontiguousarray(bgr[..., ::-1])).to(self._device)
        found: dict[str, Tensor] = self._model([rgb.permute(2, 0, 1).float() / 255])[0]
        mine = found["labels"] == PERSON_LABEL
        return torch.cat([found["boxes"][mine], found["scores"][mine, None]], 1).double().cpu().numpy()


def _refuse_packed(file: Path) -> None:
    """ValueError for a zip with packed members: torch stores them as they are, and a packed one may unpack to any size."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as bundle:
            if any(member.compress_type != zipfile.ZIP_STORED for member in bundle.infolist()):
                raise ValueError("a packed archive")
