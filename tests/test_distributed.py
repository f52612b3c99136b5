"""Two processes under torchrun are one process with the doubled batch; killed and resumed they are the uninterrupted two."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_worker import gradients
from programs import load_program
from training_world import ROOT, make_world, train

from cocoer.report.runlog import read_log
from cocoer.training.state import find_latest, read_training

pytestmark = pytest.mark.timeout(900)  # two processes that import torch take long on a busy machine


def torchrun(*command: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Two processes on this machine; warnings are not errors there, for torchrun's own launcher warns."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launch += ["--max-restarts", str(restarts), *command]
    return subprocess.run(launch, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=800)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # wide enough to be laid out channels-last, as real backbones are
    backbone = {"name": "small", "weights": None, "widths": [16, 16]}
    return make_world(tmp_path_factory.mktemp("world"), model={"backbone": backbone})


@pytest.fixture(scope="module")
def done(config: Path) -> Path:
    """The folder in which two processes have done everything that `distributed_worker` does."""
    finished = torchrun("tests/distributed_worker.py", str(config), str(config.parent))
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stderr.count("holds training states of an earlier run") == 2
    return config.parent


@pytest.mark.parametrize("accumulate", [1, 2])
def test_losses_and_gradients_are_those_of_one_process_with_the_doubled_batch(
    config: Path, done: Path, accumulate: int, tmp_path: Path
) -> None:
    """Class weights come from the batch over all processes, or this would not hold."""
    gradients(config, tmp_path, 1)
    one = torch.load(tmp_path / "gradients-1-1.pt", weights_only=True)
    two = torch.load(done / f"gradients-2-{accumulate}.pt", weights_only=True)
    assert one["persons"] == two["persons"] == 16
    assert two["stop"] and not one["stop"]  # a signal to one process reaches all
    for name, value in one["terms"].items():
        torch.testing.assert_close(two["terms"][name], value, rtol=1e-6, atol=1e-6)
    assert one["gradients"].keys() == two["gradients"].keys()
    for name, value in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][name], value, rtol=1e-6, atol=1e-6, msg=name)


def test_two_processes_killed_and_resumed_are_the_uninterrupted_two(done: Path) -> None:
    assert load_program("scripts/compare_runs.py").main([str(done / "whole"), str(done / "parts")]) == 0
    steps = [r for r in read_log(done / "parts/log.jsonl") if r["kind"] == "step"]
    assert [r["step"] for r in steps] == [1, 2, 3, 4, 5, 6]  # 18 persons by 2 x 2 x 2, twice
    latest = find_latest(done / "whole/states").folder
    assert latest is not None
    training = read_training(latest)
    assert training["world_size"] == 2 and len(training["random"]) == 2


def test_an_elastic_restart_goes_on_from_the_last_state(config: Path, done: Path, tmp_path: Path) -> None:
    """One of two processes is killed by SIGKILL; torchrun starts both again, and the run ends as if nothing had been."""
    settings = [f"run.dir={tmp_path}/run", "run.checkpoint_every=1", "optim.batch_size=4", "optim.accumulate=2"]
    finished = torchrun("tests/elastic_worker.py", str(config), *settings, "optim.ema=0.5", restarts=1)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "no complete training state; starting from the beginning" in finished.stderr
    assert f"going on from {tmp_path}/run/states/step-00000003: step 3" in finished.stderr
    assert load_program("scripts/compare_runs.py").main([str(done / "whole"), str(tmp_path / "run")]) == 0


@pytest.mark.slow
def test_two_machines_of_which_one_dies_and_comes_back_are_the_uninterrupted_two(
    config: Path, done: Path, tmp_path: Path
) -> None:
    """Two torchruns on loopback, as on two machines; one is killed with its process and started again by hand."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [f"run.dir={tmp_path}/run", "run.checkpoint_every=1", "optim.batch_size=4", "optim.accumulate=2"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"127.0.0.1:{port}",
        "--rdzv-id",
        "run",
        "--max-restarts",
        "3",
    ]
    launch += ["--local-addr", "127.0.0.1", "tests/elastic_worker.py", str(config), *settings, "optim.ema=0.5"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    env |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}

    def machine(name: str) -> subprocess.Popen[bytes]:
        """The first hosts the meeting; the others die once."""
        first = name == "one.log"
        words = [*launch[:3], "--rdzv-conf", f"is_host={int(first)}", *launch[3:]]
        mark = {} if first else {"KILLED": str(tmp_path / "killed")}
        with open(tmp_path / name, "wb") as log:
            return subprocess.Popen(words, cwd=ROOT, env=env | mark, stdout=log, stderr=log)

    def said() -> str:
        return "".join(log.read_text() for log in tmp_path.glob("*.log"))[-6000:]

    running = [machine("one.log"), machine("two.log")]
    end = time.monotonic() + 800
    try:
        while not any(m.poll() is not None for m in running):
            assert time.monotonic() < end, said()
            time.sleep(0.2)
        assert sorted(m.poll() or 0 for m in running) == [-signal.SIGKILL, 0], said()
        running = [m for m in running if m.poll() is None] + [machine("again.log")]
        codes = [m.wait(max(1.0, end - time.monotonic())) for m in running]
    finally:
        for m in running:
            m.kill()
    assert codes == [0, 0], said()
    logs = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert f"going on from {tmp_path}/run/states/step-00000003: step 3" in logs
    assert load_program("scripts/compare_runs.py").main([str(done / "whole"), str(tmp_path / "run")]) == 0


def test_an_evaluation_by_two_processes_has_every_person_once(done: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", str(done / "whole/best.safetensors"), "--device", "cpu", "--resamples", "10"]
    assert load_program("evaluate").main([*arguments, "--output", str(tmp_path)]) == 0
    one, two = np.load(tmp_path / "scores.npz"), np.load(done / "evaluation-2/scores.npz")
    assert list(one["keys"]) == list(two["keys"]) and len(one["keys"]) == 7  # 7 persons by 2 x 2: an odd rest
    np.testing.assert_allclose(one["pred"], two["pred"], atol=2e-6)
    numbers = [json.loads((f / "evaluation.json").read_text())["mAP"] for f in (tmp_path, done / "evaluation-2")]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-6)


def test_one_process_goes_on_where_two_stopped_and_says_so(
    config: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"run.dir={done}/whole", "optim.batch_size=4", "optim.accumulate=2", "optim.ema=0.5", "optim.epochs=3"]
    assert train(config, "--resume", "latest", settings=settings) == 0
    assert "written by 2 processes and goes on with 1" in capsys.readouterr().err
    steps = [r["step"] for r in read_log(done / "whole/log.jsonl") if r["kind"] == "step"]
    assert steps == list(range(1, 10))  # of 8 persons each, whoever shares them
