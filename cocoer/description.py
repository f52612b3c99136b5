"""The description inside a weights file or an exported file, validated before it is used."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cocoer.errors import CheckpointError
from cocoer.files import parse_json

FORMAT_VERSION = 1
METADATA_KEY = "cocoer"
"""Key of the description in a file's metadata (JSON)."""

VERIFIED, WITHOUT, SKIPPED = "verified", "none in the file", "not verified (--no-verify)"
"""What a result says of the checksums of its weights."""

_MOST_BYTES = 8 * 2**20


class _Thresholds(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    classes: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}


class _Description(BaseModel):
    """The fields of a description that are read; others are allowed."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    format_version: int
    config: dict[str, Any]
    classes: Annotated[list[str], Field(min_length=1, max_length=1000)]
    class_counts: list[Annotated[float, Field(ge=0, le=2**53)]] | None = None
    thresholds: _Thresholds = _Thresholds()
    metrics: dict[str, Any] = {}
    note: Annotated[str, Field(max_length=100_000)] = ""
    tower: dict[str, Any] | None = None


def described(text: str | None, where: str) -> dict[str, Any]:
    """The description in `text` as plain values. where: how messages call the file.

    Raises CheckpointError for none, for a format version that is newer than this code, and for values of another type,
    outside their range or not finite (a threshold that is NaN), each named.
    """
    if text is None:
        raise CheckpointError(
            f"{where}: without a description under `{METADATA_KEY}`, so the config is not known. Wanted a file written by"
            " train.py or cocoer weights convert"
        )
    try:
        if len(text) > _MOST_BYTES:
            raise ValueError(f"larger than {_MOST_BYTES:,} bytes")
        tree: dict[str, Any] = parse_json(text)
        version = tree.get("format_version")
    except (ValueError, AttributeError, RecursionError) as err:
        raise CheckpointError(f"{where}: its description is damaged ({err}); fetch or copy the file again") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{where}: format version {version!r}, this code reads {FORMAT_VERSION}; update cocoer")
    try:
        _Description.model_validate_json(text)
    except ValidationError as err:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r:.60}" for e in err.errors()[:4]]
        raise CheckpointError(f"{where}: its description is damaged: {'; '.join(lines)}") from None
    counts = tree.setdefault("class_counts", None)
    if counts is not None and len(counts) != len(tree["classes"]):
        raise CheckpointError(f"{where}: {len(counts)} class counts for {len(tree['classes'])} classes")
    return tree
