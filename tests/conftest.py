"""What holds for every test: one thread a process, the same examples on every run, and no network.

`pytest --shuffle SEED` runs the files, and the tests in each, in an order drawn from SEED.
"""

from __future__ import annotations

import ipaddress
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

# Before anything imports torch or huggingface_hub, which read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", metavar="SEED", help="files, and the tests in each, in an order drawn from SEED")


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.getoption("--shuffle")
    return None if seed is None else f"order: --shuffle {seed}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A file stays together, so that what its tests share is built once; everything else is drawn."""
    if (seed := config.getoption("--shuffle")) is not None:
        chance = random.Random(seed)
        chance.shuffle(items)
        place = {path: chance.random() for path in dict.fromkeys(item.path for item in items)}
        items.sort(key=lambda item: place[item.path])


def _is_local(address: Any) -> bool:
    """True for this machine: a path (Unix socket), `localhost`, 127.0.0.0/8 or ::1."""
    if not isinstance(address, tuple):
        return True
    host = address[0].decode() if isinstance(address[0], bytes) else str(address[0])
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Connections to other machines are refused, and the test fails even where the code swallows the refusal.

    Yields the refused addresses, in order.
    """
    refused: list[str] = []

    def guarded(original: Any) -> Any:
        def connect(sock: socket.socket, address: Any) -> Any:
            if not _is_local(address):
                refused.append(str(address))
                raise ConnectionRefusedError(f"tests need no network, but this one connects to {address}")
            return original(sock, address)

        return connect

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None and not _is_local((host,)):
            refused.append(str(host))
            raise socket.gaierror(f"tests need no network, but this one looks up {host}")
        return lookup(host, *args, **kwargs)

    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield refused
    if refused:
        pytest.fail(f"tests need no network, but this one asked for {', '.join(refused)}")
