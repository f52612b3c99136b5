"""Read third-party weights (safetensors, torch.save, OpenAI's TorchScript archives) as tensors; no code in them is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cocoer.errors import MissingWeights
from cocoer.model.release.safe_pickle import read_pickled, tensors_of
from cocoer.model.tensor_file import read_tensor_file, require_finite
from cocoer.model.torchscript_tensors import is_torchscript, read_torchscript_tensors


def read_foreign_weights(path: str | Path, what: str) -> dict[str, Tensor]:
    """The state dict in a file, whatever its name ends in; on the CPU, in the types in which it is stored.

    what: how messages call the file ("CLIP weights", "backbone weights").
    Raises MissingWeights, or CheckpointError for a file of another kind, a truncated or damaged one, and one with NaN or
    infinity in it.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingWeights(f"{what}: no such file: {path}; `cocoer weights list` says where it comes from")
    with path.open("rb") as handle:
        start = handle.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return read_tensor_file(path, what).tensors
    if is_torchscript(path):
        tensors = read_torchscript_tensors(path, what)
    else:
        content = read_pickled(path, what)
        if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
            content = content["state_dict"]  # as open_clip's training writes it
        tensors = tensors_of(content, path, what)
    require_finite(tensors, f"{what} {path}")
    return tensors
