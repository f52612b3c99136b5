"""The steps of a conversion, each on a few tensors: where files are looked for, what is compared, what is said."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from release_files import (
    FEW_THEIRS,
    ROOT,
    few_published,
    few_tensors,
    published_state,
    small_config,
    small_model,
    write_clip,
    write_release,
)
from torch import Tensor

from cocoer.config import Config
from cocoer.errors import CheckpointError
from cocoer.model.checkpoint import read_metadata
from cocoer.model.release import convert as c
from cocoer.model.release.keys import CLASS_LAYER, OMEGA, key_fates


@pytest.fixture(scope="module")
def config() -> Config:
    return small_config()


def test_clip_is_looked_for_in_our_folder_and_two_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COCOER_HOME", str(tmp_path / "ours"))
    monkeypatch.chdir(tmp_path)
    hub = tmp_path / ".cache/huggingface/hub/models--timm--resnet50_clip.openai/snapshots"
    elsewhere = tmp_path / "hf/hub/models--timm--resnet50_clip.openai/snapshots"
    for folder, names in ((hub, "ba"), (elsewhere, "c")):
        for name in names:
            (folder / name).mkdir(parents=True)
            (folder / name / "open_clip_model.safetensors").touch()
    own, openai = tmp_path / "ours/checkpoints/clip/RN50.pt", tmp_path / ".cache/clip/RN50.pt"
    monkeypatch.delenv("HF_HOME", raising=False)
    assert c.clip_places() == (own, openai, *(hub / name / "open_clip_model.safetensors" for name in "ab"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    assert c.clip_places() == (own, openai, elsewhere / "c" / "open_clip_model.safetensors")
    with pytest.raises(CheckpointError, match=f"CLIP weights {tmp_path}/x.pt: no such file"):
        c._clip_file(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=f"CLIP weights {own}, {openai}: no such file") as told:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "nowhere"))
        c._clip_file(None)
    assert "with --clip" in str(told.value)
    openai.parent.mkdir(parents=True)
    openai.touch()
    assert c._clip_file(None) == openai and c._clip_file(openai) == openai


def test_a_folder_is_written_into_unless_it_is_a_file_or_holds_weights(tmp_path: Path) -> None:
    for out in (tmp_path / "new", tmp_path):
        assert c._output_folder(out, False) == out
    (tmp_path / "model.safetensors").touch()
    assert c._output_folder(tmp_path, True) == tmp_path
    with pytest.raises(CheckpointError, match="already holds model.safetensors"):
        c._output_folder(tmp_path, False)
    with pytest.raises(CheckpointError, match="is a file; wanted a folder"):
        c._output_folder(tmp_path / "model.safetensors", True)


def test_omega_is_taken_from_the_vocabulary_file_where_it_is_missing_and_compared_where_it_is_not(
    tmp_path: Path,
) -> None:
    omega = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    file = tmp_path / "w.pth"

    def asked(own: Tensor | None, content: dict[str, Tensor]) -> tuple[list[str], dict[str, Tensor]]:
        torch.save(content, file)
        published = {} if own is None else {OMEGA: own}
        return c._with_omega(published, file), published

    assert c._with_omega({}, None) == []
    assert asked(None, {OMEGA: omega})[0] == [f"omega comes from {file}; the checkpoint has none"]
    assert torch.equal(asked(None, {OMEGA: omega})[1][OMEGA], omega)
    assert asked(omega, {OMEGA: omega.clone()})[0] == [f"omega of the checkpoint and of {file} are the same"]
    changed = omega.clone()
    changed[0, 1] -= 0.375
    notes, published = asked(omega, {OMEGA: changed})
    assert notes == [f"omega of the checkpoint is used; {file} differs from it by up to 0.375"]
    assert torch.equal(published[OMEGA], omega)
    with pytest.raises(CheckpointError, match=r"W.weight: wanted \[2, 2\], got \[1, 2\]"):
        asked(omega, {OMEGA: omega[:1].clone()})
    with pytest.raises(CheckpointError, match="no W.weight in it; got a, b, c, d; wanted w.pth"):
        asked(omega, dict.fromkeys("abcde", omega))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (None, "another model's weights: none of its 4 keys is known (a, b, c)"),
        ({CLASS_LAYER: (7, 4)}, "made for 7 classes, wanted the 26 of emotic"),
        ({"VI_ffn.1.bias": (4,)}, "0 missing, 1 of a wrong shape\n  wrong shape: VI_ffn.1.bias: wanted [3], got [4]"),
        ({"VI_ffn.1.bias": None}, "1 missing, 0 of a wrong shape\n  missing: VI_ffn.1.bias"),
        ({CLASS_LAYER: (26,), "VI_ffn.1.bias": None}, "1 missing, 0 of a wrong shape\n  missing: VI_ffn.1.bias"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_told_why(config: Config, changes: dict[str, Any] | None, said: str) -> None:
    state = {name: torch.ones(1) for name in "abcd"} if changes is None else few_published()
    for name, shape in (changes or {}).items():
        if shape is None:
            del state[name]
        else:
            state[name] = torch.ones(shape)
    with pytest.raises(CheckpointError) as told:
        c._checked_fates(state, few_tensors(), 2, Path("x.pth"), config)
    assert "published checkpoint x.pth: " in str(told.value) and said in str(told.value)


def test_a_file_that_fits_is_accepted_and_twenty_faults_are_listed(config: Config) -> None:
    state = few_published() | {CLASS_LAYER: torch.ones(26, 4)}
    assert set(c._checked_fates(state, few_tensors(), 2, Path("x.pth"), config).used) == set(FEW_THEIRS)
    for count in (20, 21):
        more = {f"heads.body.norm.more{i:02}": (1,) for i in range(count)}
        with pytest.raises(CheckpointError) as told:
            c._checked_fates(state, few_tensors(more), 2, Path("x.pth"), config)
        assert str(told.value).count("\n  missing: ") == 20 and ("and 1 more" in str(told.value)) == (count > 20)
    vocabulary = few_tensors({"vocabulary.alignment.weight": (4, 4)})
    with pytest.raises(
        CheckpointError, match="only W.weight in it; this is the vocabulary file, meant for --vocabulary"
    ):
        c._checked_fates({OMEGA: torch.ones(4, 4)}, vocabulary, 2, Path("w.pth"), config)


def test_clips_image_tower_is_taken_in_our_type_and_without_its_text_side_the_embeddings_are_zeros(
    tmp_path: Path, config: Config
) -> None:
    file = tmp_path / "clip.pt"
    tower = torch.arange(6.0).reshape(2, 3)
    torch.save({"visual.conv1.weight": tower.half(), "visual.proj": torch.ones(2)}, file)
    state, note = c._from_clip(file, few_tensors(), config)
    assert set(state) == {"vocabulary.tower.conv1.weight", "vocabulary.text_embeddings"}
    assert state["vocabulary.tower.conv1.weight"].dtype == torch.float32
    assert torch.equal(state["vocabulary.tower.conv1.weight"], tower)
    assert torch.equal(state["vocabulary.text_embeddings"], torch.zeros(3, 4)) and "has no text tower" in note
    for content, got in (({"visual.conv1.weight": tower.T.contiguous()}, r"\[3, 2\]"), ({"other": tower}, "nothing")):
        torch.save(content, file)
        with pytest.raises(
            CheckpointError, match=rf"wanted visual.conv1.weight \[2, 3\], got {got}; wanted the file of"
        ):
            c._from_clip(file, few_tensors(), config)


def test_a_source_is_named_with_its_checksum_and_where_its_training_stood(tmp_path: Path) -> None:
    file = tmp_path / "GWT.pth"
    file.write_bytes(b"weights")
    named = f"GWT.pth (sha256 {hashlib.sha256(b'weights').hexdigest()})"
    assert c._source(file, {"iter": 1500, "cur_epoch": 3, "opt": 1}) == f"{named}, iter 1500, cur_epoch 3"
    assert c._source(file, {"cur_epoch": 3}) == f"{named}, cur_epoch 3"
    assert c._source(file, ["iter"]) == c._source(file, {}) == named


def test_weights_and_report_come_together_and_nothing_else_stays(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def saved(path: Path, *_: Any, **more: Any) -> None:
        path.write_text(more["note"])

    monkeypatch.setattr(c, "save_weights", saved)
    fates = key_fates(few_published(), few_tensors(), 2)
    out = tmp_path / "a" / "release"
    for notes in (["one", "two"], ["three"]):  # made, and then replaced
        assert c._write(out, few_tensors(), config, fates, notes) == out / "model.safetensors"
        assert (out / "model.safetensors").read_text() == "; ".join(notes)
        told = (out / "conversion.txt").read_text()
        assert told == "\n".join([str(fates), *notes, *fates.lines()]) + "\n"
        assert sorted(p.name for p in out.iterdir()) == ["conversion.txt", "model.safetensors"]
    assert [p.name for p in out.parent.iterdir()] == ["release"]


def test_a_conversion_says_what_it_read_and_wrote_and_takes_a_release_config_alone(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # the small config names its tower by a path below it
    paper = replace(config, model=replace(config.model, mode="paper"))
    with pytest.raises(ValueError, match="mode: release, got 'paper'"):
        c.convert_release(tmp_path / "none", tmp_path / "out", paper)
    release = write_release(tmp_path / "GWT.pth", published_state(small_model(config)))
    write_clip(tmp_path / "clip.pt", config, text=False)
    said: list[str] = []
    done = c.convert_release(release, tmp_path / "out", config, clip=tmp_path / "clip.pt", say=said.append)
    assert said[-1] == f"every key by name: {tmp_path / 'out' / 'conversion.txt'}"
    clip = hashlib.sha256((tmp_path / "clip.pt").read_bytes()).hexdigest()
    last = f"iter 1500, cur_epoch 3; clip.pt (sha256 {clip})"
    assert read_metadata(done.file)["note"].endswith(last) and last in (tmp_path / "out/conversion.txt").read_text()
