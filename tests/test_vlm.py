"""Questions, answers and the client against a small local server that errs, stalls, refuses and talks rubbish."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from programs import load_program
from tiny_recognizer import tiny_checkpoint
from training_world import make_people

from cocoer.data.index import write_index
from cocoer.datasets import CAERS_CLASSES, EMOTIC_CLASSES, find_dataset
from cocoer.errors import EndpointError, MissingExtra, PromptError
from cocoer.outputs import CompetitionRecord, PersonBoxes, PersonPrediction
from cocoer.vlm.client import ChatClient, Limits
from cocoer.vlm.parse import parse_labels
from cocoer.vlm.prompts import DEFAULT_WORDINGS, VARIANTS, Question, questions, read_sets, read_wordings, wording_of
from cocoer.vlm.run import MOST_FAILURES, Row, ask_all, scores_of

WORDINGS = read_wordings()
IMAGE = Image.effect_noise((100, 80), 60).convert("RGB")
QUESTION = Question("prompt", "judge", "Which?", (IMAGE,))


def person(exclusion: tuple[str, ...] = ("body", "head", "context")) -> PersonPrediction:
    labels = {"pred": ("Peace",), "head": ("Peace",), "body": ("Anger", "Peace", "Fear"), "ctx": ("Pain",)}
    record = CompetitionRecord((1.0, 2.0, 0.5), ((0.2, 0.3, 0.5),), exclusion, 0.1)
    return PersonPrediction(0, labels, {}, record, PersonBoxes((10, 10, 60.5, 70), (20, 12, 40, 30)))


def test_each_variant_asks_what_section_ten_says() -> None:
    asked = questions(IMAGE, person(), WORDINGS, EMOTIC_CLASSES, True)
    assert tuple(asked) == VARIANTS
    for question in asked.values():
        assert ", ".join(EMOTIC_CLASSES) in question.text
    assert [p.size for p in asked["multi_level"].images] == [(20, 18), (51, 60), (100, 80)]
    assert "body gives an inconsistent result here: Anger, Fear. Avoid" in asked["prompt_kappa"].text
    assert "inconsistent" not in asked["prompt"].text + asked["multi_level"].text + asked["multi_level_kappa"].text
    kept = asked["multi_level_kappa"]
    assert [p.size for p in kept.images] == [(20, 18), (100, 80)]
    assert WORDINGS.levels["body"] not in kept.text and WORDINGS.levels["head"] in kept.text
    two = questions(IMAGE, person(), replace(WORDINGS, drop=2), EMOTIC_CLASSES, True)["multi_level_kappa"]
    assert [p.size for p in two.images] == [(100, 80)]
    assert np.asarray(asked["prompt"].images[0])[10, 10:60].tolist() == [[0, 255, 0]] * 50


def test_single_label_sets_have_their_own_question_and_a_consistent_level_no_labels() -> None:
    asked = questions(IMAGE, person(("head", "body", "context")), WORDINGS, CAERS_CLASSES, False)
    assert "exactly one" in asked["prompt"].text and ", ".join(CAERS_CLASSES) in asked["prompt"].text
    assert "The head gives an inconsistent result here. Avoid relying" in asked["prompt_kappa"].text


def test_where_nothing_competed_kappa_changes_nothing() -> None:
    asked = questions(IMAGE, replace(person(), competition=None), WORDINGS, EMOTIC_CLASSES, True)
    assert asked["prompt_kappa"].text == asked["prompt"].text
    assert asked["multi_level_kappa"].text == asked["multi_level"].text


def test_the_papers_sets_are_its_words() -> None:
    sets = read_sets()
    assert wording_of("emotic", sets) == "paper_emotic" and wording_of("caers", sets) == "paper_caers"
    assert wording_of("bold", sets) == "ours"
    asked = questions(IMAGE, person(), sets["paper_emotic"], EMOTIC_CLASSES, True)
    assert asked["prompt"].text.startswith(
        "Whats the emotion in this picture. Choose multiple emotions from ['affection', 'anger'"
    )
    assert asked["prompt"].text.count("'") == 2 * 26 and "'doubt/confusion'" in asked["prompt"].text
    assert asked["multi_level"].text.endswith("Please recognize three images separately and print results.")
    assert [p.size for p in asked["multi_level"].images] == [(100, 80), (51, 60), (20, 18)]  # whole, body, head
    assert asked["multi_level_kappa"].text.startswith("What's the emotion in these two pictures.")
    assert [p.size for p in asked["multi_level_kappa"].images] == [(100, 80), (20, 18)]
    assert asked["prompt_kappa"].text.endswith("Please avoid potentially inconsistent recognition result from body.")
    assert not any(question.system for question in asked.values())
    assert np.array_equal(np.asarray(asked["prompt"].images[0]), np.asarray(IMAGE))  # nothing is drawn into it
    printed = questions(IMAGE, person(), sets["paper_emotic_printed"], EMOTIC_CLASSES, True)
    assert printed["prompt"].text.count("'esteem'") == 2 and "'esteem'" not in printed["multi_level"].text
    caers = questions(IMAGE, person(("head", "body", "context")), sets["paper_caers"], CAERS_CLASSES, False)
    assert caers["prompt"].text == (
        "What's the emotion of this image? Choose from ['Anger', 'Disgust', 'Fear', 'Happy', 'Neutral', 'Sad', 'Surprise']."
    )
    assert caers["prompt_kappa"].text.endswith(
        "Please eliminate potentially inconsistent recognition result from head."
    )
    avoid = questions(IMAGE, person(), sets["paper_caers_avoid"], CAERS_CLASSES, False)
    assert avoid["prompt_kappa"].text.endswith("Please avoid potentially inconsistent recognition result from body.")


def test_a_wording_may_use_any_place_or_none(tmp_path: Path) -> None:
    mine = "mine: {prompt: Look., multi_level: '{views}', multi_level_kappa: x, hint: '', "
    mine += "prompt_kappa: '{level}: {inconsistent}'}"
    (tmp_path / "w.yaml").write_text(mine)
    asked = questions(IMAGE, person(), read_wordings(tmp_path / "w.yaml", "mine"), EMOTIC_CLASSES, True)
    assert [asked[name].text for name in VARIANTS] == [
        "Look.",
        "the whole image; the body; the head",
        "body: Anger, Fear",
        "x",
    ]
    with pytest.raises(PromptError, match="no wording 'ours'; there are mine"):
        read_wordings(tmp_path / "w.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("drop: 1", "drop: 3", "ours: drop: wanted 1 or 2"),
        ("drop: 1", "dorp: 1", "did you mean 'drop'"),
        ("from this list only: {labels}", "{names}", "question.multi: wanted only the places"),
        ("order: {views}", "order: {views", "multi_level"),
        ("{head: the person's", "{torso: the person's", "levels"),
        ("marked: true", "marked: maybe", "marked: wanted True or False"),
        ("base: paper_caers", "base: paper_cars", "base: wanted a set of this file"),
        ("order: [head, body, context]", "order: [head, body]", "order: wanted head, body, context in some order"),
        ("system: You", "system: [You", "cannot be read"),
    ],
)
def test_a_wrong_wordings_file_says_what_is_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = DEFAULT_WORDINGS.read_text()
    assert old in text
    (tmp_path / "w.yaml").write_text(text.replace(old, new))
    with pytest.raises(PromptError, match=message.replace("{", "\\{")):
        read_wordings(tmp_path / "w.yaml")


@pytest.mark.parametrize(
    ("text", "labels", "status"),
    [
        ('["Peace", "happiness"]', ("Peace", "Happiness"), "ok"),
        ('Sure!\n```json\n{"emotions": ["Doubt / Confusion"]}\n```', ("Doubt/Confusion",), "ok"),
        ('{"Anger": true, "Fear": false}', ("Anger",), "ok"),
        ("The person seems happy and a bit tired.", ("Happiness", "Fatigue"), "ok"),
        ("- **Fear**\n- Surprise\n- Fear", ("Fear", "Surprise"), "ok"),
        ("Not anger, but Sadness. There is no fear.", ("Sadness",), "ok"),
        ("She isn't angry. Answer: Esteem", ("Esteem",), "ok"),
        ("<think>Anger? Fear?</think> Excitement", ("Excitement",), "ok"),
        ("He looks confused", (), "no_label"),
        ("painful engagementring", (), "no_label"),
        ('["Joyless", "Grumpy"]', (), "no_label"),
        ("I'm sorry, but I can't help with identifying emotions.", (), "refused"),
        ("I\u2019m unable to determine that.", (), "refused"),
        ("", (), "no_label"),
        (", ".join(EMOTIC_CLASSES), (), "no_label"),
        ("[" * 3000, (), "no_label"),
        ('["Anger"] or rather ["Pain"]', ("Pain",), "ok"),
    ],
)
def test_labels_come_out_of_whatever_is_said(text: str, labels: tuple[str, ...], status: str) -> None:
    parsed = parse_labels(text, EMOTIC_CLASSES)
    assert (parsed.labels, parsed.status) == (labels, status)


def test_one_label_a_person_takes_the_first() -> None:
    assert parse_labels("angry, then Sad", CAERS_CLASSES, multi_label=False).labels == ("Anger",)


@pytest.mark.parametrize("dataset", ["emotic", "caers"])
def test_a_list_of_names_comes_back(dataset: str) -> None:
    classes = find_dataset(dataset).class_names
    for name in classes:
        for form in (name, name.lower(), f"* {name.upper()} *", f'["{name}"]', f"It is {name}."):
            assert parse_labels(form, classes).labels == (name,), form


@given(st.text(max_size=300))
def test_rubbish_never_breaks_the_parser(text: str) -> None:
    parsed = parse_labels(text, EMOTIC_CLASSES)
    assert set(parsed.labels) <= set(EMOTIC_CLASSES)
    assert (parsed.status == "ok") == bool(parsed.labels)


Act = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


def say(text: str, status: int = 200, **headers: str) -> Act:
    """Answer with a chat completion, or with bare text where the status is an error."""
    body = text if status != 200 else json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})
    return raw(body.encode(), status, **headers)


def raw(body: bytes, status: int = 200, **headers: str) -> Act:
    def act(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return act


class Server:
    """A chat-completions server on 127.0.0.1: plays its acts in order, the last one for ever; keeps what it was sent."""

    def __init__(self) -> None:
        self.acts: list[Act] = [say('["Peace"]')]
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self.gate = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(request | {"path": self.path})
                outer.keys.append(self.headers.get("Authorization"))
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                act = outer.acts.pop(0) if len(outer.acts) > 1 else outer.acts[0]
                with contextlib.suppress(OSError):  # the client may have left
                    act(self, request)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.close()


def client(server: Server, folder: Path, key: str = "", **limits: Any) -> ChatClient:
    return ChatClient(server.url, "model-a", folder, key, Limits(**({"timeout": 20.0} | limits)))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, in seconds; nobody waits for them."""
    kept: list[float] = []

    class Clock:
        def __getattr__(self, name: str) -> Any:
            return kept.append if name == "sleep" else getattr(time, name)

    monkeypatch.setattr("openai._base_client.time", Clock())
    return kept


def test_the_request_speaks_the_protocol(server: Server, tmp_path: Path) -> None:
    reply = client(server, tmp_path, key="secret", side=50).ask(QUESTION)
    assert reply.text == '["Peace"]' and not reply.cached
    sent = server.requests[0]
    assert sent["path"] == "/v1/chat/completions" and server.keys == ["Bearer secret"]
    assert sent["model"] == "model-a" and [m["role"] for m in sent["messages"]] == ["system", "user"]
    text, image = sent["messages"][1]["content"]
    assert text == {"type": "text", "text": "Which?"} and image["type"] == "image_url"
    kind, _, data = image["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64" and Image.open(io.BytesIO(base64.b64decode(data))).size == (50, 40)
    assert "secret" not in "".join(p.read_text() for p in tmp_path.iterdir())


def test_the_same_question_is_sent_once(server: Server, tmp_path: Path) -> None:
    assert not client(server, tmp_path).ask(QUESTION).cached
    again = client(server, tmp_path).ask(QUESTION)
    assert again.cached and again.text == '["Peace"]' and len(server.requests) == 1
    client(server, tmp_path).ask(replace(QUESTION, text="What?"))
    assert len(server.requests) == 2
    for file in tmp_path.iterdir():
        file.write_text("{broken")
    assert not client(server, tmp_path).ask(QUESTION).cached


def test_passing_faults_are_retried_with_growing_waits(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.acts = [say("busy", 500), say("slow down", 429, Retry_After="7"), say("busy", 503), say("Fear")]
    assert client(server, tmp_path, attempts=4).ask(QUESTION).text == "Fear"
    assert 0.3 < waits[0] <= 0.5 and waits[1] == 7 and 1.5 <= waits[2] <= 2 and len(server.requests) == 4
    server.acts = [say("no", 503)]
    failed = client(server, tmp_path, attempts=3).ask(replace(QUESTION, text="b"))
    assert failed.text == "" and "HTTP 503 no" in failed.fault and "3 attempts" in failed.fault


@pytest.mark.parametrize(
    "body", [b"<html>rubbish", b'{"choices": []}', b"[" * 5000, b"", b'{"choices": [{"message": 5}]}']
)
def test_rubbish_in_place_of_an_answer_fails_the_question_alone(server: Server, tmp_path: Path, body: bytes) -> None:
    server.acts = [raw(body)]
    assert "wanted a chat completion" in client(server, tmp_path).ask(QUESTION).fault
    assert not list(tmp_path.iterdir())


def stall(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    """Take the request and say nothing until the client has given up."""
    time.sleep(0.8)


def drip(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    """A byte now and then, so that no single read ever times out."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def drip_headers(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(200):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def hang_up(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    handler.connection.close()


@pytest.mark.parametrize("act", [stall, drip, drip_headers, hang_up])
def test_a_server_without_an_answer_costs_a_bounded_time(
    server: Server, tmp_path: Path, act: Act, waits: list[float]
) -> None:
    server.acts = [act]
    asking = client(server, tmp_path, timeout=0.3, attempts=2)
    began = time.monotonic()
    reply = asking.ask(QUESTION)
    assert time.monotonic() - began < 3.0  # two attempts of 0.3 s on a busy machine; a drip would take ten
    assert reply.text == "" and reply.fault and len(server.requests) == 2
    assert not list(tmp_path.iterdir())  # a failure is not an answer to keep


def test_nobody_at_the_address(tmp_path: Path, server: Server, waits: list[float]) -> None:
    lonely = ChatClient("http://127.0.0.1:9/v1", "m", tmp_path, limits=Limits(attempts=2))
    assert "no answer" in lonely.ask(QUESTION).fault and lonely.sent == 2


@pytest.mark.parametrize(("status", "hint"), [(401, "the key"), (404, "the address"), (302, "redirects")])
def test_what_no_retry_can_help_stops_the_run(server: Server, tmp_path: Path, status: int, hint: str) -> None:
    server.acts = [say("nope", status, Location="http://127.0.0.1:9/elsewhere")]
    with pytest.raises(EndpointError, match=hint):
        client(server, tmp_path, key="secret").ask(QUESTION)
    assert len(server.requests) == 1


def test_a_question_that_the_server_does_not_take_fails_alone_and_at_once(server: Server, tmp_path: Path) -> None:
    server.acts = [say("image too large", 400)]
    assert "image too large" in client(server, tmp_path).ask(QUESTION).fault
    assert len(server.requests) == 1
    server.acts = [raw(b"x" * 3_000_000)]
    assert "larger than" in client(server, tmp_path, attempts=1).ask(QUESTION).fault


def test_requests_are_bounded_and_keys_stay_private(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.acts = [say("busy", 500)]
    with pytest.raises(EndpointError, match="3 requests"):
        client(server, tmp_path, requests=3, attempts=10).ask(QUESTION)
    assert len(server.requests) == 3
    with pytest.raises(EndpointError, match="unencrypted"):
        ChatClient("http://example.org/v1", "m", tmp_path, "secret")
    for wrong in ("example.org", "ftp://example.org", "http://"):
        with pytest.raises(EndpointError, match="wants http"):
            ChatClient(wrong, "m", tmp_path)


SECRET = "sk-very/secret+key"


def echo(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
    """A server that gives back the key that it was sent, plain, coded, and cut off where a message would be."""
    key = str(handler.headers["Authorization"]).removeprefix("Bearer ")
    coded = base64.b64encode(key.encode()).decode()
    say(f"{'x' * 190}{key} Peace {coded} {quote(key, safe='')} {key}")(handler, request)


def echo_error(status: int) -> Act:
    def act(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        say(f"{'x' * 150} bad key {handler.headers['Authorization']}", status)(handler, request)

    return act


def everything(folder: Path) -> str:
    return "".join(p.read_text() for p in folder.rglob("*") if p.is_file())


def test_a_key_that_the_server_says_back_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.acts = [echo]
    asked = [("p", {"prompt": QUESTION})]
    rows = list(ask_all(client(server, tmp_path / "c", SECRET), asked, EMOTIC_CLASSES, True, tmp_path / "a.jsonl"))
    assert rows[0].labels == ("Peace",) and "[hidden]" in rows[0].text
    found = everything(tmp_path) + rows[0].text
    assert not any(
        word in found for word in (SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode())
    )


@pytest.mark.parametrize("status", [400, 401, 500, 302])
def test_a_key_in_an_error_of_the_server_is_hidden(
    server: Server, tmp_path: Path, status: int, waits: list[float]
) -> None:
    server.acts = [echo_error(status)]
    try:
        said = client(server, tmp_path, SECRET, attempts=2).ask(QUESTION).fault
    except EndpointError as err:
        said = str(err)
    assert f"HTTP {status}" in said and "sk-very" not in said


@pytest.mark.parametrize("key", ["sk-caf\u00e9", "sk-\x07bell", "sk-two words", "sk-\u2028x"])
def test_a_key_that_no_header_takes_is_refused_without_being_shown(tmp_path: Path, key: str) -> None:
    with pytest.raises(EndpointError, match="set its environment variable again") as caught:
        ChatClient("https://example.org/v1", "m", tmp_path, key)
    assert key not in str(caught.value) and "sk-" not in str(caught.value)


def test_line_ends_around_a_key_do_no_harm(server: Server, tmp_path: Path) -> None:
    client(server, tmp_path, f" {SECRET}\r\n").ask(QUESTION)
    assert server.keys == [f"Bearer {SECRET}"]


@pytest.mark.parametrize(
    "endpoint",
    ["https://me:pa55@host/v1", "https://me:pa55@host:99999/v1", "ftp://me:pa55@host", "https://host/v1?api_key=pa55",
     "https://:pa55@host/v1", "https://me:pa55@[::1/v1", "http://me:pa55@host:x/v1", "https://host/v1#pa55"],
)  # fmt: skip
def test_credentials_in_an_address_are_refused_and_not_shown(tmp_path: Path, endpoint: str) -> None:
    with pytest.raises(EndpointError, match="--endpoint wants") as caught:
        ChatClient(endpoint, "m", tmp_path)
    assert "pa55" not in str(caught.value)


def test_a_proxys_password_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    monkeypatch.setenv("http_proxy", "http://me:pa55word@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    fault = ChatClient("http://127.0.0.1:8/v1", "m", tmp_path, limits=Limits(attempts=1)).ask(QUESTION).fault
    assert fault and "pa55word" not in fault
    monkeypatch.setenv("http_proxy", "nonsense://me:pa55word@x")
    with pytest.raises(EndpointError) as caught:
        ChatClient("http://127.0.0.1:8/v1", "m", tmp_path)
    assert "pa55word" not in str(caught.value)


def test_nothing_of_the_environment_travels_along(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "from-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: from-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    client(server, tmp_path).ask(QUESTION)
    sent = server.headers[0]
    assert "from-the-environment" not in str(sent) and "authorization" not in sent
    assert set(sent) <= {
        "host",
        "content-type",
        "content-length",
        "accept",
        "accept-encoding",
        "connection",
        "user-agent",
    }


def test_a_packed_answer_is_not_unpacked(server: Server, tmp_path: Path) -> None:
    import gzip

    server.acts = [raw(gzip.compress(b" " * 100_000_000, 1), Content_Encoding="gzip")]
    assert "wanted a chat completion" in client(server, tmp_path).ask(QUESTION).fault


def test_an_answer_that_cannot_be_stored_is_a_failed_row(server: Server, tmp_path: Path) -> None:
    server.acts = [raw(b'{"choices": [{"message": {"content": "Peace \\ud800"}}]}'), say("Fear")]
    asked = [(f"p{i}", {"prompt": replace(QUESTION, text=str(i))}) for i in range(2)]
    rows = list(ask_all(client(server, tmp_path / "c"), asked, EMOTIC_CLASSES, True, tmp_path / "a.jsonl"))
    assert [r.status for r in rows] == ["failed", "ok"] and "cannot be stored" in rows[0].message
    assert [json.loads(line)["status"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == ["failed", "ok"]


def test_without_the_client_library_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cocoer\[vlm\]'"):
        ChatClient("http://127.0.0.1:9/v1", "m", tmp_path)


def test_refusals_in_their_own_field_and_answers_in_parts_are_read(server: Server, tmp_path: Path) -> None:
    server.acts = [raw(json.dumps({"choices": [{"message": {"content": None, "refusal": "I cannot help."}}]}).encode())]
    assert client(server, tmp_path).ask(QUESTION).text == "I cannot help."
    server.acts = [
        raw(json.dumps({"choices": [{"message": {"content": [{"type": "text", "text": "Fear"}]}}]}).encode())
    ]
    assert client(server, tmp_path).ask(replace(QUESTION, text="parts")).text == "Fear"


def test_a_dead_endpoint_ends_the_run_and_what_was_answered_is_kept(server: Server, tmp_path: Path) -> None:
    asked = [(f"p{i}", {"prompt": replace(QUESTION, text=f"who is {i}")}) for i in range(20)]
    server.acts = [say("Fear"), say("Fear"), say("gone", 500)]
    path, rows = tmp_path / "answers.jsonl", []
    with pytest.raises(EndpointError, match="goes on from there"):
        for row in ask_all(client(server, tmp_path / "cache", attempts=1), asked, EMOTIC_CLASSES, True, path):
            rows.append(row)
    assert [r.status for r in rows] == ["ok"] * 2 + ["failed"] * MOST_FAILURES
    assert len(path.read_text().splitlines()) == len(rows)
    server.acts, before = [say("Pain")], len(server.requests)
    again = list(ask_all(client(server, tmp_path / "cache", attempts=1), asked, EMOTIC_CLASSES, True, path))
    assert [r.labels for r in again] == [("Fear",)] * 2 + [("Pain",)] * 18
    assert len(server.requests) - before == 18


def test_scores_are_one_for_named_classes() -> None:
    rows = [
        Row("a", "prompt", "ok", ("Fear", "Pain")),
        Row("b", "prompt", "refused", ()),
        Row("a", "multi_level", "ok", ("Anger",)),
    ]
    scores = scores_of(rows, ["b", "a"], "prompt", EMOTIC_CLASSES)
    assert scores.sum() == 2 and scores[1, EMOTIC_CLASSES.index("Fear")] == scores[1, EMOTIC_CLASSES.index("Pain")] == 1


def interrupt(*_: object) -> None:
    """Ctrl-C while an answer is waited for."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("dataset", ["emotic", "caers"])
def test_the_command_reports_every_variant(
    server: Server, tmp_path: Path, dataset: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEST_KEY", "k")
    weights = tiny_checkpoint(tmp_path / "weights", dataset)
    records = make_people(tmp_path / "data", dataset, {"test": 4})
    write_index(tmp_path / "data" / "index", records, {})
    program, out = load_program("vlm"), tmp_path / "out"
    command = [
        "--index",
        str(tmp_path / "data" / "index"),
        "--checkpoint",
        str(weights),
        "--device",
        "cpu",
        "--output",
        str(out),
    ]
    assert program.main(command) == 0
    assert "nothing was sent" in capsys.readouterr().out and not server.requests
    assert len((out / "questions.jsonl").read_text().splitlines()) == 16

    def oracle(handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        """Knows the labels when it sees one or two images, and refuses where it sees three."""
        count = len(request["messages"][1]["content"]) - 1
        place = len(server.requests) - 1
        right = json.dumps(records[place // 4].labels)
        say("I'm sorry, I can't help." if count == 3 else right)(handler, request)

    server.acts = [oracle]
    asked = [*command, "--endpoint", server.url, "--model", "m", "--key-variable", "TEST_KEY"]
    assert program.main(asked) == 0
    summary = json.loads((out / "summary.json").read_text())
    metric = "mAP" if dataset == "emotic" else "accuracy"
    found = {name: said[metric] for name, said in summary["variants"].items()}
    assert found["prompt"] == found["prompt_kappa"] == found["multi_level_kappa"] == pytest.approx(1.0)
    assert found["multi_level"] < 1.0 and summary["variants"]["multi_level"]["refused"] == 4
    assert server.keys == ["Bearer k"] * 16 and metric in capsys.readouterr().out
    assert program.main(asked) == 0 and len(server.requests) == 16  # all from the cache
    (out / "answers.jsonl").unlink()
    with monkeypatch.context() as stopped:
        stopped.setattr("cocoer.vlm.client.ChatClient.ask", interrupt)
        assert program.main(asked) == 130 and "the same command continues" in capsys.readouterr().err
    assert program.main(asked) == 0 and len(server.requests) == 16  # nothing was lost
    server.acts = [say("nope", 401)]
    assert program.main([*asked, "--num", "1", "--seed", "3", "--model", "other"]) == 1
    assert "HTTP 401" in capsys.readouterr().err
    image = ["--input", str(tmp_path / "data" / "test" / "000.png"), *command[2:]]
    boxes = tmp_path / "b.json"
    boxes.write_text(json.dumps([{"body": [6, 2, 40, 38], "head": [14, 3, 28, 15]}]))
    server.acts = [say('["Fear"]')]
    assert program.main([*image, "--boxes", str(boxes), "--endpoint", server.url, "--model", "m2"]) == 0
    assert "000.png#0 prompt_kappa: Fear" in capsys.readouterr().out
