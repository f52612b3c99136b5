"""Ideas by name: what a plugin adds is found by configs, training, evaluation, tables and the conflict benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_world import make_world, read

from cocoer import ideas
from cocoer.cli.main import main
from cocoer.config import change_config
from cocoer.errors import ConfigError, PluginError
from cocoer.model.build import build_model
from cocoer.model.losses import loss_per_person
from cocoer.model.objective import build_person_loss, total_loss
from cocoer.model.vocabulary import PseudoLabelRule
from cocoer.studies.conflict.rules import updates
from cocoer.training.launch import TrainingRun

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "lowest_confidence.py"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test adds its own ideas; none of them outlasts it."""
    monkeypatch.setattr(ideas, "_ADDED", {kind: dict(found) for kind, found in ideas._ADDED.items()})
    monkeypatch.setattr(ideas, "_LOADED", dict(ideas._LOADED))
    yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), train=8, other=5)


def inputs(count: int = 4) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    crops = [torch.randn(count, 3, 32, 32, generator=rng) for _ in range(3)]
    return (*crops, *[torch.tensor([[2.0, 2.0, 20.0, 20.0]] * count)] * 2)


def test_the_example_s_least_confident_level_leaves_first(world: Path) -> None:
    ideas.load_plugin(str(EXAMPLE))
    config = change_config(read(world), ["model.coordination.update=lowest_confidence"])
    torch.manual_seed(1)
    model = build_model(config).eval()
    with torch.no_grad():
        output = model(*inputs())
    confidence = output.level_logits.sigmoid().amax(-1)
    assert output.competition is not None
    order = confidence.gather(1, output.competition.exclusion)
    assert (order[:, :-1] <= order[:, 1:]).all(), "least sure first"
    plain = build_model(read(world)).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        other = plain(*inputs())
    assert torch.equal(other.level_logits, output.level_logits) and not torch.equal(other.logits, output.logits)


def test_the_example_is_as_short_as_promised() -> None:
    code = [
        line for line in EXAMPLE.read_text().splitlines() if line.strip() and not line.lstrip().startswith(("#", '"""'))
    ]
    assert len(code) <= 20


def test_a_fusion_a_pseudo_label_and_a_loss_by_name(world: Path) -> None:
    @ideas.register("fusion", "one_linear")
    def one_linear(inputs: int, features: int, classes: int) -> nn.Module:
        return nn.Linear(inputs, classes)

    @ideas.register("pseudo_label", "everything")
    def everything(config: Any) -> PseudoLabelRule:
        return PseudoLabelRule("vocabulary", config.multi_label, 0.0)

    @ideas.register("loss", "twice")
    def twice(config: Any) -> Any:
        return lambda logits, targets, weights: (
            2 * loss_per_person(logits, targets, weights, multi_label=config.multi_label)
        )

    changes = [
        "model.fusion=one_linear",
        "model.competition.pseudo_label=everything",
        "loss.name=twice",
        "loss.alpha=0",
    ]
    config = change_config(read(world), changes)
    model = build_model(config).eval()
    output = model(*inputs())
    assert isinstance(model.fusion, nn.Linear)
    assert output.pseudo_label is not None and bool((output.pseudo_label == 1).all())
    targets = torch.zeros(4, 26)
    targets[:, :3] = 1
    plain, _ = total_loss(output, targets, config.loss, multi_label=True)
    doubled, _ = total_loss(output, targets, config.loss, multi_label=True, per_person=build_person_loss(config))
    torch.testing.assert_close(doubled, 2 * plain)
    assert build_person_loss(read(world)) is None


def test_a_name_that_nobody_added_is_refused_with_the_way_to_add_it(world: Path) -> None:
    with pytest.raises(ConfigError, match=r"update: wanted one of .*'release', got 'lowest_confidence'.*--plugin"):
        change_config(read(world), ["model.coordination.update=lowest_confidence"])
    with pytest.raises(ConfigError, match="did you mean 'release'"):
        change_config(read(world), ["model.coordination.update=relase"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "line 1: ZeroDivisionError"),
        ("from cocoer.ideas import register\nregister('workspaces', 'x')", "did you mean 'workspace'"),
        ("from cocoer.ideas import register\nregister('workspace', 'two')", "wanted a new name"),
        ("from cocoer.ideas import register\nregister('loss', 'a b')", "wanted a new name"),
        ("raise RuntimeError('no licence')", "no licence"),
        ("import sys\nsys.exit(7)", "line 2: SystemExit: 7"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_fails_is_named(
    code: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(PluginError, match=message):
        ideas.load_plugin(str(tmp_path / "mine.py"))
    assert main(["describe", "--plugin", str(tmp_path / "mine.py")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nowhere.py", "not_installed"])
def test_a_plugin_that_is_not_there(name: str) -> None:
    with pytest.raises(PluginError, match=r"no such file|installed are"):
        ideas.load_plugin(name)


def test_an_entry_point_of_an_installed_package(tmp_path: Path) -> None:
    (tmp_path / "my_ideas.py").write_text(EXAMPLE.read_text())
    info = tmp_path / "my_ideas-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-ideas\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cocoer.plugins]\nmine = my_ideas\n")
    code = (
        "from cocoer import ideas; before = ideas.known('workspace'); ideas.load_plugin('mine');"
        "print('lowest_confidence' in before, 'lowest_confidence' in ideas.known('workspace'), ideas.plugin_words())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False True ['--plugin', 'mine']", (
        "an installed plugin is loaded only where it is named"
    )


def test_weights_of_a_plugin_s_rule_never_load_it(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = ["--plugin", str(EXAMPLE)]
    words = ["--config", str(world), "--device", "cpu", "--set", f"run.dir={tmp_path}/run", "run.max_steps=1"]
    assert main(["train", *rule, *words, "model.coordination.update=lowest_confidence"]) == 0
    weights = str(tmp_path / "run/best.safetensors")
    evaluate = [
        "evaluate",
        "--checkpoint",
        weights,
        "--split",
        "test",
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "e"),
    ]
    assert main([*evaluate, *rule]) == 0
    ideas._ADDED["workspace"].clear()
    capsys.readouterr()
    assert main(evaluate) in (1, 2)
    assert "a rule of your own is loaded with --plugin FILE" in capsys.readouterr().err


def test_the_tables_and_the_conflict_benchmark_take_it_by_name() -> None:
    assert "lowest_confidence" not in updates()
    ideas.load_plugin(str(EXAMPLE))
    assert updates()[-1] == "lowest_confidence"


def test_trainings_in_other_processes_get_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cocoer.training import launch

    started: list[list[str]] = []
    monkeypatch.setattr(launch.subprocess, "Popen", lambda command, **_: started.append(command))
    ideas.load_plugin(str(EXAMPLE))
    config = make_world(tmp_path, train=4, other=4)
    launch._started(TrainingRun(config, (f"run.dir={tmp_path}/r",)), "cpu", 1)
    assert started[0][-2:] == ["--plugin", str(EXAMPLE)]


def test_a_table_row_of_a_plugin_s_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path, train=8, other=6)
    words = ["--config", str(config), "--device", "cpu", "--set", "run.max_steps=1"]
    assert main(["train", *words]) == 0
    (tmp_path / "root/index").symlink_to(tmp_path / "index")
    tables = [
        "tables", str(tmp_path / "root"), str(tmp_path / "run/best.safetensors"), "--dataset", "emotic", "--resamples", "20",
        "--output", str(tmp_path / "tables"), "--device", "cpu", "--plugin", str(EXAMPLE),
    ]  # fmt: skip
    assert main(tables) == 0
    rows = (
        json.loads((tmp_path / "tables/tables.json").read_text())
        if (tmp_path / "tables/tables.json").is_file()
        else None
    )
    text = "".join(p.read_text() for p in (tmp_path / "tables").glob("*.md"))
    assert "plugin rule lowest_confidence" in text, (rows, text[:2000])
