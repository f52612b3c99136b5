"""Downloads: whole or not at all, continued after a break, checked; Google Drive's pages, mirrors, every kind of archive."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hosts import Host, running, stand_in_for_drive
from programs import files_below

from cocoer.errors import FetchError
from cocoer.weights import fetch as fetching
from cocoer.weights import places
from cocoer.weights.catalog import WeightsFile, entry
from cocoer.weights.fetch import addresses, fetch, put, verify

CONTENT = bytes(range(256)) * 8000  # 2 MB; what comes is kept in pieces of 512 KiB


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(fetching, "RETRIES", 0)
    with running() as served:
        served.files["/file"] = CONTENT
        yield served


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "roots", lambda: (tmp_path,))
    return tmp_path


def item_of(host: Host, **changes: object) -> WeightsFile:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    base = WeightsFile(
        "toy", "a toy", "the page", "checkpoints/toy.bin", "MIT", f"{host.address}/file", len(CONTENT), sha256, "here"
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_download_is_whole_and_checked(host: Host, project: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetch(item_of(host), lambda done, total: seen.append((done, total)))
    assert files_below(project) == {"checkpoints/toy.bin": CONTENT}
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and "agrees" in verify(item_of(host))


def test_a_redirect_is_followed(host: Host, project: Path) -> None:
    fetch(item_of(host, url=f"{host.address}/moved/moved/file"))
    assert files_below(project) == {"checkpoints/toy.bin": CONTENT}
    assert [path for path, _ in host.asked] == ["/moved/moved/file", "/moved/file", "/file"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_is_continued(host: Host, project: Path, ranges: bool) -> None:
    host.cut = 1_500_000
    with pytest.raises(FetchError, match="run it again, it continues"):
        fetch(item_of(host))
    assert [len(content) for content in files_below(project).values()] == [2**20]
    assert not (project / "checkpoints" / "toy.bin").exists()
    host.cut, host.ranges = None, ranges
    fetch(item_of(host))
    assert ("/file", "bytes=1048576-") in host.asked
    assert files_below(project) == {"checkpoints/toy.bin": CONTENT}


def test_a_broken_transfer_is_tried_again_within_one_fetch(
    host: Host, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "RETRIES", 1)
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    host.cut = 1_500_000

    def progress(done: int, total: int | None) -> None:
        host.cut = None

    fetch(item_of(host), progress)
    assert files_below(project) == {"checkpoints/toy.bin": CONTENT}
    assert ("/file", "bytes=1048576-") in host.asked


def test_another_file_is_refused_and_nothing_is_left(host: Host, project: Path) -> None:
    (project / "checkpoints").mkdir()
    (project / "checkpoints" / "toy.bin").write_bytes(b"the old one")
    host.files["/file"] = CONTENT[:-1] + b"!"
    with pytest.raises(FetchError, match="SHA-256"):
        fetch(item_of(host))
    host.files["/file"] = CONTENT + b"!"
    with pytest.raises(FetchError, match="bytes"):
        fetch(item_of(host, sha256=None))
    host.files["/file"] = b"\n <!DOCTYPE html><html>please sign in</html>"
    with pytest.raises(FetchError, match=r"web page.*--from FILE"):
        fetch(item_of(host, sha256=None, size=None))
    assert files_below(project) == {"checkpoints/toy.bin": b"the old one"}


def test_a_server_that_does_not_answer_is_said_with_the_way_out(host: Host, project: Path) -> None:
    with pytest.raises(FetchError, match="404"):
        fetch(item_of(host, url=f"{host.address}/absent"))
    with pytest.raises(FetchError, match=r"--from FILE") as said:
        fetch(item_of(host, url="http://127.0.0.1:9/file"))
    assert "\n" not in str(said.value)
    with pytest.raises(FetchError, match=r"by hand.*--from FILE"):
        fetch(item_of(host, url=None))
    assert not files_below(project)


def test_a_partial_checksum_and_one_that_the_first_fetch_records(host: Host, project: Path) -> None:
    full = hashlib.sha256(CONTENT).hexdigest()
    fetch(item_of(host, sha256=full[:8]))
    with pytest.raises(FetchError, match="SHA-256"):
        fetch(item_of(host, sha256="00000000"))
    nothing_known = item_of(host, sha256=None, size=None)
    assert "none was recorded" in verify(nothing_known)
    fetch(nothing_known)
    assert json.loads((project / "checkpoints" / "checksums.json").read_text()) == {"toy/toy.bin": full}
    assert "recorded when it was first fetched" in verify(nothing_known)
    fetch(nothing_known)
    host.files["/file"] = b"another file of the same name"
    with pytest.raises(FetchError, match="another file than the one that was fetched first"):
        fetch(nothing_known)
    assert (project / "checkpoints" / "toy.bin").read_bytes() == CONTENT
    (project / "checkpoints" / "toy.bin").write_bytes(b"changed on disk")
    with pytest.raises(FetchError, match="wanted SHA-256"):
        verify(nothing_known)


def test_a_mirror_is_asked_first_and_held_to_the_same_checksum(
    host: Host, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fetching.MIRROR_VARIABLE, f"{host.address}/mirror/")
    item = item_of(host)
    assert addresses(item) == [f"{host.address}/mirror/file", f"{host.address}/file"]
    host.files["/mirror/file"] = CONTENT
    fetch(item)
    assert [path for path, _ in host.asked] == ["/mirror/file"]
    host.asked.clear()
    del host.files["/mirror/file"]
    fetch(item)
    assert [path for path, _ in host.asked] == ["/mirror/file", "/file"]
    host.files["/mirror/file"] = b"something else"
    with pytest.raises(FetchError):
        fetch(item)
    assert entry("cocoer-release").file_name == "cocoer-release.zip" and entry("buffalo_l").file_name == "buffalo_l.zip"


def test_the_network_can_be_switched_off(host: Host, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fetching.OFFLINE_VARIABLE, "1")
    with pytest.raises(FetchError, match=r"COCOER_OFFLINE.*--from FILE"):
        fetch(item_of(host))
    assert not host.asked


def torch_like() -> bytes:
    """A zip as torch.save writes it: one file that only looks like an archive."""
    return archive("zip", {"archive/data.pkl": b"pickled", "archive/data/0": b"\0" * 64})


def archive(kind: str, members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(data, "w") as bundle:
            for name, content in members.items():
                bundle.writestr(name, content)
    elif kind == "7z":
        py7zr = pytest.importorskip("py7zr")
        with py7zr.SevenZipFile(data, "w") as bundle:
            for name, content in members.items():
                bundle.writestr(content, name)
    else:
        with tarfile.open(fileobj=data, mode=f"w:{kind.removeprefix('tar').removeprefix('.')}") as bundle:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                bundle.addfile(info, io.BytesIO(content))
    return data.getvalue()


RELEASE = entry("cocoer-release")
DRIVE_FILE = "1JXXt22_M8UB-LXmCz-W90U6WQEtu1uck"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz", "7z", "bare"])
def test_the_release_is_found_by_name_in_whatever_google_drive_gives(
    host: Host, project: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    stand_in_for_drive(host, monkeypatch)
    checkpoint = torch_like()
    members = {
        "pack/readme.txt": b"hello",
        "pack/deep/GWT.pth": checkpoint,
        "pack/VI_weights/w.pth": b"\x80\x02w",
        "../../evil": b"x",
    }
    host.files[DRIVE_FILE] = (
        checkpoint
        if kind == "bare"
        else archive(kind, members if kind != "7z" else {k: v for k, v in members.items() if ".." not in k})
    )
    fetch(RELEASE)
    found = files_below(project)
    sums = json.loads(found.pop("checkpoints/checksums.json"))
    wanted = {"checkpoints/GWT.pth": checkpoint} | (
        {} if kind == "bare" else {"checkpoints/VI_weights/w.pth": b"\x80\x02w"}
    )
    assert found == wanted
    assert sums["cocoer-release/GWT.pth"] == hashlib.sha256(checkpoint).hexdigest()
    assert [path for path, _ in host.asked] == ["/drive/uc", "/usercontent/download"]


def test_a_drive_transfer_that_broke_off_is_continued(
    host: Host, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_for_drive(host, monkeypatch)
    host.files[DRIVE_FILE] = archive("zip", {"GWT.pth": torch_like() + CONTENT})
    host.cut = 1_500_000
    with pytest.raises(FetchError, match="continues"):
        fetch(RELEASE)
    assert not RELEASE.present
    host.cut = None
    fetch(RELEASE)
    assert RELEASE.present and ("/usercontent/download", "bytes=1048576-") in host.asked


def test_a_quota_page_is_one_line_and_leaves_nothing(
    host: Host, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_for_drive(host, monkeypatch)
    host.quota = True
    with pytest.raises(FetchError, match=r"Google Drive gives a page.*Too many users.*--from FILE") as said:
        fetch(RELEASE)
    assert "\n" not in str(said.value) and not files_below(project)


def test_only_the_wanted_member_of_an_archive_is_unpacked(host: Host, project: Path) -> None:
    inner = hashlib.sha256(b"face").hexdigest()
    host.files["/file"] = archive("zip", {"pack/det.onnx": b"face", "../../evil.txt": b"x", "pack/other.onnx": b"y"})
    item = item_of(host, place="packs/toy", size=None, sha256=None, unpack=(("det.onnx", inner),))
    fetch(item)
    assert files_below(project) == {"packs/toy/det.onnx": b"face"} and item.present
    with pytest.raises(FetchError, match=r"has no other\.bin"):
        fetch(replace(item, unpack=(("other.bin", None),)))
    with pytest.raises(FetchError, match="SHA-256"):
        fetch(replace(item, unpack=(("det.onnx", "0" * 64),)))
    for damaged in (
        b"PK not a zip",
        b"7z\xbc\xaf\x27\x1c not a 7z",
        host.files["/file"][:-30],
        archive("tar.gz", {"a": CONTENT})[:900],
    ):
        host.files["/file"] = damaged
        with pytest.raises(FetchError, match="damaged"):
            fetch(item)
    assert files_below(project) == {"packs/toy/det.onnx": b"face"}


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_a_member_that_unpacks_to_more_than_any_weights_is_refused(
    form: str, host: Host, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cocoer.weights.archive.MOST_BYTES", 1 << 20)
    host.files["/file"] = archive(form, {"a.bin": bytes((1 << 20) + 1)})
    with pytest.raises(FetchError, match="unpacks to more than 1,048,576 bytes"):
        fetch(item_of(host, place="packs/toy", size=None, sha256=None, unpack=(("a.bin", None),)))
    assert files_below(project) == {}
    host.files["/file"] = archive(form, {"a.bin": bytes(1 << 20)})
    fetch(item_of(host, place="packs/toy", size=None, sha256=None, unpack=(("a.bin", None),)))
    assert len(files_below(project)["packs/toy/a.bin"]) == 1 << 20


def test_a_missing_codec_is_named(host: Host, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.files["/file"] = b"7z\xbc\xaf\x27\x1c" + bytes(200)
    monkeypatch.setitem(__import__("sys").modules, "py7zr", None)
    with pytest.raises(FetchError, match="pip install py7zr"):
        fetch(item_of(host, place="packs/toy", size=None, sha256=None, unpack=(("a.bin", None),)))


def test_a_file_brought_along_is_checked_and_copied(host: Host, project: Path) -> None:
    brought = project / "stick.bin"
    brought.write_bytes(CONTENT)
    put(item_of(host, url=None), brought)
    assert (project / "checkpoints" / "toy.bin").read_bytes() == CONTENT and brought.exists()
    brought.write_bytes(CONTENT[:-1])
    with pytest.raises(FetchError, match="bytes"):
        put(item_of(host), brought)
    with pytest.raises(FetchError, match="no such file"):
        put(item_of(host), project / "absent")
    pack = item_of(
        host, place="packs/toy", size=None, sha256=None, unpack=(("det.onnx", hashlib.sha256(b"face").hexdigest()),)
    )
    member = project / "det.onnx"
    member.write_bytes(b"face")
    put(pack, member)
    assert pack.present and not host.asked


def test_a_full_disk_is_said_and_gets_its_room_back(host: Host, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(address: str, output: str, **_: object) -> None:
        Path(output + "12345678.part").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gdown.download", full)
    with pytest.raises(FetchError, match="No space left"):
        fetch(item_of(host))
    assert not files_below(project)
