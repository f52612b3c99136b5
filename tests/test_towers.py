"""What names a CLIP, where its weights are, and what to do where they are not; no weights are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from cocoer.errors import CheckpointError
from cocoer.model.clip_tower import CLIP_MEAN, CLIP_STD
from cocoer.model.image_embedding import image_embedder
from cocoer.model.zero_shot import OPENAI_LOGIT_SCALE, Tower, image_mean_std, is_zero_shot, load_tower


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
