"""What an extra brings may be missing: one line says which package and how to install it, wherever it is first needed."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoer.config import Config
from cocoer.errors import AnnotationError, MissingExtra

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def twin() -> None:
    from cocoer.export.onnx_export import check_twin_can_be_written

    check_twin_can_be_written(Config())


def int8() -> None:
    from cocoer.export.quantize import quantize

    quantize("absent.onnx", "out.onnx", [], "nobody")


def saliency() -> None:
    from cocoer.inference.explain import grad_cam

    absent: Any = None
    grad_cam(absent, absent, absent, 0, "before")


def frame() -> None:
    from cocoer.report.notebook import people_frame

    people_frame([])


def parquet_out() -> None:
    from cocoer.report.exchange import write_parquet

    write_parquet(iter([]), [], Path("absent.parquet"))


def parquet_in() -> None:
    from cocoer.data.prepare.table.parquet import read_parquet

    unread: Any = None
    list(read_parquet(Path("absent.parquet"), unread))


def archive() -> None:
    from cocoer.report.flatten import flatten

    flatten("absent", Path("absent.csv"))


def ids() -> None:
    from cocoer.inference.tracking import FrameTracker

    unread: Any = None
    FrameTracker(25.0, unread)


def film() -> None:
    from cocoer.report.film import FilmWriter

    FilmWriter(Path("absent.mp4"), 25.0)


def page() -> None:
    from cocoer.cli.app import prepare_gradio

    prepare_gradio("absent")


def questions() -> None:
    from cocoer.vlm.client import ChatClient

    ChatClient("http://localhost:1/v1", "absent", "absent")


CASES: list[tuple[str, str, Callable[[], None]]] = [
    ("onnx", "onnxscript", twin), ("onnx", "onnx", int8), ("explain", "captum", saliency), ("table", "pandas", frame),
    ("table", "pyarrow", parquet_out), ("table", "pyarrow", parquet_in), ("table", "pyarrow", archive),
    ("track", "trackers", ids), ("track", "av", film),
    ("app", "gradio", page), ("vlm", "openai", questions),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "package", "use"), CASES, ids=[f"{use.__name__}" for _, _, use in CASES])
def test_a_missing_extra_is_one_line_with_its_command(
    extra: str, package: str, use: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_OFFLINE", "GRADIO_TEMP_DIR"):  # put back afterwards
        monkeypatch.setenv(name, "")
    for name in [name for name in sys.modules if name.partition(".")[0] == package or name.startswith("cocoer.scale")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises((MissingExtra, AnnotationError)) as said:
        use()
    line = str(said.value)
    assert f"pip install 'cocoer[{extra}]'" in line and package in line and "\n" not in line
    assert extra in EXTRAS


def test_every_extra_that_a_message_names_is_one() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "cocoer").rglob("*.py"))
    named = set(re.findall(r"MissingExtra\(\"(\w+)\"", text))
    named |= {extra for group in re.findall(r"cocoer\[([\w,]+)\]'", text) for extra in group.split(",")}
    assert named and named <= EXTRAS.keys()
