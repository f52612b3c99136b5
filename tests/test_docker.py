"""The Dockerfiles, which are not built by the tests: what can be seen from their text."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tiny_recognizer import ROOT

FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def steps(file: Path) -> list[tuple[str, str]]:
    """Instructions with their arguments, continued lines joined, remarks left out."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_dockerfile_keeps_the_usual_rules(file: Path) -> None:
    found = steps(file)
    names = [name for name, _ in found]
    assert names[0] == "FROM" and set(names) <= {
        "FROM",
        "RUN",
        "COPY",
        "ENV",
        "USER",
        "VOLUME",
        "WORKDIR",
        "ENTRYPOINT",
        "CMD",
    }
    image = found[0][1]
    version = tuple(int(part) for part in re.findall(r"\d+", image)[:2])
    assert ":" in image and not image.endswith(":latest") and version >= (3, 11)
    assert "USER" in names and names.index("USER") < names.index("ENTRYPOINT"), "not run as root"
    for name, text in found:
        if name == "COPY":
            assert (ROOT / text.split()[0]).exists()
        if name in ("ENTRYPOINT", "CMD"):
            assert text.startswith("["), "exec form, so that signals arrive"
        if name == "RUN" and "apt-get install" in text:
            assert (
                "--no-install-recommends" in text and "rm -rf /var/lib/apt/lists/*" in text and "apt-get update" in text
            )
        if name == "RUN":
            assert "pip install" not in text.replace("pip install --no-cache-dir", ""), "no cache in a layer"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_bounds_agree_with_the_project(file: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {Requirement(text).name: Requirement(text).specifier for text in project["dependencies"]}
    text = " ".join(arguments for name, arguments in steps(file) if name == "RUN")
    for requirement in map(Requirement, re.findall(r'"([a-z-]+>=[^"]+)"', text)):
        assert requirement.specifier == wanted[requirement.name.removesuffix("-gpu")], requirement
    for extra in re.search(r"/src\[([^\]]+)\]", text).group(1).split(","):  # type: ignore[union-attr]
        assert extra in project["optional-dependencies"]


def test_what_the_package_is_built_from_is_not_left_out() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for folder in ("cocoer", "configs", "test_imgs", "README.md", "LICENSE", "pyproject.toml"):
        assert folder not in ignored and f"{folder}/*" not in ignored
    assert ignored.index("checkpoints/*") < ignored.index("!checkpoints/demo")
