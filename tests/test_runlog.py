"""The run log: every record comes back, TensorBoard reads the numbers, and a resumed run leaves no trace of the kill."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cocoer.report.runlog import RunLog, plain, read_log, scalars


def run_records(num_steps: int) -> list[dict[str, Any]]:
    """A vocabulary stage, then a recognition stage whose steps count from 1 again, with an evaluation every 4 steps."""
    records: list[dict[str, Any]] = [{"kind": "stage", "stage": "vocabulary"}]
    records += [{"kind": "step", "stage": "vocabulary", "step": i, "loss": 1.0 / i} for i in range(1, 13)]
    records.append({"kind": "stage", "stage": "recognition"})
    for i in range(1, num_steps + 1):
        records.append({"kind": "step", "stage": "recognition", "step": i, "loss": 2.0 / i, "lr": 0.1})
        if i % 4 == 0:
            records.append(
                {"kind": "eval", "stage": "recognition", "split": "val", "step": i, "mAP": i / 20, "ap": {"Fear": 0.5}}
            )
    return records


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard's own reader finds: name -> (step, value)."""
    reader = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with RunLog(folder) as log:
        for record in run_records(12):
            log(record)
    return folder


def test_every_record_comes_back_and_tensorboard_reads_every_number(whole: Path) -> None:
    assert read_log(whole / "log.jsonl") == run_records(12)
    found = tensorboard_scalars(whole)
    assert set(found) == {
        "vocabulary/step/loss",
        "recognition/step/loss",
        "recognition/step/lr",
        "recognition/eval/val/mAP",
        "recognition/eval/val/ap/Fear",
    }
    assert found["recognition/step/loss"] == [(i, pytest.approx(2.0 / i)) for i in range(1, 13)]
    assert found["recognition/eval/val/mAP"] == [(i, pytest.approx(i / 20)) for i in (4, 8, 12)]


@given(st.sampled_from([0, 4, 8]), st.integers(0, 12), st.integers(0, 30))
@settings(max_examples=10)
def test_a_killed_and_resumed_run_has_the_log_of_an_uninterrupted_one(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, checkpoint: int, more: int, torn: int
) -> None:
    folder, records = tmp_path_factory.mktemp("killed"), run_records(12)
    # The checkpoint is written after all records of its step; the run goes on for `more` records and is killed.
    first_later = next(i for i, r in enumerate(records) if r == {**r, "stage": "recognition", "step": checkpoint + 1})
    done = records[: first_later + more]
    with RunLog(folder) as log:
        for record in done:
            log(record)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "step", "stage": "recognition", "step": 99})[:torn])
    with RunLog(folder, resume_step=checkpoint, resume_stage="recognition") as log:
        for record in records:
            if record.get("stage") == "recognition" and record.get("step", 0) > checkpoint:
                log(record)
    assert (folder / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()
    assert tensorboard_scalars(folder) == tensorboard_scalars(whole)


def test_reopening_adds_and_fresh_forgets(tmp_path: Path) -> None:
    for step in (1, 2):
        with RunLog(tmp_path) as log:
            log({"kind": "step", "step": step, "loss": float(step)})
    assert [r["step"] for r in read_log(tmp_path / "log.jsonl")] == [1, 2]
    assert tensorboard_scalars(tmp_path) == {"step/loss": [(1, 1.0), (2, 2.0)]}
    with RunLog(tmp_path, fresh=True) as log:
        log({"kind": "step", "step": 5, "loss": 5.0})
    assert [r["step"] for r in read_log(tmp_path / "log.jsonl")] == [5]
    assert tensorboard_scalars(tmp_path) == {"step/loss": [(5, 5.0)]}


def test_a_line_is_on_disk_before_the_run_ends(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log({"kind": "step", "step": 1})
        assert read_log(tmp_path / "log.jsonl") == [{"kind": "step", "step": 1}]


def test_images_come_back_from_disk_and_tensorboard_also_after_a_resume(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20), (200, 30, 40))
    with RunLog(tmp_path) as log:
        for step in (1, 2):
            path = log.add_image("samples/val", image, step, stage="recognition")
    assert Image.open(path).tobytes() == image.tobytes()
    with RunLog(tmp_path, resume_step=1):
        pass
    reader = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0})
    reader.Reload()
    (event,) = reader.Images("samples/val")
    assert (event.step, event.width, event.height) == (1, 30, 20)
    assert event.encoded_image_string == (tmp_path / "images" / "recognition-samples_val-00000001.png").read_bytes()


def test_tensorboard_gets_steps_at_the_given_distance_and_every_evaluation(tmp_path: Path) -> None:
    with RunLog(tmp_path, scalars_every=5) as log:
        for record in run_records(12):
            log(record)
    found = tensorboard_scalars(tmp_path)
    assert [step for step, _ in found["recognition/step/loss"]] == [5, 10]
    assert [step for step, _ in found["recognition/eval/val/mAP"]] == [4, 8, 12]
    assert len(read_log(tmp_path / "log.jsonl")) == len(run_records(12))


def test_nan_is_null_in_the_log_and_nan_in_tensorboard(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        log({"kind": "step", "step": 1, "loss": math.nan, "norm": np.float32(0.5), "persons": np.int64(3)})
    assert read_log(tmp_path / "log.jsonl") == [{"kind": "step", "step": 1, "loss": None, "norm": 0.5, "persons": 3}]
    found = tensorboard_scalars(tmp_path)
    assert math.isnan(found["step/loss"][0][1])
    assert found["step/norm"] == [(1, 0.5)] and found["step/persons"] == [(1, 3.0)]


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5), st.floats() | st.integers() | st.text() | st.booleans() | st.none()
    )
)
def test_scalars_are_the_numbers_and_plain_values_are_json(entries: dict[str, Any]) -> None:
    record = {"kind": "eval", "step": 3} | {f"_{k}": v for k, v in entries.items()}
    names = {name for name, _ in scalars(record)}
    assert names == {
        f"eval/_{k}" for k, v in entries.items() if isinstance(v, (int, float)) and not isinstance(v, bool)
    }
    json.dumps(plain(record), allow_nan=False)


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"kind": "step", "step": 1}\n{"kind": \n{"kind": "step", "step": 3}\n')
    with pytest.raises(ValueError, match="line 2: wanted one JSON object"):
        RunLog(tmp_path, resume_step=1)


@pytest.mark.parametrize(
    ("record", "message"),
    [({"step": 1}, "'kind'"), ({"kind": "step", "step": 1.5}, "'step', got 1.5"), ({"kind": "step", "step": True}, "'step'")],
)  # fmt: skip
def test_a_record_without_kind_or_with_a_broken_step_is_refused(
    tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    with RunLog(tmp_path) as log, pytest.raises(ValueError, match=message):
        log(record)
    assert read_log(tmp_path / "log.jsonl") == []


def test_what_json_cannot_hold_and_a_closed_log_are_errors(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log, pytest.raises(TypeError, match="got object"):
        log({"kind": "step", "x": object()})
    with pytest.raises(ValueError, match="is closed"):
        log({"kind": "step"})
    with pytest.raises(ValueError, match="scalars_every"):
        RunLog(tmp_path, scalars_every=0)


def test_the_whole_report_layer_loads_without_torch() -> None:
    modules = "canvas, cards, draw, figure, layout, plots, runlog, sheet, text"
    code = (
        f"import sys; from cocoer.report import {modules}; print('torch' in sys.modules or 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
