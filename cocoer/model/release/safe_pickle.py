"""Read untrusted pickled files without executing code.

A PyTorch file is a pickle, and a pickle may name any function to call. torch's weights-only reader follows no name that it
does not know; the published checkpoint needs a few more, because its `opt` entry is a whole optimizer object. That object
is read into an inert stand-in: nothing of an optimizer runs, and its version does not matter.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cocoer.errors import CheckpointError, first_line
from cocoer.model.torchscript_tensors import is_torchscript

_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""How torch.save began its files before version 1.6."""

_OTHER_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself; run `git lfs pull`"),
    (b"<", "a web page, not the file: the download asked a question first (large files on shared drives do); download it"
           " in a browser"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a rar archive; unpack it first"),
)  # fmt: skip


class StoredOptimizer:
    """Stands in for the optimizer object under `opt`: takes the state that the file gives it, and does nothing."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.state = state


def _table(_default: Any = None) -> OrderedDict[Any, Any]:
    """Stands in for the defaultdict in which an optimizer keeps its state."""
    return OrderedDict()


ALLOWED: tuple[tuple[Any, str], ...] = (
    (StoredOptimizer, "torch.optim.adamw.AdamW"),
    (StoredOptimizer, "torch.optim.adam.Adam"),
    (_table, "collections.defaultdict"),
    (dict, "builtins.dict"),
)
"""What a published file may name beyond torch's own list, and what is built instead: the optimizers of the authors' training,
and the table they keep their state in."""


def _members(path: Path) -> list[str]:
    """Names in the archive. Raises ValueError where a member is packed: torch.save packs none, and a packed one may be a bomb."""
    with zipfile.ZipFile(path) as archive:
        packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        if packed or sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
            raise ValueError(f"a member is compressed ({', '.join(packed[:1])}), which torch.save never does")
        return archive.namelist()


def _check_kind(path: Path, what: str) -> None:
    """CheckpointError unless the file begins like something that torch.save wrote; the text says what it is instead."""
    if not path.is_file():
        raise CheckpointError(f"{what} {path}: no such file; `cocoer weights list` says where it comes from")
    with open(path, "rb") as handle:
        start = handle.read(128)
    if not start:
        raise CheckpointError(f"{what} {path}: is empty; download it again")
    for mark, kind in _OTHER_KINDS:
        if start.lstrip().startswith(mark):
            raise CheckpointError(f"{what} {path}: {kind}")
    if start[8:10] == b'{"':
        raise CheckpointError(f"{what} {path}: a safetensors file; it is converted already, or of another model")
    if start.startswith(b"PK"):
        _check_archive(path, what)
    elif not start.startswith(_LEGACY):
        kind = "a pickle that torch.save did not write" if start[:1] == b"\x80" else "not a PyTorch file"
        raise CheckpointError(f"{what} {path}: {kind}; wanted the file as the authors published it")


def _check_archive(path: Path, what: str) -> None:
    """CheckpointError unless a file that begins like a zip archive is a whole one written by torch.save."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{what} {path}: truncated at {path.stat().st_size} bytes; download it again")
    if is_torchscript(path):
        raise CheckpointError(f"{what} {path}: a TorchScript archive; is this CLIP's file, meant for --clip?")
    try:
        names = _members(path)
    except (ValueError, OSError, zipfile.BadZipFile, NotImplementedError) as err:
        raise CheckpointError(f"{what} {path}: {first_line(err)}; download it again") from None
    if not any(name.endswith("data.pkl") for name in names):
        inside = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        raise CheckpointError(f"{what} {path}: a zip archive that holds {inside or 'nothing'}; unpack it first")


def read_pickled(path: str | Path, what: str) -> Any:
    """The content of a file written by torch.save, on the CPU; tensors of a modern file stay on disk until they are read.

    what: how messages call the file ("published checkpoint"). Nothing but tensors, plain containers and numbers, and the
    names in `ALLOWED` is built; no code of the file runs.
    Raises CheckpointError for a missing, truncated or foreign file and for one that names anything else.
    """
    path = Path(path)
    _check_kind(path, what)
    modern = zipfile.is_zipfile(path)
    with torch.serialization.safe_globals(list(ALLOWED)):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=modern)
        except pickle.UnpicklingError as err:
            names = _foreign_names(path, modern, str(err))
            if names:
                raise CheckpointError(
                    f"{what} {path}: needs {', '.join(names)}, and reading that could run code, so the file is not opened."
                    " Allowed are tensors, plain containers, and the AdamW or Adam object of the published training. If you"
                    " trust the file, save its `model` entry alone with torch.save, and convert that"
                ) from None
            raise CheckpointError(f"{what} {path}: damaged: {first_line(err)}; download it again") from None
        except Exception as err:  # noqa: BLE001 - a forged pickle can make an unpickler raise anything
            raise CheckpointError(
                f"{what} {path}: truncated or damaged: {first_line(err)}; download it again"
            ) from None


def _foreign_names(path: Path, modern: bool, message: str) -> list[str]:
    """The functions and classes, as module.name, that the file asks for and that are not allowed."""
    if modern:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return re.findall(r"GLOBAL ([\w.]+)", message)


def tensors_of(content: Any, path: str | Path, what: str) -> dict[str, Tensor]:
    """The state dict in a file's content: its `model` entry, or the content itself; `module.` prefixes are dropped.

    Raises CheckpointError where there is none, or where it holds something else than tensors.
    """
    found = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(
            f"{what} {path}: wanted a mapping of names to tensors under `model`, got {type(found).__name__}"
            + (f" with the entries {', '.join(map(str, list(content)[:6]))}" if isinstance(content, Mapping) else "")
        )
    odd = [str(key) for key, value in found.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if odd:
        raise CheckpointError(
            f"{what} {path}: wanted tensors only, got {type(found[odd[0]]).__name__ if odd[0] in found else 'another thing'}"
            f" under {', '.join(odd[:4])}{' ...' if len(odd) > 4 else ''}; is this another model's file?"
        )
    for key, value in found.items():
        _require_plain(value, f"{what} {path}: {key}")
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def _require_plain(tensor: Tensor, where: str) -> None:
    """CheckpointError unless the file really holds the tensor's numbers: dense, on the CPU, none of them twice."""
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{where}: wanted a plain tensor, got {tensor.layout} {list(tensor.shape)} on {tensor.device}"
        )
