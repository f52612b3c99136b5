"""What each of two processes does under torchrun's elastic restart: `elastic_worker.py CONFIG KEY=VALUE...`.

Trains with --resume latest; on the first start, process 1 is killed in the middle of step 4. Where the variable KILLED names a
file, its machine is: torchrun too, once, and the file says so.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from training_world import train

from cocoer.training import recognition_stage as recognition


def main(config: Path, settings: list[str]) -> int:
    """The exit code of `train.py`, unless this process does not live to see it."""
    inner, done = recognition.train_step, []

    def dying(*args: Any) -> dict[str, float]:
        values = inner(*args)
        done.append(1)
        mark = Path(os.environ["KILLED"]) if "KILLED" in os.environ else None
        first = not mark.exists() if mark else os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if len(done) == 4 and first and (mark or os.environ["RANK"] == "1"):
            if mark:
                mark.touch()
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return values

    recognition.train_step = dying
    return train(config, "--resume", "latest", settings=settings)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
