"""The exported file against the model: every answer, any number of persons, both modes, both formats; wrong files are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from programs import load_program
from tiny_recognizer import ROOT, tiny_checkpoint, tiny_config

from cocoer.benchmark.variants import description_of
from cocoer.config import Config, change_config, config_to_dict
from cocoer.description import METADATA_KEY, SKIPPED, VERIFIED
from cocoer.errors import CocoerError, ExportError
from cocoer.export.onnx_export import TorchFile, example_inputs, export_model, largest_difference
from cocoer.export.onnx_file import OUTPUTS, SEAL_KEY, OnnxFile, sealed
from cocoer.export.onnx_model import load_exported
from cocoer.inference.recognizer import Recognizer
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_weights
from cocoer.model.cocoer import CocoER

BOXES = {"persons": [{"body": [10, 5, 60, 90], "head": [25, 8, 45, 30]}, {"body": [50, 0, 118, 88], "id": 7}]}
RELEASE = ("model.mode=release", "model.coordination.update=release", "data.image_size=224")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded weights in paper mode; CAER-S, so that the single-label path is exported once too."""
    return tiny_checkpoint(tmp_path_factory.mktemp("weights"), "caers")


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    """The same weights as ONNX, made by the command."""
    file = checkpoint.parent / "tiny.onnx"
    program = load_program("export")
    assert program.main(["--checkpoint", str(checkpoint), "--format", "onnx", "--output", str(file)]) == 0
    return file


def published(folder: Path) -> tuple[CocoER, Config]:
    """A tiny release-mode model with seeded weights."""
    config = change_config(tiny_config(folder), RELEASE)
    torch.manual_seed(1)
    return build_model(config, pretrained=False).eval(), config


def test_onnx_paper_mode_answers_as_the_model_does_for_any_number_of_persons(checkpoint: Path, exported: Path) -> None:
    loaded = load_weights(checkpoint)
    file = OnnxFile(exported)
    orders = set()
    for persons in (1, 3, 5, 8):
        inputs = example_inputs(loaded.config, persons, seed=100 + persons)
        with torch.no_grad():
            wanted = loaded.model(*inputs)  # unfolded, other inputs than those that the export checked itself with
        got = file(*inputs)
        assert set(got) == set(OUTPUTS)
        assert largest_difference(got["probabilities"], wanted.logits.softmax(-1)) <= 1e-4
        assert largest_difference(got["level_probabilities"], wanted.level_logits.softmax(-1)) <= 1e-4
        assert largest_difference(got["losses"], wanted.competition.losses) <= 1e-4
        assert largest_difference(got["lambda"], wanted.competition.weights) <= 1e-4
        assert largest_difference(got["delta_norm"], wanted.competition.delta_sq_norm.sqrt()) <= 1e-4
        assert torch.equal(got["exclusion"], wanted.competition.exclusion)
        orders |= {tuple(row) for row in got["exclusion"].tolist()}
    assert len(orders) > 1, "all persons excluded the same levels, so the order could be a constant"


def test_onnx_release_mode_answers_as_the_model_does(tmp_path: Path) -> None:
    model, config = published(tmp_path)
    metadata = {"format_version": 1, "config": config_to_dict(config), "classes": list(config.classes)}
    worst = export_model(model, config, metadata, tmp_path / "release.onnx")
    assert 0 <= worst <= 1e-4
    run, stored, _ = load_exported(tmp_path / "release.onnx")
    assert stored == config
    for persons in (1, 5):
        inputs = example_inputs(config, persons, seed=persons + 50)
        with torch.no_grad():
            wanted, got = model(*inputs), run(*inputs)
        assert largest_difference(got.logits, wanted.logits) <= 1e-4
        assert largest_difference(got.competition.distance, wanted.competition.distance) <= 1e-4
        assert torch.equal(got.competition.exclusion, wanted.competition.exclusion)
    moved = (*inputs[:3], inputs[3] * 0.5, inputs[4])
    assert not torch.equal(run(*moved).level_logits, got.level_logits), "release mode reads the boxes"


def test_torch_program_answers_as_the_model_does(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_weights(checkpoint)
    worst = export_model(loaded.model, loaded.config, loaded.metadata, tmp_path / "tiny.pt2", "torch")
    assert worst <= 1e-4
    file = TorchFile(tmp_path / "tiny.pt2")
    assert file.metadata["classes"] == list(loaded.config.classes)
    inputs = example_inputs(loaded.config, 7, seed=9)
    with torch.no_grad():
        wanted = loaded.model(*inputs)
    assert largest_difference(file(*inputs)["logits"], wanted.logits) <= 1e-4


def test_the_file_carries_names_thresholds_and_preprocess(checkpoint: Path, exported: Path) -> None:
    stored, metadata = load_weights(checkpoint), OnnxFile(exported).metadata
    assert metadata["classes"] == list(stored.config.classes)
    assert metadata["config"] == config_to_dict(stored.config)
    assert metadata["preprocess"] == stored.metadata["preprocess"]
    assert metadata["thresholds"] == stored.metadata["thresholds"]
    assert metadata["exported_from"] == "tiny.safetensors"


def test_inference_with_the_file_writes_what_it_writes_with_the_weights(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (96, 120, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "boxes.json").write_text(json.dumps(BOXES))
    program = load_program("predict")
    trees: list[dict[str, Any]] = []
    for weights in (checkpoint, exported):
        out = tmp_path / weights.suffix[1:]
        common = ["--boxes", str(tmp_path / "boxes.json"), "--format", "json", "--device", "cpu", "--quiet"]
        assert (
            program.main(
                ["--input", str(tmp_path / "a.png"), "--checkpoint", str(weights), "--output", str(out), *common]
            )
            == 0
        )
        trees.append(json.loads((out / "a.json").read_text()))
    first, second = trees
    assert second["model"]["weights"] == "tiny.onnx" and len(first["persons"]) == len(second["persons"]) == 2
    for a, b in zip(first["persons"], second["persons"], strict=True):
        assert [a[key] for key in ("pred", "emo_process", "pseudo_label", "boxes", "preprocess")] == [
            b[key] for key in ("pred", "emo_process", "pseudo_label", "boxes", "preprocess")
        ]
        for source, by_name in a["probabilities"].items():
            assert b["probabilities"][source] == pytest.approx(by_name, abs=1e-4)


def test_thresholds_of_an_exported_file_can_be_set_and_its_model_cannot(exported: Path) -> None:
    recognizer = Recognizer.from_checkpoint(exported, overrides=["inference.thresholds.fused=0.9"])
    assert recognizer.rule.fused == 0.9 and str(recognizer.device) == "cpu"
    with pytest.raises(ExportError, match="model are fixed"):
        Recognizer.from_checkpoint(exported, overrides=["model.coordination.step=0.5"])
    with pytest.raises(ExportError, match="cannot run it: .*head"):
        recognizer.model(*example_inputs(change_config(recognizer.config, ["data.image_size=64"]), 2))


def test_files_that_are_none_of_ours_are_refused(tmp_path: Path, exported: Path) -> None:
    with pytest.raises(ExportError, match="no such file"):
        OnnxFile(tmp_path / "missing.onnx")
    (tmp_path / "half.onnx").write_bytes(exported.read_bytes()[:5000])
    with pytest.raises(ExportError, match="no checksum at its end"):
        OnnxFile(tmp_path / "half.onnx")
    with pytest.raises(ExportError, match="cannot read it"):
        OnnxFile(tmp_path / "half.onnx", verify=False)
    foreign = onnx.load(exported)
    del foreign.metadata_props[:]
    (tmp_path / "foreign.onnx").write_bytes(sealed(foreign.SerializeToString()))
    with pytest.raises(ExportError, match="without a description"):
        OnnxFile(tmp_path / "foreign.onnx")
    (tmp_path / "noise.pt2").write_bytes(b"noise")
    with pytest.raises(ExportError, match="cannot read it"):
        TorchFile(tmp_path / "noise.pt2")


def resealed(exported: Path, out: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """The file changed, with the right checksum: a forger writes what he likes."""
    model = onnx.load(exported)
    kept = [entry for entry in model.metadata_props if entry.key != SEAL_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    change(model)
    out.write_bytes(sealed(model.SerializeToString()))
    return out


def test_the_seal_is_an_entry_of_the_metadata_and_any_changed_byte_is_noticed(tmp_path: Path, exported: Path) -> None:
    content = exported.read_bytes()
    found = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    assert content.endswith(found[SEAL_KEY].encode()) and OnnxFile(exported).checksums == VERIFIED
    assert OnnxFile(resealed(exported, tmp_path / "same.onnx", lambda model: None)).checksums == VERIFIED
    rng = np.random.default_rng(0)
    for place in [0, len(content) - 1, *rng.integers(0, len(content), 40)]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "m.onnx").write_bytes(damaged)
        with pytest.raises(ExportError, match="checksum"):
            OnnxFile(tmp_path / "m.onnx")
    (tmp_path / "longer.onnx").write_bytes(content + b"\0")
    with pytest.raises(ExportError, match="no checksum at its end"):
        OnnxFile(tmp_path / "longer.onnx")


def described_as(change: Callable[[dict[str, Any]], object]) -> Callable[[onnx.ModelProto], None]:
    def apply(model: onnx.ModelProto) -> None:
        (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
        about = json.loads(entry.value)
        change(about)
        entry.value = json.dumps(about)

    return apply


def raw_description(text: str) -> Callable[[onnx.ModelProto], None]:
    def apply(model: onnx.ModelProto) -> None:
        (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
        entry.value = text

    return apply


def outside(model: onnx.ModelProto) -> None:
    """The largest tensor said to lie in another file."""
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def not_finite(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.raw_data) > 64:
            tensor.raw_data = np.full(len(tensor.raw_data) // 4, np.nan, np.float32).tobytes()


FORGED_ONNX: dict[str, Callable[[onnx.ModelProto], object]] = {
    "a threshold that is NaN": described_as(lambda a: a["thresholds"].update(classes={"Anger": float("nan")})),
    "no config": described_as(lambda a: a.pop("config")),
    "classes that are numbers": described_as(lambda a: a.update(classes=[1])),
    "a description that is a list": raw_description("[]"),
    "a description that is no JSON": raw_description("{"),
    "a description of lists in lists": raw_description("[" * 200_000),
    "another output": lambda m: setattr(m.graph.output[0], "name", "other"),
    "no outputs": lambda m: m.graph.ClearField("output"),
    "another input": lambda m: setattr(m.graph.input[0], "name", "other"),
    "an unknown operator": lambda m: setattr(m.graph.node[0], "op_type", "Shell"),
    "a custom domain": lambda m: setattr(m.graph.node[0], "domain", "evil.ops"),
    "no graph": lambda m: m.ClearField("graph"),
    "weights in another file": outside,
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGED_ONNX)
def test_a_forged_onnx_file_is_one_error(
    tmp_path: Path, exported: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(2**24))
    monkeypatch.chdir(tmp_path)
    forged = resealed(exported, tmp_path / "m.onnx", FORGED_ONNX[kind])
    with pytest.raises(CocoerError) as caught:
        Recognizer.from_checkpoint(forged)
    assert "m.onnx" in str(caught.value) and "\n" not in str(caught.value)


def test_an_onnx_file_that_answers_nan_is_an_error_and_no_answer(tmp_path: Path, exported: Path) -> None:
    recognizer = Recognizer.from_checkpoint(resealed(exported, tmp_path / "m.onnx", not_finite))
    boxes = [{"body": [4, 4, 40, 60], "head": [10, 6, 24, 20]}]
    with pytest.raises(ExportError, match="answers with NaN or infinity"):
        recognizer(np.zeros((64, 48, 3), np.uint8), boxes)


def test_a_result_says_that_its_weights_were_not_verified(tmp_path: Path, exported: Path, checkpoint: Path) -> None:
    assert Recognizer.from_checkpoint(exported).about["checksums"] == VERIFIED
    assert Recognizer.from_checkpoint(exported, verify=False).about["checksums"] == SKIPPED
    assert Recognizer.from_checkpoint(checkpoint, "cpu").about["checksums"] == VERIFIED
    assert Recognizer.from_checkpoint(checkpoint, "cpu", verify=False).about["checksums"] == SKIPPED


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    for change, words in (
        ("model.level_head.mapping=vit", "by autograd"),
        ("model.vocabulary.enabled=false", "disables the competition"),
    ):
        changed = change_config(config, [change])
        with pytest.raises(ExportError, match=words):
            export_model(build_model(changed, pretrained=False).eval(), changed, {}, tmp_path / "m.onnx")
    model = build_model(config, pretrained=False).eval()
    with pytest.raises(ExportError, match="wanted one of onnx, torch"):
        export_model(model, config, {}, tmp_path / "m.onnx", "coreml")
    assert not (tmp_path / "m.onnx").exists()


def test_a_file_that_disagrees_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path)
    model = build_model(config, pretrained=False).eval()
    monkeypatch.setattr("cocoer.export.onnx_export.TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="differs by"):
        export_model(model, config, {}, tmp_path / "m.pt2", "torch")
    assert not list(tmp_path.glob("*m.pt2*"))


def test_wrong_names_leave_the_command_with_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = load_program("export")
    with pytest.raises(SystemExit) as left:
        program.main(["--checkpoint", "x", "--format", "onnx", "--output", "model.pt2"])
    assert left.value.code == 2 and ".onnx" in capsys.readouterr().err
    assert program.main(["--checkpoint", str(tmp_path / "no.safetensors"), "--output", str(tmp_path / "m.onnx")]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("gap", [0.0, 2e-4, float("nan")])
def test_difference_is_absolute_below_one_and_relative_above(gap: float) -> None:
    small, large = torch.tensor([0.5, -0.2]), torch.tensor([1000.0, -0.2])
    assert largest_difference(small + gap, small) == pytest.approx(gap, abs=1e-6, nan_ok=True)
    assert largest_difference(large * (1 + gap), large) == pytest.approx(gap, abs=1e-6, nan_ok=True)
    with pytest.raises(ExportError, match="shape"):
        largest_difference(small, small[:1])


def test_the_exported_demonstration_answers_the_shipped_images_as_its_weights_do(tmp_path: Path) -> None:
    """Images that the export never saw, through both commands as a user types them."""
    file = tmp_path / "demo.onnx"
    weights = ROOT / "checkpoints" / "demo" / "demo_emotic.safetensors"
    export = load_program("export").main
    assert export(["--checkpoint", str(weights), "--format", "onnx", "--output", str(file)]) == 0
    program, rows = load_program("predict"), []
    for checkpoint in (weights, file):
        out = tmp_path / checkpoint.suffix[1:]
        arguments = ["--input", str(ROOT / "test_imgs"), "--checkpoint", str(checkpoint), "--output", str(out)]
        assert program.main([*arguments, "--format", "json", "--device", "cpu", "--quiet"]) == 0
        rows.append([json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()])
    assert len(rows[0]) == len(rows[1]) > 4
    persons = [[person for row in table for person in row["persons"]] for table in rows]
    assert len(persons[0]) == len(persons[1]) > 8
    for torch_said, onnx_said in zip(*persons, strict=True):
        for source, by_name in torch_said["probabilities"].items():
            assert onnx_said["probabilities"][source] == pytest.approx(by_name, abs=1e-4)
        assert onnx_said["losses"] == pytest.approx(torch_said["losses"], abs=1e-4)
        assert onnx_said["emo_process"] == torch_said["emo_process"]


@pytest.mark.parametrize(("persons", "by", "accepted"), [(1, 0.01, True), (1, 0.2, False), (5, 0.01, False)])
def test_rounding_may_move_single_persons_through_a_closed_gate_and_never_most(
    persons: int, by: float, accepted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Moved(OnnxFile):
        def __call__(self, *inputs: Any) -> dict[str, Any]:
            found = super().__call__(*inputs)
            found["logits"][:persons] += by  # of the batches of 1, 2 and 5
            return found

    monkeypatch.setattr("cocoer.export.onnx_export.OnnxFile", Moved)
    config, out = tiny_config(tmp_path), tmp_path / "a.onnx"
    model = build_model(config, pretrained=False).eval()
    if accepted:
        assert export_model(model, config, description_of(config), out) < 1e-4
        return
    with pytest.raises(ExportError, match=r"logits differs by .* from PyTorch .* no file was written"):
        export_model(model, config, description_of(config), out)
    assert not out.exists()
