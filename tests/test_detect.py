"""Detectors through insightface's own loader: boxes in the image's pixels, colours, odd shapes, faults, providers."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from tiny_recognizer import ROOT, lamp_detector, lamp_image

from cocoer.config import DetectorConfig
from cocoer.data import detect
from cocoer.data.detect import PeopleDetector, build_detector, choose_providers
from cocoer.errors import CocoerError, DetectorError, MissingWeights
from cocoer.weights.catalog import DEMO_FACE, DEMO_PERSON, find_detector

RED, GREEN, BLUE = 0, 1, 2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("lamps")
    lamp_detector(folder / "face.onnx", RED, reach=2.0)
    lamp_detector(folder / "person.onnx", GREEN, reach=3.0, outputs=9)
    return folder / "face.onnx", folder / "person.onnx"


@pytest.fixture(scope="module")
def detector(files: tuple[Path, Path]) -> PeopleDetector:
    return PeopleDetector(*files, input_size=128, device="cpu", threads=1)


def test_red_lamps_are_faces_and_green_ones_persons(detector: PeopleDetector) -> None:
    seen = detector(lamp_image(128, 128, [(4, 6, RED), (9, 11, GREEN), (12, 3, BLUE)]))
    np.testing.assert_allclose(seen.faces, [[48 - 16, 32 - 16, 48 + 16, 32 + 16]])
    np.testing.assert_allclose(seen.bodies, [[88 - 24, 72 - 24, 88 + 24, 72 + 24]])
    assert 0.9 < seen.face_scores[0] <= 1
    assert detector.info.to_dict() == {"face": "face.onnx", "person": "person.onnx", "provider": "CPUExecutionProvider"}


@pytest.mark.parametrize(("width", "height"), [(512, 512), (512, 256), (256, 512), (512, 100), (64, 64)])
def test_boxes_are_pixels_of_the_image_whatever_its_size(detector: PeopleDetector, width: int, height: int) -> None:
    cell = max(width, height) // 16
    row = min(3, height // cell - 1)
    seen = detector(lamp_image(width, height, [(row, 5, RED)], cell))
    x, y = 5 * cell, row * cell
    wanted = [x - 2 * cell, y - 2 * cell, x + 2 * cell, y + 2 * cell]
    np.testing.assert_allclose(seen.faces, [np.clip(wanted, 0, [width, height, width, height])], atol=cell * 0.1)


def test_boxes_stay_in_the_image_and_come_best_first(detector: PeopleDetector) -> None:
    image = lamp_image(128, 128, [(0, 0, RED), (15, 15, RED), (8, 8, RED)])
    image[64:72, 64:72] = [205, 0, 0]  # dimmer, so less sure
    seen = detector(image)
    assert len(seen.faces) == 3
    assert seen.faces.min() >= 0 and seen.faces.max() <= 128
    assert list(seen.face_scores) == sorted(seen.face_scores, reverse=True)
    np.testing.assert_allclose(seen.faces[-1], [48, 48, 80, 80])


def test_the_same_image_gives_the_same_boxes_and_is_not_changed(detector: PeopleDetector) -> None:
    image = lamp_image(300, 200, [(4, 6, RED), (9, 11, GREEN)], 16)
    before = image.copy()
    first, second = detector(image), detector(image)
    np.testing.assert_array_equal(first.faces, second.faces)
    np.testing.assert_array_equal(first.bodies, second.bodies)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20_000, 1), (1, 20_000), (20_000, 30), (3, 2)])
def test_no_shape_is_too_odd(detector: PeopleDetector, width: int, height: int) -> None:
    seen = detector(np.full((height, width, 3), 200, dtype=np.uint8))
    assert seen.faces.shape == (0, 4) and seen.bodies.shape == (0, 4)


def test_a_threshold_decides(files: tuple[Path, Path]) -> None:
    image = lamp_image(128, 128, [(4, 6, RED)]) // 255 * np.uint8(150)  # a dim lamp: its score is 0.97
    for threshold, count in ((0.5, 1), (0.99, 0)):
        strict = PeopleDetector(*files, input_size=128, face_threshold=threshold, device="cpu", threads=1)
        assert len(strict(image).faces) == count


def test_no_network_and_no_home_folder_is_touched(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    PeopleDetector(*files, input_size=64, device="cpu", threads=1)(lamp_image(64, 64, []))
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_what_is_missing_is_named_with_place_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("cocoer.weights.places.roots", lambda: (tmp_path,))
    with pytest.raises(MissingWeights, match=r"buffalo_l.*thirdparty.*cocoer weights fetch buffalo_l"):
        build_detector(DetectorConfig())
    with pytest.raises(MissingWeights, match=r"nowhere\.onnx"):
        find_detector("nowhere.onnx", "face")
    place = tmp_path / "thirdparty" / "insightface" / "models"
    (place / "buffalo_l").mkdir(parents=True)
    lamp_detector(place / "buffalo_l" / "det_10g.onnx", RED, 2.0)
    (place / "buffalo_l" / "w600k_r50.onnx").write_bytes(b"not opened")
    with pytest.raises(MissingWeights, match=r"scrfd_person_2\.5g\.onnx.*cocoer weights fetch scrfd_person_2\.5g"):
        build_detector(DetectorConfig())
    lamp_detector(place / "scrfd_person_2.5g.onnx", GREEN, 3.0)
    found = build_detector(DetectorConfig(input_size=64), "cpu", threads=1)
    assert (found.info.face, found.info.person) == ("det_10g.onnx", "scrfd_person_2.5g.onnx")


@pytest.mark.parametrize("content", [b"", b"not onnx at all", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_is_no_detector_is_refused(files: tuple[Path, Path], tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(content)
    with pytest.raises(DetectorError, match=r"face detector .*broken\.onnx"):
        PeopleDetector(broken, files[1], input_size=64, device="cpu")
    model = onnx.load(files[0])
    model.graph.input.append(onnx.helper.make_tensor_value_info("body", onnx.TensorProto.FLOAT, [1, 3, 8, 8]))
    onnx.save(model, broken)  # as an exported CocoER: several inputs, and as many outputs as a detector
    with pytest.raises(DetectorError, match="wanted a detector, which takes an image, got a model of 2 inputs"):
        PeopleDetector(broken, files[1], input_size=64, device="cpu")
    with pytest.raises(MissingWeights):
        PeopleDetector(tmp_path / "absent.onnx", files[1], input_size=64, device="cpu")


def forged_pth(kind: str, path: Path, mark: Path) -> None:
    """Files that call themselves torchvision's weights."""
    if kind == "code":
        path.write_bytes(
            b"\x80\x02cpathlib\nPath\n(X" + struct.pack("<I", len(str(mark))) + str(mark).encode() + b"tR."
        )
    elif kind == "packed":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr("archive/data.pkl", b"\0" * 20_000_000)
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "other tensors":
        torch.save({"w": torch.ones(2)}, path)
    else:
        path.write_bytes(kind.encode() * 100)


@pytest.mark.parametrize("kind", ["code", "packed", "a list", "other tensors", "text", "\x80\x02K"])
def test_a_pth_that_is_no_detector_is_one_error_and_runs_nothing(
    kind: str, files: tuple[Path, Path], tmp_path: Path
) -> None:
    forged_pth(kind, tmp_path / "coco.pth", tmp_path / "ran")
    with pytest.raises(DetectorError, match=r"person detector .*coco\.pth: wanted torchvision's"):
        PeopleDetector(files[0], tmp_path / "coco.pth", input_size=64, device="cpu")
    assert {path.name for path in tmp_path.iterdir()} == {"coco.pth"}


def test_a_detector_may_lie_behind_a_link_as_the_hub_s_cache_has_it(files: tuple[Path, Path], tmp_path: Path) -> None:
    links = []
    for file in files:
        blob = tmp_path / f"blobs/{file.stem}0123abcd"  # no ending: insightface goes by the name that it is given
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(file.read_bytes())
        (tmp_path / file.name).symlink_to(blob)
        links.append(tmp_path / file.name)
    seen = lamp_image(128, 128, [(4, 4, RED), (5, 6, GREEN)])
    found, wanted = (PeopleDetector(*pair, input_size=128, device="cpu")(seen) for pair in (links, files))
    assert len(found.faces) == len(found.bodies) == 1
    np.testing.assert_array_equal(found.faces, wanted.faces)
    np.testing.assert_array_equal(found.bodies, wanted.bodies)


def test_cuda_that_is_not_there_is_an_error_and_auto_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DetectorError, match=r"make gpu|pip install onnxruntime-gpu"):
        choose_providers("cuda:0")
    assert choose_providers("auto") == choose_providers("cpu") == ["CPUExecutionProvider"]
    monkeypatch.setattr(detect, "available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert choose_providers("auto")[0] == choose_providers("cuda")[0] == "CUDAExecutionProvider"
    assert choose_providers("cuda:1")[0] == ("CUDAExecutionProvider", {"device_id": 1})
    assert choose_providers("cpu") == ["CPUExecutionProvider"]


def test_a_runtime_that_silently_falls_back_to_the_cpu_is_an_error(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "choose_providers", lambda device: ["CPUExecutionProvider"])
    with pytest.raises(DetectorError, match="fell back to CPUExecutionProvider"):
        PeopleDetector(*files, input_size=64, device="cuda")


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (
            ModuleNotFoundError("No module named 'cv2'", name="cv2"),
            "cv2 is not installed: pip install insightface; or give",
        ),
        (ImportError("libGL.so.1: cannot open shared object file"), "libGL.so.1.*pip install opencv-python-headless"),
    ],
)
def test_what_insightface_lacks_is_said_with_its_command(
    fault: ImportError, remedy: str, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise fault

    monkeypatch.setattr(detect, "_model_zoo", absent)
    with pytest.raises(CocoerError, match=remedy):
        PeopleDetector(*files, input_size=64, device="cpu")


def test_importing_the_module_loads_neither_insightface_nor_onnxruntime() -> None:
    import subprocess

    code = "import sys, cocoer.data.detect; print([m for m in ('insightface', 'onnxruntime', 'torch') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def _scenes(count: int) -> list[tuple[NDArray[np.uint8], Any]]:
    from cocoer.data.synthetic.emotions import WorldOptions
    from cocoer.data.synthetic.world import draw_image

    images = [draw_image(4711, "detector-unit-test", i, WorldOptions()) for i in range(count)]
    return [(np.asarray(p.image), p.people) for p in images]


def test_the_shipped_demo_detectors_find_the_people_of_unseen_scenes() -> None:
    from cocoer.boxes import iou

    assert DEMO_FACE.stat().st_size + DEMO_PERSON.stat().st_size <= 2_000_000
    detector = PeopleDetector(DEMO_FACE, DEMO_PERSON, 256, device="cpu", threads=1)
    hits = there = said = 0
    for pixels, people in _scenes(30):
        seen = detector(pixels)
        for found, wanted in (
            (seen.faces, [p.head_xyxy for p in people]),
            (seen.bodies, [p.body_xyxy for p in people]),
        ):
            overlap = iou(found, wanted)
            hits += int((overlap >= 0.5).any(axis=0).sum()) if len(found) else 0
            there, said = there + len(wanted), said + len(found)
    assert hits / there >= 0.9
    assert hits / said >= 0.9


def test_detectors_load_without_what_insightface_brings_for_others() -> None:
    code = """
import sys
from cocoer.data.detect import PeopleDetector
from cocoer.weights.catalog import DEMO_FACE, DEMO_PERSON
PeopleDetector(DEMO_FACE, DEMO_PERSON, device="cpu", threads=1)
assert not {"scipy", "insightface.app"} & sys.modules.keys()
import insightface
assert not hasattr(insightface, "app")
from insightface.app import FaceAnalysis
assert FaceAnalysis.__module__.startswith("insightface.app") and insightface.app.FaceAnalysis is FaceAnalysis
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_neighbours_that_overlap_are_one(detector: PeopleDetector) -> None:
    """Two lamps a cell apart: boxes of 4 x 4 cells overlap by 12 / 20, of 6 x 6 cells (askew) by 25 / 47."""
    seen = detector(lamp_image(128, 128, [(4, 6, RED), (4, 7, RED), (9, 10, GREEN), (10, 11, GREEN)]))
    assert len(seen.faces) == len(seen.bodies) == 1


def test_who_runs_what_is_said_and_one_demo_detector_is_enough_for_a_demo(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    info = detect.DetectorInfo("f", "p", "CUDA", "CPU").to_dict()
    assert info == {"face": "f", "person": "p", "provider": "CUDA, CPU"}
    for place, name in enumerate(("face", "person")):
        model = onnx.load(files[place])
        onnx.helper.set_model_props(model, {detect.DEMO_KEY: "yes"})
        onnx.save(model, tmp_path / f"{name}.onnx")
        pair = [*files]
        pair[place] = tmp_path / f"{name}.onnx"
        assert PeopleDetector(*pair, input_size=64, device="cpu", threads=1).info.demo
    assert not PeopleDetector(*files, input_size=64, device="cpu", threads=1).info.demo


def test_insightfaces_app_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has imported it keeps it; whoever has not can still do so."""
    mine = type(sys)("insightface.app")
    detect._model_zoo()
    monkeypatch.setitem(sys.modules, "insightface.app", mine)
    assert detect._model_zoo().get_model and sys.modules["insightface.app"] is mine
    for name in [name for name in sys.modules if name.partition(".")[0] == "insightface"]:
        monkeypatch.delitem(sys.modules, name)
    assert detect._model_zoo().get_model
    assert "insightface.app" not in sys.modules and not hasattr(sys.modules["insightface"], "app")
