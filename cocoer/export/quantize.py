"""An exported .onnx file with its convolutions in 8-bit integers, for CPUs; the competition stays in float32.

The quantization is onnxruntime's (static, QDQ, symmetric weights by channel). Ours is the choice of what stays exact: only the
backbones' and the CLIP tower's layers are quantized, for there the time goes, and the levels' losses decide by small differences.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from cocoer.config import DataConfig
from cocoer.data.batch import Batch
from cocoer.data.loaders import build_dataset, collate
from cocoer.description import METADATA_KEY
from cocoer.errors import ExportError, MissingExtra
from cocoer.export.onnx_file import INPUTS, SEAL_KEY, OnnxFile, sealed
from cocoer.files import write_file

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_POOLS = ("MaxPool", "AveragePool")


def convolution_nodes(model: ModelProto) -> list[str]:
    """Names of the nodes between the crops and the last convolution: convolutions, their ReLUs, residual sums and pools.

    A sum counts where a convolution feeds it, a ReLU where a convolution or such a sum does; so nothing of the attention, the
    level heads or the competition is among them.
    """
    maker: dict[str, NodeProto] = {out: node for node in model.graph.node for out in node.output}
    chosen: dict[str, str] = {}

    def fed_by(node: NodeProto, kinds: tuple[str, ...]) -> bool:
        before = [maker[name] for name in node.input if name in maker]
        return any(n.name in chosen and n.op_type in kinds for n in before)

    for node in model.graph.node:  # in the order of computation
        residual = node.op_type == "Add" and fed_by(node, ("Conv",))
        after = node.op_type in ("Relu", *_POOLS) and fed_by(node, ("Conv", "Add", "Relu", *_POOLS))
        if node.op_type == "Conv" or residual or after:
            chosen[node.name] = node.op_type
    return list(chosen)


def quantize(source: str | Path, out: str | Path, batches: Iterable[Batch], whose: str) -> None:
    """Write the exported file `source` as `out` with 8-bit convolutions, for the ranges that the persons of `batches` show.

    whose: where those persons come from; the file's metadata tells it, and how many they were, under `quantized`.
    Raises ExportError for a file that cocoer did not export, for one that is quantized already, and without persons.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    except ImportError as err:
        raise MissingExtra("onnx", err) from None

    metadata = OnnxFile(source).metadata
    if "quantized" in metadata:
        raise ExportError(f"{source}: is quantized already; start from the float32 file")
    model = onnx.load(str(source))
    nodes = convolution_nodes(model)
    reader = _Reader(model, batches)

    def write(unfinished: Path) -> None:
        with TemporaryDirectory() as folder, _quiet():
            made = Path(folder) / "int8.onnx"
            quantize_static(
                str(source),
                str(made),
                reader,
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=nodes,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            small = onnx.load(str(made))
        note = {"type": "int8 convolutions", "calibrated_on": f"{reader.persons} persons of {whose}"}
        kept = {entry.key: entry.value for entry in small.metadata_props if entry.key != SEAL_KEY}
        onnx.helper.set_model_props(small, kept | {METADATA_KEY: json.dumps({**metadata, "quantized": note})})
        unfinished.write_bytes(sealed(small.SerializeToString()))

    write_file(Path(out), write)


def spread_persons(data: DataConfig, split: str, persons: int, batch_size: int = 8) -> Iterator[Batch]:
    """Up to `persons` of a split, evenly spread over its index, not augmented; images are read as batches are asked for.

    Raises IndexFileError at once for an index that cannot be used, ImageError later.
    """
    people = build_dataset(data, split)
    numbers = [int(i) for i in np.linspace(0, len(people) - 1, min(persons, len(people))).round()]
    chunks = (numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size))
    return (collate([people[i] for i in chunk]) for chunk in chunks)


class _Reader:
    """onnxruntime's calibration reader: one dictionary of inputs after another, then None."""

    def __init__(self, model: ModelProto, batches: Iterable[Batch]) -> None:
        self._wanted = {entry.name for entry in model.graph.input}
        self._feeds = self._made(batches)
        self.persons = 0

    def _made(self, batches: Iterable[Batch]) -> Iterator[dict[str, Any]]:
        for batch in batches:
            self.persons += len(batch.keys)
            given = {name: getattr(batch, name).numpy() for name in INPUTS}
            yield {name: value for name, value in given.items() if name in self._wanted}
        if not self.persons:
            raise ExportError("int8: wanted persons to calibrate with, the index has none")

    def get_next(self) -> dict[str, Any] | None:
        """What onnxruntime asks for."""
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without onnxruntime's advice to preprocess: the exporter's graph has been optimized."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.root.setLevel(level)
