"""The published code's preprocessed files. They are pickles; only plain containers and numpy arrays are let through."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_ALLOWED: dict[str, frozenset[str]] = {
    "builtins": frozenset({"dict", "list", "tuple", "set", "int", "float", "str", "bytes", "bool", "complex"}),
    "collections": frozenset({"OrderedDict", "defaultdict"}),
    "_codecs": frozenset({"encode"}),
    "numpy": frozenset({"ndarray", "dtype"}),
    **{
        f"numpy.{core}.{name}": frozenset({"_reconstruct", "scalar", "_frombuffer"})
        for core in ("core", "_core")
        for name in ("multiarray", "numeric")
    },
}


class PickleError(ValueError):
    """A pickle that is damaged, of another shape, or asks for code that it has no business with."""


@dataclass(frozen=True)
class PicklePerson:
    """One person. image: uint8 [H, W, 3]. labels: k numbers. body, head: xyxy, pixels of the image."""

    where: str
    image: NDArray[np.uint8]
    labels: Sequence[float]
    body: Sequence[float]
    head: Sequence[float]


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every class and function outside `_ALLOWED`: those are what a harmful pickle would call."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in _ALLOWED.get(module, ()):
            raise PickleError(f"wanted plain containers and numpy arrays, the pickle asks for {module}.{name}; refused")
        return super().find_class(module, name)


def load_plain(file: BinaryIO) -> Any:
    """The content of an open pickle, or of an .npy file of objects. Raises PickleError."""
    try:
        if file.read(6) == b"\x93NUMPY":
            file.seek(0)
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if not dtype.hasobject:
                raise PickleError(f"wanted an array of objects, got {dtype} {shape}")
            content = _PlainUnpickler(file).load()
            return content.item() if isinstance(content, np.ndarray) and content.size == 1 else content
        file.seek(0)
        return _PlainUnpickler(file).load()
    except PickleError:
        raise
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        ImportError,
    ) as err:
        raise PickleError(f"wanted a pickle of the published code, got a damaged or foreign one ({err})") from None


def read_info_pickle(path: Path) -> Iterator[PicklePerson]:
    """Persons of `{split}_info.pkl` (5-tuples, images in `{split}_image.pkl`) or `{split}_info.npy` (7-tuples).

    The two are told apart by their shape, never guessed: a list of 5-tuples or a dict of lists of 7-tuples.
    Raises PickleError for anything else.
    """
    with path.open("rb") as file:
        content = load_plain(file)
    if isinstance(content, Mapping):
        return _from_sevens(content)
    if isinstance(content, list | tuple) and content and all(len(row) == 5 for row in content):
        beside = path.with_name(path.name.replace("_info", "_image"))
        if beside == path or not beside.is_file():
            raise PickleError(f"5-tuples have their images in another file: wanted {beside.name} beside it, found none")
        with beside.open("rb") as file:
            return _from_fives(content, load_plain(file))
    raise PickleError("wanted a list of 5-tuples (key, labels, -, body, head) or a dict of lists of 7-tuples")


def _from_fives(rows: Sequence[Any], images: Any) -> Iterator[PicklePerson]:
    if not isinstance(images, Mapping):
        raise PickleError(f"wanted a dict of images, got {type(images).__name__}")
    for number, (key, labels, _, body, head) in enumerate(rows):
        if key not in images:
            raise PickleError(f"[{number}]: no image with the key {key!r}")
        yield PicklePerson(f"[{number}] {key}", _image(images[key], number), _flat(labels), _flat(body), _flat(head))


def _from_sevens(content: Mapping[Any, Any]) -> Iterator[PicklePerson]:
    for key, rows in content.items():
        for number, row in enumerate(rows):
            if not isinstance(row, list | tuple) or len(row) != 7:
                raise PickleError(f"{key}[{number}]: wanted a 7-tuple, got {type(row).__name__} of {len(row)}")
            context, _, _, labels, _, body, head = row
            yield PicklePerson(f"{key}[{number}]", _image(context, number), _flat(labels), _flat(body), _flat(head))


def _image(value: Any, number: int) -> NDArray[np.uint8]:
    array = np.asarray(value)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise PickleError(f"[{number}]: wanted an image uint8 [H, W, 3], got {array.dtype} {array.shape}")
    return array


def _flat(values: Any) -> list[float]:
    return [float(v) for v in np.asarray(values, dtype=np.float64).ravel()]
