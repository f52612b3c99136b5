"""Zero-shot CLIP as a baseline (the CLIP row of the paper's Table 2): any open_clip tower, the paper's prompt or an ensemble.

The score of an emotion is the cosine between the image's embedding and that of the emotion's prompt; nothing is learned.
Every tower sees crops of its own input size: the whole image and the body, each resized to a square as the model sees them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cocoer.config import DataConfig
from cocoer.data.batch import Batch
from cocoer.data.loaders import PersonDataset, build_loader
from cocoer.errors import TableError
from cocoer.files import file_sha256
from cocoer.model.clip_tower import ENSEMBLE, TEMPLATES, text_embeddings
from cocoer.model.vocabulary import ClipReader
from cocoer.model.zero_shot import Tower, image_mean_std, load_tower
from cocoer.runtime import Runtime
from cocoer.studies.tables.measurements import Measurement, Target, cosines, stored_run, target_numbers
from cocoer.weights import places

VIEWS: tuple[str, ...] = ("image", "body")


def source(view: str, prompts: str) -> str:
    """The name under which a run holds the scores of a view and a kind of prompt."""
    return f"{view}, {prompts}"


@torch.inference_mode()
def zero_shot(
    tower: Tower, target: Target, prompt: str, store: Path, runtime: Runtime, *, batch_size: int = 64, resamples: int = 500
) -> Measurement:  # fmt: skip
    """The tower's scores on the target's persons, by `source`; from `store` where they are, else made now and stored.

    prompt: the paper's, with `{emotion}` in it. Raises TableError where the tower's weights are not there, ValueError for
    weights that do not fit the tower or a name that open_clip does not know.
    """
    if not tower.file.is_file():
        raise TableError(
            f"CLIP {tower.name}: wanted its weights at {places.shown(tower.file)}, found none; {tower.remedy}"
        )

    def make() -> Measurement:
        clip = load_tower(tower)
        prompts = {"paper": prompt, "ensemble": ENSEMBLE}
        texts = {name: text_embeddings(clip, tower.name, target.classes, text) for name, text in prompts.items()}
        reader = ClipReader(clip.visual, texts["paper"], image_mean_std(tower.name)).to(runtime.device).eval()
        side: Any = clip.visual.image_size
        side = side if isinstance(side, int) else side[0]
        people = PersonDataset(target.records, target.root, target.classes, side)
        loader = build_loader(DataConfig(), target.split, batch_size, dataset=people)

        def scored(batch: Batch) -> dict[str, Tensor]:
            crops = zip(VIEWS, (batch.context, batch.body), strict=True)
            seen = {view: reader.embeddings(crop)[:, 0].cpu() for view, crop in crops}
            return {source(view, name): e @ text.T for view, e in seen.items() for name, text in texts.items()}

        result = cosines(scored, loader, target, runtime, f"CLIP {tower.title}")
        numbers = target_numbers(result, target, resamples)
        numbers["weights"] = {"file": tower.file.as_posix(), "sha256": file_sha256(tower.file), "selected_on": None}
        numbers |= {"overrides": [], "tower": tower.name, "prompt": prompt, "image_size": side}
        return Measurement(numbers, result.probabilities, result.targets)

    checksum = file_sha256(tower.file)
    who = ("zero-shot", tower.name, tower.weights == "openai", checksum)
    identity = [*who, target.digest, prompt, TEMPLATES, resamples]
    return stored_run(identity, store, make)
