"""Killed at any moment and resumed = uninterrupted, bit for bit; a resume that would give another model is refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import load_program
from training_world import ROOT, make_world, read, train

from cocoer.errors import CheckpointError, ConfigError
from cocoer.runtime import random_state, restore_random_state, seed_everything
from cocoer.training import recognition_stage as recognition
from cocoer.training.ema import WeightAverage
from cocoer.training.recognition_stage import check_batch
from cocoer.training.resume import MAY_DIFFER, config_differences, find_start
from cocoer.training.signals import EXIT_STOPPED
from cocoer.training.state import find_latest, read_training


class Killed(BaseException):
    """Stands for a process that is no more: nothing of ours catches it, nothing is saved or closed on its way."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


def identical(first: Path, second: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    code = load_program("scripts/compare_runs.py").main([str(first), str(second)])
    last = capsys.readouterr().out.splitlines()[-1]
    assert (code == 0) == (last == "identical")
    return code == 0


def die_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends in the middle of step `step`: after its gradients, before its record."""
    inner = recognition.train_step
    done = {"steps": 0}

    def dying(*args: Any) -> dict[str, float]:
        values = inner(*args)
        done["steps"] += 1
        if done["steps"] == step:
            raise Killed
        return values

    monkeypatch.setattr(recognition, "train_step", dying)


VARIANTS = {
    "plain": [],
    "two workers": ["data.workers=2"],
    "accumulation and average": ["optim.accumulate=2", "optim.ema=0.9"],
    "channels_last": ["model.backbone.widths=[16, 16]"],  # narrower backbones are not laid out so
    "warmup, adamw, clipping": ["optim.warmup_steps=4", "optim.name=adamw", "optim.grad_clip=0.5"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_in_mid_epoch_and_resumed_is_the_uninterrupted_run(
    config: Path, tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*VARIANTS[variant], "run.checkpoint_every=2"]
    assert train(config, settings=[*settings, f"run.dir={tmp_path}/whole"]) == 0
    with monkeypatch.context() as patch:
        die_at(4, patch)
        with pytest.raises(Killed):
            train(config, settings=[*settings, f"run.dir={tmp_path}/parts"])
    assert find_latest(tmp_path / "parts/states").folder is not None
    assert train(config, "--resume", "latest", settings=[*settings, f"run.dir={tmp_path}/parts"]) == 0
    assert "going on from" in capsys.readouterr().err
    assert identical(tmp_path / "whole", tmp_path / "parts", capsys)


@pytest.mark.timeout(900)  # a second interpreter imports torch, slow on a busy machine
@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), signal.SIGKILL)", "os.killpg(0, signal.SIGTERM)"])
def test_a_real_end_of_the_process(
    config: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL of the process; and SIGTERM to its whole group, whose loader workers must not die before the state is saved."""
    settings = ["run.checkpoint_every=1", "data.workers=2"]
    code = (
        "import os, signal, sys\n"
        f"sys.path[:0] = [{str(ROOT)!r}]\n"
        "from cocoer.cli import train\n"
        "from cocoer.training import recognition_stage as recognition\n"
        "inner, seen = recognition.train_step, []\n"
        "def step(*args):\n"
        "    seen.append(1)\n"
        f"    if len(seen) == 4: {ending}\n"
        "    return inner(*args)\n"
        "recognition.train_step = step\n"
        f"sys.exit(train.main(['--config', {str(config)!r}, '--device', 'cpu', "
        f"'--set', 'run.dir={tmp_path}/parts', *{settings!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, start_new_session=True
    )
    assert done.returncode == (-signal.SIGKILL if "SIGKILL" in ending else EXIT_STOPPED), done.stderr
    assert train(config, settings=[*settings, f"run.dir={tmp_path}/whole"]) == 0
    assert train(config, "--resume", "latest", settings=[*settings, f"run.dir={tmp_path}/parts"]) == 0
    assert identical(tmp_path / "whole", tmp_path / "parts", capsys)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("at", [2, 5])  # in mid-epoch, and in the last step of the first epoch
def test_a_stop_signal_saves_and_exits_with_its_own_code(
    config: Path,
    tmp_path: Path,
    number: signal.Signals,
    at: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = signal.getsignal(number)
    inner, seen = recognition.step_facts, []

    def signalled(batches: Any, stop: bool, runtime: Any) -> Any:
        seen.append(stop)
        if len(seen) == at:
            os.kill(os.getpid(), number)
            stop = True  # the handler has run
        return inner(batches, stop, runtime)

    with monkeypatch.context() as patch:
        patch.setattr(recognition, "step_facts", signalled)
        assert train(config, settings=[f"run.dir={tmp_path}/parts"]) == EXIT_STOPPED == 75
    assert number.name in capsys.readouterr().err
    assert signal.getsignal(number) == handler
    folder = find_latest(tmp_path / "parts/states").folder
    assert folder is not None and read_training(folder)["place"]["step"] == at
    assert train(config, "--resume", "latest", settings=[f"run.dir={tmp_path}/parts"]) == 0
    assert train(config, settings=[f"run.dir={tmp_path}/whole"]) == 0
    assert identical(tmp_path / "whole", tmp_path / "parts", capsys)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("number", "when"), [(signal.SIGTERM, "while torch is loaded"), (signal.SIGUSR1, "while the config is read")]
)
def test_a_signal_before_training_has_the_same_code(tmp_path: Path, number: signal.Signals, when: str) -> None:
    """The program is stopped where it waits: in a torch that never ends to load, or at a config that is a pipe."""
    ready, config = tmp_path / "ready", tmp_path / "config.yaml"
    environment = dict(os.environ)
    if when == "while torch is loaded":
        (tmp_path / "slow" / "torch").mkdir(parents=True)
        waiting = f"import pathlib, time\npathlib.Path({str(ready)!r}).touch()\ntime.sleep(600)\n"
        (tmp_path / "slow" / "torch" / "__init__.py").write_text(waiting)
        environment["PYTHONPATH"] = str(tmp_path / "slow")
    else:
        os.mkfifo(config)
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(config), "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as running:
        if when == "while torch is loaded":
            while not ready.exists():
                time.sleep(0.05)
            running.send_signal(number)
        else:
            with config.open("w"):  # opens when the program opens it to read, which then waits for a first byte
                running.send_signal(number)
                running.wait(300)
        assert running.stderr is not None
        said = running.stderr.read()
        assert running.wait(300) == EXIT_STOPPED, said
    assert f"stopped by {number.name}, not in training; go on with --resume latest" in said


def test_stopping_at_max_steps_and_going_on_changes_nothing(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, settings=[f"run.dir={tmp_path}/whole"]) == 0
    assert train(config, settings=[f"run.dir={tmp_path}/parts", "run.max_steps=3"]) == 0
    assert (tmp_path / "parts/best.safetensors").is_file()
    assert train(config, "--resume", "latest", settings=[f"run.dir={tmp_path}/parts"]) == 0
    assert identical(tmp_path / "whole", tmp_path / "parts", capsys)


def test_the_comparison_finds_a_difference(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["run.max_steps=2"]
    assert train(config, settings=[*settings, f"run.dir={tmp_path}/a"]) == 0
    assert train(config, settings=[*settings, f"run.dir={tmp_path}/b", "optim.lr=0.0011"]) == 0
    capsys.readouterr()
    compare = load_program("scripts/compare_runs.py").main
    assert compare([str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("step 1, lr: 0.001 against 0.0011, difference 0.0001")
    assert compare([str(tmp_path / "a"), str(tmp_path / "nowhere")]) == 2
    (tmp_path / "b/log.jsonl").write_text((tmp_path / "a/log.jsonl").read_text())
    assert compare([str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "entries differ, by at most" in capsys.readouterr().out.splitlines()[-1]


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert train(config, settings=[f"run.dir={folder}", "run.max_steps=2"]) == 0
    return folder


def test_another_config_is_refused_with_the_difference(
    config: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [f"run.dir={finished}", "optim.lr=0.5", "loss.alpha=0.2", "run.max_steps=9"]
    assert train(config, "--resume", "latest", settings=changed) == 1
    said = capsys.readouterr().err
    assert "optim.lr: was 0.001, is now 0.5" in said and "loss.alpha: was 0.1, is now 0.2" in said
    assert "max_steps:" not in said


@pytest.mark.parametrize(
    "allowed", ["run.dir=elsewhere", "run.max_steps=5", "data.workers=2", "optim.epochs=9", "inference.batch_size=3"]
)
def test_what_cannot_change_the_steps_taken_may_differ(config: Path, allowed: str) -> None:
    assert config_differences(read(config), read(config, allowed)) == []
    assert config_differences(read(config), read(config, allowed), ()) != []
    assert any(allowed.startswith(key) for key in MAY_DIFFER)


def test_another_number_of_classes_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    caers = make_world(tmp_path, "caers")
    assert train(caers, "--resume", "latest", settings=[f"run.dir={finished}"]) == 1
    said = capsys.readouterr().err
    assert "made for 26 classes" in said and "wanted 7" in said


def test_other_training_persons_are_refused(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_world(tmp_path, train=17)
    tower = find_latest(finished / "states")
    assert tower.folder is not None
    settings = [f"run.dir={finished}", f"model.vocabulary.tower={read_tower(finished)}"]
    assert train(other, "--resume", "latest", settings=settings) == 1
    assert "other training persons" in capsys.readouterr().err


def read_tower(run: Path) -> str:
    return read(run / "config.yaml").model.vocabulary.tower


def test_another_number_of_processes_is_allowed_and_said(config: Path, finished: Path) -> None:
    settings = read(config, f"run.dir={finished}")
    start = find_start(settings, "latest", world_size=2)
    assert start.folder is not None
    assert any("written by 1 processes and goes on with 2" in m and " 4 persons" in m for m in start.messages)
    with pytest.raises(ConfigError, match="4 persons cannot be shared out equally to 3 processes.*a multiple of 3"):
        check_batch(settings, 3)
    assert not any("processes" in m for m in find_start(settings, "latest", world_size=1).messages)


def test_an_earlier_run_is_not_overwritten_unasked(
    config: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    assert train(config, settings=[f"run.dir={folder}", "run.max_steps=1"]) == 1
    assert "--resume latest" in capsys.readouterr().err
    assert train(config, "--overwrite", settings=[f"run.dir={folder}", "run.max_steps=1"]) == 0
    assert [p.name for p in (folder / "states").iterdir()] == ["step-00000001"]


def test_resume_latest_without_a_state_starts_from_the_beginning(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, "--resume", "latest", settings=[f"run.dir={tmp_path}/new", "run.max_steps=1"]) == 0
    assert "starting from the beginning" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="no such folder"):
        find_start(read(config), str(tmp_path / "nowhere"))


def test_a_torn_state_is_skipped_loudly_and_the_run_goes_on_from_the_one_before(
    config: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    assert train(config, "--resume", "latest", settings=[f"run.dir={folder}", "run.max_steps=3"]) == 0
    torn = folder / "states/step-00000003/training.pt"
    torn.write_bytes(torn.read_bytes()[:-7])
    capsys.readouterr()
    assert train(config, "--resume", "latest", settings=[f"run.dir={folder}", "run.max_steps=4"]) == 0
    said = capsys.readouterr().err
    assert "SKIPPED" in said and "step-00000003" in said and "bytes" in said and "step-00000002" in said
    latest = find_latest(folder / "states")
    assert latest.folder is not None and latest.folder.name == "step-00000004" and latest.skipped == ()


def test_random_generators_go_on_where_they_were() -> None:
    import random

    import numpy as np

    def draw() -> list[float]:
        return [float(torch.rand(())), float(np.random.rand()), random.random(), float(torch.randn(()))]  # noqa: NPY002

    device = torch.device("cpu")
    seed_everything(5)
    draw()
    state = random_state(device)
    wanted = draw()
    restore_random_state(state, device)
    assert draw() == wanted
    seed_everything(5, stream=1)
    assert draw() != wanted


def test_the_average_is_its_definition_and_leaves_the_model_as_it_was() -> None:
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, 0.8)
    wanted = model.weight.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            model.weight.add_(torch.rand(2, 3))
        average.update(model)
        wanted = 0.8 * wanted + 0.2 * model.weight.detach()
    torch.testing.assert_close(average.weights["weight"], wanted)
    before = model.weight.detach().clone()
    with average.swapped_in(model):
        torch.testing.assert_close(model.weight.detach(), wanted)
    assert torch.equal(model.weight, before) and list(average.weights) == ["weight"]
    with pytest.raises(ValueError, match="do not fit"):
        average.load({"other": wanted})
