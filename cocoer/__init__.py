"""cocoer: multi-level emotion recognition with competition and coordination (CocoER, CVPR 2025).

    >>> from cocoer import Recognizer
    >>> recognizer = Recognizer.from_checkpoint()  # the synthetic demonstration's weights; give yours

Importing this package is cheap: a name's module is loaded when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cocoer.config import Config, load_config
    from cocoer.inference.answers import People, to_frame
    from cocoer.inference.predict import predict
    from cocoer.inference.recognizer import Recognizer
    from cocoer.outputs import ImageResult, PersonBoxes, PersonPrediction

__version__ = "0.1.0"
_PLACES = {
    "Config": "cocoer.config",
    "load_config": "cocoer.config",
    "People": "cocoer.inference.answers",
    "to_frame": "cocoer.inference.answers",
    "Recognizer": "cocoer.inference.recognizer",
    "predict": "cocoer.inference.predict",
    "ImageResult": "cocoer.outputs",
    "PersonBoxes": "cocoer.outputs",
    "PersonPrediction": "cocoer.outputs",
}
__all__ = [
    "Config",
    "ImageResult",
    "People",
    "PersonBoxes",
    "PersonPrediction",
    "Recognizer",
    "__version__",
    "load_config",
    "predict",
    "to_frame",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'cocoer' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
