"""cocoer: multi-level emotion recognition with competition and coordination (CocoER, CVPR 2025).

Importing this package is cheap: torch is loaded only when a name that needs it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cocoer.inference.recognizer import Recognizer
    from cocoer.outputs import PersonPrediction

__version__ = "0.1.0"
__all__ = ["PersonPrediction", "Recognizer", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Recognizer":
        from cocoer.inference.recognizer import Recognizer

        return Recognizer
    if name == "PersonPrediction":
        from cocoer.outputs import PersonPrediction

        return PersonPrediction
    raise AttributeError(f"module 'cocoer' has no attribute {name!r}")
