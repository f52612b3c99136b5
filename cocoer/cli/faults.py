"""The faults that a command expects, as one line on standard error and an exit code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence

from cocoer.cli.talk import shortened
from cocoer.errors import CocoerError, ConfigError, MissingExtra, MissingWeights, OutputError, OverwritesInput

Kinds = tuple[type[Exception], ...]
Main = Callable[..., int]

FAILED: Kinds = (CocoerError, OSError, ValueError)
"""Every error of this package, of files, and of values that a user gave."""


def reports(
    command: str,
    usage: Kinds = (ConfigError,),
    failed: Kinds = FAILED,
    hint: str = "",
    interrupted: str = "",
    most_lines: int | None = None,
) -> Callable[[Main], Main]:
    """Decorate the `main(argv) -> exit code` of a command: its expected faults become one line and an exit code.

    usage: faults that give exit code 2. failed: faults that give exit code 1, unless `usage` lists them too.
    An output that cannot be written (OutputError) always gives exit code 1, one that is an input (OverwritesInput) code 2.
    hint: printed after a missing weights file. interrupted: what Ctrl-C prints (exit code 130); empty: Ctrl-C is passed on.
    most_lines: of a message; None prints all of it.
    Every other exception is passed on, and so is a missing extra, which `cocoer.cli.main` reports.
    """

    expected: Kinds = (*usage, *failed, OutputError, OverwritesInput)

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def run(argv: Sequence[str] | None = None) -> int:
            try:
                return main(argv)
            except MissingExtra:
                raise
            except expected as err:
                print(f"cocoer {command}: error: {shortened(str(err), most_lines)}", file=sys.stderr)
                if hint and isinstance(err, MissingWeights):
                    print(hint, file=sys.stderr)
                return 2 if isinstance(err, (*usage, OverwritesInput)) and not isinstance(err, OutputError) else 1
            except KeyboardInterrupt:
                if not interrupted:
                    raise
                print(f"cocoer {command}: stopped; {interrupted}", file=sys.stderr)
                return 130

        return run

    return decorate
