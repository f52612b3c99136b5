"""One file that holds the whole model, competition and coordination included: ONNX, or torch.export's program.

Possible because the workspace is closed form: no loop over persons, no autograd call, no solver. In the file: three crops and
two boxes a person in, probabilities, how the levels competed, and raw logits out; the number of persons is free. Class names,
thresholds, config and preprocess are in its metadata, so `inference.py --checkpoint model.onnx` needs no second file.

Letters: B persons, L = 3 levels in `names.LEVELS` order, S crop side in pixels, k emotions.
"""

from __future__ import annotations

import io
import json
import logging
import os
import statistics
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from cocoer.config import Config, config_to_dict
from cocoer.description import METADATA_KEY
from cocoer.errors import ExportError, MissingExtra, first_line
from cocoer.export.onnx_file import INPUTS, OUTPUTS, OnnxFile, is_exported, sealed
from cocoer.export.twin import TWIN_KEY, twin_path
from cocoer.files import file_sha256, hold_file, write_file
from cocoer.model.checkpoint import Loaded, load_weights
from cocoer.model.level_model import LevelModel
from cocoer.names import LEVELS

FORMATS = ("onnx", "torch")
TOLERANCE = 1e-4
"""Largest difference to PyTorch that an exported file may show, in probabilities, lambda and, relatively, in the rest."""

GATE_TOLERANCE = 5e-2
"""The same for one person's answer after the coordination; the person in the middle must keep to `TOLERANCE`.

The update multiplies a level's gradient, cut off where its ReLU is closed, with |x|^2 + 1 (Algorithm 1): some ten thousands at
full size. Where a feature lies within rounding of 0, the last digit opens or closes its gate, and the answer jumps.
"""

_AFTER_COORDINATION = ("probabilities", "logits")
_CHECKED_BATCHES = (1, 2, 5)
_TRACED_BATCH = 4  # neither 1, which torch.export takes for a constant, nor the 3 of the levels
_OPSET = 20
_ONNX_LIMIT = 2**31


class Exportable(nn.Module):
    """The model with its outputs as a flat tuple in the order of `OUTPUTS`."""

    def __init__(self, model: LevelModel, multi_label: bool) -> None:
        super().__init__()
        self.model = model
        self._multi_label = multi_label

    def forward(
        self, head: Tensor, body: Tensor, context: Tensor, head_xyxy: Tensor, body_xyxy: Tensor
    ) -> tuple[Tensor, ...]:
        """Crops [B, 3, S, S] and boxes [B, 4] as in `CocoER.forward` -> the tensors that `OUTPUTS` names."""
        output = self.model(head, body, context, head_xyxy, body_xyxy)
        found = output.competition
        logits = (output.logits, output.level_logits, output.vocabulary_logits)
        probabilities = [torch.sigmoid(x) if self._multi_label else torch.softmax(x, dim=-1) for x in logits]
        return (
            *probabilities,
            output.pseudo_label,
            found.exclusion,
            found.losses,
            found.weights,
            found.distance,
            *logits,
        )


def example_inputs(config: Config, persons: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Made-up persons to trace and to check with: noise for crops, boxes somewhere in the frame; see `INPUTS`."""
    side = config.data.image_size
    rng = torch.Generator().manual_seed(seed)
    crops = [torch.randn(persons, 3, side, side, generator=rng) for _ in LEVELS]
    corner = side * (0.05 + 0.4 * torch.rand(2, persons, 2, generator=rng))
    boxes = torch.cat([corner, corner + side * (0.1 + 0.4 * torch.rand(2, persons, 2, generator=rng))], dim=-1)
    return (*crops, boxes[0], boxes[1])


def export_model(
    model: LevelModel, config: Config, metadata: Mapping[str, Any], out: str | Path, file_format: str = "onnx"
) -> float:
    """Write the model as one file, check it against PyTorch, and return the largest difference seen.

    model: in eval mode, on the CPU; it is folded in place (`LevelModel.fold`). metadata: what its weights file says of itself.
    file_format: `onnx` (checked in onnxruntime), or `torch` (a torch.export program, .pt2; checked after reading it back).
    Raises ExportError for a model that cannot be exported or a difference above `TOLERANCE` (then no file is left),
    OutputError where the file cannot be written.
    """
    if file_format not in FORMATS:
        raise ExportError(f"format: wanted one of {', '.join(FORMATS)}, got {file_format!r}")
    check_exportable(config)
    out = Path(out)
    model.fold()
    wrapped = Exportable(model, config.multi_label).eval()
    content = _content(_traced(wrapped, config), json.dumps(dict(metadata)), file_format)
    worst = 0.0

    def write(unfinished: Path) -> None:
        nonlocal worst
        unfinished.write_bytes(content)
        try:
            worst = _checked(wrapped, config, unfinished, file_format)
        except ExportError:
            unfinished.unlink()
            raise

    write_file(out, write)
    return worst


def check_exportable(config: Config) -> None:
    """Raises ExportError for a model that no file can hold."""
    if config.model.level_head.mapping != "linear":
        raise ExportError(
            f"model.level_head.mapping: {config.model.level_head.mapping!r} takes its step by autograd, which no file can"
            " hold; export a model with the linear mapping"
        )
    if not config.model.vocabulary.enabled:
        raise ExportError(
            "model.vocabulary.enabled: false disables the competition; export a model with the V-I branch"
        )


def check_twin_can_be_written(config: Config) -> None:
    """What `write_twin` needs, asked before the work whose weights are to get one. Raises ExportError, MissingExtra."""
    check_exportable(config)
    try:
        import onnxscript  # noqa: F401
    except ImportError as err:
        raise MissingExtra("onnx", err) from None


def write_twin(weights: str | Path) -> tuple[Path, float]:
    """Export a weights file beside itself, as its ONNX twin (`export.twin`); returns the twin's path and `export_model`'s answer.

    Raises CheckpointError for weights that cannot be read, ExportError where somebody else's file lies there, and as
    `export_model` does.
    """
    loaded = load_weights(weights)
    out = twin_path(loaded.path)
    if os.path.lexists(out) and not is_exported(out):
        raise ExportError(
            f"{out}: was not exported by cocoer, and it stays; move it away, or name another place with --output"
        )
    with hold_file(out):
        return out, export_model(loaded.model, loaded.config, described_export(loaded), out)


def described_export(loaded: Loaded, changed: bool = False) -> dict[str, Any]:
    """What an exported file says of itself: what its weights say, their config and their file's name.

    And their checksum, which makes it their twin, unless it answers otherwise than they do (changed).
    """
    about = {**loaded.metadata, "config": config_to_dict(loaded.config), "exported_from": loaded.path.name}
    return about if changed else about | {TWIN_KEY: file_sha256(loaded.path)}


def _content(program: torch.export.ExportedProgram, metadata: str, file_format: str) -> bytes:
    """The file's bytes. Raises ExportError where the graph or the format does not allow it."""
    if file_format == "onnx":
        return _onnx_bytes(program, metadata)
    buffer = io.BytesIO()
    try:
        torch.export.save(program, buffer, extra_files={METADATA_KEY: metadata})
    except ValueError as err:  # torch 2.8 cannot write the infinity of a mask
        raise ExportError(f"torch {torch.__version__} cannot write this model ({err}); use --format onnx") from None
    return buffer.getvalue()


def _traced(wrapped: Exportable, config: Config) -> torch.export.ExportedProgram:
    """The model as a graph whose first axis is free."""
    persons = {0: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        return torch.export.export(
            wrapped, example_inputs(config, _TRACED_BATCH), dynamic_shapes=[persons] * len(INPUTS), strict=False
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own deprecations and on axes of equal length."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _onnx_bytes(program: torch.export.ExportedProgram, metadata: str) -> bytes:
    """The graph as ONNX with its weights inside. Raises ExportError where onnxscript is missing or the file is too large."""
    try:
        with _quiet():
            converted = torch.onnx.export(
                program,
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                opset_version=_OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except ImportError as err:
        raise MissingExtra("onnx", err) from None
    except torch.onnx.OnnxExporterError as err:
        raise ExportError(
            f"torch {torch.__version__} cannot write this model as ONNX ({first_line(err)}); tested are the versions that"
            " `cocoer doctor` compares with"
        ) from None
    assert converted is not None, "with dynamo=True the exporter returns its program"
    proto = converted.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, metadata
    if proto.ByteSize() >= _ONNX_LIMIT:
        raise ExportError("ONNX: one file holds less than 2 GiB; use --format torch for this model")
    content: bytes = proto.SerializeToString()
    return sealed(content)


def _checked(wrapped: Exportable, config: Config, path: Path, file_format: str) -> float:
    """Largest difference between file and PyTorch over a few batch sizes; of coordinated answers, the middle person's.

    Raises ExportError above `TOLERANCE` and `GATE_TOLERANCE`.
    """
    run = OnnxFile(path) if file_format == "onnx" else TorchFile(path)
    worst = 0.0
    coordinated: list[float] = []
    for persons in _CHECKED_BATCHES:
        inputs = example_inputs(config, persons, seed=persons)
        with torch.no_grad():
            wanted = dict(zip(OUTPUTS, wrapped(*inputs), strict=True))
        got = run(*inputs)
        for name in OUTPUTS:
            difference, limit = largest_difference(got[name], wanted[name]), TOLERANCE
            if name in _AFTER_COORDINATION:
                each = [largest_difference(a, b) for a, b in zip(got[name], wanted[name], strict=True)]
                coordinated += each if name == "logits" else []
                limit = GATE_TOLERANCE
            else:
                worst = max(worst, difference)
            if not difference <= limit:
                raise _too_far(file_format, name, difference, f"{persons} persons", limit)
    middle = statistics.median(coordinated)
    if not middle <= TOLERANCE:
        raise _too_far(file_format, "logits", middle, "the person in the middle", TOLERANCE)
    return max(worst, middle)


def _too_far(file_format: str, name: str, difference: float, whose: str, limit: float) -> ExportError:
    return ExportError(
        f"{file_format} file: {name} differs by {difference:.2e} from PyTorch for {whose}, wanted at most {limit:g};"
        " no file was written"
    )


def largest_difference(got: Tensor, wanted: Tensor) -> float:
    """Largest |got - wanted| / max(1, |wanted|): absolute for small numbers, relative for large ones. NaN stays NaN.

    Raises ExportError for tensors of different shapes.
    """
    if got.shape != wanted.shape:
        raise ExportError(f"exported file: wanted an answer of shape {list(wanted.shape)}, got {list(got.shape)}")
    gap = (got.double() - wanted.double()).abs() / wanted.double().abs().clamp_min(1.0)
    return float(gap.max()) if gap.numel() else 0.0


class TorchFile:
    """An exported .pt2 file, run by torch; called as `OnnxFile` is. Raises ExportError for a file that cocoer did not export."""

    def __init__(self, path: str | Path) -> None:
        extra = {METADATA_KEY: ""}
        try:
            with Path(path).open("rb") as handle, warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", "The given buffer is not writable", UserWarning
                )  # torch 2.11's own bytes
                program = torch.export.load(handle, extra_files=extra)
        except (OSError, RuntimeError, ValueError, BadZipFile) as err:
            raise ExportError(f"{path}: torch cannot read it: {first_line(err)}; export it again") from None
        if not extra[METADATA_KEY]:
            raise ExportError(f"{path}: a .pt2 file without a description under `cocoer`; wanted one by cocoer export")
        self.metadata: dict[str, Any] = json.loads(extra[METADATA_KEY])
        self._module = program.module()

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Tensors in the order of `INPUTS`, on the CPU -> outputs by name."""
        with torch.no_grad():
            return dict(zip(OUTPUTS, self._module(*inputs), strict=True))
