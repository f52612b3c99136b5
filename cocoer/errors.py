"""Every exception of the package: what was expected, what was given, what to do, in one text that a command prints as it is.

All derive from `CocoerError`, and from the built-in class that says the kind of fault, so `except ValueError` still catches
a bad file. Another exception that leaves the package is a defect of the package.
"""

from __future__ import annotations

from collections.abc import Sequence


def listed(lines: Sequence[str], most: int = 10, between: str = "\n  ") -> str:
    """The first `most` lines of a message's list, and how many more there are."""
    return between.join([*lines[:most], *([f"and {len(lines) - most} more"] if len(lines) > most else [])])


def one_line(err: BaseException, most: int = 300) -> str:
    """The text of an exception on one line of at most `most` characters; the name of its type if it has no text."""
    return " ".join(str(err).split())[:most] or type(err).__name__


def first_line(err: BaseException, most: int = 200) -> str:
    """The first line of an exception's text, at most `most` characters; the name of its type if it has no text."""
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:most]


class CocoerError(Exception):
    """The common base: a fault that the text explains."""


class UsageError(CocoerError, ValueError):
    """A command line that cannot be carried out; the text says what is wanted."""


class SyntheticWeightsWarning(UserWarning):
    """Warned once per recogniser with weights trained on synthetic scenes: its predictions on photographs are meaningless."""


class CheckpointError(CocoerError, ValueError):
    """A weights file that cannot be used; the text names the file, what was wanted, what is there, and the remedy."""


class ConfigError(CocoerError, ValueError):
    """A config that cannot be used; the text says where, what was expected, what was given and what to do."""


class DatasetError(CocoerError, ValueError):
    """A data set's description that cannot be used; the text says where, what was expected and what was given."""


class MissingExtra(CocoerError, ImportError):
    """A package that only a part of cocoer needs and that is not installed; the text is the command that installs it."""

    def __init__(self, extra: str, err: ImportError) -> None:
        super().__init__(f"{err.name or err} is not installed: pip install 'cocoer[{extra}]'")


class MissingPackage(CocoerError, ImportError):
    """A package that a small installation may leave out, and that is needed now; the text is the command that installs it."""

    def __init__(self, package: str, purpose: str, module: str, otherwise: str) -> None:
        super().__init__(
            f"{purpose} wants {package}, and {module} is not installed: pip install {package}; {otherwise}"
        )


class PaperError(CocoerError, ValueError):
    """A table or row that the paper does not have; the text names it and those that it has."""


class PluginError(CocoerError, ValueError):
    """A plugin that cannot be loaded, or a name that it cannot add; the text says which, where and why."""


class MissingWeights(CocoerError, FileNotFoundError):
    """A file that is needed and not there; the text names the file, its place and the command that gets it."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "a weights file is missing"


class FetchError(CocoerError, RuntimeError):
    """A file that cannot be fetched or fails its check; the text says which, why and what to do."""


class ImageError(CocoerError, ValueError):
    """An image that cannot be used; the text names the file, what was expected, what was given and what to do."""


class IndexFileError(CocoerError, ValueError):
    """A person index that cannot be used; the text names file, row and fault."""


class StrictError(CocoerError, ValueError):
    """`--strict` met data that would otherwise be left out of an index; the text lists it."""


class BoxesError(CocoerError, ValueError):
    """A boxes file or a person's boxes that cannot be used; the text says what was expected, what was given, what to do."""


class CacheError(CocoerError, ValueError):
    """A crop cache that cannot be used or built; the text names the folder, what is wrong and what to do."""


class DetectorError(CocoerError, RuntimeError):
    """A detector that cannot be loaded or run; the text says which, why and what to do."""


class AnnotationError(CocoerError, ValueError):
    """Annotations that cannot be used; the text names the place, what was expected, what was given and what to do."""


class CaersError(CocoerError, ValueError):
    """A CAER-S tree or face list that cannot be used; the text names the place, what was expected, what was given, what to do."""


class HeadFileError(CocoerError, ValueError):
    """A file of head boxes that cannot be used; the text names file, row and fault."""


class DerivedError(CocoerError, ValueError):
    """A derived file that cannot be read at all; the text names the file, what was expected, what was given and what to do."""


class ExportError(CocoerError, ValueError):
    """A model that cannot be exported, or an exported file that is not cocoer's or differs from PyTorch; the text says which."""


class ForkError(CocoerError, RuntimeError):
    """A recogniser in a process that was forked off the one that made it; the text says what to do instead."""


class ViewError(CocoerError, ValueError):
    """A fault shown on the page of `cocoer app`; the text says what was expected, what was given and what to do."""


class ScoreError(CocoerError, ValueError):
    """Scores or targets that no metric can be taken of; the text names the person and the class."""


class NonFiniteLoss(CocoerError, RuntimeError):
    """A loss or gradient that is not a number; the text gives the terms and the persons of the step."""


class TrainingError(CocoerError, RuntimeError):
    """A training that did not end well; the text holds its last words, its log and what to do."""


class TableError(CocoerError, ValueError):
    """Data, weights or stored results from which no table can be made; the text says wanted, got and remedy."""


class ConflictError(CocoerError, ValueError):
    """Scenes, weights or stored results of the benchmark that cannot be used; the text says wanted, got and remedy."""


class ScaleError(CocoerError, ValueError):
    """An input, an output or an engine of `cocoer annotate` that cannot be used; the text says wanted, got and remedy."""


class EngineError(CocoerError, RuntimeError):
    """An engine that stopped early; rows already written stay, and the text gives the cause and how to continue."""


class OutputError(CocoerError, OSError):
    """A file or folder that cannot be written; the text says which, why, what has been kept, and the remedy."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "the output cannot be written"


class OverwritesInput(CocoerError, ValueError):
    """An output that has the path of an input; the text names it. Wrong usage: exit code 2."""


class FolderInUse(OutputError):
    """Another process writes into the folder; the text says who, since when, and what to do."""


class EndpointError(CocoerError, RuntimeError):
    """An endpoint that refuses all requests (wrong address, key or model): the run stops; the cache stays."""


class PromptError(CocoerError, ValueError):
    """A wordings file that cannot be used; the text says which key, what was expected and what was given."""
