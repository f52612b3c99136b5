"""app.py as a program of its own whose way to other machines is closed: `python tests/app_process.py REFUSED ARGUMENTS`.

Addresses that it asks for go into the file REFUSED, one a line, and are refused. In the tests' own process pytest would rewrite
what gradio's threads import, which Python 3.11 does not survive.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

HERE = ("", "localhost", "127.0.0.1", "::1", None)


def close_network(refused: Path) -> None:
    """From now on connections and look-ups lead to this machine alone."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto"):
            host = args[1][0] if isinstance(args[1], tuple) else None
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = args[0]
        else:
            return
        if (host.decode() if isinstance(host, bytes) else host) not in HERE:
            with refused.open("a") as file:
                file.write(f"{host}\n")
            raise ConnectionRefusedError(f"tests need no network, but this one asks for {host}")

    sys.addaudithook(hook)


if __name__ == "__main__":
    close_network(Path(sys.argv[1]))
    program = Path(__file__).resolve().parents[1] / "app.py"
    sys.argv = [str(program), *sys.argv[2:]]
    runpy.run_path(str(program), run_name="__main__")
