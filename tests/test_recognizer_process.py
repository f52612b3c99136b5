"""A recogniser across processes: pickled it is the file it came from, forked it says so, in threads it works."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_recognizer import tiny_checkpoint

from cocoer.errors import CheckpointError, ForkError
from cocoer.inference.recognizer import Recognizer

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)
WHO = [{"body": [10, 5, 60, 90], "head": [25, 8, 45, 30]}]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights"))


def said(recognizer: Recognizer) -> dict[str, Any]:
    return recognizer(IMAGE, WHO)[0].to_dict()


def test_a_pickle_and_a_copy_answer_as_the_original(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overrides come along, and a path that was relative still means the same file in another working folder."""
    monkeypatch.chdir(checkpoint.parent)
    original = Recognizer.from_checkpoint(checkpoint.name, "cpu", ["inference.thresholds.fused=0.2"])
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(original)
    assert len(data) < 100_000  # the file's name, not its tensors
    for other in (pickle.loads(data), copy.copy(original), copy.deepcopy(original)):  # noqa: S301 - our own bytes
        assert said(other) == said(original) and other.about == original.about
        assert other is not original and other.model is not original.model


def test_a_pickle_of_weights_that_changed_since_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    shutil.copy(checkpoint, path)
    for name in ("face.onnx", "person.onnx"):
        shutil.copy(checkpoint.parent / name, tmp_path / name)
    data = pickle.dumps(Recognizer.from_checkpoint(path, "cpu"))
    shutil.copy(tiny_checkpoint(tmp_path / "other", seed=1), path)
    with pytest.raises(CheckpointError, match="has changed since this recogniser was pickled"):
        pickle.loads(data)  # noqa: S301 - our own bytes


def test_one_made_from_a_model_in_memory_cannot_be_pickled_and_says_what_to_do(checkpoint: Path) -> None:
    made = Recognizer.from_checkpoint(checkpoint, "cpu")
    with pytest.raises(TypeError, match=r"save_weights.*from_checkpoint"):
        pickle.dumps(Recognizer(made.model, made.config))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_is_told_at_once_instead_of_waiting_for_ever(checkpoint: Path) -> None:
    recognizer = Recognizer.from_checkpoint(checkpoint, "cpu")
    said(recognizer)  # the parent has used its threads, which do not come along
    calls = [
        lambda: recognizer(IMAGE, WHO),
        lambda: recognizer.prepare(None, WHO),  # type: ignore[arg-type]
        lambda: recognizer.predict_tensors(None),  # type: ignore[arg-type]
        lambda: recognizer.detector,
    ]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        told = 0
        try:
            for call in calls:
                try:
                    call()
                except ForkError as err:
                    told += "Make the recogniser in the worker" in str(err)
        finally:
            os.write(writing, bytes([told]))
            os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == bytes([len(calls)])
    os.waitpid(child, 0)
    os.close(reading)
    assert said(recognizer)["status"] == "ok"  # and the parent goes on


WORKERS = """
import sys
import numpy as np
from torch.utils.data import DataLoader, Dataset
from cocoer import Recognizer

class Answers(Dataset):
    def __init__(self, weights):
        self.weights, self.recognizer = weights, None
    def __len__(self):
        return 4
    def __getitem__(self, index):
        if self.recognizer is None:  # made in the worker, not before the fork
            self.recognizer = Recognizer.from_checkpoint(self.weights, "cpu")
        image = np.full((96, 120, 3), 50 * index, np.uint8)
        return self.recognizer(image, [{"body": [10, 5, 60, 90]}])[0].probabilities["pred"]["Peace"]

if __name__ == "__main__":
    print([float(v) for v in DataLoader(Answers(sys.argv[1]), num_workers=2, batch_size=None)])
"""


def test_the_pattern_for_a_data_loader_works(checkpoint: Path, tmp_path: Path) -> None:
    """What docs/inference.md shows."""
    (tmp_path / "program.py").write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(checkpoint)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    recognizer = Recognizer.from_checkpoint(checkpoint, "cpu")
    wanted = [recognizer(np.full((96, 120, 3), 50 * i, np.uint8), [{"body": [10, 5, 60, 90]}])[0] for i in range(4)]
    found = [float(text) for text in done.stdout.strip("[]\n").split(",")]
    assert found == pytest.approx([p.probabilities["pred"]["Peace"] for p in wanted], abs=1e-5)
