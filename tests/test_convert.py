"""Conversion: from the authors' file to weights that load and answer, and a clear word for every file that is not theirs."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from release_files import (
    LEFTOVERS,
    PARITY,
    ROOT,
    published_state,
    recipe,
    small_config,
    small_model,
    write_clip,
    write_release,
    write_torchscript,
)
from torch import Tensor

from cocoer.cli.weights import main as weights_command
from cocoer.config import Config, load_config, save_config
from cocoer.errors import CheckpointError
from cocoer.export.twin import open_twin
from cocoer.model.checkpoint import load_weights, read_tensors
from cocoer.model.cocoer import CocoER
from cocoer.model.release.convert import Conversion, convert_release
from cocoer.model.release.safe_pickle import StoredOptimizer, read_pickled


def quiet(_: str) -> None:
    """For `say`."""


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the small config names its tower by a path below it


@pytest.fixture(scope="module")
def config() -> Config:
    return small_config()


@pytest.fixture(scope="module")
def model(config: Config) -> CocoER:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return small_model(config)


@pytest.fixture
def release(tmp_path: Path, model: CocoER) -> Path:
    return write_release(tmp_path / "GWT.pth", published_state(model))


@pytest.fixture
def clip(tmp_path: Path, config: Config) -> Path:
    write_clip(tmp_path / "clip.pt", config)
    return tmp_path / "clip.pt"


def batch(persons: int = 2) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    crops = [torch.randn(persons, 3, 224, 224, generator=generator) for _ in range(3)]
    body = torch.tensor([[10.0, 20.0, 120.0, 200.0]]).expand(persons, -1)
    return *crops, body * 0.5, body


@torch.no_grad()
def test_converted_weights_answer_as_the_published_ones(
    tmp_path: Path, config: Config, model: CocoER, release: Path, clip: Path
) -> None:
    said: list[str] = []
    done = convert_release(release, tmp_path / "out", config, clip=clip, say=said.append)
    loaded = load_weights(tmp_path / "out")
    assert loaded.model.vocabulary is not None and loaded.model.vocabulary.folded
    assert sum(p.numel() for p in loaded.model.parameters()) < sum(p.numel() for p in model.parameters())
    assert [line.split()[0] for line in said[:3]] == ["reading", "reading", "writing"]
    assert str(done.fates) in said[3:]

    for name, tensor in torch.load(clip, weights_only=True).items():  # give the published model that tower too
        if name.startswith("visual."):
            model.state_dict()["vocabulary.tower." + name.removeprefix("visual.")].copy_(tensor)
    ours, theirs = loaded.model(*batch()), model(*batch())
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.vocabulary_logits, theirs.vocabulary_logits, rtol=0, atol=1e-5)

    assert set(done.fates.ignored) == set(LEFTOVERS)
    assert not done.fates.unknown
    report = (tmp_path / "out" / "conversion.txt").read_text()
    for line in ("used cls_HFE_ctx.4.bias as heads.context.prediction.bias", "ignored shar_after.bias", "sha256"):
        assert line in report
    assert "iter 1500, cur_epoch 3" in loaded.metadata["note"]


def test_every_published_key_is_used_or_a_known_leftover(model: CocoER) -> None:
    from cocoer.model.release.keys import key_fates

    fates = key_fates(published_state(model) | {"novelty.weight": torch.ones(2)}, model, 3)
    assert set(fates.used.values()) | {k for k in model.state_dict() if k.startswith("vocabulary.tower")} == set(
        model.state_dict()
    ) - {"vocabulary.text_embeddings"}
    assert (set(fates.ignored), fates.unknown, fates.missing, fates.misshapen) == (
        set(LEFTOVERS),
        ("novelty.weight",),
        (),
        (),
    )
    assert "1 unknown" in str(fates) and "unknown novelty.weight" in fates.lines()


def test_text_embeddings_come_from_the_text_tower(tmp_path: Path, config: Config, release: Path, clip: Path) -> None:
    assert convert_release(release, tmp_path / "with", config, clip=clip, say=quiet).notes == ()
    text = load_weights(tmp_path / "with").model.vocabulary.text_embeddings
    torch.testing.assert_close(text.norm(dim=1), torch.ones(26))
    assert (text @ text.T - 2 * torch.eye(26)).max() < 0.9999, "every emotion has words of its own"

    write_clip(tmp_path / "image_only.pt", config, text=False)
    done = convert_release(release, tmp_path / "without", config, clip=tmp_path / "image_only.pt", say=quiet)
    assert "no text tower" in done.notes[0]
    assert not load_weights(tmp_path / "without").model.vocabulary.text_embeddings.any()


@pytest.mark.parametrize("kind", ["torchscript", "half", "safetensors", "module."])
def test_clip_file_in_every_form(tmp_path: Path, config: Config, release: Path, kind: str) -> None:
    from safetensors.torch import save_file

    state = write_clip(tmp_path / "plain.pt", config)
    file = tmp_path / ("clip.safetensors" if kind == "safetensors" else "clip.pt")
    if kind == "torchscript":
        write_torchscript(file, {k: v.half() if v.is_floating_point() else v for k, v in state.items()})
    elif kind == "half":
        torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, file)
    elif kind == "safetensors":
        save_file({k: v.clone().contiguous() for k, v in state.items()}, file)
    else:
        torch.save({"state_dict": {"module." + k: v for k, v in state.items()}, "epoch": 3}, file)
    convert_release(release, tmp_path / "out", config, clip=file, say=quiet)
    tower = load_weights(tmp_path / "out").model.vocabulary.tower.state_dict()
    for name, tensor in tower.items():
        torch.testing.assert_close(tensor, state["visual." + name], rtol=1e-3, atol=1e-3)


def test_omega_of_the_checkpoint_counts(
    tmp_path: Path, config: Config, model: CocoER, release: Path, clip: Path
) -> None:
    """As published: w.pth is read first and the checkpoint's omega then overwrites it."""
    omega = published_state(model)["W.weight"]
    other = write_release(tmp_path / "w.pth", {"W.weight": omega + 0.25})
    same = write_release(tmp_path / "same.pth", {"W.weight": omega.clone()})
    done = convert_release(release, tmp_path / "a", config, clip=clip, vocabulary=other, say=quiet)
    assert "differs from it by up to 0.25" in done.notes[0]
    assert torch.equal(load_weights(tmp_path / "a").model.vocabulary.alignment.weight, omega)
    done = convert_release(release, tmp_path / "b", config, clip=clip, vocabulary=same, say=quiet)
    assert "the same" in done.notes[0]

    without = {k: v for k, v in published_state(model).items() if k != "W.weight"}
    bare = write_release(tmp_path / "bare.pth", without)
    done = convert_release(bare, tmp_path / "c", config, clip=clip, vocabulary=other, say=quiet)
    assert "the checkpoint has none" in done.notes[0]
    assert torch.equal(load_weights(tmp_path / "c").model.vocabulary.alignment.weight, omega + 0.25)


def test_the_optimizer_is_an_inert_stand_in(release: Path) -> None:
    stored = read_pickled(release, "file")["opt"]
    assert type(stored) is StoredOptimizer
    assert {"defaults", "state", "param_groups"} <= stored.state.keys()


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Adam])
def test_both_optimizers_and_both_file_layouts(
    tmp_path: Path, modern: bool, optimizer: type[torch.optim.Optimizer]
) -> None:
    weight = torch.nn.Parameter(torch.arange(3.0))
    content = {"model": {"w": weight.detach()}, "opt": optimizer([weight], lr=0.1)}
    torch.save(content, tmp_path / "f.pth", _use_new_zipfile_serialization=modern)
    assert torch.equal(read_pickled(tmp_path / "f.pth", "file")["model"]["w"], torch.arange(3.0))


class Foreign:
    """A class of another program."""


class Runs:
    """A pickle that would run a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def spoiled(path: Path, good: Path, model: CocoER, kind: str) -> Path:
    """`path` with something in it that is not the published file."""
    state = published_state(model)
    whole = good.read_bytes()
    plain: dict[str, bytes] = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "truncated at once": whole[:40],
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "web page": b"<!DOCTYPE html><html><body>Google Drive - Virus scan warning</body></html>",
        "text": b"not a checkpoint at all, but long enough to be one",
        "plain pickle": pickle.dumps({"model": 1}),
        "gzip": b"\x1f\x8b\x08" + b"\0" * 40,
    }
    saved: dict[str, Callable[[], Any]] = {
        "foreign class": lambda: {"model": state, "opt": Foreign()},
        "runs a command": lambda: {"model": state, "opt": Runs(path.with_suffix(".ran"))},
        "another model": lambda: {"model": {"layer1.0.conv1.weight": torch.ones(4, 4), "fc.bias": torch.ones(3)}},
        "no model": lambda: {"weights": "elsewhere", "iter": 3},
        "a list": lambda: [torch.ones(3)],
        "seven classes": lambda: {"model": state | {"cls_HFE_head.4.weight": state["cls_HFE_head.4.weight"][:7]}},
        "a wrong shape": lambda: {"model": state | {"ln_after.weight": torch.ones(3)}},
        "a missing key": lambda: {"model": {k: v for k, v in state.items() if k != "encoder2.1.norm3.bias"}},
        "NaN": lambda: {"model": state | {"ln_after.bias": state["ln_after.bias"] * torch.nan}},
        "w.pth": lambda: {"model": {"W.weight": state["W.weight"]}},
    }  # fmt: skip
    if kind in plain:
        path.write_bytes(plain[kind])
    elif kind in saved:
        torch.save(saved[kind](), path)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/GWT.pth", b"0")
    else:
        write_torchscript(path, {"visual.conv1.weight": torch.ones(2)})
    return path


BAD_FILES = {
    "missing": "no such file",
    "empty": "is empty",
    "truncated": "truncated",
    "truncated at once": "truncated at 40 bytes",
    "lfs": "git-lfs pointer.*git lfs pull",
    "web page": "a web page.*browser",
    "text": "not a PyTorch file",
    "plain pickle": "a pickle that torch.save did not write",
    "gzip": "gzip archive; unpack",
    "zip": "a zip archive that holds weights/GWT.pth; unpack",
    "TorchScript": "meant for --clip",
    "foreign class": "needs test_convert.Foreign, and reading that could run code",
    "runs a command": "needs (posix|nt).system",
    "another model": "another model's weights: none of its 2 keys",
    "no model": "wanted tensors only, got str",
    "a list": "wanted a mapping of names to tensors.*got list",
    "seven classes": "made for 7 classes, wanted the 26 of emotic",
    "a wrong shape": r"ln_after.weight: wanted \[16\], got \[3\]",
    "a missing key": "1 missing.*\n  missing: encoder2.1.norm3.bias",
    "NaN": "NaN or infinity in cross_level.norm.bias",
    "w.pth": "meant for --vocabulary",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_each_bad_file_has_its_own_message(
    tmp_path: Path, config: Config, model: CocoER, release: Path, clip: Path, kind: str
) -> None:
    bad = tmp_path / "bad.pth"
    if kind != "missing":
        spoiled(bad, release, model, kind)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=f"(?s)published checkpoint .*bad.pth: .*{BAD_FILES[kind]}"):
        convert_release(bad, tmp_path / "out", config, clip=clip, say=quiet)
    assert sorted(tmp_path.iterdir()) == before, "nothing may be left behind, and no command may have run"


@pytest.mark.parametrize("kind", ["missing", "truncated", "another tower", "lfs"])
def test_bad_clip_file_leaves_nothing_behind(
    tmp_path: Path, config: Config, release: Path, clip: Path, kind: str
) -> None:
    bad = tmp_path / "bad.pt"
    if kind == "truncated":
        bad.write_bytes(clip.read_bytes()[:5000])
    elif kind == "another tower":
        torch.save({"visual.conv1.weight": torch.ones(2)}, bad)
    elif kind == "lfs":
        bad.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    before = sorted(tmp_path.iterdir())
    message = {"missing": "no such file", "another tower": "wanted visual", "lfs": "git lfs pull"}.get(kind, kind)
    with pytest.raises(CheckpointError, match=f"CLIP weights.*bad.pt.*{message}"):
        convert_release(release, tmp_path / "out", config, clip=bad, say=quiet)
    assert sorted(tmp_path.iterdir()) == before


def test_weights_are_not_overwritten_by_accident(tmp_path: Path, config: Config, release: Path, clip: Path) -> None:
    def convert(**more: Any) -> Conversion:
        return convert_release(release, tmp_path / "out", config, clip=clip, say=quiet, **more)

    first = read_tensors(convert().file)
    with pytest.raises(CheckpointError, match="already holds model.safetensors.*--force"):
        convert()
    again = read_tensors(convert(force=True).file)
    assert again.keys() == first.keys()
    assert all(torch.equal(tensor, first[name]) for name, tensor in again.items())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["conversion.txt", "model.safetensors"]
    with pytest.raises(CheckpointError, match="is a file; wanted a folder"):
        convert_release(release, release, config, clip=clip, say=quiet)


def test_a_failing_disk_leaves_what_was_there(
    tmp_path: Path, config: Config, release: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("cocoer.model.release.convert.save_weights", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="No space left"):
        convert_release(release, tmp_path / "out", config, clip=clip, say=quiet)
    assert sorted(tmp_path.iterdir()) == before


def test_a_paper_config_is_refused(tmp_path: Path, config: Config, release: Path) -> None:
    paper = replace(config, model=replace(config.model, mode="paper"))
    with pytest.raises(ValueError, match="mode: release, got 'paper'"):
        convert_release(release, tmp_path / "out", paper, say=quiet)


@torch.no_grad()
def test_full_size_from_the_published_layout_to_the_published_answers(tmp_path: Path) -> None:
    """GWT.pth and RN50.pt in their real layouts and sizes (seeded numbers) -> safetensors -> the reference outputs."""
    seeded, golden = recipe(), np.load(PARITY / "release_golden_a.npz")
    seed, persons = int(golden["seed"]), int(golden["batch"])
    state = {k: torch.from_numpy(v) for k, v in seeded.seeded_state_dict("release_manifest.json", seed).items()}
    write_release(tmp_path / "GWT.pth", state)
    del state
    tower = {k: torch.from_numpy(v) for k, v in seeded.seeded_state_dict("clip_manifest.json", seed).items()}
    write_torchscript(tmp_path / "RN50.pt", tower)
    del tower

    config = load_config(ROOT / "configs/emotic_release.yaml")
    done = convert_release(tmp_path / "GWT.pth", tmp_path / "out", config, clip=tmp_path / "RN50.pt", say=quiet)
    assert (len(done.fates.used), len(done.fates.unknown)) == (1163, 0)
    (tmp_path / "GWT.pth").unlink()
    model = load_weights(tmp_path / "out").model

    crops, body, head = seeded.seeded_batch(seed, persons)
    images = [torch.from_numpy(crops[level]) for level in ("head", "body", "context")]
    output = model(*images, torch.from_numpy(head), torch.from_numpy(body))
    np.testing.assert_allclose(output.logits.numpy(), golden["pred"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(output.fused_features.numpy(), golden["workspace"], rtol=0, atol=1e-4)
    assert output.competition is not None
    assert output.competition.exclusion.tolist() == golden["exclusion"].tolist()


def test_a_conversion_leaves_the_twin_that_it_was_asked_for(
    tmp_path: Path, config: Config, release: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_config(config, tmp_path / "small.yaml")
    files = ["--release", str(release), "--clip", str(clip), "--config", str(tmp_path / "small.yaml")]
    assert weights_command(["convert", *files, "--output", str(tmp_path / "out"), "--onnx"]) == 0
    assert "model.onnx: its ONNX twin; differs from PyTorch by at most" in capsys.readouterr().out
    assert open_twin(tmp_path / "out", "cpu", None, ["inference.backend=onnx"]) is not None
