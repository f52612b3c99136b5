"""Weights and training states: whole or not there, whatever happens while they are written; every fault named on reading."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from training_world import TOWER, make_world, read

import cocoer.files
from cocoer.config import Config, change_config
from cocoer.errors import CheckpointError, OutputError
from cocoer.files import write_file
from cocoer.model import checkpoint as ck
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_state, load_weights, save_weights
from cocoer.model.cocoer import CocoER
from cocoer.training import state as training_state
from cocoer.training.state import MANIFEST, TRAINING_FILE, find_latest, read_training, save_state, set_aside_torn


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return read(make_world(tmp_path_factory.mktemp("world"), train=2, other=1))


@pytest.fixture(scope="module")
def model(config: Config) -> CocoER:
    torch.manual_seed(0)
    return build_model(config).eval()


@pytest.fixture(scope="module")
def weights(config: Config, model: CocoER, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    thresholds = {"rule": "precision = recall", "split": "val", "classes": {"Anger": 0.25}}
    return save_weights(path, model, config, metrics={"mAP": 0.5}, thresholds=thresholds, note="a demonstration")


def crops(config: Config) -> tuple[torch.Tensor, ...]:
    size = config.data.image_size
    images = torch.randn(3, 2, 3, size, size, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[2.0, 2.0, 20.0, 20.0]]).repeat(2, 1)
    return images[0], images[1], images[2], boxes, boxes


# ---- weights: round trip ------------------------------------------------------------------------------------------


def test_weights_come_back_with_everything(config: Config, model: CocoER, weights: Path) -> None:
    loaded = load_weights(weights)
    assert loaded.config == config and not loaded.model.training
    assert loaded.metadata["metrics"] == {"mAP": 0.5} and loaded.metadata["note"] == "a demonstration"
    assert loaded.metadata["classes"] == list(config.classes) and loaded.thresholds["classes"] == {"Anger": 0.25}
    assert torch.__version__.startswith(loaded.metadata["libraries"]["torch"]) and loaded.metadata["git_revision"]
    assert loaded.metadata["preprocess"]["image_size"] == 32
    for (name, a), b in zip(model.state_dict().items(), loaded.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    with torch.no_grad():
        assert torch.equal(model(*crops(config)).logits, loaded.model(*crops(config)).logits)


def test_weights_from_when_queries_and_context_shared_a_norm_answer_as_they_did(config: Config, model: CocoER) -> None:
    norms = [name for name in model.state_dict() if ".norm_query." in name]
    shared = {name: value.clone() for name, value in model.state_dict().items() if ".norm_context." not in name}
    for name in norms:
        shared[name] += 0.3 * torch.randn(shared[name].shape, generator=torch.Generator().manual_seed(len(name)))
    torch.manual_seed(1)
    today = build_model(config).eval()
    load_state(today, shared)
    state = today.state_dict()
    assert len(norms) == 2 * 3  # weight and bias in each level's block
    for name in norms:
        assert torch.equal(state[name], shared[name]), name
        assert torch.equal(state[name.replace("query", "context")], shared[name]), name
    damaged = {name: value for name, value in state.items() if name != norms[0].replace("query", "context")}
    with pytest.raises(CheckpointError, match=rf"missing: {norms[0].replace('query', 'context')}"):
        load_state(build_model(config), damaged)


def test_a_folder_stands_for_the_file_in_it(config: Config, model: CocoER, tmp_path: Path) -> None:
    path = save_weights(tmp_path / "folder", model, config, metrics={}, thresholds={})
    assert path == tmp_path / "folder/model.safetensors"
    assert load_weights(tmp_path / "folder").path == path


def test_a_config_can_be_changed_on_loading(weights: Path) -> None:
    loaded = load_weights(weights, change=lambda c: change_config(c, ["model.coordination.update=none"]))
    assert loaded.config.model.coordination.update == "none"
    torch.manual_seed(0)
    with torch.no_grad():
        output = loaded.model(*crops(loaded.config))
    assert torch.equal(output.refined, output.level_features)


def test_the_frozen_tower_can_be_stored_in_half_and_the_rest_is_untouched(
    config: Config, model: CocoER, weights: Path, tmp_path: Path
) -> None:
    half = save_weights(tmp_path / "h.safetensors", model, config, metrics={}, thresholds={}, dtype=torch.float16)
    assert half.stat().st_size < weights.stat().st_size
    stored = load_file(half)
    state = load_weights(half).model.state_dict()
    for name, own in model.state_dict().items():
        assert state[name].dtype == own.dtype
        if name.startswith("vocabulary.tower."):
            assert stored[name].dtype == torch.float16
            torch.testing.assert_close(state[name], own, rtol=1e-3, atol=1e-4)
        else:
            assert torch.equal(state[name], own), name


def test_weights_need_no_second_file(model: CocoER, config: Config, tmp_path: Path) -> None:
    tower = tmp_path / "own_tower.json"
    tower.write_text(json.dumps(TOWER))
    moved = change_config(config, [f"model.vocabulary.tower={tower}"])
    path = save_weights(tmp_path / "w.safetensors", model, moved, metrics={}, thresholds={})
    tower.write_text(json.dumps(TOWER | {"embed_dim": 24}))
    assert torch.equal(load_weights(path).model.vocabulary.alignment.weight, model.vocabulary.alignment.weight)
    tower.unlink()
    assert load_weights(path).config == moved


def test_static_class_counts_travel_with_the_weights(config: Config, tmp_path: Path) -> None:
    static = change_config(config, ["loss.class_weights=static"])
    model = build_model(static).eval()
    model.set_class_counts(torch.arange(26.0))
    path = save_weights(tmp_path / "w.safetensors", model, static, metrics={}, thresholds={})
    with torch.no_grad():
        wanted = model(*crops(config))
        got = load_weights(path).model(*crops(config))
    assert wanted.competition is not None and got.competition is not None
    assert torch.equal(wanted.competition.losses, got.competition.losses)


# ---- weights: every fault named -----------------------------------------------------------------------------------


def test_every_key_that_does_not_fit_is_named_and_nothing_is_changed() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tensors = {
        "0.weight": torch.zeros(3, 2),
        "0.bias": torch.zeros(4),
        "1.weight": torch.zeros(1, 3),
        "2.bias": torch.zeros(1),
    }
    with pytest.raises(CheckpointError) as caught:
        load_state(model, tensors, "file F")
    text = str(caught.value)
    for part in ("file F", "missing: 1.bias", "unexpected: 2.bias", "misshapen: 0.bias: wanted [3], got [4]"):
        assert part in text
    assert "0.weight" not in text
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    load_state(model, {name: value.double() + 1 for name, value in before.items()})
    assert torch.equal(model[0].weight, before["0.weight"] + 1) and model[0].weight.dtype == torch.float32


def replaced(path: Path, change: Callable[[bytes], bytes], tmp_path: Path) -> Path:
    out = tmp_path / "changed.safetensors"
    out.write_bytes(change(path.read_bytes()))
    return out


FAULTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated in the tensors": (lambda b: b[:-100], r"truncated: wanted \d+ bytes, got \d+"),
    "truncated in the header": (lambda b: b[:300], r"truncated"),
    "longer": (lambda b: b + b"x", r"longer than its header says"),
    "empty": (lambda b: b"", r"wanted a safetensors file, got 0 bytes"),
    "text": (lambda b: b"<!DOCTYPE html><html>not found</html>", r"wanted a safetensors file"),
    "git-lfs pointer": (
        lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        r"git lfs pull",
    ),
    "torch zip": (lambda b: b"PK\x03\x04" + b"0" * 200, r"pickled PyTorch file.*convert"),
    "pickle": (lambda b: pickle.dumps({"a": 1}, protocol=2), r"pickled PyTorch file"),
    "damaged header": (lambda b: b[:20] + b"#####" + b[25:], r"damaged|not a readable"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_no_whole_safetensors_is_refused(weights: Path, tmp_path: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    path = replaced(weights, change, tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_foreign_safetensors_are_refused(model: CocoER, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such file.*train.*cocoer weights"):
        load_weights(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        load_weights(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="without a description"):
        load_weights(tmp_path / "foreign.safetensors")


def test_a_wrong_class_count_and_a_newer_format_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"made for 26 classes.*wanted 7.*data\.dataset"):
        load_weights(weights, change=lambda c: replace(c, data=replace(c.data, dataset="caers")))
    tensors, metadata = load_file(weights), ck.read_metadata(weights)
    save_file(tensors, tmp_path / "n.safetensors", {"cocoer": json.dumps(metadata | {"format_version": 99})})
    with pytest.raises(CheckpointError, match="format version 99.*update"):
        load_weights(tmp_path / "n.safetensors")


# ---- training states ----------------------------------------------------------------------------------------------


def tiny_state(step: int) -> tuple[Callable[[Path], object], dict[str, Any]]:
    """A model writer and a training part whose content depends on the step."""
    tensors = {"w": torch.full((5000,), float(step))}
    return lambda path: save_file(tensors, path), {
        "place": {"step": step},
        "moments": torch.full((5000,), -float(step)),
    }


def write_step(states: Path, step: int, keep: int = 2) -> Path:
    return save_state(states, step, *tiny_state(step), keep)


def content(folder: Path) -> tuple[float, int]:
    return float(load_file(folder / "model.safetensors")["w"][0]), read_training(folder)["place"]["step"]


def test_the_newest_states_stay_and_the_latest_is_found(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        write_step(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    found = find_latest(tmp_path)
    assert found.folder is not None and content(found.folder) == (100.0, 100) and not found.skipped
    assert find_latest(tmp_path / "nowhere").folder is None


def lines_traced(work: Callable[[], object], files: tuple[str, ...], at: int | None) -> int:
    """Run `work`, counting the lines executed in `files`; SIGKILL this process before line number `at`."""
    count = 0

    def line(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    def call(frame: FrameType, _event: str, _arg: object) -> Any:
        return line if frame.f_code.co_filename in files else None

    sys.settrace(call)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


def killed_at(line: int, work: Callable[[], object], files: tuple[str, ...]) -> bool:
    """Do `work` in a child process that is killed at its `line`-th line; whether it was."""
    child = os.fork()
    if child == 0:
        try:
            lines_traced(work, files, line)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def slow_save_file(tensors: dict[str, torch.Tensor], path: Path, *_: Any) -> None:
    """`save_file` in pieces, so that a kill finds half a file."""
    whole = Path(str(path) + ".whole")
    save_file(tensors, whole)
    pieces = whole.read_bytes()
    whole.unlink()
    with open(path, "wb", buffering=0) as handle:
        for start in range(0, len(pieces), 8000):
            handle.write(pieces[start : start + 8000])


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk: a killed process loses nothing that the system holds; the order of syncs is tested below."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("quick_disk")
def test_a_kill_at_every_line_of_a_save_leaves_a_complete_state(tmp_path: Path) -> None:
    """SIGKILL before each executed line of the writer (and of a file written in pieces): the old or the new is whole."""
    files = (training_state.__file__, cocoer.files.__file__, __file__)

    def writer(states: Path) -> Callable[[], object]:
        training = tiny_state(3)[1]
        return lambda: save_state(
            states, 3, lambda path: slow_save_file({"w": torch.full((5000,), 3.0)}, path), training, keep=1
        )

    def prepared(name: str) -> Path:
        states = tmp_path / name
        write_step(states, 1)
        write_step(states, 2)
        return states

    total = lines_traced(writer(prepared("count")), files, None)
    assert total > 40
    outcomes = []
    for line in range(1, total + 1):
        states = prepared(f"kill-{line}")
        assert killed_at(line, writer(states), files), line
        found = find_latest(states)
        assert found.folder is not None, line
        value, step = content(found.folder)
        assert value == step and step in (2, 3), line
        outcomes.append(step)
        if step == 2 and any(p.name.startswith("step-00000003") for p in states.iterdir()):
            assert found.skipped, f"line {line}: a half-written state must be named"
        assert content(write_step(states, 4, keep=1)) == (4.0, 4)  # the next save cleans up
        assert [p.name for p in states.iterdir()] == ["step-00000004"]
    assert outcomes == sorted(outcomes) and set(outcomes) == {2, 3}


@pytest.mark.usefixtures("quick_disk")
def test_a_kill_at_every_line_of_writing_weights_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"

    def work() -> None:
        write_file(path, lambda unfinished: slow_save_file({"w": torch.full((5000,), 2.0)}, unfinished))

    def old() -> None:
        save_file({"w": torch.ones(5000)}, path)

    files = (cocoer.files.__file__, __file__)
    old()
    total = lines_traced(work, files, None)
    values = []
    for line in range(1, total + 1):
        old()
        assert killed_at(line, work, files), line
        values.append(float(load_file(path)["w"].unique()))
    assert values == sorted(values) and set(values) == {1.0, 2.0}


def test_everything_is_on_the_disk_before_the_name_and_old_states_go_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut needs: files synced, their folder, then the rename, its folder, and only then removals."""
    write_step(tmp_path, 1)
    events: list[str] = []
    sync, rename = os.fsync, os.replace

    def fsync(handle: int) -> None:
        events.append("sync " + Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        sync(handle)

    def replace_(source: Path, target: Path) -> None:
        events.append(f"rename {Path(source).name} {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace_)
    write_step(tmp_path, 2, keep=1)
    assert events == [
        "sync model.safetensors",
        "sync training.pt",
        "sync manifest.json",
        "sync step-00000002.writing",
        "rename step-00000002.writing step-00000002",
        f"sync {tmp_path.name}",
        "rename step-00000001 step-00000001.removing",
    ]


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files may have at most 16 KiB: the nearest thing to a full disk that any machine can make."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_no_room_for_a_state_leaves_the_earlier_one(tmp_path: Path) -> None:
    small = {"place": {"step": 1}}
    save_state(tmp_path, 1, lambda path: save_file({"w": torch.ones(10)}, path), small)
    for big in ("model", "training"):
        tensor = torch.ones(20000)
        with pytest.raises(CheckpointError, match=r"step-00000002: cannot be written.*earlier states are untouched"):
            save_state(
                tmp_path,
                2,
                lambda path, big=big, tensor=tensor: save_file(
                    {"w": tensor if big == "model" else torch.ones(1)}, path
                ),  # type: ignore[misc]
                small | {"t": tensor if big == "training" else 0},
            )
        assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
        assert find_latest(tmp_path).folder == tmp_path / "step-00000001"


@pytest.mark.parametrize("name", ["fsync", "replace", "open"])
def test_a_full_disk_at_any_call_is_one_clear_error(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_step(tmp_path, 1)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(CheckpointError, match="No space left on device.*Free some space"):
            write_step(tmp_path, 2)
    found = find_latest(tmp_path)
    assert found.folder == tmp_path / "step-00000001" and content(found.folder) == (1.0, 1)


def test_a_place_that_cannot_be_written_is_one_clear_error(config: Config, model: CocoER, tmp_path: Path) -> None:
    """A file where a folder is wanted stops every user; a read-only folder stops all but root."""
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_step(tmp_path / "blocked", 1)
    with pytest.raises(OutputError, match=r"cannot be written.*choose another folder"):
        save_weights(tmp_path / "blocked/w.safetensors", model, config, metrics={}, thresholds={})
    closed = tmp_path / "closed"
    closed.mkdir()
    write_step(closed, 1)
    closed.chmod(0o555)
    try:
        if os.access(closed, os.W_OK):  # root may write anywhere; what the system would answer is put in its place
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Path, "mkdir", refuse)
                with pytest.raises(CheckpointError, match=r"Permission denied|Read-only"):
                    write_step(closed, 2)
        else:
            with pytest.raises(CheckpointError, match=r"Permission denied|Read-only"):
                write_step(closed, 2)
    finally:
        closed.chmod(0o755)
    assert find_latest(closed).folder == closed / "step-00000001"


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


TEARS: dict[str, tuple[Callable[[Path], object], str]] = {
    "short training part": (lambda f: (f / TRAINING_FILE).write_bytes((f / TRAINING_FILE).read_bytes()[:-1]), "bytes"),
    "one bit": (lambda f: flip(f / TRAINING_FILE), "sha256"),
    "one bit in the weights": (lambda f: flip(f / "model.safetensors"), "sha256"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "manifest.json is missing"),
    "empty manifest": (lambda f: (f / MANIFEST).write_text(""), "cannot be read"),
    "foreign manifest": (lambda f: (f / MANIFEST).write_text("[]"), "cannot be read"),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("tear", TEARS)
def test_a_torn_state_is_never_taken(tmp_path: Path, tear: str) -> None:
    write_step(tmp_path, 1)
    newest = write_step(tmp_path, 2)
    damage, reason = TEARS[tear]
    damage(newest)
    found = find_latest(tmp_path)
    assert found.folder == tmp_path / "step-00000001"
    assert len(found.skipped) == 1 and "step-00000002" in found.skipped[0] and reason in found.skipped[0]
    with pytest.raises(CheckpointError, match=reason):
        read_training(newest)
    set_aside_torn(tmp_path, found.folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000002.torn"]
    write_step(tmp_path, 2, keep=1)
    assert content(tmp_path / "step-00000002") == (2.0, 2)


class Opens:
    """What a hostile training state would hold: an object whose loading creates a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def test_loading_a_state_executes_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        read_training(save_state(tmp_path / "states", 1, tiny_state(1)[0], {"x": Opens(str(trap))}))
    assert not trap.exists()
