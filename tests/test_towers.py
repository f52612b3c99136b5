"""What names a CLIP, where its weights are, and what to do where they are not; no weights are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from cocoer.config import change_config
from cocoer.data.transforms import IMAGENET_STD
from cocoer.errors import CheckpointError
from cocoer.model import clip_tower, zero_shot
from cocoer.model.agreement import agree
from cocoer.model.clip_tower import CLIP_MEAN, CLIP_STD, TEMPLATES
from cocoer.model.image_embedding import image_embedder
from cocoer.model.tensor_file import write_tensors
from cocoer.model.zero_shot import (
    OPENAI_LOGIT_SCALE,
    Tower,
    ZeroShot,
    image_mean_std,
    is_zero_shot,
    load_model,
    load_tower,
)


def test_a_tower_is_named_with_or_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COCOER_HOME", str(tmp_path))
    own = Tower.parse("RN50=some/file.pt")
    assert (own.name, own.weights, own.title) == ("RN50", "some/file.pt", "RN50") and own.file == Path("some/file.pt")
    assert Tower.parse("ViT-B-16").file.parts[-3:] == ("checkpoints", "clip", "ViT-B-16.pt")
    assert Tower.parse("a/b.json=x").title == "b" and Tower.parse("ViT-B-16").weights == "openai"
    assert Tower("RN50").remedy == "get them with `cocoer weights fetch clip-rn50`, or name a file: RN50=FILE"
    assert Tower("RN50", "x.pt").remedy == Tower("coca_ViT-B-32").remedy.replace("coca_ViT-B-32", "RN50")
    assert Tower("coca_ViT-B-32").remedy == "name an existing file: coca_ViT-B-32=FILE"
    with pytest.raises(CheckpointError, match="CLIP RN50: wanted its weights at some/file.pt, found none; name an"):
        load_tower(own)
    Path("some").mkdir()
    Path("some/file.pt").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="some/file.pt"):
        load_tower(own)


def test_images_have_the_mean_and_std_that_open_clip_states() -> None:
    assert image_mean_std("RN50") == (CLIP_MEAN, CLIP_STD) == image_mean_std("any.json")
    assert image_mean_std("ViT-B-16-SigLIP") == ((0.5,) * 3, (0.5,) * 3)
    assert open_clip.get_pretrained_cfg("ViT-B-16-SigLIP", "webli")["mean"] == (0.5,) * 3
    assert OPENAI_LOGIT_SCALE == 100.0


def test_a_checkpoint_called_zero_shot_is_this_recogniser() -> None:
    assert is_zero_shot("zero-shot") and is_zero_shot("zero-shot:RN50=f.pt")
    assert not is_zero_shot("zero-shots") and not is_zero_shot("my/zero-shot") and not is_zero_shot("x")


def test_an_image_is_squeezed_to_the_towers_square_and_has_an_embedding_of_length_one() -> None:
    demo = Path(__file__).resolve().parents[1]
    tower = Tower(str(demo / "configs/demo_clip.json"), str(demo / "checkpoints/demo/clip.safetensors"))
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (50, 90, 3), dtype=np.uint8))
    found = image_embedder(tower)(image)
    visual = load_tower(tower).visual
    pixels = np.asarray(image.resize((visual.image_size,) * 2, Image.Resampling.BICUBIC)) / 255.0
    mean, std = image_mean_std(tower.name)
    with torch.no_grad():
        wanted = visual(torch.tensor((pixels - mean) / std).float().permute(2, 0, 1)[None])[0]
    assert found.shape == wanted.shape and np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found, (wanted / wanted.norm()).numpy(), atol=1e-4)


class Read(torch.nn.Module):
    """Stands for CLIP: what it says of the three crops is given."""

    def __init__(self, readings: torch.Tensor) -> None:
        super().__init__()
        self.given = readings

    def embeddings(self, *crops: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(crops[0]), 3, 5)

    def readings(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.given


@pytest.mark.parametrize("multi_label", [True, False])
def test_without_training_the_answer_is_the_mean_of_the_readings_by_their_shares(multi_label: bool) -> None:
    given = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    given[1, :, :] = torch.tensor([9.0, 0.0, 0.0, 0.0])  # all levels are sure of the first word
    model = ZeroShot(Read(given), 8, 6.0, lambda logits: logits, multi_label)  # type: ignore[arg-type]
    crops, boxes = torch.zeros(2, 3, 8, 8), torch.zeros(2, 4)
    out = model(crops, crops, crops, boxes, boxes)
    said = torch.sigmoid if multi_label else lambda logits: torch.softmax(logits, -1)
    levels = torch.softmax(6.0 * given, -1)  # [B, L, k]
    shares = agree(given, 6.0).shares
    wanted = sum(shares[:, m, None] * levels[:, m] for m in range(3))
    torch.testing.assert_close(said(out.logits), wanted)
    torch.testing.assert_close(said(out.level_logits), levels)
    vote = torch.softmax(6.0 * given.mean(1), -1)
    torch.testing.assert_close(said(out.vocabulary_logits), vote)
    assert all(bool(x.isfinite().all()) for x in (out.logits, out.level_logits, out.vocabulary_logits))
    assert out.fused_features.shape == (2, 3 * 5) and torch.equal(out.pseudo_label, out.vocabulary_logits)
    for place, name in ((0, "head"), (1, "body")):
        wrong = [crops, crops, crops]
        wrong[place] = torch.zeros(2, 4, 8, 8)
        with pytest.raises(ValueError, match=rf"{name} crops: wanted \[2, 3, 8, 8\], got \[2, 4, 8, 8\]"):
            model(*wrong, boxes, boxes)


def test_a_tower_brings_its_statistics_and_a_word_counts_from_twice_its_share_on() -> None:
    config = load_model("zero-shot:demo").config
    limits = config.inference.thresholds
    assert limits.fused == limits.levels == limits.vocabulary == pytest.approx(2 / 26)
    for name, same in (("imagenet", True), ("clip", False)):
        change = [f"model.vocabulary.normalisation={name}"]
        reader = load_model("zero-shot:demo", change=lambda c, change=change: change_config(c, change)).model.reader  # type: ignore[misc]
        ones = torch.ones(3, 1, 1)
        assert torch.allclose(reader.normalisation["scale"], ones) == same
        wanted = ones if same else (torch.tensor(IMAGENET_STD) / torch.tensor(CLIP_STD)).view(3, 1, 1)
        torch.testing.assert_close(reader.normalisation["scale"], wanted)


def test_openais_weights_alone_have_the_quick_gelu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def build(tower: str, quick_gelu: bool, with_text: bool) -> None:
        asked.append(quick_gelu)
        raise ValueError("seen")

    monkeypatch.setattr(zero_shot, "build_clip", build)
    monkeypatch.setattr(zero_shot.places, "CLONE", None)
    monkeypatch.setenv("COCOER_HOME", str(tmp_path))
    (tmp_path / "checkpoints/clip").mkdir(parents=True)
    (tmp_path / "checkpoints/clip/RN50.pt").touch()
    for tower in (Tower("RN50"), Tower("RN50", str(tmp_path / "checkpoints/clip/RN50.pt"))):
        with pytest.raises(CheckpointError, match="seen"):
            load_tower(tower)
    assert asked == [True, False]


def test_weights_with_a_note_of_their_own_add_it(tmp_path: Path) -> None:
    file = tmp_path / "clip.safetensors"
    write_tensors(file, {"a": torch.ones(1), "logit_scale": torch.tensor([3.0])}, {"note": "made up"})
    about = zero_shot._about(Tower("RN50", str(file)))
    assert about["name"] == "zero-shot:RN50" and about["note"].endswith("no weights of CocoER; made up")
    torch.save({"a": torch.ones(1)}, tmp_path / "clip.pt")
    assert zero_shot._about(Tower("RN50", str(tmp_path / "clip.pt")))["note"].endswith("no weights of CocoER")
    assert zero_shot._own_scale(Tower("RN50", str(file))) == pytest.approx(np.exp(3.0))
    assert zero_shot._own_scale(Tower("RN50", str(tmp_path / "clip.pt"))) == 100  # it states none
    assert zero_shot._own_scale(Tower("RN50", str(tmp_path / "none.pt"))) == zero_shot._own_scale(Tower("RN50")) == 100


def test_an_ensembles_embedding_is_the_direction_of_the_mean_and_one_prompts_is_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = torch.nn.functional.normalize(
        torch.randn(len(TEMPLATES), 2, 4, generator=torch.Generator().manual_seed(0)), dim=2
    )
    left = iter(made)
    monkeypatch.setattr(clip_tower, "encode_prompts", lambda *_: next(left))
    clip: Any = None
    found = clip_tower.text_embeddings(clip, "x", ("Anger", "Fear"), "ensemble")
    mean = made.mean(0)
    torch.testing.assert_close(found, mean / mean.norm(dim=1, keepdim=True))
    left = iter(2 * made)
    assert torch.equal(clip_tower.text_embeddings(clip, "x", ("Anger", "Fear"), "a {emotion}"), 2 * made[0])
