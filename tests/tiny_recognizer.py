"""A CocoER of almost no size with seeded weights, and detectors whose answers are known, for tests of the application."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cocoer.config import Config, config_from_dict
from cocoer.data.people import Detections
from cocoer.model.build import build_model
from cocoer.model.checkpoint import save_weights

ROOT = Path(__file__).resolve().parents[1]


def tiny_config(folder: Path, dataset: str = "emotic") -> Config:
    """The paper's model at a size that runs in milliseconds; its CLIP architecture is written into `folder`."""
    tower = folder / "tiny_application_clip.json"
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None}
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    tower.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    return config_from_dict(
        {
            "data": {"dataset": dataset, "image_size": 32},
            "model": {
                "backbone": {"name": "small", "weights": None, "widths": [4, 8, 8, 8]},
                "tokens": {"patch": 1, "size": 12},
                "attention": {"heads": 3, "head_size": 4, "feed_forward": 16},
                "level_head": {"feature_size": 8},
                "vocabulary": {"tower": str(tower), "weights": None},
            },
            "inference": {
                "batch_size": 4,
                "thresholds": {"fused": 0.5, "levels": 0.5, "vocabulary": 0.5},
                "detector": {
                    "face": str(folder / "face.onnx"),
                    "person": str(folder / "person.onnx"),
                    "input_size": 128,
                },
            },
        }
    )


def tiny_checkpoint(folder: Path, dataset: str = "emotic", seed: int = 0) -> Path:
    """A weights file whose tensors are all drawn from the seed, with the detectors that its config names beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(folder, dataset)
    model = build_model(config, pretrained=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "running_var" not in name:
                tensor.copy_(
                    torch.randn(tensor.shape, generator=generator)
                    * (0.5 if tensor.ndim < 2 else tensor[0].numel() ** -0.5)
                )
        # Norm statistics of coarse random crops, so that what a person looks like moves the answer visibly.
        model.train()
        for _ in range(60):
            crops = torch.randn(3, 8, 3, 4, 4, generator=generator)
            head, body, context = torch.nn.functional.interpolate(crops.flatten(0, 1), 32, mode="bilinear").unflatten(
                0, (3, 8)
            )
            boxes = torch.tensor([[4.0, 4, 20, 28]]).expand(8, 4)
            model(head, body, context, boxes, boxes)
    lamp_detector(folder / "face.onnx", colour=0, reach=2.0)
    lamp_detector(folder / "person.onnx", colour=1, reach=3.0)
    path = folder / "tiny.safetensors"
    save_weights(path, model, config, metrics={}, thresholds={}, note="seeded weights for tests")
    return path


def lamp_detector(path: Path, colour: int, reach: float, outputs: int = 6) -> None:
    """An SCRFD-layout model that sees lamps: at stride 8, an 8x8 cell that is full in one colour and dark in the others.

    colour: 0 red, 1 green, 2 blue. A lamp in cell (row, column) gives the box that reaches `reach` cells to all sides of the
    point (8 column, 8 row). The coarser strides never fire. outputs: 6, or 9 with key points.
    """
    weights = np.full((1, 3, 8, 8), -1.0 / 64, dtype=np.float32)
    weights[0, colour] = 1.0 / 64  # mean of the colour less the means of the others; the input is (v - 127.5) / 128
    nodes, names = [], []
    arrays = {"lamp": weights, "gain": np.float32(20.0), "limit": np.float32(2.0), "rows": np.array([-1, 1], np.int64)}
    arrays |= {"two": np.array([1, 2, 1, 1], np.int64), "never": np.float32(-100.0)}
    nodes += [
        helper.make_node("Conv", ["input.1", "lamp"], ["contrast"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Sub", ["contrast", "limit"], ["above"]),
        helper.make_node("Mul", ["above", "gain"], ["logit_8"]),
    ]
    for stride, pool in ((8, 1), (16, 2), (32, 4)):
        if pool > 1:
            nodes.append(
                helper.make_node(
                    "MaxPool", ["logit_8"], [f"pool_{stride}"], kernel_shape=[pool, pool], strides=[pool, pool]
                )
            )
            nodes.append(helper.make_node("Add", [f"pool_{stride}", "never"], [f"low_{stride}"]))
            nodes.append(helper.make_node("Sigmoid", [f"low_{stride}"], [f"p_{stride}"]))
        else:
            nodes.append(helper.make_node("Sigmoid", ["logit_8"], ["p_8"]))
        nodes.append(helper.make_node("Tile", [f"p_{stride}", "two"], [f"both_{stride}"]))
        nodes.append(helper.make_node("Transpose", [f"both_{stride}"], [f"last_{stride}"], perm=[0, 2, 3, 1]))
        nodes.append(helper.make_node("Reshape", [f"last_{stride}", "rows"], [f"score_{stride}"]))
        for what, width, value in (("bbox", 4, reach), ("kps", 10, 0.0)):
            arrays[f"{what}_weight"] = np.full((1, width), value, dtype=np.float32)
            arrays["one"] = np.ones((1, 1), dtype=np.float32)
            if what == "kps" and outputs == 6:
                continue
            nodes.append(helper.make_node("Mul", [f"score_{stride}", "zero"], [f"none_{what}_{stride}"]))
            nodes.append(helper.make_node("Add", [f"none_{what}_{stride}", f"{what}_weight"], [f"{what}_{stride}"]))
    arrays["zero"] = np.zeros((1, 1), dtype=np.float32)
    names = [f"{what}_{s}" for what in ("score", "bbox", "kps")[: outputs // 3] for s in (8, 16, 32)]
    widths = {"score": 1, "bbox": 4, "kps": 10}
    graph = helper.make_graph(
        nodes,
        "lamps",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [f"points_{n}", widths[n.split("_")[0]]]) for n in names],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def lamp_image(width: int, height: int, lamps: list[tuple[int, int, int]], cell: int = 8) -> NDArray[np.uint8]:
    """RGB [height, width, 3], black but for lamps (row, column, colour) of cell x cell pixels."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for row, column, colour in lamps:
        image[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell, colour] = 255
    return image


class FixedDetector:
    """Finds the same people in every image, in units of its sides, and counts how often it is asked."""

    def __init__(self, bodies: list[list[float]], faces: list[list[float]]) -> None:
        self.bodies, self.faces = np.array(bodies).reshape(-1, 4), np.array(faces).reshape(-1, 4)
        self.calls = 0

    class info:
        """What results say of it."""

        @staticmethod
        def to_dict() -> dict[str, str]:
            return {"face": "fixed", "person": "fixed", "provider": "none"}

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        self.calls += 1
        side = np.array([image.shape[1], image.shape[0]] * 2, dtype=np.float64)
        return Detections(
            self.bodies * side, np.full(len(self.bodies), 0.9), self.faces * side, np.full(len(self.faces), 0.8)
        )
