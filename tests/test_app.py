"""The page of app.py: started where gradio is installed, and used in a real browser where there is one besides.

`pip install 'cocoer[app]' playwright` and a Chromium (`apt install chromium`) make all of it run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import BROWSER, FLAGS
from PIL import Image
from programs import load_program
from tiny_recognizer import ROOT, tiny_checkpoint

from cocoer.cli.main import main
from cocoer.inference.recognizer import Recognizer
from cocoer.report.person_html import person_block

if TYPE_CHECKING:
    from playwright.sync_api import Page

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="wanted gradio: pip install 'cocoer[app]'"
)
needs_browser = pytest.mark.skipif(
    BROWSER is None or importlib.util.find_spec("playwright") is None,
    reason="wanted a Chromium and playwright: apt install chromium && pip install playwright",
)
PATIENCE_MS = 120_000
BOXES = [
    {"body": [20, 20, 160, 220], "head": [50, 25, 110, 85]},
    {"body": [170, 30, 300, 230], "head": [200, 60, 201, 61]},
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights"))


@dataclass(frozen=True)
class Running:
    """A started app.py. address: where its page is. refused: file of the other machines that it asked for."""

    address: str
    process: subprocess.Popen[str]
    refused: Path
    temporary: Path


@contextmanager
def started(weights: Path, folder: Path) -> Iterator[Running]:
    """app.py with the weights, taking files of up to 1 MB; its temporary files are below `folder`."""
    temporary = folder / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "app_process.py"), str(folder / "refused.txt")]
    command += ["--checkpoint", str(weights), "--device", "cpu", "--max-upload", "1"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary), "GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = ""
        while (found := re.search(r"open (http://127\.0\.0\.1:\d+/)", said)) is None:
            line = process.stdout.readline()
            assert line, f"app.py ended before it was there:\n{said}"
            said += line
        yield Running(found[1], process, folder / "refused.txt", temporary)
    finally:
        process.kill()
        process.communicate()


def test_the_page_listens_on_this_machine_alone_unless_told_otherwise() -> None:
    program = load_program("app")
    assert program.parse([]).host == "127.0.0.1"
    for wrong in (["--port", "70000"], ["--max-upload", "0"], ["--share"]):
        with pytest.raises(SystemExit, match="2"):
            program.parse(wrong)


def test_without_gradio_the_program_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE", "GRADIO_TEMP_DIR"):  # put back afterwards
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["app"]) == 2
    assert "pip install 'cocoer[app]'" in capsys.readouterr().err


@needs_gradio
def test_wrong_weights_are_told_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert load_program("app").main(["--checkpoint", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors" in capsys.readouterr().err


@needs_gradio
def test_the_page_asks_no_other_machine_takes_no_large_file_and_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    with started(weights, tmp_path) as app:
        html = urllib.request.urlopen(app.address, timeout=60).read().decode()
        assert "fonts.googleapis.com" not in html and "cdnjs" not in html
        config = json.loads(urllib.request.urlopen(f"{app.address}config", timeout=60).read())
        assert config["analytics_enabled"] is False and config["run_history"] is False
        info = json.loads(urllib.request.urlopen(f"{app.address}gradio_api/info", timeout=60).read())
        assert info["named_endpoints"] == info["unnamed_endpoints"] == {}
        for size, code in ((1000, 200), (2 << 20, 413)):
            body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
            request = urllib.request.Request(
                f"{app.address}gradio_api/upload", body + bytes(size) + b"\r\n--b--\r\n",
                {"Content-Type": "multipart/form-data; boundary=b"},
            )  # fmt: skip
            assert status_of(request) == code
        assert list(app.temporary.rglob("a.png"))
        app.process.terminate()
        assert app.process.wait(60) == 0
        assert list(app.temporary.iterdir()) == []
        assert not app.refused.exists(), app.refused.read_text()


def status_of(request: urllib.request.Request) -> int:
    """The status of an answer, be it an error or not."""
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        err.close()
        return err.code


@pytest.fixture(scope="module")
def address(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of one app.py for all tests of the page."""
    with started(weights, tmp_path_factory.mktemp("app")) as app:
        yield app.address
        assert not app.refused.exists(), app.refused.read_text()


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """The page in a browser of a phone's width; afterwards nothing may have gone elsewhere, and nothing have been an error."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    asked: list[str] = []
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        shown = browser.new_page(viewport={"width": 390, "height": 844})
        shown.set_default_timeout(PATIENCE_MS)
        shown.on("request", lambda request: asked.append(request.url))
        shown.on("pageerror", lambda fault: faults.append(str(fault)))
        shown.goto(address)
        shown.wait_for_selector("#examples")
        yield shown
        browser.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert faults == []


def write_files(folder: Path) -> dict[str, str]:
    """An image with and one without a person, one that is none, and boxes of the first."""
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "people.png")
    Image.new("RGB", (320, 240)).save(folder / "nobody.png")
    (folder / "rubbish.png").write_bytes(b"<b>no image</b>")
    (folder / "boxes.json").write_text(json.dumps(BOXES))
    (folder / "wrong.json").write_text("{no")
    return {path.name: str(path) for path in folder.iterdir()}


@needs_gradio
@needs_browser
def test_a_image_is_looked_at_from_all_sides(page: Page, weights: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    files = write_files(tmp_path)
    expected = Recognizer.from_checkpoint(weights, "cpu")(files["people.png"], BOXES)
    page.click("text=Boxes of the people")
    page.set_input_files("#boxes input[type=file]", files["boxes.json"])
    page.set_input_files("#image input[type=file]", files["people.png"])
    page.wait_for_selector("#maps figure")
    expect(page.locator("#annotated img")).to_be_visible()
    expect(page.locator("#panel img")).to_be_visible()
    for number, person in enumerate(expected):
        if number:
            page.click("#person input")
            page.click(f"[role=option] >> nth={number}")
        scores = person.probabilities["pred"]
        top = max(scores, key=lambda name: scores[name])
        expect(page.locator("#person input")).to_have_value(f"{number}: {top} {scores[top]:.2f}")
        struck = re.findall("<del>(.*?)</del>", person_block(person))
        expect(page.locator("#levels del")).to_have_text(struck)
        assert person.competition is not None
        expect(page.locator("#levels .sequence span")).to_have_text([n.title() for n in person.competition.exclusion])
        expect(page.locator("#maps p")).to_contain_text(f"{top}, fused probability {scores[top]:.2f}")
    page.fill("#emotion input", "Sympathy")
    page.click("[role=option]:has-text('Sympathy')")
    page.wait_for_selector("#maps p:has-text('Sympathy, fused probability')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert len(Image.open(tmp_path / "page.png").convert("RGB").getcolors(2**24) or ()) > 1000


@needs_gradio
@needs_browser
def test_what_does_not_work_is_said_in_the_page(page: Page, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    files = write_files(tmp_path)

    def send(where: str, name: str, said: str) -> None:
        if remove := page.query_selector(f"{where} button[aria-label=Clear]"):
            remove.click()
            page.wait_for_selector(f"{where} input[type=file]", state="attached")
        page.set_input_files(f"{where} input[type=file]", files[name])
        page.wait_for_selector(f"#message:has-text('{said}')")
        assert str(tmp_path) not in page.content() and "Traceback" not in page.content()

    send("#image", "rubbish.png", "rubbish.png: wanted an image")
    expect(page.locator("#annotated")).not_to_be_visible()
    send("#image", "nobody.png", "No person was found")
    expect(page.locator("#annotated img")).to_be_visible()
    expect(page.locator("#person")).not_to_be_visible()
    page.click("text=Boxes of the people")
    send("#boxes", "wrong.json", "wrong.json: is not JSON")
    page.click("#examples .gallery-item >> nth=0")  # an example takes its own boxes, and the message goes
    page.wait_for_selector("#maps figure")
    expect(page.locator("#message")).not_to_be_visible()
    expect(page.locator("#levels h3 >> nth=0")).to_have_text("Prediction")


@needs_gradio
@needs_browser
def test_boxes_leave_with_their_image(page: Page, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    files = write_files(tmp_path)
    Image.open(files["people.png"]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "others.png")
    page.click("text=Boxes of the people")
    page.set_input_files("#image input[type=file]", files["people.png"])
    expect(page.locator("#message")).to_contain_text("No person was found")
    page.set_input_files("#boxes input[type=file]", files["boxes.json"])
    page.wait_for_selector("#maps figure")
    page.click("#image button[aria-label=Clear]")
    expect(page.locator("#boxes input[type=file]")).to_be_attached()  # the place to drop boxes is empty again
    page.set_input_files("#boxes input[type=file]", files["boxes.json"])
    page.set_input_files("#image input[type=file]", str(tmp_path / "others.png"))
    page.wait_for_selector("#maps figure")
    page.click("#examples .gallery-item >> nth=0")
    expect(page.locator("#boxes input[type=file]")).to_be_attached()
    page.set_input_files("#boxes input[type=file]", files["boxes.json"])  # for the example
    expect(page.locator("#boxes")).to_contain_text("boxes")
    expect(page.locator("#person input")).to_have_value(re.compile("^0: "))
    page.set_input_files("#image input[type=file]", files["people.png"])
    expect(page.locator("#message")).to_contain_text("No person was found")
    expect(page.locator("#boxes input[type=file]")).to_be_attached()
