"""A client for any endpoint that speaks OpenAI's chat completions: bounded, retried with back-off, cached on disk.

Only the standard library. Nothing is sent before `ask`, nothing to another address than the one given: redirects are refused,
because they would carry the key along.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from cocoer.errors import EndpointError
from cocoer.vlm.prompts import Question

_PATH = "/chat/completions"
_MOST_BYTES = 2_000_000
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
_HOPELESS = {401, 403, 404, 405}


@dataclass(frozen=True)
class Limits:
    """timeout: seconds for one attempt as a whole. attempts: per question. first_wait: seconds before the second attempt,
    doubled each time up to longest_wait. requests: HTTP requests of this client altogether. side: longest side of an image
    in pixels. tokens: of an answer.
    """

    timeout: float = 60.0
    attempts: int = 4
    first_wait: float = 1.0
    longest_wait: float = 30.0
    requests: int = 10_000
    side: int = 512
    tokens: int = 256


@dataclass(frozen=True)
class Reply:
    """What came for one question. text: the answer, empty where it failed. fault: empty, or why there is no answer."""

    text: str
    fault: str = ""
    cached: bool = False
    attempts: int = 0


class _Passing(RuntimeError):
    """A fault that another attempt may not meet; wait: seconds that the server asked for."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class _Refused(RuntimeError):
    """The endpoint does not take this question."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Never follow."""


def image_uri(image: Image.Image, side: int) -> str:
    """An image as a data URI: JPEG, longest side at most `side` pixels."""
    shown = image.convert("RGB")
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def request_body(question: Question, model: str, limits: Limits) -> dict[str, Any]:
    """The JSON body of one chat completion, temperature 0."""
    images = [{"type": "image_url", "image_url": {"url": image_uri(p, limits.side)}} for p in question.images]
    return {
        "model": model,
        "temperature": 0,
        "max_tokens": limits.tokens,
        "messages": [
            {"role": "system", "content": question.system},
            {"role": "user", "content": [{"type": "text", "text": question.text}, *images]},
        ],
    }


class ChatClient:
    """Asks one model at one endpoint.

    endpoint: base address (`https://host/v1`) or the full one. cache: folder for answers; the same question is sent once, so
    a stopped run goes on where it was. key: sent as bearer token, never written. Raises EndpointError for an address that
    cannot be used, or a key over unencrypted http to another machine.
    """

    def __init__(
        self,
        endpoint: str,
        model: str,
        cache: str | Path,
        key: str = "",
        limits: Limits | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise EndpointError(f"--endpoint wants http(s)://host[:port]/v1, got {endpoint!r}")
        if key and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise EndpointError(f"{endpoint}: the key would travel unencrypted; use https, or unset the key's variable")
        base = endpoint.rstrip("/")
        self.url = base if base.endswith(_PATH) else base + _PATH
        self.model, self.cache, self.limits = model, Path(cache), limits or Limits()
        self._key, self._sleep, self.sent = key, sleep, 0
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._jitter = random.Random(0)

    def ask(self, question: Question) -> Reply:
        """The model's answer, from the cache or the endpoint. A question that fails for good comes back with its fault.

        Raises EndpointError where no question will be answered: key refused, no such address, request budget used up.
        """
        body = request_body(question, self.model, self.limits)
        data = json.dumps(body, sort_keys=True).encode()
        place = self.cache / f"{hashlib.sha256(self.url.encode() + b' ' + data).hexdigest()}.json"
        known = _read_cached(place)
        if known is not None:
            return Reply(known, cached=True)
        fault, wait = "", self.limits.first_wait
        for attempt in range(1, self.limits.attempts + 1):
            try:
                text = self._post(data)
            except _Refused as err:
                return Reply("", str(err), attempts=attempt)
            except _Passing as err:
                fault = str(err)
                if attempt < self.limits.attempts:
                    pause = max(wait * self._jitter.uniform(0.75, 1.0), err.wait)
                    self._sleep(min(pause, self.limits.longest_wait))
                    wait *= 2
            else:
                _write_cached(place, text, self.model)
                return Reply(text, attempts=attempt)
        return Reply("", f"{fault} ({self.limits.attempts} attempts)", attempts=self.limits.attempts)

    def _post(self, data: bytes) -> str:
        """One attempt. Raises _Passing, _Refused or EndpointError."""
        if self.sent >= self.limits.requests:
            raise EndpointError(f"{self.sent} requests sent, as many as --max-requests allows; the answers are cached")
        self.sent += 1
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        request = urllib.request.Request(self.url, data, headers, method="POST")
        ends = time.monotonic() + self.limits.timeout
        try:
            with self._opener.open(request, timeout=self.limits.timeout) as response:
                raw = _read(response, ends)
        except urllib.error.HTTPError as err:
            with err:
                raise _http_fault(err, self.url) from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as err:
            reason = getattr(err, "reason", err)
            raise _Passing(f"{self.url}: no answer ({reason or type(reason).__name__})") from None
        return _content(raw)


def _read(response: Any, ends: float) -> bytes:
    """The whole answer, within the time and size that are allowed, however slowly it drips."""
    parts, size = [], 0
    while chunk := response.read1(65536):
        parts.append(chunk)
        size += len(chunk)
        if size > _MOST_BYTES:
            raise _Refused(f"the answer is larger than {_MOST_BYTES:,} bytes")
        if time.monotonic() > ends:
            raise _Passing("the answer did not end in time")
    return b"".join(parts)


def _http_fault(err: urllib.error.HTTPError, url: str) -> Exception:
    """What an HTTP status means for the run."""
    try:
        said = " ".join(err.read1(2000).decode("utf-8", "replace").split())[:200]
    except (OSError, http.client.HTTPException):
        said = ""
    text = f"{url}: HTTP {err.code} {said}".strip()
    if err.code in _HOPELESS or 300 <= err.code < 400:
        hint = "redirects are not followed" if err.code < 400 else "check the address, the model and the key"
        return EndpointError(f"{text}; {hint}")
    if err.code in _PASSING:
        after = err.headers.get("Retry-After", "")
        return _Passing(text, float(after) if after.isdecimal() else 0.0)
    return _Refused(text)


def _content(raw: bytes) -> str:
    """The text in a chat completion; a refusal in its own field counts as text. Raises _Passing for anything else."""
    try:
        message = json.loads(raw)["choices"][0]["message"]
        content = message.get("content") or message.get("refusal") or ""
        if isinstance(content, list):  # some servers answer in parts
            content = " ".join(part.get("text", "") for part in content)
        if isinstance(content, str):
            return content
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise _Passing(f"wanted a chat completion, got {raw[:80]!r}")


def _read_cached(place: Path) -> str | None:
    """A stored answer; a damaged file counts as none."""
    try:
        stored = json.loads(place.read_text(encoding="utf-8"))
        return stored["text"] if isinstance(stored["text"], str) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _write_cached(place: Path, text: str, model: str) -> None:
    """Store an answer; a reader never meets half a file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    part.write_text(json.dumps({"model": model, "text": text}, ensure_ascii=False), encoding="utf-8")
    os.replace(part, place)
