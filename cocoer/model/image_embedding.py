"""CLIP's embedding of a whole image: what images show rather than how they are drawn, for the search of near-duplicates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cocoer.data.transforms import normalise
from cocoer.model.clip_tower import image_side
from cocoer.model.vocabulary import ClipReader
from cocoer.model.zero_shot import Tower, image_mean_std, load_tower

Embed = Callable[[Image.Image], NDArray[np.float32]]


def image_embedder(tower: Tower) -> Embed:
    """The function RGB image -> unit-norm embedding [e] of a CLIP image tower, on the CPU; the image is squeezed to its square.

    Raises CheckpointError for weights that are missing or do not fit.
    """
    clip = load_tower(tower)
    visual = clip.visual
    side = image_side(visual)
    reader = ClipReader(visual, torch.empty(0, 0), image_mean_std(tower.name))

    def embed(image: Image.Image) -> NDArray[np.float32]:
        pixels = np.array(image.resize((side, side), Image.Resampling.BICUBIC))
        found: NDArray[np.float32] = reader.embeddings(normalise(pixels)[None])[0, 0].numpy()
        return found

    return embed
