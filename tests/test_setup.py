"""`cocoer setup photos`: from nothing to an answered photograph, against hosts on this machine, with stand-in files."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import photo_files
import pytest
import torch
from hosts import Host, running, stand_in_for_drive
from PIL import Image
from programs import load_program
from release_files import small_config, small_model, write_clip, write_release, write_torchscript

from cocoer import Recognizer
from cocoer.cli.main import main
from cocoer.cli.setup import RELEASE_CONFIG
from cocoer.config import Config, load_config, save_config
from cocoer.errors import DetectorError, ViewError
from cocoer.files import file_sha256
from cocoer.inference.viewer import Viewer
from cocoer.model.clip_tower import build_clip
from cocoer.model.release.keys import OMEGA
from cocoer.weights import catalog, fetch, places, routes
from cocoer.weights.catalog import CATALOG

DRIVE_FILE = "1JXXt22_M8UB-LXmCz-W90U6WQEtu1uck"
DRIVE_DETECTORS = "15vdafPSWhep4PJAAYSdSPPgDoCgp2dxO"


class Hosts:
    """A host with every file of a route, and the catalog that points to it."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder
        self.sums: dict[str, str] = {}

    def serve(self, name: str, path: str, content: bytes | Path) -> None:
        self.host.files[path] = content
        self.sums[name] = file_sha256(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()

    def size(self, path: str) -> int:
        content = self.host.files[path]
        return content.stat().st_size if isinstance(content, Path) else len(content)

    def catalog(self) -> tuple[catalog.WeightsFile, ...]:
        """The entries with the addresses and checksums of what is served here; Google Drive's keep theirs."""
        out = []
        for item in CATALOG:
            if item.name in self.sums:
                drive = item.url is not None and "drive.google" in item.url
                item = replace(
                    item,
                    url=item.url if drive else f"{self.host.address}/moved/{item.name}/{item.file_name}",
                    size=None if item.unpack else self.size(f"/{item.name}/{item.file_name}") if not drive else None,
                    sha256=None if drive else self.sums[item.name],
                    sha256_source="here",
                    unpack=tuple((name, None) for name, _ in item.unpack),
                )
            out.append(item)
        return tuple(out)


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """Empty places, detectors of both kinds on the host; nothing else is served yet."""
    home, files = tmp_path / "home", tmp_path / "files"
    files.mkdir()
    monkeypatch.setattr(places, "roots", lambda: (home,))
    monkeypatch.setattr(fetch, "RETRIES", 0)
    with running() as host:
        stand_in_for_drive(host, monkeypatch)
        served = Hosts(host, files)
        face = photo_files.scrfd(files / "det_10g.onnx", [(15, 30), (60, 30)], 3.0)
        person = photo_files.scrfd(files / "person.onnx", [(15, 36), (60, 36)], 9.0)
        served.serve("buffalo_l", "/buffalo_l/buffalo_l.zip", photo_files.zipped(det_10g__onnx=face))
        served.serve("scrfd_person_2.5g", "/scrfd_person_2.5g/scrfd_person_2.5g.onnx", person)
        yield served


@pytest.fixture
def release(setup: Hosts, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """The authors' checkpoint and CLIP at a small size, in the published layouts."""
    config = small_config()
    small = setup.folder / "small.yaml"
    save_config(config, small)
    program = load_program("setup")
    monkeypatch.setattr(program, "RELEASE_CONFIG", small)
    state = published_state(config)
    gwt = write_release(setup.folder / "GWT.pth", state).read_bytes()
    setup.serve("cocoer-release", DRIVE_FILE, photo_files.zipped(GWT__pth=gwt))
    clip = write_torchscript(setup.folder / "RN50.pt", write_clip(setup.folder / "clip_state.pt", config))
    setup.serve("clip-rn50", "/clip-rn50/RN50.pt", clip.read_bytes())
    monkeypatch.setattr(catalog, "CATALOG", setup.catalog())
    return setup


def published_state(config: object) -> dict[str, torch.Tensor]:
    from test_convert import published_state as published

    return published(small_model(config))  # type: ignore[arg-type, return-value]


@pytest.fixture
def program() -> ModuleType:
    return load_program("setup")


Capture = pytest.CaptureFixture[str]


def test_the_release_route_from_nothing_to_an_answer(release: Hosts, program: ModuleType, capsys: Capture) -> None:
    assert program.main(["photos", "--yes", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    for word in (
        "non-commercial",
        "To download: about",
        "Free:",
        "recorded when it was first fetched",
        "t1.jpg",
        "2 persons",
    ):
        assert word in said, word
    assert "SYNTHETIC" not in said
    assert routes.chosen() == routes.Route("release", "insightface")
    asked = [path for path, _ in release.host.asked]
    assert "/drive/uc" in asked and "/usercontent/download" in asked and "/moved/buffalo_l/buffalo_l.zip" in asked
    release.host.asked.clear()
    assert program.main(["photos", "--device", "cpu"]) == 0, "nothing to fetch, so nothing to agree to"
    assert not release.host.asked and "converted before" in capsys.readouterr().out
    predicted(release.folder / "out", "release")


FORMS = ("zip", "tar", "7z", "bare")


def packed(form: str, gwt: Path, vocabulary: Path) -> Path:
    """The authors' two files in one of the forms in which they may come; not compressed, for numbers of noise do not shrink."""
    file, members = gwt.parent / f"archive.{form}", {"CocoER/GWT.pth": gwt, "CocoER/VI_weights/w.pth": vocabulary}
    if form == "bare":
        return gwt
    if form == "zip":
        with zipfile.ZipFile(file, "w") as bundle:
            for name, path in members.items():
                bundle.write(path, name)
    elif form == "tar":
        with tarfile.open(file, "w") as tar:
            for name, path in members.items():
                tar.add(path, name)
    else:
        py7zr = pytest.importorskip("py7zr")
        with py7zr.SevenZipFile(file, "w", filters=[{"id": py7zr.FILTER_COPY}]) as seven:
            for name, path in members.items():
                seven.write(path, name)
    return file


def written(folder: Path, config: Config) -> tuple[Path, Path]:
    """GWT.pth and w.pth of a model with random weights, as the authors' training writes them."""
    state = published_state(config)
    gwt = write_release(folder / "GWT.pth", state)
    return gwt, write_release(folder / "w.pth", {OMEGA: state[OMEGA]})


@pytest.mark.parametrize("form", FORMS)
def test_the_release_in_every_form(form: str, release: Hosts, program: ModuleType, capsys: Capture) -> None:
    release.serve("cocoer-release", DRIVE_FILE, packed(form, *written(release.folder, small_config())))
    assert program.main(["photos", "--with", "release", "--yes", "--device", "cpu"]) == 0
    assert ("omega of the checkpoint and of" in capsys.readouterr().out) == (form != "bare")
    predicted(release.folder / "out", "release", "--checkpoint", "release")


def test_the_release_behind_permissive_detectors(
    release: Hosts, program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    serve_permissive(release)
    monkeypatch.setattr(catalog, "CATALOG", release.catalog())
    assert program.main(["photos", "--with", "release", "permissive", "--yes", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "buffalo_l" not in said and "insightface's licence" not in said, (
        "nothing that is for research only in the detectors"
    )
    assert routes.chosen() == routes.Route("release", "permissive")
    predicted(release.folder / "out", "release")


def serve_permissive(served: Hosts) -> None:
    """YuNet's layout and torchvision's detector as they are published."""
    served.serve("yunet", "/yunet/face_detection_yunet_2023mar.onnx", photo_files.yunet(served.folder / "yunet.onnx"))
    persons = photo_files.coco_persons(served.folder / "coco.pth")
    served.serve("coco-persons", "/coco-persons/fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth", persons)


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The authors' files and CLIP's RN50 with every layer of the published size and random weights: 1.3 GB."""
    folder = tmp_path_factory.mktemp("full")
    gwt, _ = written(folder, load_config(RELEASE_CONFIG))
    assert gwt.stat().st_size > 1_050_000_000
    torch.manual_seed(0)
    clip = build_clip("RN50", quick_gelu=True, with_text=True).state_dict()
    write_torchscript(folder / "RN50.pt", {k: v.half() if v.is_floating_point() else v for k, v in clip.items()})
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_release_at_full_size_in_every_form(
    form: str, setup: Hosts, full_size: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    archive = packed(form, full_size / "GWT.pth", full_size / "w.pth")
    setup.serve("cocoer-release", DRIVE_FILE, archive)
    setup.serve("clip-rn50", "/clip-rn50/RN50.pt", full_size / "RN50.pt")
    monkeypatch.setattr(catalog, "CATALOG", setup.catalog())
    assert program.main(["photos", "--with", "release", "--yes", "--device", "cpu"]) == 0
    assert "2 persons" in capsys.readouterr().out
    predicted(setup.folder / "out", "release", "--checkpoint", "release")
    shutil.rmtree(places.home())
    if form != "bare":
        archive.unlink()


def predicted(out: Path, mode: str, *more: str) -> None:
    """`cocoer predict` on a photograph uses what setup chose, without being told."""
    photo = Path(str(files("insightface"))) / "data/images/t1.jpg"
    words = ["--input", str(photo), "--output", str(out), "--device", "cpu", "--quiet", *more]
    assert load_program("predict").main(words) == 0
    tree = json.loads((out / "t1.json").read_text())
    assert tree["model"]["mode"] == mode and tree["synthetic"] is False and len(tree["persons"]) >= 1


def the_other_commands(folder: Path, capsys: Capture) -> None:
    """`cases`, `vlm` and the page take what setup chose without being told; what CLIP alone cannot do is said in one line."""
    photo = Path(str(files("insightface"))) / "data/images/t1.jpg"
    with Image.open(photo) as image:
        width, height = image.size
    row = {
        "image": photo.name,
        "width": width,
        "height": height,
        "person": 0,
        "body": [60, 60, 400, 500],
        "split": "test",
    }
    row |= {"head": [120, 60, 260, 220], "head_source": "annotated", "labels": ["Happiness"], "vad": None}
    (folder / "index").mkdir()
    (folder / "index" / "test.jsonl").write_text(json.dumps(row) + "\n")
    words = ["cases", str(folder / "index"), "--root", str(photo.parent), "--output", str(folder / "cases")]
    assert main([*words, "--device", "cpu"]) == 0
    assert "zero-shot" in (folder / "cases" / "case_studies.html").read_text()
    assert main(["vlm", "--input", str(photo), "--device", "cpu", "--output", str(folder / "vlm")]) == 0
    capsys.readouterr()
    assert main(["explain", "--input", str(photo), "--device", "cpu"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "CLIP alone" in said[0] and "--checkpoint release" in said[0]
    app = load_program("app")
    viewer = Viewer(app.load(app.parse(["--device", "cpu"])))
    viewed = viewer.view(photo)
    assert viewed.result.persons and viewed.result.model["mode"] == "zero-shot"
    with pytest.raises(ViewError, match="CLIP alone"):
        viewer.explain(viewed.token, 0)
    with pytest.raises(DetectorError, match="setup photos"):
        Recognizer.from_checkpoint("demo", "cpu")(photo)
    assert Recognizer.from_checkpoint("demo", "cpu", detector="permissive")(photo), "any weights with any detectors"


def test_doctor_is_wrong_until_a_route_is_ready(
    release: Hosts, program: ModuleType, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    doctor = load_program("doctor")
    before = doctor.check_photographs()
    assert [f.state for f in before].count("WRONG") == 1 and before[0].remedy == "cocoer setup photos"
    assert sum("lacks" in f.what for f in before) == 4
    assert program.main(["photos", "--yes", "--device", "cpu"]) == 0
    after = doctor.check_photographs()
    assert [f.what for f in after if f.state == "ok"] == ["ready: release (the default)", "ready: zero-shot"]
    assert not [f for f in after if f.state == "WRONG"]
    (places.home() / "checkpoints" / "photographs.json").unlink()
    (said,) = [f for f in doctor.check_photographs() if "no route is chosen" in f.what]
    assert (
        said.state == "note"
        and "--checkpoint release" in said.what
        and said.remedy == "cocoer setup photos --with release"
    )
    for path in (places.home() / "thirdparty").rglob("*.onnx"):
        path.unlink()
    assert [f.state for f in doctor.check_photographs()].count("WRONG") == 1, "set up once, and its files are gone"


def test_nobody_is_taken_to_agree(release: Hosts, program: ModuleType, capsys: Capture) -> None:
    assert program.main(["photos"]) == 2
    said = capsys.readouterr()
    assert "--yes" in said.err and "licence" in said.out and not release.host.asked
    assert not places.home().exists() or not list(places.home().rglob("*"))


def test_a_quota_page_leaves_the_rest_and_by_hand_finishes(
    release: Hosts, program: ModuleType, capsys: Capture, tmp_path: Path
) -> None:
    release.host.quota = True
    assert program.main(["photos", "--yes", "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert "Too many users" in said and "--from FILE" in said and "still missing: cocoer-release" in said
    assert "Traceback" not in said and routes.chosen() is None
    by_hand = tmp_path / "CocoER weights.zip"
    by_hand.write_bytes(release.host.files[DRIVE_FILE])
    assert program.main(["photos", "--yes", "--from", str(by_hand), "--device", "cpu"]) == 0
    assert routes.chosen() == routes.Route("release", "insightface")


def test_a_broken_transfer_is_continued_by_the_same_command(
    release: Hosts, program: ModuleType, capsys: Capture
) -> None:
    content = release.host.files["/scrfd_person_2.5g/scrfd_person_2.5g.onnx"]
    release.host.cut = len(content) // 2
    assert program.main(["photos", "--yes", "--device", "cpu"]) == 1
    assert "the same command continues" in capsys.readouterr().err
    assert not [p for p in places.home().rglob("*") if p.is_file() and not p.name.endswith(".part")]
    release.host.cut = None
    assert program.main(["photos", "--yes", "--device", "cpu"]) == 0


def test_the_authors_copy_of_the_detectors_stands_in(
    release: Hosts, program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    face, person = (release.folder / name for name in ("det_10g.onnx", "person.onnx"))
    content = photo_files.zipped(det_10g__onnx=face.read_bytes(), **{"scrfd_person_2.5g__onnx": person.read_bytes()})
    release.serve("cocoer-release-detectors", DRIVE_DETECTORS, content)
    monkeypatch.setattr(catalog, "CATALOG", release.catalog())
    del release.host.files["/buffalo_l/buffalo_l.zip"], release.host.files["/scrfd_person_2.5g/scrfd_person_2.5g.onnx"]
    assert program.main(["photos", "--yes", "--device", "cpu"]) == 0
    assert "trying the authors' copy" in capsys.readouterr().err


def test_a_full_disk_is_said_before_anything_is_fetched(
    release: Hosts, program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(program, "_free", lambda: 1000)
    assert program.main(["photos", "--yes"]) == 1
    assert "free" in capsys.readouterr().err and not release.host.asked


def test_no_network_is_one_line_each_with_the_way_by_hand(
    release: Hosts, program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv(fetch.OFFLINE_VARIABLE, raising=False)
    monkeypatch.setenv(fetch.OFFLINE_VARIABLE, "0")
    assert program.main(["photos", "--yes", "--offline"]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert all("--from FILE" in line or "trying the authors' copy" in line for line in lines[:-1])
    assert not release.host.asked


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--with", "release", "zero-shot"], "got both"),
        (["--from", "absent.zip"], "no such file"),
    ],
)
def test_wrong_usage_is_code_2(setup: Hosts, program: ModuleType, capsys: Capture, args: list[str], said: str) -> None:
    assert program.main(["photos", *args]) == 2
    assert said in capsys.readouterr().err


def test_a_mirror_that_has_everything_is_enough(
    release: Hosts, program: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for item in catalog.CATALOG:
        if item.name in release.sums:
            path = DRIVE_FILE if item.name == "cocoer-release" else f"/{item.name}/{item.file_name}"
            release.host.files[f"/mirror/{item.file_name}"] = release.host.files.pop(path)
    monkeypatch.setenv(fetch.MIRROR_VARIABLE, "")
    args = ["photos", "--yes", "--mirror", f"{release.host.address}/mirror", "--device", "cpu"]
    assert program.main(args) == 0
    assert all(path.startswith("/mirror/") for path, _ in release.host.asked)


def test_zero_shot_and_permissive_at_the_real_sizes(
    setup: Hosts, program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """CLIP RN50, YuNet's layout and torchvision's detector as they are published, with seeded numbers."""
    torch.manual_seed(0)
    clip = build_clip("RN50", quick_gelu=True, with_text=True)
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in clip.state_dict().items()
    }
    setup.serve("clip-rn50", "/clip-rn50/RN50.pt", write_torchscript(setup.folder / "RN50.pt", state).read_bytes())
    serve_permissive(setup)
    monkeypatch.setattr(catalog, "CATALOG", setup.catalog())
    assert program.main(["photos", "--with", "permissive", "--yes", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "MIT" in said and "COCO" in said and "Ready for photographs" in said
    assert routes.chosen() == routes.Route("zero-shot", "permissive")
    predicted(setup.folder / "out", "zero-shot")
    the_other_commands(setup.folder, capsys)
    assert program.main(["photos", "--with", "zero-shot", "--yes", "--device", "cpu"]) == 0
    assert routes.chosen() == routes.Route("zero-shot", "insightface")
    assert "2 persons" in capsys.readouterr().out
