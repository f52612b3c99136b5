"""`cocoer annotate --engine ray`: the local engine's rows, also where actors, driver or raylet are killed; a poison image."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from annotate_killer import DRIVER, RAYLET, WORKER, run_with_kills, start
from archive_world import assert_same, rows, run, weights, write_images

from cocoer.cli.export import main as export
from cocoer.scale.ray_engine import Pool
from cocoer.scale.tries import ALONE

pytest.importorskip("ray", reason="needs Ray: pip install 'cocoer[ray]'")

START = 240.0
"""Seconds that one start of Ray may take on a machine that is busy."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file: onnxruntime answers, and no process loads torch."""
    path = weights(tmp_path_factory.mktemp("weights"))
    assert export(["--checkpoint", str(path)]) == 0
    return path.with_suffix(".onnx")


def killed_and_undisturbed(
    folder: Path, checkpoint: Path, images: int, chunk: int, actors: int, kills: list[str]
) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The rows of a run without kills and of one with, and what happened."""
    photos, out = folder / "photos", folder / "killed"
    write_images(photos, images)
    common = [str(photos), "--checkpoint", str(checkpoint), "--chunk", str(chunk)]
    assert run(*common, "--output", folder / "undisturbed") == 0
    words = [*common, "--output", str(out), "--engine", "ray", "--actors", str(actors), "--quiet", "--device", "cpu"]
    step = max(1, images // chunk // (len(kills) + 2))
    told = run_with_kills(words, out, folder / "log", kills, step, 0.04, START * (1 + len(kills)))
    left = {path.name for path in out.iterdir() if path.suffix != ".parquet"}
    assert left == {"_cocoer"} and {path.name for path in (out / "_cocoer").iterdir()} == {"run.json"}
    return rows(folder / "undisturbed"), rows(out), told


@pytest.mark.timeout(1800)
def test_a_killed_actor_and_a_killed_driver_lose_and_double_nothing(tmp_path: Path, checkpoint: Path) -> None:
    wanted, found, told = killed_and_undisturbed(tmp_path, checkpoint, 200, 4, 2, [WORKER, DRIVER])
    assert sum("killed" in line for line in told) == 2, told
    assert len(found) == 200
    assert_same(wanted, found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_kills_of_actors_drivers_and_raylets_lose_and_double_nothing(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kills = [WORKER, DRIVER, RAYLET, WORKER, WORKER, DRIVER, RAYLET, WORKER, DRIVER, WORKER]
    wanted, found, told = killed_and_undisturbed(tmp_path, checkpoint, 2000, 8, 3, kills)
    with capsys.disabled():
        print("\n" + "\n".join(told), file=sys.stderr)
    assert sum("killed" in line for line in told) == 10, told
    assert len(found) == 2000
    assert_same(wanted, found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_image_that_kills_its_actor_becomes_an_errors_row(tmp_path: Path, checkpoint: Path) -> None:
    write_images(tmp_path / "photos", 12)
    out, log = tmp_path / "out", tmp_path / "log"
    words = [
        str(tmp_path / "photos"),
        "--checkpoint",
        str(checkpoint),
        "--chunk",
        "4",
        "--output",
        str(out),
        "--device",
        "cpu",
    ]
    assert start([*words, "--engine", "ray"], log, 0.0, "000005").wait(1500) == 1, log.read_text()
    found = rows(out)
    poison = found.pop("000/000005.png")
    assert f"its worker died {1 + ALONE} times" in poison["message"] and len(found) == 11
    assert all(row["status"] == "ok" for row in found.values())


@pytest.mark.parametrize("there", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("actors", [1, 2, 3, 16])
def test_actors_leave_one_cpu_to_the_tasks_that_write(there: int, actors: int) -> None:
    each = Pool(actors).cpus(there)
    assert 0 <= each <= 1 and each * actors <= there - 1
    assert each == 1 or (each + 0.01) * actors > there - 1  # and take what they can
