"""Exported files without torch, and the twin beside a weights file that prediction on a CPU takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_recognizer import ROOT, tiny_checkpoint

from cocoer.cli.export import main as export
from cocoer.data.transforms import normalise, normalised
from cocoer.errors import CheckpointError, ExportError
from cocoer.export.onnx_file import OnnxFile
from cocoer.inference.recognizer import Recognizer
from cocoer.model.cocoer import CocoER

BOXES = {"persons": [{"body": [10, 5, 60, 90], "head": [25, 8, 45, 30]}, {"body": [50, 0, 118, 88]}]}
WITHOUT_TORCH = """
import os, sys
from importlib.metadata import packages_distributions

INSTALLED = {"numpy", "PIL", "onnxruntime", "pydantic", "pydantic_core", "annotated_types", "typing_inspection",
             "typing_extensions", "yaml", "_yaml", "platformdirs", "tqdm", "filelock", "cocoer",
             "matplotlib", "cycler", "kiwisolver", "packaging", "pyparsing", "dateutil", "six", "contourpy"}

class Absent:  # as if only the packages that docs/install.md names were installed
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OTHERS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

OTHERS = set(packages_distributions()) - INSTALLED - set(os.environ.get("BESIDES", "").split())
sys.meta_path.insert(0, Absent())
from cocoer.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny weights with their twin beside them."""
    path = tiny_checkpoint(tmp_path_factory.mktemp("weights"))
    assert export(["--checkpoint", str(path)]) == 0
    assert path.with_suffix(".onnx").is_file()
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)).save(path)
    (tmp_path / "a.boxes.json").write_text(json.dumps(BOXES))
    return path


def test_pixels_are_normalised_to_the_same_numbers_with_and_without_torch() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    pixels = np.stack([every, np.random.default_rng(1).integers(0, 256, every.shape, dtype=np.uint8)])
    assert np.array_equal(normalise(pixels).numpy(), normalised(pixels))


def test_an_exported_file_answers_where_torch_is_not_installed(weights: Path, image: Path, tmp_path: Path) -> None:
    command = ["predict", "--input", str(image), "--checkpoint", str(weights.with_suffix(".onnx"))]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *command, "--output", str(tmp_path / "free")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    free = json.loads((tmp_path / "free" / "a.json").read_text())["persons"]
    plain = Recognizer.from_checkpoint(weights, "cpu", ["inference.backend=torch"])(image, BOXES["persons"])
    for one, other in zip(free, plain, strict=True):
        assert one["pred"] == list(other.labels["pred"]) and one["emo_process"] == list(other.competition.exclusion)
        for source, by_name in one["probabilities"].items():
            assert by_name == pytest.approx(other.probabilities[source], abs=1e-4)


def test_a_notebook_shows_the_people_where_torch_is_not_installed(weights: Path, image: Path) -> None:
    code = WITHOUT_TORCH.split("from cocoer.cli.main")[0] + (
        "from cocoer import Recognizer\n"
        f"people = Recognizer.from_checkpoint({str(weights.with_suffix('.onnx'))!r}, 'cpu')"
        f"({str(image)!r}, {BOXES['persons']!r})\n"
        "print(people._repr_html_())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<div") and done.stdout.count("<tr>") == 1 + len(BOXES["persons"])


def small(words: list[object], besides: str = "", before: str = "") -> subprocess.CompletedProcess[str]:
    """A command where only the packages of docs/install.md are installed, and `besides`. before: code that runs first."""
    command = [sys.executable, "-c", before + WITHOUT_TORCH, *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"BESIDES": besides}, capture_output=True, text=True, check=False
    )


def test_people_are_found_with_the_few_packages_that_the_page_names(weights: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    (lone,) = re.findall(r"pip install --no-deps (insightface .*?)(?:  |$)", page, re.MULTILINE)
    (rest,) = re.findall(r"pip install (onnx opencv.*?)(?:  |$)", page, re.MULTILINE)
    modules = {"scikit-image": "skimage", "opencv-python-headless": "cv2", "lazy-loader": "lazy_loader"}
    named = [modules.get(name, name) for name in (lone + " " + rest).split()]
    brought = ["ml_dtypes", "google", "urllib3", "idna", "certifi", "charset_normalizer"]  # by onnx and requests
    alone = shutil.copy(ROOT / "test_imgs" / "demo_01.jpg", tmp_path)  # without its boxes file
    words = ["predict", alone, "--detector", "demo", "--output", tmp_path / "out"]
    words += ["--checkpoint", weights.with_suffix(".onnx")]
    done = small(words, " ".join(named + brought))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "demo_01.json").read_text())["persons"]

    done = small(words)
    assert done.returncode == 1 and "pip install insightface; or give boxes (--boxes)" in done.stderr
    assert "Traceback" not in done.stderr and "--debug" not in done.stderr


def test_drawing_without_its_typeface_names_the_command(weights: Path, image: Path, tmp_path: Path) -> None:
    absent = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *p: n != 'matplotlib' and f(n, *p) or None\n"
    words = ["predict", image, "--checkpoint", weights.with_suffix(".onnx"), "--output", tmp_path / "out"]
    done = small(words, before=absent)
    assert done.returncode == 1 and "pip install matplotlib; or ask for no images: --format json" in done.stderr
    assert small([*words, "--format", "json"], before=absent).returncode == 0


def test_weights_without_torch_name_the_command_that_installs_it(weights: Path, image: Path, tmp_path: Path) -> None:
    command = ["predict", "--input", str(image), "--checkpoint", str(weights), "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "torch is not installed: pip install cocoer" in done.stderr
    assert "Traceback" not in done.stderr


def test_on_a_cpu_the_twin_runs_and_says_so(weights: Path, image: Path) -> None:
    taken = Recognizer.from_checkpoint(weights, "cpu")
    plain = Recognizer.from_checkpoint(weights, "cpu", ["inference.backend=torch"])
    assert isinstance(taken.model, OnnxFile) and taken.about["backend"] == "onnxruntime"
    assert isinstance(plain.model, CocoER) and "backend" not in plain.about
    assert taken.about["sha256"] == plain.about["sha256"] and taken.about["weights"] == weights.name
    for one, other in zip(taken(image, BOXES["persons"]), plain(image, BOXES["persons"]), strict=True):
        assert one.labels == other.labels and one.boxes == other.boxes
        assert one.probabilities["pred"] == pytest.approx(other.probabilities["pred"], abs=1e-4)


def test_the_twin_answers_without_loading_what_it_does_not_need(weights: Path, image: Path, tmp_path: Path) -> None:
    """Each of these takes as long to load as the answer itself."""
    command = ["predict", str(image), "--checkpoint", str(weights), "--device", "cpu", "--output", str(tmp_path / "o")]
    heavy = ("torch", "matplotlib", "scipy", "insightface", "pandas")
    code = f"import sys; from cocoer.cli.main import main; main({command}); print(*[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "its ONNX twin in onnxruntime" in done.stdout + done.stderr, done.stderr
    assert done.stdout.splitlines()[-1] == "" and (tmp_path / "o" / "a.png").is_file()


@pytest.mark.parametrize("override", ["model.coordination.update=none", "inference.precision=bf16"])
def test_a_twin_that_cannot_do_what_is_asked_is_left_alone(weights: Path, override: str) -> None:
    assert isinstance(Recognizer.from_checkpoint(weights, "cpu", [override]).model, CocoER)
    with pytest.raises(CheckpointError, match=r"inference\.backend: onnx: .*cocoer export --checkpoint"):
        Recognizer.from_checkpoint(weights, "cpu", [override, "inference.backend=onnx"])


def test_a_twin_of_other_weights_is_never_taken(weights: Path, tmp_path: Path) -> None:
    other = tiny_checkpoint(tmp_path, seed=7)
    assert isinstance(Recognizer.from_checkpoint(other, "cpu").model, CocoER)
    with pytest.raises(CheckpointError, match="no exported file"):
        Recognizer.from_checkpoint(other, "cpu", ["inference.backend=onnx"])
    shutil.copy(weights.with_suffix(".onnx"), other.with_suffix(".onnx"))
    assert isinstance(Recognizer.from_checkpoint(other, "cpu").model, CocoER)
    with pytest.raises(CheckpointError, match="was not exported from"):
        Recognizer.from_checkpoint(other, "cpu", ["inference.backend=onnx"])


def test_a_changed_export_is_no_twin(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in (["--set", "model.coordination.update=none"], ["--format", "torch"], ["--int8", "index"]):
        with pytest.raises(SystemExit, match="2"):
            export(["--checkpoint", str(weights), *option])
    assert "--output: wanted a file" in capsys.readouterr().err


def test_the_inside_door_of_an_exported_file_takes_tensors(weights: Path) -> None:
    from cocoer.benchmark.variants import person_batch

    taken = Recognizer.from_checkpoint(weights, "cpu")
    batch = person_batch(taken.config, 3, torch.device("cpu"))
    wanted = Recognizer.from_checkpoint(weights, "cpu", ["inference.backend=torch"]).predict_tensors(batch)
    torch.testing.assert_close(taken.predict_tensors(batch).logits, wanted.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_processor_that_cannot_be_had_is_never_replaced_in_silence(weights: Path) -> None:
    import onnxruntime

    every = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CoreMLExecutionProvider")
    absent = next(name for name in every if name not in onnxruntime.get_available_providers())
    with pytest.raises(ExportError, match=f"wanted {absent}, onnxruntime could only use CPUExecutionProvider"):
        OnnxFile(weights.with_suffix(".onnx"), providers=(absent, "CPUExecutionProvider"))
