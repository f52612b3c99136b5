"""HTTP transport with limits: one deadline for the whole attempt, a bounded answer size, and no headers from the environment."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx2

_MOST_BYTES = 2_000_000
_SENT = frozenset(
    {"host", "content-type", "content-length", "authorization", "accept", "accept-encoding", "connection", "user-agent"}
)
"""Headers that are sent. The client library adds more, of the machine and of environment variables; an endpoint that was named
with --endpoint has no business with them."""

_KEPT = frozenset({"content-type", "retry-after", "retry-after-ms", "x-should-retry", "location"})


class BoundedTransport(httpx2.BaseTransport):
    """Sends a request and reads its whole answer, in at most `seconds` from its start.

    make: gives a new transport; it is used for one attempt. keyless: whether no authorization is sent. sent: attempts so far.
    Raises httpx2.ReadTimeout where the answer is not whole in time, httpx2.TransportError for one that is too large.
    """

    def __init__(self, seconds: float, make: Callable[[], httpx2.BaseTransport], keyless: bool) -> None:
        self._seconds, self._make, self._keyless = seconds, make, keyless
        self.sent = 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Called by httpx for each attempt."""
        self.sent += 1
        plain = self._plain(request)
        transport, done = self._make(), threading.Event()
        answer: list[httpx2.Response | Exception] = []

        def attempt() -> None:
            try:
                answer.append(_whole(transport.handle_request(plain), request))
            except Exception as err:  # noqa: BLE001 - handed to the caller's thread
                answer.append(err)
            finally:
                done.set()

        threading.Thread(target=attempt, name="cocoer-vlm", daemon=True).start()
        done.wait(self._seconds)
        transport.close()  # ends the thread's connection where it is still reading
        if not answer:
            raise httpx2.ReadTimeout(f"no whole answer within {self._seconds:g} s", request=request)
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]

    def _plain(self, request: httpx2.Request) -> httpx2.Request:
        """The request with the headers that are sent, and no consent to a packed answer: it could unpack to any size."""
        sent = _SENT - {"accept-encoding"} - ({"authorization"} if self._keyless else set())
        headers = [(name, value) for name, value in request.headers.items() if name.lower() in sent]
        headers.append(("accept-encoding", "identity"))
        body = request.read()
        return httpx2.Request(request.method, request.url, headers=headers, content=body, extensions=request.extensions)


def _whole(response: httpx2.Response, request: httpx2.Request) -> httpx2.Response:
    """The response with its body read; compressed content is not unpacked, and then fails as an invalid answer."""
    body = bytearray()
    stream = response.stream
    assert isinstance(stream, httpx2.SyncByteStream)
    try:
        for chunk in stream:
            body += chunk
            if len(body) > _MOST_BYTES:
                raise httpx2.ReadError(f"the answer is larger than {_MOST_BYTES:,} bytes", request=request)
    finally:
        stream.close()
    headers = [(name, value) for name, value in response.headers.items() if name.lower() in _KEPT]
    return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=request)
