"""8-bit convolutions: only they change, the answers stay near, and `evaluate.py` says what it costs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from programs import load_program
from tiny_recognizer import ROOT

from cocoer.config import load_config
from cocoer.errors import ExportError
from cocoer.export.onnx_model import load_exported
from cocoer.export.quantize import convolution_nodes, quantize, spread_persons

WEIGHTS = ROOT / "checkpoints" / "demo" / "demo_emotic.safetensors"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic scenes: 24 persons to calibrate with, 40 to evaluate."""
    folder = tmp_path_factory.mktemp("world")
    counts = ["--train", "24", "--val", "4", "--test", "40"]
    assert load_program("prepare_demo").main(["--output", str(folder), "--dataset", "emotic", *counts]) == 0
    return folder


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exact") / "demo.onnx"
    assert load_program("export").main(["--checkpoint", str(WEIGHTS), "--output", str(file)]) == 0
    return file


@pytest.fixture(scope="module")
def int8(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("int8") / "demo_int8.onnx"
    given = ["--int8", str(world / "index"), "--root", str(world), "--persons", "16", "--output", str(file)]
    assert load_program("export").main(["--checkpoint", str(WEIGHTS), *given]) == 0
    return file


def test_only_what_lies_between_crops_and_last_convolution_is_quantized(exact: Path, int8: Path) -> None:
    before, after = onnx.load(exact), onnx.load(int8)
    kinds, left = (Counter(node.op_type for node in model.graph.node) for model in (before, after))
    chosen = set(convolution_nodes(before))
    types = Counter(node.op_type for node in before.graph.node if node.name in chosen)
    assert types["Conv"] == kinds["Conv"] > 40 and types["Relu"] and 0 < types["Add"] < kinds["Add"]
    assert set(types) <= {"Conv", "Relu", "Add", "MaxPool", "AveragePool"}
    for kept in ("MatMul", "Gemm", "LayerNormalization", "Softmax", "TopK", "Where", "Gather"):
        assert left[kept] == kinds[kept], f"{kept} belongs to attention, heads or competition"
    makers = {out: node.op_type for node in after.graph.node for out in node.output}
    convolutions = [node for node in after.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert {makers[name] for node in convolutions for name in node.input[:2]} == {"DequantizeLinear"}


def test_its_answers_are_near_and_evaluation_says_how_near(
    world: Path, exact: Path, int8: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = load_program("evaluate").main
    places = ["--root", str(world), "--index", str(world / "index"), "--resamples", "20", "--device", "cpu"]
    folders = {name: tmp_path / name for name in ("torch", "exact", "int8")}
    for name, file in (("torch", WEIGHTS), ("exact", exact), ("int8", int8)):
        against = ["--against", str(folders["torch"] / "scores.npz")] if name != "torch" else []
        assert main(["--checkpoint", str(file), *places, "--output", str(folders[name]), *against]) == 0
    scores = {name: np.load(folder / "scores.npz")["pred"] for name, folder in folders.items()}
    np.testing.assert_allclose(scores["exact"], scores["torch"], atol=1e-4)
    gap = np.abs(scores["int8"] - scores["torch"])
    assert 1e-4 < gap.mean() < 0.02, "8 bits change the answers, and little"
    cost = json.loads((folders["int8"] / "evaluation.json").read_text())["against"]["difference"]["value"]
    assert abs(cost) < 0.03
    assert "difference to" in capsys.readouterr().out


def test_the_file_says_what_it_is_and_still_brings_its_config(int8: Path) -> None:
    _, config, metadata = load_exported(int8)
    assert metadata["quantized"] == {
        "type": "int8 convolutions",
        "calibrated_on": "16 persons of the training split",
    }
    assert metadata["exported_from"] == WEIGHTS.name and config.data.image_size > 0
    program = load_program("evaluate")
    for fixed in ("model.attention.blocks=7", "data.dataset=caers"):
        assert program.main(["--checkpoint", str(int8), "--set", fixed]) == 2


def test_calibration_persons_are_spread_over_the_split(world: Path) -> None:
    config = load_config(ROOT / "configs" / "demo_emotic.yaml", [f"data.root={world}", f"data.index={world / 'index'}"])

    def chosen(persons: int) -> list[str]:
        return [key for batch in spread_persons(config.data, "train", persons, batch_size=5) for key in batch.keys]

    every = chosen(1000)
    assert len(every) == len(set(every)) == 24
    for persons in (2, 5, 16, 23):
        positions = [every.index(key) for key in chosen(persons)]
        assert len(positions) == persons and positions == sorted(positions)
        assert positions[0] == 0 and positions[-1] == 23, "the first and the last, and the others between them"


def test_what_cannot_be_quantized_is_an_error(
    world: Path, exact: Path, int8: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match="is quantized already"):
        quantize(int8, tmp_path / "twice.onnx", [], "nobody")
    with pytest.raises(ExportError, match="wanted persons to calibrate with"):
        quantize(exact, tmp_path / "none.onnx", [], "nobody")
    main = load_program("export").main
    for wrong in (["--format", "torch", "--output", "m.pt2"], ["--persons", "0", "--output", "m.onnx"]):
        with pytest.raises(SystemExit) as left:
            main(["--checkpoint", str(WEIGHTS), "--int8", str(world / "index"), *wrong])
        assert left.value.code == 2 and "--int8 wants" in capsys.readouterr().err
    missing = ["--int8", str(tmp_path / "no_index"), "--output", str(tmp_path / "m.onnx")]
    assert main(["--checkpoint", str(WEIGHTS), *missing]) == 2
    assert "no_index" in capsys.readouterr().err and not list(tmp_path.glob("*.onnx"))
