"""Read and write safetensors files: validated before they are opened, with a checksum per tensor and finite values.

The metadata of a file that cocoer writes holds, under `checksums`, a hash of each tensor and of the other metadata. A flipped
bit is then an error that names the tensor, not a quietly different answer. The checksums find damage, not forgery: who can
change a tensor can change its checksum.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cocoer.description import SKIPPED, VERIFIED, WITHOUT
from cocoer.errors import CheckpointError, first_line
from cocoer.files import parse_json, write_file

CHECKSUMS = "checksums"
_MOST_HEADER = 16 * 2**20  # bytes; a thousand tensors and a config have 0.2 MB
_LFS_START = b"version https://git-lfs"
_REST = ""  # the name under which the other metadata have their hash


@dataclass(frozen=True)
class TensorFile:
    """The tensors of a file by name, on the CPU, and its metadata. checksums: one of VERIFIED, WITHOUT, SKIPPED."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    checksums: str


def _hash(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}\n".encode())
    digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _hash_rest(metadata: Mapping[str, str]) -> str:
    rest = {key: value for key, value in metadata.items() if key != CHECKSUMS}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:32]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file with checksums, whole or not at all. tensors: on the CPU, contiguous.

    Raises OutputError where it cannot be written.
    """
    said = {"format": "pt"} if metadata is None else dict(metadata)
    checksums = {_REST: _hash_rest(said)} | {name: _hash(tensor) for name, tensor in tensors.items()}
    said[CHECKSUMS] = json.dumps(checksums)

    def fill(unfinished: Path) -> None:
        mode = unfinished.stat().st_mode
        try:
            save_file(dict(tensors), unfinished, said)
            unfinished.chmod(mode)  # safetensors makes files that nobody else may read, whatever the umask says
        except SafetensorError as err:  # the library's word for a full disk too
            raise OSError(str(err)) from err

    write_file(path, fill)


def read_tensor_file(path: str | Path, what: str = "weights", verify: bool = True) -> TensorFile:
    """Every tensor of a safetensors file, in the type in which it is stored.

    what: how messages call the file. verify: compare with the checksums in the file, where there are any.
    Raises CheckpointError for a missing, truncated or foreign file, one whose content is not what was written (the tensor is
    named), and one with NaN or infinity in it.
    """
    path = Path(path)
    metadata = read_container(path, what)
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as err:
        raise CheckpointError(f"{what} {path}: cannot be read: {first_line(err)}; fetch or copy it again") from None
    require_finite(tensors, f"{what} {path}")
    if CHECKSUMS not in metadata:
        return TensorFile(tensors, metadata, WITHOUT)
    if not verify:
        return TensorFile(tensors, metadata, SKIPPED)
    _verify(tensors, metadata, f"{what} {path}")
    return TensorFile(tensors, metadata, VERIFIED)


def _verify(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> None:
    """CheckpointError unless every tensor, and nothing else, is as its checksum says."""
    try:
        wanted = parse_json(metadata[CHECKSUMS])
        names = wanted.keys() - {_REST}
    except (ValueError, AttributeError, RecursionError):
        raise CheckpointError(f"{where}: its checksums are damaged; fetch or copy the file again") from None
    changed = sorted(names ^ tensors.keys())
    changed += [name for name in sorted(names & tensors.keys()) if wanted[name] != _hash(tensors[name])]
    if wanted.get(_REST) != _hash_rest(metadata):
        changed.insert(0, "the description")
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise CheckpointError(
            f"{where}: {', '.join(changed[:3])}{more}: not what was written (the checksum differs); fetch or copy the file"
            " again. --no-verify (verify=False) reads it nevertheless"
        )


def require_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """CheckpointError that names the tensors with NaN or infinity in them."""
    bad = [name for name, t in tensors.items() if t.is_floating_point() and not bool(t.isfinite().all())]
    if bad:
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        raise CheckpointError(
            f"{where}: NaN or infinity in {', '.join(bad[:4])}{more}; the file is damaged, fetch or copy it again"
        )


def read_container(file: Path, what: str = "weights") -> dict[str, str]:
    """The metadata of a file that is a whole safetensors file by its size and header. Raises CheckpointError for another."""
    try:
        size = file.stat().st_size
        with open(file, "rb") as handle:
            start = handle.read(len(_LFS_START))  # the longest beginning that is known
            _check_kind(start, size, f"{what} {file}")
            length = int.from_bytes(start[:8], "little")
            handle.seek(8)
            header = handle.read(length)
    except OSError as err:
        raise CheckpointError(f"{what} {file}: cannot be read: {err.strerror or err}") from None
    wanted, metadata = 8 + length, {}
    if len(header) == length:
        try:
            entries = parse_json(header)
            metadata = entries.pop("__metadata__", {})
            wanted += max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
            if not all(isinstance(value, str) for value in metadata.values()):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError):
            raise CheckpointError(
                f"{what} {file}: the safetensors header is damaged; fetch or copy the file again"
            ) from None
    if size != wanted:
        kind = "truncated" if size < wanted else "longer than its header says"
        raise CheckpointError(f"{what} {file}: {kind}: wanted {wanted} bytes, got {size}; fetch or copy the file again")
    return dict(metadata)


def _check_kind(start: bytes, size: int, where: str) -> None:
    """CheckpointError unless a file begins like safetensors; the text says what it is instead."""
    if start.startswith(_LFS_START):
        raise CheckpointError(
            f"{where}: a git-lfs pointer of {size} bytes, not the weights themselves; run `git lfs pull`"
        )
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):
        raise CheckpointError(
            f"{where}: a pickled PyTorch file, which is not opened because that may execute code. Wanted safetensors; for the"
            " published checkpoint see `cocoer weights convert`"
        )
    if len(start) < 10 or start[8:9] != b"{":
        raise CheckpointError(f"{where}: wanted a safetensors file, got {size} bytes that are not one")
    if (length := int.from_bytes(start[:8], "little")) > _MOST_HEADER:
        raise CheckpointError(
            f"{where}: wanted a safetensors file with a header of at most {_MOST_HEADER:,} bytes, got {length:,}"
        )
