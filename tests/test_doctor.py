"""`doctor.py` says what is wrong with an installation and what to do; on this one, nothing that stops it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from programs import load_program

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def doctor() -> ModuleType:
    return load_program("doctor")


def versions(**known: str) -> Callable[[str], str | None]:
    return lambda name: known.get(name.replace("-", "_"))


def test_this_installation_has_working_packages(doctor: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.main(["--json"])
    report = json.loads(capsys.readouterr().out)
    for subject in ("Python", "Packages", "torch", "onnxruntime", "insightface", "OpenCV"):
        assert [f["what"] for f in report[subject] if f["state"] == "WRONG"] == [], subject
    code = doctor.main([])
    said = capsys.readouterr().out
    assert (code == 0) == ("Nothing wrong" in said)
    assert "onnxruntime" in said and "buffalo_l" in said


@pytest.mark.parametrize(
    ("there", "providers", "gpu_seen", "cuda", "state", "said"),
    [
        ({"onnxruntime": "1.31"}, [CPU], False, (None, None), "ok", "onnxruntime 1.31"),
        ({"onnxruntime_gpu": "1.31"}, [CUDA, CPU], True, ("13.0", "13.0"), "ok", "onnxruntime-gpu 1.31"),
        ({"onnxruntime": "1.31", "onnxruntime_gpu": "1.31"}, [CPU], False, (None, None), "WRONG", "both installed"),
        ({}, [], False, (None, None), "WRONG", "no onnxruntime"),
        ({"onnxruntime_gpu": "1.31"}, [CPU], True, (None, "13.0"), "WRONG", "without CUDA"),
        ({"onnxruntime_gpu": "1.31"}, [CUDA, CPU], True, ("12.8", "13.0"), "WRONG", "CUDA 12.8"),
        ({"onnxruntime": "1.31"}, [CPU], True, (None, "13.0"), "note", "torch sees a GPU"),
    ],
)
def test_every_mix_of_runtimes_is_judged(
    doctor: ModuleType,
    there: dict[str, str],
    providers: list[str],
    gpu_seen: bool,
    cuda: tuple[str | None, str | None],
    state: str,
    said: str,
) -> None:
    (finding,) = doctor.check_runtimes(versions(**there), providers, gpu_seen, *cuda)
    assert finding.state == state and said in finding.what
    assert bool(finding.remedy) == (state != "ok")


def test_missing_and_wrong_packages_are_named(doctor: ModuleType) -> None:
    lines = ["alpha>=2,<3", "beta>=1", "onnxruntime>=1.31,<2"]
    good = versions(alpha="2.1", beta="1.0", onnxruntime_gpu="1.31.1")
    assert [f.state for f in doctor.check_packages(lines, good)] == ["ok"]
    bad = doctor.check_packages(lines, versions(alpha="3.0", onnxruntime="1.31"))
    assert [f.state for f in bad] == ["ok", "WRONG", "WRONG"]
    assert "alpha 3.0" in bad[1].what and "beta is not installed" in bad[2].what and all(f.remedy for f in bad[1:])


def test_two_opencv_packages_are_noted(doctor: ModuleType) -> None:
    (finding,) = doctor.check_opencv(versions(opencv_python="5.0", opencv_python_headless="5.0"))
    assert finding.state == "note" and "pip uninstall" in finding.remedy
    (finding,) = doctor.check_opencv(versions())
    assert finding.state == "WRONG"


def test_missing_weights_are_a_note_and_a_missing_demonstration_is_wrong(
    doctor: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cocoer.weights.places.roots", lambda: (tmp_path,))
    for name in ("DEMO_CHECKPOINT", "DEMO_FACE", "DEMO_PERSON"):
        monkeypatch.setattr(doctor, name, tmp_path / name)
    found = doctor.check_weights()
    assert [f.state for f in found] == ["WRONG", "WRONG", "WRONG", "note"]
    assert "fetch" in found[-1].remedy
    (tmp_path / "DEMO_FACE").write_bytes(b"x")
    assert [f.state for f in doctor.check_weights()] == ["WRONG", "ok", "WRONG", "note"]


def test_a_folder_that_cannot_be_written_is_wrong(
    doctor: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [f.state for f in doctor.check_disk(tmp_path)] == ["ok", "ok"] or doctor.check_disk(tmp_path)[
        0
    ].state == "note"
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)  # tests may run as root, who may write everywhere
    assert doctor.check_disk(tmp_path)[-1].state == "WRONG"
