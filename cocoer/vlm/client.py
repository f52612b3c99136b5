"""Client for any endpoint with OpenAI's chat completions, built on the `openai` package; answers are cached on disk.

The package does the retries. This module adds one deadline per attempt (`transport`), a budget of requests, the cache, and
protection of the key and other credentials: they never appear in a message, a file or a request to another server. Nothing is
sent before `ask`; redirects are refused, because they would forward the key.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from PIL import Image

from cocoer.errors import EndpointError, MissingExtra
from cocoer.files import read_json, write_text
from cocoer.vlm.prompts import Question

if TYPE_CHECKING:
    import openai

_PATH = "/chat/completions"
_HOPELESS = {401, 403, 404, 405}
_SHOWN = 200  # letters of what a server said
HIDDEN = "[hidden]"


@dataclass(frozen=True)
class Limits:
    """timeout: seconds for one attempt as a whole. attempts: per question. requests: HTTP requests of this client altogether.

    side: longest side of an image in pixels. tokens: of an answer.
    """

    timeout: float = 60.0
    attempts: int = 4
    requests: int = 10_000
    side: int = 512
    tokens: int = 256


@dataclass(frozen=True)
class Reply:
    """The reply to one question. text: the answer, empty after a failure. fault: empty, or the reason of the failure."""

    text: str
    fault: str = ""
    cached: bool = False


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
    a stopped run goes on where it was. key: sent as bearer token, never written or shown.
    Raises EndpointError for an address or a key that cannot be used and for a key over unencrypted http to another machine,
    MissingExtra where the `openai` package is not installed.
    """

    def __init__(
        self, endpoint: str, model: str, cache: str | Path, key: str = "", limits: Limits | None = None
    ) -> None:
        key = key.strip()
        self._hide = _Hider(key, endpoint)
        base = _checked_endpoint(endpoint, key)
        self.url = f"{base}{_PATH}"
        self.model, self.cache, self.limits = model, Path(cache), limits or Limits()
        self._client, self._transport = _library_client(base, key, self.limits)

    @property
    def sent(self) -> int:
        """HTTP requests so far."""
        return int(self._transport.sent)

    def ask(self, question: Question) -> Reply:
        """The model's answer, from the cache or the endpoint. A question that fails finally has a Reply with its fault.

        Raises EndpointError where no question will be answered: key refused, no such address, request budget used up.
        """
        body = request_body(question, self.model, self.limits)
        data = json.dumps(body, sort_keys=True).encode()
        place = self.cache / f"{hashlib.sha256(self.url.encode() + b' ' + data).hexdigest()}.json"
        known = _read_cached(place)
        if known is not None:
            return Reply(known, cached=True)
        try:
            text = self._hide(self._asked(body))
            text.encode("utf-8")
        except UnicodeEncodeError:
            return Reply("", "the answer cannot be stored: it holds half of a letter (a lone surrogate)")
        except _Failed as err:
            return Reply("", self._hide(str(err)))
        except EndpointError as err:
            raise EndpointError(self._hide(str(err))) from None
        write_text(place, json.dumps({"model": self.model, "text": text}, ensure_ascii=False))
        return Reply(text)

    def _asked(self, body: dict[str, Any]) -> str:
        """The text of the answer, after as many attempts as are allowed. Raises _Failed or EndpointError."""
        import openai

        left = self.limits.requests - self.sent
        used_up = f"{self.limits.requests} requests sent, as many as --max-requests allows; the answers are cached"
        if left <= 0:
            raise EndpointError(used_up)
        attempts = min(self.limits.attempts, left)
        try:
            chat = self._client.with_options(max_retries=attempts - 1).chat.completions
            raw = chat.with_raw_response.create(**body).http_response.content
        except openai.APIStatusError as err:
            fault = self._status_fault(err, attempts)
        except openai.APIConnectionError as err:  # timeouts too
            fault = _Failed(f"{self.url}: no answer ({err.__cause__ or err}) ({attempts} attempts)")
        except (openai.OpenAIError, ValueError) as err:
            fault = _Failed(f"{self.url}: {err}")
        else:
            text = _content(raw)
            if text is not None:
                return text
            fault = _Failed(f"{self.url}: wanted a chat completion, got {self._shown(raw)!r}")
        if self.sent >= self.limits.requests and attempts < self.limits.attempts:
            raise EndpointError(used_up)
        raise fault

    def _status_fault(self, err: openai.APIStatusError, attempts: int) -> Exception:
        """What an HTTP status means for the run."""
        text, status = (
            f"{self.url}: HTTP {err.status_code} {self._shown(err.response.content)}".strip(),
            err.status_code,
        )
        if status in _HOPELESS or 300 <= status < 400:
            hint = "redirects are not followed" if status < 400 else "check the address, the model and the key"
            return EndpointError(f"{text}; {hint}")
        return _Failed(f"{text} ({attempts} attempts)" if status >= 500 or status in (408, 409, 429) else text)

    def _shown(self, said: bytes) -> str:
        """The beginning of a server's answer, without credentials."""
        return " ".join(self._hide(said.decode("utf-8", "replace")).split())[:_SHOWN]


class _Failed(RuntimeError):
    """One question failed; the run continues with the others."""


def _checked_endpoint(endpoint: str, key: str) -> str:
    """The base address. Raises EndpointError, in whose text no credential stands, for one that cannot be used."""
    try:
        parts = urlsplit(endpoint)
        host, bad = parts.hostname, parts.port == 0 or bool(parts.query or parts.fragment)
    except ValueError:
        raise EndpointError("--endpoint wants http(s)://host[:port]/v1, got an address that is none") from None
    if parts.username is not None or parts.password is not None:
        raise EndpointError(
            f"--endpoint wants http(s)://host[:port]/v1, got user and password in it for {host}; a key goes into the"
            " environment variable that --key-variable names"
        )
    if parts.scheme not in ("http", "https") or not host or bad:
        shown = f"{parts.scheme}://{parts.netloc}{parts.path}" if parts.netloc else endpoint.partition("?")[0]
        raise EndpointError(f"--endpoint wants http(s)://host[:port]/v1, got {shown!r}" + (" and more" if bad else ""))
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise EndpointError("the key holds a letter that no HTTP header takes; set its environment variable again")
    if key and parts.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        raise EndpointError(f"{endpoint}: the key would travel unencrypted; use https, or unset the key's variable")
    return endpoint.rstrip("/").removesuffix(_PATH)


def _library_client(base: str, key: str, limits: Limits) -> tuple[openai.OpenAI, Any]:
    """The library's client for one endpoint, and its transport."""
    try:
        import httpx2
        import openai

        from cocoer.vlm.transport import BoundedTransport
    except ImportError as err:
        raise MissingExtra("vlm", err) from None
    parts = urlsplit(base)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)

    def make() -> httpx2.BaseTransport:
        return httpx2.HTTPTransport(proxy=proxy, retries=0)

    try:
        make().close()
    except ValueError:
        raise EndpointError(f"the proxy that the environment names for {parts.scheme} is no address") from None
    transport = BoundedTransport(limits.timeout, make, keyless=not key)
    client = openai.OpenAI(
        base_url=base,
        api_key=key or "none",
        timeout=limits.timeout,
        http_client=httpx2.Client(transport=transport, follow_redirects=False, trust_env=False),
    )
    return client, transport


class _Hider:
    """Removes the key and other credentials from a text, in the forms that a server or a library may print."""

    def __init__(self, key: str, endpoint: str) -> None:
        words = {key} if len(key) > 3 else set()
        for address in (endpoint, *getproxies().values()):
            try:
                parts = urlsplit(address)
                words |= {word for word in (parts.password, parts.query) if word}
            except ValueError:
                continue
        coded = {base64.b64encode(word.encode()).decode() for word in words} | {quote(word, safe="") for word in words}
        self._words = sorted({*words, *coded}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for word in self._words:
            text = text.replace(word, HIDDEN)
        return re.sub(r"(?<=//)[^/\s@]+@", f"{HIDDEN}@", text)


def _content(raw: bytes) -> str | None:
    """The text in a chat completion; a refusal in its own field counts as text. None for anything else."""
    try:
        message = json.loads(raw)["choices"][0]["message"]
        content = message.get("content") or message.get("refusal") or ""
        if isinstance(content, list):  # some servers answer in parts
            content = " ".join(part.get("text", "") for part in content)
        if isinstance(content, str):
            return content
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return None


def _read_cached(place: Path) -> str | None:
    """A stored answer; a damaged file counts as none."""
    try:
        stored = read_json(place)
        return stored["text"] if isinstance(stored["text"], str) else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
