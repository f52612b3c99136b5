"""The wheel, built here and installed into a new environment without the clone: the whole program, run from another folder."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_recognizer import ROOT

import cocoer


@dataclass(frozen=True)
class Installed:
    """A new environment (its folder of programs) and an empty working folder beside it."""

    programs: Path
    work: Path

    def start(self, *command: str) -> subprocess.Popen[str]:
        """`cocoer COMMAND` as a user types it: no clone on the path, a home folder of its own."""
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "COCOER_HOME", "VIRTUAL_ENV")}
        environment |= {"HOME": str(self.work), "XDG_CACHE_HOME": str(self.work / "cache"), "OMP_NUM_THREADS": "1"}
        words = [str(self.programs / "cocoer"), *command]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, cwd=self.work, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """The same, to its end, with the exit code that is wanted."""
        running = self.start(*command)
        done = subprocess.CompletedProcess(command, 0, *running.communicate())
        done.returncode = running.returncode
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


def build(target: str, source: Path, folder: Path) -> Path:
    """The wheel or sdist of a source tree."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, capture_output=True, check=True)
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a new environment that sees the libraries installed here, but not this clone: no network is needed."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))  # .pth files in there are not read
    install = [
        "--python",
        str(python),
        "install",
        "--quiet",
        "--ignore-installed",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    (folder / "work").mkdir()
    return Installed(folder / "venv" / "bin", folder / "work")


def test_the_wheel_holds_what_comes_with_cocoer_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as bundle:
        names = set(bundle.namelist())
    for folder in ("configs", "checkpoints/demo", "test_imgs"):
        tracked = subprocess.run(
            ["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        assert tracked and {f"cocoer/shipped/{name}" for name in tracked} <= names
    assert "cocoer/py.typed" in names
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and "cocoer" in tops, f"beside the package and its metadata: {tops}"
    assert not [name for name in names if name.endswith((".pyc", ".part"))]


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_clone(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as sources:
        sources.extractall(tmp_path / "sources", filter="data")
    (tree,) = (tmp_path / "sources").iterdir()
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(build("wheel", tree, tmp_path / "wheel")) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {i.filename: i.CRC for i in other.infolist()}


def test_the_package_shows_its_names_and_the_shell_completes_its_commands(installed: Installed) -> None:
    code = "import cocoer, sys; print(cocoer.__file__, *dir(cocoer)); assert 'torch' not in sys.modules"
    command = [installed.programs / "python", "-c", code]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    said = subprocess.run(command, cwd=installed.work, env=clean, capture_output=True, text=True, check=True).stdout
    file, *names = said.split()
    assert Path(file).is_relative_to(installed.programs.parent) and names == sorted(cocoer.__all__)

    answers = installed.work / "answers"
    hook = {"_ARGCOMPLETE": "1", "COMP_LINE": "cocoer pre", "COMP_POINT": "10", "_ARGCOMPLETE_IFS": "\n"}
    hook["_ARGCOMPLETE_STDOUT_FILENAME"] = str(answers)  # as `register-python-argcomplete cocoer` has bash ask
    subprocess.run([installed.programs / "cocoer"], cwd=installed.work, env=clean | hook, check=True)
    assert {word.strip() for word in answers.read_text().split("\n")} == {"predict", "prepare"}


def test_help_is_one_screen_at_once(installed: Installed) -> None:
    """Half a second of work; other programs on the machine may make it longer on the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = installed.run("--help").stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert len(text.splitlines()) <= 40 and "predict" in text


def test_predict_export_and_evaluate_run_without_the_clone(installed: Installed) -> None:
    from cocoer.weights.places import SHIPPED

    image = str(SHIPPED / "test_imgs" / "demo_01.jpg")
    installed.run("predict", "--input", image, "--output", "a", "--device", "cpu")
    result = json.loads((installed.work / "a" / "demo_01.json").read_text())
    assert result["persons"] and result["persons"][0]["status"] == "ok"
    assert (installed.work / "a" / "demo_01.png").is_file()

    weights = "checkpoints/demo/demo_emotic.safetensors"  # found among what comes with cocoer
    installed.run("export", "--checkpoint", weights, "--output", "demo.onnx")
    installed.run("predict", "--input", image, "--output", "b", "--checkpoint", "demo.onnx")
    exported = json.loads((installed.work / "b" / "demo_01.json").read_text())
    for one, other in zip(result["persons"], exported["persons"], strict=True):
        assert one["pred"] and one["pred"] == other["pred"] and one["emo_process"] == other["emo_process"]

    installed.run(
        "prepare", "demo", "--output", "world", "--dataset", "emotic", "--seed", "5",
        "--train", "4", "--val", "4", "--test", "12",
    )  # fmt: skip
    data = ["--root", "world", "--index", "world/index"]
    installed.run(
        "evaluate", "--config", "configs/demo_emotic.yaml", "--checkpoint", weights, *data, "--output", "score"
    )
    assert json.loads((installed.work / "score" / "evaluation.json").read_text())["persons"] == 12


@pytest.mark.skipif(find_spec("gradio") is not None, reason="gradio is installed: the page starts")
def test_the_page_without_its_extra_is_one_line(installed: Installed) -> None:
    said = installed.run("app", code=2).stderr
    assert said == "cocoer app: error: gradio is not installed: pip install 'cocoer[app]'\n"


@pytest.mark.skipif(find_spec("gradio") is None, reason="wanted gradio: pip install 'cocoer[app]'")
def test_the_page_starts_without_the_clone(installed: Installed) -> None:
    running = installed.start("app", "--device", "cpu")
    assert running.stdout is not None
    try:
        address = running.stdout.readline().split()[1]
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert answer.status == 200 and b"cocoer" in answer.read().lower()
    finally:
        running.terminate()
        said = running.communicate()
    assert running.returncode == 0, said


def test_fetched_files_belong_to_the_users_cache(installed: Installed) -> None:
    said = installed.run("weights", "list").stdout
    assert str(installed.work / "cache" / "cocoer") in said and "COCOER_HOME" in said
    offline = installed.run("weights", "fetch", "resnet50", "--offline", code=1).stderr
    assert str(installed.work / "cache" / "cocoer" / "checkpoints" / "imagenet") in offline


def test_doctor_reads_the_bounds_of_the_installed_package(installed: Installed) -> None:
    report = json.loads(installed.run("doctor", "--json", code=1).stdout)  # nothing is set up for photographs
    assert [f["state"] for f in report["Packages"]] == ["ok"]
    assert not [f for f in report["Weights"] if f["state"] == "WRONG"]
