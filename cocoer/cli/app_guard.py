"""Access control of the page: only requests for its own host name, from its own pages, and with uploaded files.

Any website that the same browser shows can reach a server on this machine: with a form or script of another origin (`Origin`),
or with a host name that resolves to this machine (`Host`, DNS rebinding). A URL in place of a file would make the server fetch
it. The guard is plain ASGI middleware, so it checks every request before the server handles it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_MOST_JSON = 1_000_000  # bytes; a question to the page has a few hundred
_ADDRESS = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//|^\s*(?:data|file|ftp|https?):", re.IGNORECASE)
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class AppGuard:
    """Lets through what the page's own visitors send. hosts: names under which it is reached; none = those of this machine.

    With `--host 0.0.0.0` the names are not known beforehand: then any `Host` that is an IP address passes, and no other name.
    """

    def __init__(self, app: App, hosts: Iterable[str] = ()) -> None:
        self._app = app
        named = {host.lower() for host in hosts}
        self._any_address = bool(named & {"0.0.0.0", "::", "[::]"})
        self._hosts = _LOOPBACK | named

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._known(host):
            await _refuse(scope, send, 421, "unknown Host; open the address that the program printed")
        elif origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            await _refuse(scope, send, 403, "a page from elsewhere may not use this one")
        elif scope["type"] == "http" and "json" in headers.get("content-type", ""):
            body = await _whole(receive)
            if body is None or _names_an_address(body):
                await _refuse(scope, send, 400, "wanted an uploaded file, got an address or too much text")
            else:
                await self._app(scope, _again(body, receive), send)
        else:
            await self._app(scope, receive, send)

    def _known(self, host: str) -> bool:
        name = re.sub(r":\d+$", "", host.lower())
        return name in self._hosts or (self._any_address and bool(re.fullmatch(r"[\d.]+|\[[0-9a-f:.]+\]", name)))


async def _refuse(scope: Message, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def _whole(receive: Receive) -> bytes | None:
    """The body of a request; None for one that is larger than `_MOST_JSON`."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MOST_JSON:
            return None
        if not message.get("more_body", False):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns a body that was read already, then the later messages."""
    given = False

    async def read() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


def _names_an_address(body: bytes) -> bool:
    """Whether the JSON text names a file by a URL; invalid JSON counts as such."""
    try:
        waiting: list[Any] = [json.loads(body or b"null")]
    except (ValueError, RecursionError):
        return True
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += [
                v for k, v in value.items() if k != "url"
            ]  # the page's own link to the upload, which is not followed
            if isinstance(value.get("url"), str) and not isinstance(value.get("path"), str):
                return True
        elif isinstance(value, str) and _ADDRESS.match(value):
            return True
    return False
