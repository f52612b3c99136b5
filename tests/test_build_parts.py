"""What a key of the config does to the model that is built, seen on the smallest one."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_config

from cocoer.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from cocoer.model.build import build_model
from cocoer.model.clip_tower import CLIP_MEAN, CLIP_STD
from cocoer.model.two_stream import TwoStream
from cocoer.model.vocabulary import ClipReader

BASELINE = ("model.two_stream=clip", "model.vocabulary.enabled=false", "model.attention.enabled=false")


@pytest.mark.parametrize("baseline", [False, True], ids=["vocabulary branch", "two streams"])
@pytest.mark.parametrize(
    ("name", "mean", "std"), [("clip", CLIP_MEAN, CLIP_STD), ("imagenet", IMAGENET_MEAN, IMAGENET_STD)]
)
def test_the_tower_sees_images_with_the_statistics_that_the_config_names(
    name: str, mean: tuple[float, ...], std: tuple[float, ...], baseline: bool
) -> None:
    more = BASELINE if baseline else ()
    model = build_model(tiny_config(f"model.vocabulary.normalisation={name}", *more), pretrained=False)
    reader = model.scene if isinstance(model, TwoStream) else model.vocabulary
    assert isinstance(reader, ClipReader) and isinstance(model, TwoStream) == baseline
    image = torch.rand(3, 4, 4)
    seen = (image - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    wanted = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(seen * reader.normalisation["scale"] + reader.normalisation["shift"], wanted)
