"""Writing the results of a run into its output folder, in a separate thread."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from PIL import Image

from cocoer.errors import CocoerError, OutputError
from cocoer.outputs import ImageResult
from cocoer.report.results import ResultFolder

LOG = logging.getLogger(__name__)

_MOST_LATE = 4


class Named(Protocol):
    """What the writer must know of an input: its place in the input, and its output files' name (`data.inputs.InputItem`)."""

    @property
    def position(self) -> int: ...
    @property
    def stem(self) -> str: ...


@dataclass(frozen=True)
class Written:
    """An answer and its files. renamed: their usual name is taken by a file that is not this run's to replace."""

    result: ImageResult
    files: tuple[Path, ...]
    renamed: bool = False


def write_results(
    results: Generator[tuple[ImageResult, Named, Image.Image | None], None, None], folder: ResultFolder
) -> Iterator[Written]:
    """Write results in a thread while the next ones are recognised; yields them in order, at most 4 late.

    A result that cannot be drawn or written down becomes a row with an error. Raises OutputError where the folder cannot be
    written (a full disk); after that nothing more is written.
    """
    failed = threading.Event()

    def add(result: ImageResult, item: Named, image: Image.Image | None) -> Written:
        if failed.is_set():
            return Written(result, ())
        try:
            return _added(folder, result, item, image)
        except BaseException:
            failed.set()
            raise

    with closing(results), ThreadPoolExecutor(1, "cocoer-writer") as pool:
        pending: deque[Future[Written]] = deque()
        for result, item, image in results:
            pending.append(pool.submit(add, result, item, image))
            if len(pending) > _MOST_LATE:
                yield pending.popleft().result()
        for future in pending:
            yield future.result()


def _added(folder: ResultFolder, result: ImageResult, item: Named, image: Image.Image | None) -> Written:
    """Write one result, or an error row if this result cannot be written."""
    try:
        files = folder.add(result, item.stem, item.position, image)
    except OutputError:
        raise
    except Exception as err:
        LOG.debug("%s: %s", result.image, type(err).__name__, exc_info=err)
        why = str(err) if isinstance(err, CocoerError) else f"{type(err).__name__}: {err}; --debug shows where"
        message = f"{result.image}: cannot be written down ({why})"
        result = replace(result, persons=(), status="error", message=message)
        files = folder.add(result, item.stem, item.position, None)
    renamed = any(path.name.startswith(f"{Path(item.stem).name}.cocoer") for path in files)
    return Written(result, tuple(files), renamed)
