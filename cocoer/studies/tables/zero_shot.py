"""Zero-shot CLIP as a baseline (the CLIP row of the paper's Table 2): any open_clip tower, the paper's prompt or an ensemble.

The score of an emotion is the cosine between the image's embedding and that of the emotion's prompt; nothing is learned.
Every tower sees crops of its own input size: the whole image and the body, each resized to a square as the model sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from cocoer.config import DataConfig
from cocoer.data.batch import targets_of
from cocoer.data.loaders import PersonDataset, build_loader
from cocoer.errors import TableError
from cocoer.evaluation.evaluate import Evaluation
from cocoer.files import file_sha256
from cocoer.model.build import load_clip
from cocoer.model.clip_tower import build_clip, encode_prompts, read_clip_weights
from cocoer.model.vocabulary import VocabularyBranch
from cocoer.runtime import Runtime
from cocoer.studies.tables.measurements import Measurement, Target, numbers_of, stored_run
from cocoer.weights import places

TEMPLATES: tuple[str, ...] = (
    "This photo shows {emotion} emotion.",
    "a photo of a person who feels {emotion}.",
    "a photo of a person showing {emotion}.",
    "a face that expresses {emotion}.",
    "a body posture that expresses {emotion}.",
    "a scene that evokes {emotion}.",
    "someone in a situation of {emotion}.",
    "the emotion of this person is {emotion}.",
)
"""Of the ensemble: an emotion's text embedding is the mean of the unit-norm embeddings of these, as CLIP's own ensembles are."""

VIEWS: tuple[str, ...] = ("image", "body")


@dataclass(frozen=True)
class Tower:
    """A CLIP: open_clip's name of it, or a model config (.json); and its weights, `openai` for the file in checkpoints/clip."""

    name: str
    weights: str = "openai"

    @classmethod
    def parse(cls, text: str) -> Tower:
        """From `TOWER` or `TOWER=FILE`."""
        name, _, weights = text.partition("=")
        return cls(name, weights or "openai")

    @property
    def file(self) -> Path:
        """Where its weights are; those of the demonstration are found from any folder."""
        if self.weights == "openai":
            return places.place_of(f"checkpoints/clip/{self.name}.pt")
        return places.find(self.weights) or Path(self.weights)

    @property
    def title(self) -> str:
        """For a row."""
        return Path(self.name).stem if self.name.endswith(".json") else self.name


def source(view: str, prompts: str) -> str:
    """The name under which a run holds the scores of a view and a kind of prompt."""
    return f"{view}, {prompts}"


@torch.inference_mode()
def text_embeddings(clip: Any, tower: str, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Unit-norm mean over the templates of the unit-norm embedding of each class, [k, e]."""
    every = [encode_prompts(clip, tower, [t.format(emotion=name) for name in classes]) for t in templates]
    return F.normalize(torch.stack(every).mean(0), dim=-1)


@torch.inference_mode()
def zero_shot(
    tower: Tower, target: Target, prompt: str, store: Path, runtime: Runtime, *, batch_size: int = 64, resamples: int = 500
) -> Measurement:  # fmt: skip
    """The tower's scores on the target's persons, by `source`; from `store` where they are, else made now and stored.

    prompt: the paper's, with `{emotion}` in it. Raises TableError where the tower's weights are not there, ValueError for
    weights that do not fit the tower or a name that open_clip does not know.
    """
    if not tower.file.is_file():
        raise TableError(f"CLIP {tower.name}: wanted its weights at {tower.file}, found none; {remedy(tower)}")

    def make() -> Measurement:
        clip: Any = build_clip(tower.name, quick_gelu=tower.weights == "openai", with_text=True)
        load_clip(clip, read_clip_weights(tower.file), str(tower.file))
        by_prompts = {"paper": (prompt,), "ensemble": TEMPLATES}
        texts = {
            name: text_embeddings(clip, tower.name, target.classes, templates) for name, templates in by_prompts.items()
        }
        # a branch for its way to look at crops alone: FFN1 folded, one feature
        branch = VocabularyBranch(clip.visual, texts["paper"], 1, folded=True).to(runtime.device).eval()
        side: Any = clip.visual.image_size
        side = side if isinstance(side, int) else side[0]
        people = PersonDataset(target.records, target.root, target.classes, side)
        loader = build_loader(DataConfig(), target.split, batch_size, dataset=people)
        scores: dict[str, list[Tensor]] = {}
        targets = []
        for batch in tqdm(loader, desc=f"CLIP {tower.title}", leave=False, disable=None):
            here = batch.to(runtime.device)
            targets.append(targets_of(batch))
            for view, crop in zip(VIEWS, (here.context, here.body), strict=True):
                seen = branch.image_embedding(crop).cpu()
                for name, text in texts.items():
                    scores.setdefault(source(view, name), []).append(seen @ text.T)
        joined = {name: torch.cat(parts).numpy() for name, parts in scores.items()}
        keys = tuple(r.key for r in target.records)
        result = Evaluation(keys, np.asarray(torch.cat(targets)), joined, None, None, None, None, None)
        numbers = numbers_of(result, target, resamples)
        numbers["weights"] = {"file": tower.file.as_posix(), "sha256": file_sha256(tower.file), "selected_on": None}
        numbers |= {"overrides": [], "tower": tower.name, "prompt": prompt, "image_size": side}
        return Measurement(numbers, result.probabilities, result.targets)

    checksum = file_sha256(tower.file)
    identity = [
        "zero-shot",
        tower.name,
        tower.weights == "openai",
        checksum,
        target.digest,
        prompt,
        TEMPLATES,
        resamples,
    ]
    return stored_run(identity, store, make)


def remedy(tower: Tower) -> str:
    """What to do about missing weights."""
    if tower.weights == "openai":
        return f"`cocoer weights fetch clip-{tower.name.lower()}`, or name a file: --clip {tower.name}=FILE"
    return "name an existing file: --clip TOWER=FILE"
