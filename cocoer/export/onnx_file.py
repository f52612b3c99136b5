"""An exported .onnx file as onnxruntime runs it: arrays in, arrays out, config and class names from its metadata. Never torch.

With it alone (numpy, Pillow, onnxruntime, pydantic, PyYAML, platformdirs, tqdm) `cocoer predict --checkpoint FILE.onnx` answers.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cocoer.config import Config, InferenceConfig, change_config, check_classes, config_from_dict, config_to_dict
from cocoer.data.transforms import LevelCrops, normalised
from cocoer.description import METADATA_KEY, SKIPPED, VERIFIED, described
from cocoer.errors import ExportError, first_line
from cocoer.files import open_input, read_file
from cocoer.names import LEVELS

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".onnx"

INPUTS = ("head", "body", "context", "head_xyxy", "body_xyxy")
"""Crops [B, 3, S, S] with ImageNet mean and std, boxes [B, 4] in the S x S frame: as `CocoER.forward` takes them."""

OUTPUTS = (
    "probabilities",  # [B, k], of the fused answer
    "level_probabilities",  # [B, L, k]
    "vocabulary_probabilities",  # [B, k]
    "pseudo_label",  # [B, k], 0 or 1
    "exclusion",  # [B, L] int64, level indices in the order of leaving, survivor last
    "losses",  # [B, L], L_hier
    "lambda",  # [B, 2, L], simplex weights of both rounds
    "delta_norm",  # [B], |delta|, or the published code's distance
    "logits",  # [B, k]
    "level_logits",  # [B, L, k]
    "vocabulary_logits",  # [B, k]
)
"""What the file answers, in order."""

SEAL_KEY = "cocoer_sha256"
"""Key of a file's checksum in its metadata."""

_SEAL_START = b"\x72\x51\x0a\x0d" + SEAL_KEY.encode() + b"\x12\x40"
"""How protobuf writes one more entry of a model's metadata: its number and length, the key, the length of the value."""

_SEAL_BYTES = len(_SEAL_START) + 64

_OTHER_FILES = "session.model_external_initializers_file_folder_path"
"""onnxruntime's name for the folder of tensors that lie in other files; by default, for bytes, it is the working folder."""


def sealed(model: bytes) -> bytes:
    """A serialised model with the SHA-256 of its bytes as a last entry of its metadata."""
    return model + _SEAL_START + hashlib.sha256(model).hexdigest().encode()


def is_exported(path: Path) -> bool:
    """Whether a file is one that cocoer exported, undamaged or not, by its end."""
    try:
        with open_input(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SEAL_BYTES))
            return file.read(_SEAL_BYTES).startswith(_SEAL_START)
    except OSError:
        return False


def _check_seal(content: bytes, path: Path) -> None:
    """Raise ExportError unless the file ends with the checksum of its other bytes."""
    body, seal = content[:-_SEAL_BYTES], content[-_SEAL_BYTES:]
    if not seal.startswith(_SEAL_START):
        raise ExportError(
            f"{path}: not as cocoer export writes it: no checksum at its end (truncated, changed by another program, or"
            " foreign). Export it again; --no-verify reads it nevertheless"
        )
    if seal[len(_SEAL_START) :] != hashlib.sha256(body).hexdigest().encode():
        raise ExportError(
            f"{path}: not what was written (the checksum differs); export or copy it again. --no-verify reads it nevertheless"
        )


class OnnxFile:
    """An exported .onnx file, run by onnxruntime.

    threads: of onnxruntime, 0 = as many as torch has where torch is loaded, else as onnxruntime chooses.
    providers: onnxruntime's, in order of preference. verify: compare the content with the checksum in the file.
    Raises ExportError for a file that is missing, damaged or not one of ours, CheckpointError for a description that is damaged.
    Tensors that the file says lie in other files are looked for in a folder that cannot exist, so no other file is read.
    """

    def __init__(
        self,
        path: str | Path,
        threads: int = 0,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
        verify: bool = True,
    ) -> None:
        import onnxruntime

        path = Path(path)
        if not path.is_file():
            raise ExportError(f"{path}: no such file; write one with cocoer export --format onnx")
        content = read_file(path)
        if verify:
            _check_seal(content, path)
        self.checksums = VERIFIED if verify else SKIPPED
        options = onnxruntime.SessionOptions()
        torch = sys.modules.get("torch")
        options.intra_op_num_threads = threads or (torch.get_num_threads() if torch else 0)
        options.log_severity_level = 3
        options.add_session_config_entry(_OTHER_FILES, os.path.join(os.path.abspath(path), "no other file"))
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=list(providers))
            used = self._session.get_providers()
            text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
            self._reads = {entry.name for entry in self._session.get_inputs()}  # `paper` mode does not look at boxes
            answers = {entry.name for entry in self._session.get_outputs()}
        except Exception as err:  # noqa: BLE001 - onnxruntime has a dozen error types without a common base
            raise ExportError(f"{path}: onnxruntime cannot read it: {first_line(err)}; export it again") from None
        if providers[0] not in used:  # onnxruntime goes on without a word where a provider's libraries are missing
            raise ExportError(f"{path}: wanted {providers[0]}, onnxruntime could only use {', '.join(used)}")
        if text is None:
            raise ExportError(f"{path}: an ONNX file without a description under `cocoer`; wanted one by cocoer export")
        if not self._reads <= set(INPUTS) or not set(OUTPUTS) <= answers:
            raise ExportError(f"{path}: its inputs or outputs are not those of cocoer export; export it again")
        self._path = path
        self.metadata = described(text, str(path))

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
        """Arrays in the order of `INPUTS` -> outputs by the names of `OUTPUTS`."""
        fed = {name: inputs[name] for name in INPUTS if name in self._reads}
        try:
            found = dict(zip(OUTPUTS, self._session.run(list(OUTPUTS), fed), strict=True))
        except Exception as err:  # noqa: BLE001 - as above
            raise ExportError(f"{self._path}: onnxruntime cannot run it: {first_line(err)}; export it again") from None
        if bad := [name for name, values in found.items() if not np.isfinite(values).all()]:
            raise ExportError(f"{self._path}: answers with NaN or infinity in {', '.join(bad)}; export it again")
        return found

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Tensors in the order of `INPUTS`, on the CPU -> outputs by name, as tensors."""
        import torch

        arrays = (tensor.detach().float().contiguous().numpy() for tensor in inputs)
        return {name: torch.from_numpy(x) for name, x in self.run(dict(zip(INPUTS, arrays, strict=True))).items()}

    def score(self, crops: Sequence[LevelCrops]) -> dict[str, NDArray[Any]]:
        """Crops of B persons -> outputs by the names of `OUTPUTS`."""
        images = normalised(np.stack([c.pixels for c in crops], axis=1))  # [L, B, 3, S, S]
        boxes = {name: np.stack([getattr(c, name) for c in crops]) for name in ("head_xyxy", "body_xyxy")}
        return self.run({**dict(zip(LEVELS, images, strict=True)), **boxes})


def open_exported(path: str | Path, overrides: Sequence[str] = (), verify: bool = True) -> tuple[OnnxFile, Config]:
    """An .onnx file and its config with the overrides.

    Only `inference.*` may be overridden: the rest is fixed in the file.
    Raises ExportError for another file or an override of what is fixed, ConfigError for one that does not check.
    """
    file = OnnxFile(path, verify=verify)
    stored = config_from_dict(file.metadata["config"], f"config in {path}")
    config = change_config(stored, overrides)
    fixed, changed = config_to_dict(stored), config_to_dict(config)
    if wrong := [section for section in ("model", "data") if fixed[section] != changed[section]]:
        raise ExportError(
            f"{path}: {' and '.join(wrong)} are fixed in an exported file and cannot be set; change them before the export"
        )
    check_classes(file.metadata, config.classes, f"exported file {path}")
    return file, config


def check_switches(settings: InferenceConfig) -> None:
    """ValueError for a switch that an exported file cannot follow: its graph is fixed and runs in onnxruntime."""
    wanted = {
        "precision": settings.precision != "fp32",
        "compile": settings.compile,
        "cuda_graph": settings.cuda_graph is True,
    }
    if on := [f"inference.{name}" for name, switched in wanted.items() if switched]:
        raise ValueError(
            f"{', '.join(on)}: an exported file runs in onnxruntime as it is; leave this out, or use its checkpoint"
        )
