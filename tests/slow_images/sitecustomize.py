"""Python imports this at its start where the folder is on the path: every image opens slowly, and one kills who opens it.

SLOW: seconds an image. POISON: what is in the name of that one. So Ray's workers are slow too, and runs last long enough.
"""

import os
import signal
import time
from typing import Any

from PIL import Image

_open = Image.open


def slowly(source: Any, *args: Any, **kwargs: Any) -> Any:
    """`PIL.Image.open`, later or never."""
    time.sleep(float(os.environ.get("SLOW", "0")))
    if (poison := os.environ.get("POISON")) and poison in str(getattr(source, "name", source)):
        os.kill(os.getpid(), signal.SIGKILL)
    return _open(source, *args, **kwargs)


Image.open = slowly
