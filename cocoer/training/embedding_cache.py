"""CLIP's embeddings of the training persons on disk, for runs whose images are never changed (`data.embeddings`).

    <folder>/<split>-<tower>.safetensors    embeddings [n, e]; in the metadata, what each person's row was computed from

The tower is frozen, so a person's embedding stays the same as long as tower, image and boxes do. The file's name holds a
hash of the tower and of how it looks; its metadata a hash of every person's image and boxes. Another tower makes another
file; a changed image or box is an error, never a wrong embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cocoer.data.files import scan_files
from cocoer.data.loaders import PersonDataset
from cocoer.errors import CheckpointError
from cocoer.files import parse_json
from cocoer.model.tensor_file import read_tensor_file, write_tensors
from cocoer.model.vocabulary import VocabularyBranch
from cocoer.runtime import Runtime

_ROWS = "rows"


@dataclass(frozen=True)
class KnownEmbeddings:
    """Unit-norm embeddings [n, e] of n persons, by key."""

    table: Tensor
    rows: dict[str, int]

    def of(self, keys: Sequence[str]) -> Tensor:
        """The embeddings of these persons, [len(keys), e]."""
        return self.table[torch.tensor([self.rows[key] for key in keys], device=self.table.device)]


def tower_hash(branch: VocabularyBranch, image_size: int) -> str:
    """Names all that an embedding depends on but the person: the tower's weights, its mean and std, its view, the crops' side."""
    view = f"{branch.view} and levels" if branch.reads_levels else branch.view
    digest = hashlib.sha256(f"{view} {image_size}\n".encode())
    state = {name: value for name, value in branch.state_dict().items() if name.startswith("tower.")}
    for name, value in (state | branch.normalisation).items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def person_hashes(people: PersonDataset) -> dict[str, str]:
    """By key, a hash of each person's image file and boxes. Raises CheckpointError for an image that cannot be read."""
    images = sorted({record.image for record in people.records})
    facts = scan_files(people.root, images, "checking images", people.allow_outside)
    out = {}
    for record in people.records:
        found = facts[record.image]
        if found.error:
            raise CheckpointError(
                f"{people.root / record.image}: {found.error}; restore the file or prepare the index again"
            )
        text = f"{found.content} {record.body} {record.head}"
        out[record.key] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return out


def open_embeddings(
    folder: Path,
    split: str,
    branch: VocabularyBranch,
    people: PersonDataset,
    image_size: int,
    runtime: Runtime,
    compute: Callable[[], Tensor],
) -> KnownEmbeddings:
    """The embeddings of a split's persons: read from `folder`, or computed and written there by the first run.

    compute: gives them, [n, e] in the order of `people`, on every process.
    Raises CheckpointError for a file that is damaged or was made from other images, boxes or persons.
    """
    file = folder / f"{split}-{tower_hash(branch, image_size)}.safetensors"
    hashes = person_hashes(people)
    rows = {record.key: i for i, record in enumerate(people.records)}
    if runtime.from_main(file.is_file()):
        return KnownEmbeddings(_read(file, hashes).to(runtime.device), rows)
    table = compute()
    if runtime.is_main:
        tensors = {"embeddings": table.detach().cpu().contiguous()}
        write_tensors(file, tensors, {_ROWS: json.dumps(hashes)})
    return KnownEmbeddings(table, rows)


def _read(file: Path, hashes: dict[str, str]) -> Tensor:
    """The table of a file whose persons are exactly those of `hashes`, in that order."""
    remedy = f"delete {file}, and it will be made again"
    try:
        content = read_tensor_file(file, "embeddings")
        stored: dict[str, str] = parse_json(content.metadata[_ROWS])
        table = content.tensors["embeddings"]
        if table.ndim not in (2, 3) or len(table) != len(stored):  # [n, e], or [n, L, e] where CLIP reads every level
            raise ValueError(f"{list(table.shape)} for {len(stored)} persons")
    except (KeyError, ValueError, TypeError, RecursionError) as err:
        raise CheckpointError(f"{file}: no file of embeddings ({type(err).__name__}: {err}); {remedy}") from None
    if list(stored) != list(hashes):
        raise CheckpointError(
            f"{file}: was made for {len(stored)} persons, this index has {len(hashes)}, or others; {remedy}"
        )
    if changed := [key for key, value in hashes.items() if stored[key] != value]:
        raise CheckpointError(
            f"{file}: is stale: image or boxes of {len(changed)} persons have changed since, first {changed[0]}; {remedy}"
        )
    return table
