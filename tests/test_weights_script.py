"""`weights.py`: the catalog, downloads that resume and are checked, files brought along, no network unless asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hosts import Host, running
from programs import load_program
from tiny_recognizer import tiny_checkpoint

from cocoer.files import file_sha256
from cocoer.weights import catalog as catalog
from cocoer.weights import fetch as weights_fetch
from cocoer.weights import places
from cocoer.weights.catalog import CATALOG, WeightsFile, entry

CONTENT = bytes(range(256)) * 50


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(weights_fetch, "RETRIES", 0)
    with running() as host:
        host.files["/file"] = CONTENT
        yield host


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "roots", lambda: (tmp_path,))
    return tmp_path


def item_of(server: Host) -> WeightsFile:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return WeightsFile(
        "toy", "a toy", "the page", "checkpoints/toy.bin", "MIT", f"{server.address}/file", len(CONTENT), sha256, "here"
    )


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return load_program("weights")


def test_the_program_lists_fetches_verifies(
    program: ModuleType,
    server: Host,
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
            item.licence and item.page.startswith("https://") and item.place.startswith(("checkpoints", "thirdparty/"))
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


@pytest.mark.parametrize("command", ["fetch", "from"])
def test_a_home_that_cannot_be_written_is_said_with_its_variable(
    command: str,
    program: ModuleType,
    server: Host,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A file stands where the folder should be: not even root can write below it."""
    home, brought = tmp_path / "home", tmp_path / "toy.bin"
    home.write_text("in the way")
    brought.write_bytes(CONTENT)
    monkeypatch.setenv(places.HOME_VARIABLE, str(home))
    item = item_of(server)
    monkeypatch.setattr(program, "entry", lambda name: item)
    assert program.main(["fetch", "toy", *(["--from", str(brought)] if command == "from" else [])]) == 1
    said = capsys.readouterr().err
    assert f"cannot be written below {home}" in said and "set COCOER_HOME to a folder that you may write to" in said
    assert home.read_text() == "in the way"
