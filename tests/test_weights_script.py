"""`weights.py`: the catalog, downloads that resume and are checked, files brought along, no network unless asked."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from tiny_recognizer import load_program, tiny_checkpoint

from cocoer.errors import FetchError
from cocoer.files import file_sha256
from cocoer.weights import catalog as catalog
from cocoer.weights import fetch as weights_fetch
from cocoer.weights import places
from cocoer.weights.catalog import CATALOG, WeightsFile, entry
from cocoer.weights.fetch import fetch, put, verify

CONTENT = bytes(range(256)) * 5000  # 1.28 MB


class Server(ThreadingHTTPServer):
    """Serves CONTENT; remembers what was asked for; can cut answers short or refuse ranges."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.cut: int | None = None
        self.ranges = True
        self.content = CONTENT


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        if start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if wanted and self.server.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "roots", lambda: (tmp_path,))
    return tmp_path


def item_of(server: Server, **changes: object) -> WeightsFile:
    url = f"http://127.0.0.1:{server.server_port}/file"
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    base = WeightsFile("toy", "a toy", "the page", "checkpoints/toy.bin", "MIT", url, len(CONTENT), sha256, "here")
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_download_is_whole_and_checked(server: Server, project: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch(item_of(server), lambda done, total: seen.append((done, total)))
    place = project / "checkpoints" / "toy.bin"
    assert place.read_bytes() == CONTENT and list(place.parent.iterdir()) == [place]
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and "agrees" in verify(item_of(server))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_is_continued(server: Server, project: Path, ranges: bool) -> None:
    server.cut = 300_000
    with pytest.raises(FetchError, match="ended after|cannot be downloaded"):
        fetch(item_of(server))
    assert not (project / "checkpoints" / "toy.bin").exists()
    part = project / "checkpoints" / "toy.bin.part"
    assert part.stat().st_size == 300_000
    server.cut, server.ranges = None, ranges
    fetch(item_of(server))
    assert server.asked == [None, "bytes=300000-"]
    assert (project / "checkpoints" / "toy.bin").read_bytes() == CONTENT and not part.exists()


def test_another_file_is_refused_and_nothing_is_left(server: Server, project: Path) -> None:
    (project / "checkpoints").mkdir()
    (project / "checkpoints" / "toy.bin").write_bytes(b"the old one")
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(FetchError, match="SHA-256"):
        fetch(item_of(server))
    server.content = CONTENT + b"!"
    with pytest.raises(FetchError, match="bytes"):
        fetch(item_of(server, sha256=None))
    assert [p.name for p in (project / "checkpoints").iterdir()] == ["toy.bin"]
    assert (project / "checkpoints" / "toy.bin").read_bytes() == b"the old one"


def test_a_server_that_does_not_answer_is_said_with_the_way_out(server: Server, project: Path) -> None:
    with pytest.raises(FetchError, match="404"):
        fetch(item_of(server, url=f"http://127.0.0.1:{server.server_port}/absent"))
    with pytest.raises(FetchError, match=r"--from FILE"):
        fetch(item_of(server, url="http://127.0.0.1:9/file"))
    with pytest.raises(FetchError, match=r"by hand.*--from FILE"):
        fetch(item_of(server, url=None))


def test_a_partial_checksum_and_none_at_all(server: Server, project: Path) -> None:
    full = hashlib.sha256(CONTENT).hexdigest()
    fetch(item_of(server, sha256=full[:8]))
    with pytest.raises(FetchError, match="SHA-256"):
        fetch(item_of(server, sha256="00000000"))
    fetch(item_of(server, sha256=None))
    assert "no checksum" in verify(item_of(server, sha256=None))


def archive(*members: tuple[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as bundle:
        for name, content in members:
            bundle.writestr(name, content)
    return data.getvalue()


def test_only_the_wanted_member_of_an_archive_is_unpacked(server: Server, project: Path) -> None:
    inner = hashlib.sha256(b"face").hexdigest()
    server.content = archive(("pack/det.onnx", b"face"), ("../../evil.txt", b"x"), ("pack/other.onnx", b"y"))
    item = item_of(server, place="packs/toy", size=None, sha256=None, unpack=(("det.onnx", inner),))
    fetch(item)
    files = [p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()]
    assert files == ["packs/toy/det.onnx"] and item.present
    with pytest.raises(FetchError, match=r"holds no other\.bin"):
        fetch(replace(item, unpack=(("other.bin", None),)))
    with pytest.raises(FetchError, match="SHA-256"):
        fetch(replace(item, unpack=(("det.onnx", "0" * 64),)))
    server.content = b"PK not a zip"
    with pytest.raises(FetchError, match="damaged"):
        fetch(item)


def test_a_file_brought_along_is_checked_and_copied(server: Server, project: Path) -> None:
    brought = project / "stick.bin"
    brought.write_bytes(CONTENT)
    put(item_of(server, url=None), brought)
    assert (project / "checkpoints" / "toy.bin").read_bytes() == CONTENT and brought.exists()
    brought.write_bytes(CONTENT[:-1])
    with pytest.raises(FetchError, match="bytes"):
        put(item_of(server), brought)
    with pytest.raises(FetchError, match="no such file"):
        put(item_of(server), project / "absent")
    pack = item_of(server, place="packs/toy", unpack=(("det.onnx", hashlib.sha256(b"face").hexdigest()),))
    member = project / "det.onnx"
    member.write_bytes(b"face")
    put(pack, member)
    assert pack.present and not server.asked


def test_a_full_disk_is_said(server: Server, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights_fetch, "_download", full)
    with pytest.raises(FetchError, match="No space left"):
        fetch(item_of(server))


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return load_program("weights")


def test_the_program_lists_fetches_verifies(
    program: ModuleType,
    server: Server,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in (program, catalog):
        monkeypatch.setattr(module, "CATALOG", (item_of(server),))
    for name in ("DEMO_CHECKPOINT", "DEMO_FACE", "DEMO_PERSON"):
        monkeypatch.setattr(program, name, project / name)
    assert program.main(["list", "--long"]) == 0
    assert "missing" in capsys.readouterr().out
    assert program.main(["verify"]) == 0
    assert program.main(["fetch", "toy", "--offline"]) == 1
    said = capsys.readouterr().err
    assert "network is switched off" in said and "toy.bin" in said and "--from FILE" in said and not server.asked
    monkeypatch.setenv("COCOER_OFFLINE", "1")
    assert program.main(["fetch", "toy"]) == 1 and not server.asked
    monkeypatch.delenv("COCOER_OFFLINE")
    assert program.main(["fetch", "toy"]) == 0
    assert "licence: MIT" in capsys.readouterr().out
    assert program.main(["fetch", "toy"]) == 0 and len(server.asked) == 1
    assert program.main(["verify", "toy"]) == 0
    (project / "checkpoints" / "toy.bin").write_bytes(b"x")
    assert program.main(["verify"]) == 1
    assert program.main(["fetch", "toi"]) == 2
    assert "did you mean 'toy'" in capsys.readouterr().err


def test_verify_reads_a_weights_file_of_ours(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_checkpoint(tmp_path)
    assert program.main(["verify", str(path)]) == 0
    assert file_sha256(path) in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-10])
    assert program.main(["verify", str(path)]) == 1
    assert "truncated" in capsys.readouterr().err


def test_convert_refuses_what_is_no_checkpoint(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "GWT.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    out = tmp_path / "out"
    args = [
        "convert",
        "--release",
        str(tmp_path / "GWT.pth"),
        "--clip",
        str(tmp_path / "absent.pt"),
        "--output",
        str(out),
    ]
    assert program.main(args) == 1
    assert "cocoer weights: error:" in capsys.readouterr().err and not (out / "model.safetensors").exists()


def test_the_catalog_is_complete_and_honest() -> None:
    assert len({item.name for item in CATALOG}) == len(CATALOG) == len({item.place for item in CATALOG})
    for name in ("resnet50", "clip-rn50", "buffalo_l", "scrfd_person_2.5g", "cocoer-release"):
        assert entry(name).name == name
    for item in CATALOG:
        assert (
            item.licence and item.page.startswith("https://") and item.place.startswith(("checkpoints/", "thirdparty/"))
        )
        assert item.url is None or item.url.startswith("https://")
        assert item.sha256 is None or (len(item.sha256) in (8, 64) and int(item.sha256, 16) >= 0)
        assert (item.sha256 is None) == (item.sha256_source == "not published")
    assert "non-commercial" in entry("buffalo_l").licence and "non-commercial" in entry("scrfd_person_2.5g").licence


def test_published_checksums_agree_with_the_libraries_that_publish_them() -> None:
    from open_clip.pretrained import get_pretrained_url
    from torchvision.models import DenseNet161_Weights, ResNet50_Weights, ResNet101_Weights, VGG16_Weights

    for name, weights in (("resnet50", ResNet50_Weights), ("resnet101", ResNet101_Weights),
                          ("vgg16", VGG16_Weights), ("densenet161", DenseNet161_Weights)):  # fmt: skip
        assert entry(name).url == weights.IMAGENET1K_V1.url
    for tower in ("RN50", "RN50x16", "RN50x64", "ViT-B-16", "ViT-B-32"):
        assert entry(f"clip-{tower.lower()}").url == get_pretrained_url(tower, "openai")
