"""The package as a whole: cheap to import, locked to tested versions, and tested without a network."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cocoer
import cocoer.report

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "open_clip", "insightface", "onnxruntime", "sklearn")
CHEAP = [
    "cocoer",
    "cocoer.names",
    "cocoer.boxes",
    "cocoer.outputs",
    "cocoer.config",
    "cocoer.weights.catalog",
    "cocoer.report",
    *(m.name for m in pkgutil.walk_packages(cocoer.report.__path__, "cocoer.report.")),
]


def run_python(code: str) -> str:
    """What a fresh interpreter prints, warnings being errors there too."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", CHEAP)
def test_cheap_modules_import_nothing_heavy(module: str) -> None:
    loaded = run_python(f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])")
    assert loaded == "", f"import {module} brings in {loaded}"


def test_every_module_imports_without_a_warning() -> None:
    without_gradio = {"cocoer.cli.app_page"} if importlib.util.find_spec("gradio") is None else set()
    names = sorted({m.name for m in pkgutil.walk_packages(cocoer.__path__, "cocoer.")} - without_gradio)
    run_python("import importlib; " + "; ".join(f"importlib.import_module({name!r})" for name in names))


def test_public_names_can_be_had() -> None:
    for name in cocoer.__all__:
        assert getattr(cocoer, name) is not None, name


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Recogniser"):
        _ = cocoer.Recogniser


def test_every_package_holds_something() -> None:
    """A folder of the layout that says nothing and holds nothing is an empty room."""
    for package in (
        "data",
        "data.prepare",
        "model",
        "model.release",
        "export",
        "inference",
        "evaluation",
        "training",
        "studies",
        "benchmark",
        "report",
    ):
        assert importlib.import_module(f"cocoer.{package}").__doc__, package
        assert len(list((ROOT / "cocoer" / package.replace(".", "/")).rglob("*.py"))) > 1, package


def test_locked_versions_satisfy_the_bounds() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text().rstrip())
    entries = [entry for entry in entries if not entry.startswith("#")]
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), f"{entry.split()[0]} has no hash"
    pins = [Requirement(entry.split(" \\\n")[0]) for entry in entries]
    locked = {canonicalize_name(r.name): r for r in pins}
    for pinned in locked.values():
        assert str(pinned.specifier).startswith("=="), f"{pinned} is no exact version"
        assert pinned.url is None, f"{pinned} is no package of an index"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    own = {f"cocoer[{','.join(names)}]" for names in (("onnx", "explain", "table", "track", "vlm", "ray"),)}
    for text in [
        *project["dependencies"],
        *extras["onnx"],
        *extras["explain"],
        *extras["table"],
        *extras["track"],
        *(extras["ray"] if "ray" in locked else ()),
        *extras["dev"],
    ]:
        if text in own:
            continue
        wanted = Requirement(text)
        version = next(iter(locked[canonicalize_name(wanted.name)].specifier)).version
        assert wanted.specifier.contains(version), f"requirements.lock has {version}, wanted {wanted}"
    assert "onnxruntime-gpu" not in locked, "both runtimes in one environment break each other"


def test_weights_pages_name_what_the_catalog_holds() -> None:
    """A page that sends a file to another place than the code looks in costs a reader an hour."""
    from cocoer.weights.catalog import CATALOG

    pages = "".join((ROOT / folder / "README.md").read_text() for folder in ("checkpoints", "thirdparty"))
    places = {item.name: item.place for item in CATALOG}
    named = re.findall(r"fetch ([\w.-]+)", pages)
    assert len(named) >= 6
    for name in named:
        assert f"`{places[name]}" in pages, f"{name} goes to {places[name]}"


def test_citation_and_package_agree_on_version_and_licence() -> None:
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert str(citation["version"]) == cocoer.__version__
    assert citation["license"] == project["license"]
    assert (ROOT / "LICENSE").read_text().startswith(f"{citation['license']} License")


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench", "clean", "gpu", "venv"])
def test_make_offers_the_target(target: str) -> None:
    # MAKEFLAGS of the make that runs the tests would otherwise reach this one.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    helped = subprocess.run(["make", "-s", "help"], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert f"make {target} " in helped.stdout


def test_make_refuses_a_missing_interpreter(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "venv", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "wanted Python 3.11 or newer, found no 'no-such-python'" in done.stderr


@pytest.mark.parametrize("address", [("203.0.113.1", 80), ("example.org", 80), (b"example.org", 80)])
def test_network_is_refused(no_network: list[str], address: tuple[str, int]) -> None:
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError, match="no network"):
        sock.connect(address)
    with pytest.raises(OSError, match="no network"):
        socket.create_connection(address, timeout=1)
    assert len(no_network) == 2
    no_network.clear()  # these were meant


def test_loopback_is_allowed() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname(), timeout=5) as client:
        assert client.getpeername() == server.getsockname()
