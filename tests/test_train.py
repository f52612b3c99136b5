"""A complete run through `train.py`: what it writes, what it learns, and how it ends when something is wrong."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import load_program
from training_world import make_world, read, train

from cocoer.config import LossConfig, load_config
from cocoer.data.batch import Batch, targets_of
from cocoer.data.loaders import build_loader
from cocoer.errors import MissingExtra
from cocoer.export.twin import open_twin
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_weights
from cocoer.model.losses import class_weights
from cocoer.model.objective import total_loss
from cocoer.report.runlog import read_log
from cocoer.runtime import Runtime, choose_device, start_runtime
from cocoer.training import step as te
from cocoer.training.learner import Learner, build_learner, build_optimizer, channels_last_can_train, training_mode
from cocoer.training.vocabulary_stage import alignment_loss

HERE = Runtime(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(world: Path) -> Path:
    assert train(world, "--note", "a demonstration", settings=["optim.epochs=3", "optim.lr=0.01"], drawn=True) == 0
    return world.parent / "run"


def test_a_run_leaves_everything_it_promises(run: Path, world: Path) -> None:
    names = {p.name for p in run.iterdir()}
    assert {
        "best.safetensors",
        "last.safetensors",
        "vocabulary.safetensors",
        "config.yaml",
        "environment.json",
    } <= names
    assert {"log.jsonl", "report.md", "tensorboard", "states"} <= names
    assert load_config(run / "config.yaml") == read(world, "optim.epochs=3", "optim.lr=0.01")
    facts = json.loads((run / "environment.json").read_text())
    assert {"command", "git_revision", "libraries", "device", "processes"} <= facts.keys()
    loaded = load_weights(run / "best.safetensors")
    metrics = loaded.metadata["metrics"]
    assert loaded.metadata["note"] == "a demonstration" and metrics["selected_on"] == "val" and metrics["seed"] == 3
    assert loaded.thresholds["split"] == "val" and loaded.thresholds["classes"]


def test_every_step_and_evaluation_has_its_line(run: Path) -> None:
    records = read_log(run / "log.jsonl")
    steps = [r for r in records if r["kind"] == "step"]
    assert [r["step"] for r in steps] == list(range(1, 16))  # 18 persons by 4: 5 steps an epoch
    wanted = {
        "loss", "loss_head", "loss_body", "loss_context", "loss_vocabulary", "loss_fused", "penalty", "delta_norm",
        "lambda_head", "lambda_body", "lambda_context", "excluded_first_head", "lr", "grad_norm", "persons_per_second",
        "memory_gib", "order",
    }  # fmt: skip
    for record in steps:
        assert wanted <= record.keys()
        assert sum(record[f"lambda_{m}"] for m in ("head", "body", "context")) == pytest.approx(1.0, abs=1e-5)
        assert sum(record[f"excluded_first_{m}"] for m in ("head", "body", "context")) == pytest.approx(1.0)
        beta = sum(0.2 * record[f"loss_{m}"] for m in ("head", "body", "context", "vocabulary", "fused"))
        assert record["loss"] == pytest.approx(beta + 0.1 * record["penalty"], rel=1e-5)
    evals = [r for r in records if r["kind"] == "eval"]
    assert [r["epoch"] for r in evals] == [1, 2, 3] and all(r["split"] == "val" for r in evals)
    best = load_weights(run / "best.safetensors").metadata["metrics"]
    assert best["mAP"] == max(r["mAP"] for r in evals)


def test_the_loss_falls(run: Path) -> None:
    steps = [r for r in read_log(run / "log.jsonl") if r["kind"] == "step"]
    # class weights follow each batch's labels, so the epochs are compared as wholes
    assert sum(r["loss"] for r in steps[-5:]) < sum(r["loss"] for r in steps[:5])


def test_the_report_shows_the_course_of_the_run(run: Path) -> None:
    text = (run / "report.md").read_text()
    for part in ("mAP", "selected on val", "seed 3", "config.yaml"):
        assert part in text
    images = [line.split("(")[1].split(")")[0] for line in text.splitlines() if line.startswith("![")]
    assert images and all((run / name).is_file() for name in images)


def test_stages_apart_give_the_run_of_both(
    world: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["optim.epochs=3", "optim.lr=0.01", f"run.dir={tmp_path}/run"]
    assert train(world, "--stage", "recognition", settings=settings) == 1
    assert "--stage vocabulary" in capsys.readouterr().err
    assert train(world, "--stage", "vocabulary", settings=settings) == 0
    assert not (tmp_path / "run/best.safetensors").exists()
    assert train(world, "--stage", "recognition", settings=settings) == 0
    assert load_program("scripts/compare_runs.py").main([str(run), str(tmp_path / "run")]) == 0


def test_a_training_leaves_the_twin_that_it_was_asked_for(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"run.dir={tmp_path}/run", "run.max_steps=1"]
    assert train(world, "--onnx", settings=settings) == 0
    twin = open_twin(tmp_path / "run/best.safetensors", "cpu", None, ["inference.backend=onnx"])
    assert twin is not None and twin.weights == tmp_path / "run/best.safetensors"
    assert f"{tmp_path}/run/best.onnx: their ONNX twin" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # said before the training, not after hours of it
    with pytest.raises(MissingExtra, match=r"pip install 'cocoer\[onnx\]'"):
        train(world, "--onnx", settings=[f"run.dir={tmp_path}/other"])
    assert not (tmp_path / "other").exists()


def test_a_twin_that_no_file_can_hold_is_refused_before_the_training(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(world, "--onnx", settings=[f"run.dir={tmp_path}/run", "model.vocabulary.enabled=false"]) == 1
    assert "model.vocabulary.enabled: false disables the competition" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit, match="2"):
        train(world, "--onnx", "--stage", "vocabulary")


def test_selection_on_test_is_said_in_every_result(world: Path, tmp_path: Path) -> None:
    assert (
        train(world, settings=[f"run.dir={tmp_path}/run", "run.max_steps=1", "data.select_split=test"], drawn=True) == 0
    )
    assert load_weights(tmp_path / "run/best.safetensors").metadata["metrics"]["selected_on"] == "test"
    assert "selected on test" in (tmp_path / "run/report.md").read_text()
    evals = [r for r in read_log(tmp_path / "run/log.jsonl") if r["kind"] == "eval"]
    assert all(r["split"] == "test" for r in evals)


def test_several_seeds_give_mean_and_deviation(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(world, settings=[f"run.dir={tmp_path}/run", "run.seeds=[0,1]", "run.max_steps=1"]) == 0
    facts = json.loads((tmp_path / "run/seeds.json").read_text())
    values = [facts["seeds"][s] for s in ("0", "1")]
    assert facts["mean"] == pytest.approx(sum(values) / 2)
    assert facts["deviation"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
    assert "over 2 seeds" in capsys.readouterr().err
    first, second = (load_weights(tmp_path / f"run/seed-{s}/last.safetensors").model for s in (0, 1))
    assert not torch.equal(first.fusion.layers[2].weight, second.fusion.layers[2].weight)


@pytest.mark.parametrize(
    "setting",
    ["model.vocabulary.enabled=false", "model.coordination.update=two", "model.competition.enabled=false",
     "model.attention.enabled=false", "model.backbone.frozen_norms=true", "optim.precision=bf16", "optim.channels_last=true",
     "loss.class_weights=static", "model.vocabulary.train_alignment=false", "vocabulary_stage.epochs=0"],
)  # fmt: skip
def test_options_and_ablations_train(world: Path, tmp_path: Path, setting: str) -> None:
    assert train(world, settings=[f"run.dir={tmp_path}/run", "run.max_steps=2", setting]) == 0
    record = read_log(tmp_path / "run/log.jsonl")[-1]
    assert math.isfinite([r for r in read_log(tmp_path / "run/log.jsonl") if r["kind"] == "step"][-1]["loss"])
    assert record["kind"] in ("eval", "image")


def test_the_published_code_s_model_trains(tmp_path: Path) -> None:
    settings = [
        "model.mode=release", "data.image_size=224", "model.backbone.widths=[4,4,4,4,8]", "model.tokens.patch=1",
        "model.coordination.update=release", "model.vocabulary.normalisation=imagenet", "optim.name=adamw",
        "run.max_steps=2",
    ]  # fmt: skip
    config = make_world(tmp_path, train=8, other=2)
    assert train(config, settings=settings) == 0
    step = [r for r in read_log(tmp_path / "run/log.jsonl") if r["kind"] == "step"][-1]
    assert "penalty" not in step and step["delta_norm"] > 0 and math.isfinite(step["loss"])


def test_single_label_data_are_selected_by_accuracy(tmp_path: Path) -> None:
    assert train(make_world(tmp_path, "caers"), settings=["run.max_steps=2"]) == 0
    metrics = load_weights(tmp_path / "run/best.safetensors").metadata["metrics"]
    assert 0 <= metrics["accuracy"] <= 1 and "mAP" not in metrics


# ---- one step -----------------------------------------------------------------------------------------------------


def learner(world: Path, *settings: str) -> Learner:
    config = read(world, *settings)
    torch.manual_seed(0)
    made = build_learner(config, build_model(config), HERE)
    training_mode(made.model, made.frozen_norms)
    return made


def batches(world: Path, size: int) -> list[Batch]:
    return list(build_loader(read(world).data, "train", size))  # type: ignore[arg-type]


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_accumulated_batches_are_one_big_batch(world: Path) -> None:
    """Class weights and means are over all persons of the step: with frozen norms the gradients agree to 1e-6."""
    results = []
    for size in (18, 6, 5):  # the last one ends in a smaller batch
        parts = batches(world, size)
        mine = learner(world, "model.backbone.frozen_norms=true")
        facts = te.step_facts(parts, False, HERE)
        assert facts.persons == 18 and not facts.stop
        terms = te.backward(mine, parts, facts, HERE)
        results.append((gradients(mine.model), terms))
    for grads, terms in results[1:]:
        assert grads.keys() == results[0][0].keys()
        for name, grad in grads.items():
            torch.testing.assert_close(grad, results[0][0][name], rtol=1e-5, atol=1e-6)
        for name, value in terms.items():
            torch.testing.assert_close(value, results[0][1][name], rtol=1e-5, atol=1e-6)


def test_the_level_losses_train_the_levels_and_the_frozen_tower_stays(world: Path) -> None:
    mine = learner(world)
    before = {name: value.clone() for name, value in mine.model.state_dict().items()}
    parts = batches(world, 6)[:1]
    te.train_step(mine, parts, te.step_facts(parts, False, HERE), 1e-2, HERE, "step 1")
    after = mine.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    for level in ("head", "body", "context"):
        assert any(name.startswith(f"heads.{level}.") for name in moved)
        assert any(name.startswith(f"backbones.{level}.") and name.endswith("weight") for name in moved)
    assert not any(name.startswith("vocabulary.tower.") or "text_embeddings" in name for name in moved)
    assert "vocabulary.alignment.weight" in moved
    assert not mine.model.vocabulary.tower.training
    trained = {name for name, p in mine.model.named_parameters() if p.requires_grad}
    assert trained <= moved | {name for name in trained if before[name].numel() == 0}


def test_the_total_is_the_weighted_sum_of_its_terms(world: Path) -> None:
    mine = learner(world)
    batch = batches(world, 6)[0]
    output = mine.model(batch.head, batch.body, batch.context, batch.head_xyxy, batch.body_xyxy)
    assert batch.targets is not None
    loss = LossConfig(beta_head=0.1, beta_body=0.3, beta_context=0.5, beta_vocabulary=0.7, beta_fused=1.1, alpha=2.0)
    weights = class_weights("dynamic", batch.targets)
    total, terms = total_loss(output, batch.targets, loss, multi_label=True, weights=weights)
    by_hand = torch.zeros(())
    for beta, logits in ((0.1, output.level_logits[:, 0]), (0.3, output.level_logits[:, 1]), (0.5, output.level_logits[:, 2]),
                         (0.7, output.vocabulary_logits), (1.1, output.logits)):  # fmt: skip
        entries = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.targets, reduction="none")
        by_hand = by_hand + beta * (entries * weights).sum(1).mean()
    by_hand = by_hand + 2.0 * output.competition.penalty("mean").mean()
    torch.testing.assert_close(total, by_hand)
    assert total.requires_grad and not any(value.requires_grad for value in terms.values())


def test_a_loss_that_is_no_number_stops_with_terms_and_persons(world: Path) -> None:
    mine = learner(world)
    with torch.no_grad():
        mine.model.heads["body"].prediction.bias[3] = torch.nan
    before = {name: value.clone() for name, value in mine.model.state_dict().items() if "running" not in name}
    parts = batches(world, 6)[:1]
    with pytest.raises(te.NonFiniteLoss) as caught:
        te.train_step(mine, parts, te.step_facts(parts, False, HERE), 1e-2, HERE, "step 7, epoch 2")
    text = str(caught.value)
    for part in (
        "step 7, epoch 2",
        "loss_body nan",
        "loss_head ",
        "train/000.png#0",
        "train/005.png#0",
        "--resume latest",
    ):
        assert part in text
    for name, value in mine.model.state_dict().items():
        if name in before and "num_batches" not in name:
            assert torch.equal(torch.nan_to_num(before[name]), torch.nan_to_num(value)), name


def test_clipping_bounds_the_gradient_and_reports_its_norm(world: Path) -> None:
    mine = learner(world, "optim.grad_clip=0.01")
    parts = batches(world, 6)[:1]
    values = te.train_step(mine, parts, te.step_facts(parts, False, HERE), 1e-3, HERE, "step 1")
    norm = torch.stack([g.norm() for g in gradients(mine.model).values()]).norm()
    assert values["grad_norm"] > 0.01 and float(norm) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_fused_optimizer_is_the_textbook_s(world: Path, name: str) -> None:
    optim = read(world, f"optim.name={name}", "optim.beta2=0.96", "optim.weight_decay=0.1", "optim.lr=0.01").optim
    rng = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(50, generator=rng))
    wanted = weight.detach().double()
    first, second = torch.zeros(50, dtype=torch.float64), torch.zeros(50, dtype=torch.float64)
    optimizer = build_optimizer(torch.nn.ParameterList([weight]), optim)
    assert optimizer.param_groups[0]["fused"]
    for step in range(1, 6):
        weight.grad = torch.randn(50, generator=rng)
        gradient = weight.grad.double()
        if name == "adam":
            gradient = gradient + 0.1 * wanted
        else:
            wanted = wanted * (1 - 0.01 * 0.1)
        first, second = 0.9 * first + 0.1 * gradient, 0.96 * second + 0.04 * gradient.square()
        wanted = wanted - 0.01 * (first / (1 - 0.9**step)) / ((second / (1 - 0.96**step)).sqrt() + 1e-8)
        optimizer.step()
    torch.testing.assert_close(weight.detach().double(), wanted, rtol=1e-5, atol=1e-6)


WIDE = "model.backbone.widths=[16, 16]"


def test_channels_last_lays_the_weights_out_and_gives_the_same_gradients(world: Path) -> None:
    results = []
    for on in (True, False):
        mine = learner(world, WIDE, f"optim.channels_last={str(on).lower()}")
        assert mine.channels_last == on
        weight = next(p for p in mine.model.backbones.parameters() if p.ndim == 4 and p.shape[1] > 1 < p.shape[2])
        assert weight.is_contiguous(memory_format=torch.channels_last) == on
        parts = batches(world, 6)[:1]
        terms = te.backward(mine, parts, te.step_facts(parts, False, HERE), HERE)
        results.append((gradients(mine.model), terms))
    for name, value in results[0][1].items():
        torch.testing.assert_close(value, results[1][1][name], rtol=1e-5, atol=1e-5)
    for name, grad in results[0][0].items():
        torch.testing.assert_close(grad, results[1][0][name], rtol=1e-3, atol=1e-4)


def test_a_layer_that_cannot_be_trained_channels_last_keeps_the_model_as_it_is(world: Path) -> None:
    narrow = learner(world)  # widths 4 and 8: oneDNN would write past its memory
    assert narrow.optim.channels_last and not narrow.channels_last
    assert channels_last_can_train(narrow.model, torch.device("meta"))
    narrow.model.requires_grad_(False)
    assert channels_last_can_train(narrow.model, HERE.device), "a frozen layer has no such gradient"


@pytest.mark.slow  # the compiler takes minutes
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own
def test_compiled_training_is_eager_training(world: Path) -> None:
    results = []
    for on in ("true", "false"):
        mine = learner(world, f"optim.compile={on}", "optim.lr=1e-4")
        losses = []
        for part in batches(world, 7):  # 7, 7 and 4 persons: another batch size is compiled too
            facts = te.step_facts([part], False, HERE)
            losses.append(te.train_step(mine, [part], facts, 1e-4, HERE, "step"))
        results.append((losses, gradients(mine.model)))
    for compiled, eager in zip(results[0][0], results[1][0], strict=True):
        assert compiled == pytest.approx(eager, rel=1e-3, abs=1e-5)
    for name, grad in results[0][1].items():
        torch.testing.assert_close(grad, results[1][1][name], rtol=1e-2, atol=1e-3)


def test_step_facts_know_persons_and_their_order(world: Path) -> None:
    parts = batches(world, 6)
    facts = te.step_facts(parts, False, HERE)
    targets = torch.cat([targets_of(b) for b in parts])
    assert torch.equal(facts.positives, targets.sum(0)) and facts.persons == 18
    assert te.step_facts(parts[::-1], True, HERE).order != facts.order and te.step_facts(parts, True, HERE).stop


# ---- vocabulary stage ---------------------------------------------------------------------------------------------


def test_the_alignment_loss_is_its_definition() -> None:
    rng = torch.Generator().manual_seed(0)
    aligned, text = (
        torch.randn(5, 8, generator=rng),
        torch.nn.functional.normalize(torch.randn(4, 8, generator=rng), dim=1),
    )
    targets = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0]]).float()
    wanted = 0.0
    for i in range(5):
        own = [1 - float(torch.cosine_similarity(aligned[i], text[j], dim=0)) for j in range(4) if targets[i, j]]
        wanted += sum(own) / len(own) if own else 0.0
    assert float(alignment_loss(aligned, text, targets)) == pytest.approx(wanted / 5, abs=1e-6)


def test_the_first_stage_brings_images_nearer_to_their_words(world: Path, tmp_path: Path) -> None:
    settings = [f"run.dir={tmp_path}/run", "vocabulary_stage.epochs=8", "vocabulary_stage.lr=0.01"]
    assert train(world, "--stage", "vocabulary", settings=settings) == 0
    records = [r for r in read_log(tmp_path / "run/log.jsonl") if r.get("stage") == "vocabulary"]
    assert len(records) == 8 and records[-1]["cosine"] > records[0]["cosine"] + 0.05


# ---- wrong usage --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "message"),
    [
        ([], ["optim.lrate=1"], 2, "did you mean 'lr'"),
        ([], ["data.index=/nowhere"], 1, "no such person index"),
        (["--device", "tpu9"], [], 1, "wanted auto, cpu, cuda"),
        ([], ["model.backbone.name=resnet18", "model.backbone.weights=imagenet"], 1, "no such file"),
        ([], ["optim.sync_batch_norm=true", "run.max_steps=1"], 0, ""),
    ],
)
def test_every_fault_is_one_line_and_a_code(
    world: Path, tmp_path: Path, arguments: list[str], settings: list[str], code: int, message: str, capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert train(world, *arguments, settings=[*settings, f"run.dir={tmp_path}/run"]) == code
    assert message in capsys.readouterr().err


def test_compiling_without_a_compiler_is_said(world: Path, tmp_path: Path, capsys: Any) -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        assert (
            train(world, settings=[f"run.dir={tmp_path}/run", "optim.compile=true", "vocabulary_stage.epochs=0"]) == 1
        )
    said = capsys.readouterr().err
    assert "torch.compile does not work here" in said and "It wants a C++ compiler (g++)" in said


def test_an_unknown_option_is_wrong_usage(world: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        train(world, "--resume", "latest", "--overwrite")
    assert caught.value.code == 2
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch sees no GPU"):
            choose_device("cuda:0")


def test_more_processes_than_gpus_are_told_how_many_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with (
        pytest.raises(ValueError, match=r"2 processes on this machine, but torch sees 1 GPU: .*--nproc-per-node 1"),
        start_runtime(),
    ):
        raise AssertionError("never reached")
