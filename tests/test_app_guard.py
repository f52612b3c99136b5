"""The guard in front of the page: own name, own origin, uploads only."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from cocoer.cli.app_guard import AppGuard


def asked(
    guard_hosts: tuple[str, ...] = (), body: bytes | None = None, kind: str = "http", **headers: str
) -> tuple[int | str, bytes]:
    """Status and what the page got, or the status of the refusal."""
    seen: list[bytes] = []
    sent: list[Any] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive())["body"] if kind == "http" else b"")
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Any:
        return {"type": "http.request", "body": body or b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    if body is not None:
        headers.setdefault("content_type", "application/json")
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(AppGuard(page, guard_hosts)({"type": kind, "headers": given}, receive, send))
    return sent[0].get("status", sent[0]["type"]), seen[0] if seen else b""


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"])
def test_the_page_answers_under_the_names_of_this_machine(host: str) -> None:
    assert asked(host=host)[0] == 200
    assert asked(host=host, origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:1", "", "192.168.0.5", "a@localhost"]
)
def test_another_host_is_refused(host: str) -> None:
    assert asked(host=host)[0] == 421
    assert asked(host=host, kind="websocket")[0] == "websocket.close"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:7861", "http://127.0.0.1:7860", "file:", ""]
)
def test_another_origin_is_refused(origin: str) -> None:
    assert asked(host="localhost:7860", origin=origin)[0] == 403


def test_a_named_host_and_any_address() -> None:
    assert asked(("box.lan",), host="box.lan:7860")[0] == 200 and asked(("box.lan",), host="other.lan:7860")[0] == 421
    assert asked(("0.0.0.0",), host="192.168.0.5:7860")[0] == 200 and asked(("0.0.0.0",), host="evil.example")[0] == 421


def file(path: object, **more: object) -> bytes:
    return json.dumps(
        {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}} | more, None], "fn_index": 3}
    ).encode()


@pytest.mark.parametrize(
    "path",
    ["http://127.0.0.1/x.jpg", "https://example.org/x", " HTTPS://x", "//example.org/x", "ftp://x/y", "file:///etc/passwd",
     "data:image/png;base64,AA", "gopher://x"],
)  # fmt: skip
def test_a_file_by_its_address_is_refused(path: str) -> None:
    assert asked(host="localhost", body=file(path))[0] == 400


def test_an_upload_goes_through_as_it_came() -> None:
    body = file("/tmp/cocoer-app-x/a.jpg", url="http://localhost:7860/gradio_api/file=/tmp/cocoer-app-x/a.jpg")
    assert asked(host="localhost", body=body) == (200, body)
    assert asked(host="localhost", body=b'{"data": [null, "Peace", 3]}')[0] == 200


@pytest.mark.parametrize(
    "body", [b"{", b"[" * 100_000, b'"' + b"x" * 2_000_000 + b'"', b"\xff", b'{"data": [{"url": "http://x"}]}']
)
def test_what_is_no_question_to_the_page_is_refused(body: bytes) -> None:
    assert asked(host="localhost", body=body)[0] == 400
