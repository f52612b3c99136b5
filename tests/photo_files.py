"""Stand-ins for what photographs need, in the real formats; the detectors always find somebody, so that an answer comes out."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from cocoer.data.detect_permissive import COCO_CLASSES, PERSON_LABEL

SIDE = 640


def scrfd(path: Path, places: list[tuple[int, int]], reach: float, seen: float = 3.0) -> bytes:
    """An SCRFD-layout model that finds a box about each of the points (column, row) of its 80 x 80 grid, whatever it sees.

    reach: half of a box's side, in strides of 8 pixels. The model is exported for 640 x 640, as a fixed size.
    """
    grid = np.full((SIDE // 8, SIDE // 8, 2), -9.0, dtype=np.float32)
    for column, row in places:
        grid[row, column] = seen
    arrays: dict[str, np.ndarray] = {"axes": np.array([1, 2, 3], np.int64), "nought": np.float32(0)}
    nodes = [
        helper.make_node("ReduceMean", ["input.1"], ["mean"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nought"], ["still"]),
    ]
    names = []
    for stride in (8, 16, 32):
        points = 2 * (SIDE // stride) ** 2
        arrays[f"logit_{stride}"] = grid.reshape(-1, 1) if stride == 8 else np.full((points, 1), -9.0, np.float32)
        arrays[f"reach_{stride}"] = np.full((points, 4), reach, np.float32)
        nodes += [
            helper.make_node("Add", [f"logit_{stride}", "still"], [f"seen_{stride}"]),
            helper.make_node("Sigmoid", [f"seen_{stride}"], [f"score_{stride}"]),
            helper.make_node("Add", [f"reach_{stride}", "still"], [f"bbox_{stride}"]),
        ]
    names = [f"{what}_{stride}" for what in ("score", "bbox") for stride in (8, 16, 32)]
    return _saved(path, nodes, names, arrays, "input.1", [1, 3, SIDE, SIDE])


def yunet(path: Path) -> bytes:
    """A model with YuNet's outputs that finds a face wherever an 8 x 8 cell is much redder than blue."""
    weights = np.zeros((1, 3, 8, 8), dtype=np.float32)
    weights[0, 2], weights[0, 0] = 1 / 64, -1 / 64  # BGR, 0..255
    arrays: dict[str, np.ndarray] = {"warm": weights, "limit": np.float32(165.0), "gain": np.float32(0.2)}
    arrays |= {f"rows_{n}": np.array([1, -1, n], np.int64) for n in (1, 4, 10)}
    nodes = [
        helper.make_node("Conv", ["input", "warm"], ["red"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Sub", ["red", "limit"], ["above"]),
        helper.make_node("Mul", ["above", "gain"], ["map_8"]),
        helper.make_node("MaxPool", ["map_8"], ["map_16"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxPool", ["map_8"], ["map_32"], kernel_shape=[4, 4], strides=[4, 4]),
    ]
    for stride in (8, 16, 32):
        arrays["never"] = np.float32(-1000.0)
        source = f"map_{stride}"
        if stride > 8:
            nodes.append(helper.make_node("Add", [source, "never"], [f"low_{stride}"]))
            source = f"low_{stride}"
        nodes.append(helper.make_node("Sigmoid", [source], [f"p_{stride}"]))
        for name in ("cls", "obj"):
            nodes.append(helper.make_node("Transpose", [f"p_{stride}"], [f"{name}_t_{stride}"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [f"{name}_t_{stride}", "rows_1"], [f"{name}_{stride}"]))
        for name, width, value in (("bbox", 4, 2.0), ("kps", 10, 0.0)):
            kernel = f"{name}_{width}"
            arrays[kernel] = np.zeros((width, 1, 1, 1), dtype=np.float32)
            arrays[f"{name}_bias"] = np.array([0, 0, value, value] if width == 4 else [0.0] * 10, dtype=np.float32)
            nodes += [
                helper.make_node("Conv", [f"map_{stride}", kernel, f"{name}_bias"], [f"{name}_c_{stride}"]),
                helper.make_node("Transpose", [f"{name}_c_{stride}"], [f"{name}_t_{stride}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}_t_{stride}", f"rows_{width}"], [f"{name}_{stride}"]),
            ]
    names = [f"{what}_{stride}" for what in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)]
    return _saved(path, nodes, names, arrays, "input", [1, 3, "height", "width"])


def coco_persons(path: Path) -> bytes:
    """torchvision's detector with seeded weights whose last layer calls everything a person as large as the image."""
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, num_classes=COCO_CLASSES)
    predictor = model.roi_heads.box_predictor
    with torch.no_grad():
        for layer in (predictor.cls_score, predictor.bbox_pred):
            layer.weight.zero_()
            layer.bias.zero_()
        predictor.cls_score.bias[PERSON_LABEL] = 9.0
        predictor.bbox_pred.bias.view(COCO_CLASSES, 4)[PERSON_LABEL, 2:] = 25.0  # wide and high, in 1/5 of a log
    torch.save(model.state_dict(), path)
    return path.read_bytes()


def zipped(**members: bytes) -> bytes:
    """A zip of these files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(f"pack/{name.replace('__', '.')}", content)
    return data.getvalue()


WIDTHS = {"score": 1, "cls": 1, "obj": 1, "bbox": 4, "kps": 10}


def _saved(path: Path, nodes: list, names: list[str], arrays: dict, source: str, shape: list) -> bytes:
    lead = [1] if source == "input" else []  # YuNet has a batch axis
    graph = helper.make_graph(
        nodes, "stand-in",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [*lead, f"n_{n}", WIDTHS[n.split("_")[0]]]) for n in names],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path.read_bytes()
