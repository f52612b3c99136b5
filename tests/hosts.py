"""Hosts that behave as those of the catalog do, on this machine: a release host, a mirror, and Google Drive's pages."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from serving import serving

CONFIRM = (
    "<html><head><title>Google Drive - Virus scan warning</title></head><body>\n"
    '<p class="uc-warning-caption">Google Drive can\'t scan this file for viruses.</p>'
    '<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="submit" id="uc-download-link" value="Download anyway"/><input type="hidden" name="id" value="{file}">'
    '<input type="hidden" name="export" value="download"><input type="hidden" name="confirm" value="t">'
    '<input type="hidden" name="uuid" value="0-1-2"></form></body></html>'
)

QUOTA = """<html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try again later.</p>
</body></html>"""


class Host(ThreadingHTTPServer):
    """files: path or Drive id -> bytes, or a file that holds them. asked: (path, Range) of every request.

    cut: bytes after which a transfer breaks.
    ranges: whether range requests are honoured. quota: whether Drive shows its quota page.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes | Path] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: int | None = None
        self.ranges = True
        self.quota = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.server.asked.append((url.path, self.headers.get("Range")))
        if url.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", url.path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif url.path == "/drive/uc" and self.server.quota:
            self._page(QUOTA)
        elif url.path == "/drive/uc":
            self._page(CONFIRM.format(file=query["id"]))
        elif url.path == "/usercontent/download" and query.get("confirm") == "t" and query["id"] in self.server.files:
            self._file(self.server.files[query["id"]], 'attachment; filename="archive"')
        elif url.path in self.server.files:
            self._file(self.server.files[url.path], None)
        else:
            self.send_error(404)

    def _page(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def _file(self, content: bytes | Path, disposition: str | None) -> None:
        if isinstance(content, Path):
            with (
                content.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as view,
            ):
                self._content(view, disposition)
        else:
            with memoryview(content) as view:
                self._content(view, disposition)

    def _content(self, content: memoryview, disposition: str | None) -> None:
        wanted = self.headers.get("Range") if self.server.ranges else None
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content) - start))
        if disposition:
            self.send_header("Content-Disposition", disposition)
        self.end_headers()
        end = len(content) if self.server.cut is None else max(start, self.server.cut)
        with content[start:end] as part:
            self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def running() -> Iterator[Host]:
    """The host, while active."""
    with serving(Host()) as host:
        yield host


def stand_in_for_drive(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send what is asked of Google Drive to `host`; everything else goes where it is sent."""
    send = requests.adapters.HTTPAdapter.send
    places = {"https://drive.google.com/": "/drive/", "https://drive.usercontent.google.com/": "/usercontent/"}

    def rerouted(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        for theirs, ours in places.items():
            if request.url.startswith(theirs):
                request.url = host.address + ours + request.url.removeprefix(theirs)
        return send(self, request, *args, **kwargs)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", rerouted)
