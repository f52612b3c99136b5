"""One training per seed that holds the fusion heads of all variants side by side.

Backbones, tokens, cross-level attention, level heads and V-I are trained once, by the losses of the paper; every variant has a
fusion head of its own, all with the same first weights, and the backbones get the mean of their gradients. So variants are
compared on the same level features, and what differs between two of them is what their fusion heads see. Nothing is
selected: the weights are those of the last epoch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cocoer.config import Config
from cocoer.data.batch import Batch
from cocoer.data.loaders import PersonDataset, build_dataset, build_loader
from cocoer.files import write_file
from cocoer.model.build import build_cocoer
from cocoer.model.checkpoint import load_state
from cocoer.model.cocoer import CocoER
from cocoer.model.fold_batch_norms import fold_batch_norms
from cocoer.model.losses import class_weights, loss_per_person
from cocoer.model.vocabulary import ClipReader, VocabularyBranch, together
from cocoer.runtime import Runtime, seed_everything
from cocoer.studies.agreement.variants import SHIPPED_CLIP, LearnedGate, Parts, Settings, variants
from cocoer.training.learner import build_optimizer
from cocoer.training.schedule import learning_rate, set_learning_rate
from cocoer.training.vocabulary_stage import embed_images, fit_vocabulary


@dataclass(frozen=True)
class Trained:
    """A model in eval mode with the fusion heads of all variants. clips: further readers by name."""

    model: CocoER
    heads: nn.ModuleDict
    settings: Settings
    clips: Mapping[str, ClipReader]

    def logits(self, parts: Parts) -> dict[str, Tensor]:
        """Every variant's fused answer, [B, k] each.

        A head gets the whole gradient of its loss, as in a training of its own (Adam's weight decay would outweigh a part of it);
        what stands before the heads gets the mean over them.
        """
        every = variants(self.clips)
        out = {}
        for name, variant in every.items():
            seen = torch.cat([variant(self.settings, parts).flatten(1), parts.z_t], dim=1)
            shared = seen.detach() + (seen - seen.detach()) / len(every)
            out[name] = self.heads[name](shared)
        return out


def branch_of(model: CocoER) -> VocabularyBranch:
    """The V-I branch; every model of the study has one."""
    assert model.vocabulary is not None, "the study's config has V-I on"
    return model.vocabulary


def parts_of(
    model: CocoER, clips: Mapping[str, ClipReader], batch: Batch, contradicted: Tensor, chance: Tensor
) -> Parts:
    """One pass through everything that stands before fusion."""
    branch = branch_of(model)
    batch = batch.to(torch.device("cpu"), True)
    tokens = model.level_tokens(batch.head, batch.body, batch.context)
    levels = model.level_features(model.cross_level(tokens, batch.head_xyxy, batch.body_xyxy))
    seen = branch.embeddings(batch.head, batch.body, batch.context)  # [B, L, e]
    vocabulary = branch.from_embedding(together(seen))  # view `levels`
    readings = {SHIPPED_CLIP: branch.readings(seen)}
    for name, clip in clips.items():
        readings[name] = clip.readings(clip.embeddings(batch.head, batch.body, batch.context))
    assert batch.targets is not None, "the study's persons have labels"
    return Parts(
        levels, vocabulary.z, vocabulary.logits, readings, model.head_parameters(), batch.targets, contradicted, chance
    )


def new_parts(config: Config, clips: Mapping[str, ClipReader], pretrained: bool = True) -> Trained:
    """Everything with its first weights."""
    model = build_cocoer(config, pretrained=pretrained)
    fold_batch_norms(branch_of(model).tower)  # frozen, so it may be fast
    model = model.to(memory_format=torch.channels_last)
    heads = nn.ModuleDict({name: deepcopy(model.fusion) for name in variants(clips)})
    return Trained(model, heads, Settings(config, LearnedGate()), clips)


def train(
    config: Config, seed: int, persons: int, clips: Mapping[str, ClipReader], contradicted: Tensor, runtime: Runtime
) -> Trained:
    """Train on the first `persons` of the training split, for config.optim.epochs.

    contradicted: index of each training person's contradicting level, -1 for none; only the upper bound looks at it.
    """
    seed_everything(seed)
    made = new_parts(config, clips)
    model, branch = made.model, branch_of(made.model)
    people = _first(build_dataset(config.data, "train", seed, train=True), persons)
    plain = _first(build_dataset(config.data, "train", seed), persons)
    order = [record.key for record in plain.records]
    loader = build_loader(config.data, "train", config.vocabulary_stage.batch_size, dataset=plain)
    embeddings, targets = embed_images(branch, loader, order, runtime)
    fit_vocabulary(branch, embeddings, targets, config.vocabulary_stage, seed, lambda record: None)
    seed_everything(seed, 1)
    optimizer = build_optimizer(nn.ModuleList([model, made.heads, made.settings.gate]), config.optim)
    rows = {key: i for i, key in enumerate(order)}
    chance = torch.Generator().manual_seed(seed)
    model.train()
    step = 0
    for epoch in range(config.optim.epochs):
        loader = build_loader(config.data, "train", config.optim.batch_size, seed, True, dataset=people)
        for batch in _epoch(loader, epoch):
            set_learning_rate(optimizer, learning_rate(step, epoch, config.optim))
            known = contradicted[[rows[key] for key in batch.keys]]
            drawn = torch.randint(3, (len(batch),), generator=chance)
            loss = _loss(made, parts_of(model, clips, batch, known, drawn), config)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
    model.eval()
    return made


def _loss(made: Trained, parts: Parts, config: Config) -> Tensor:
    """L_emo with all variants' fused losses in place of the one (see `Trained.logits`); |delta|^2 is left out."""
    targets, spec = parts.targets, config.loss
    weights = class_weights(spec.class_weights, targets, None)

    def mean(logits: Tensor) -> Tensor:
        return loss_per_person(logits.float(), targets, weights, multi_label=config.multi_label).mean()

    levels = parts.levels.logits
    betas = (spec.beta_head, spec.beta_body, spec.beta_context)
    total = spec.beta_vocabulary * mean(parts.logits_t)
    for m, beta in enumerate(betas):
        total = total + beta * mean(levels[:, m])
    fused = [mean(logits) for logits in made.logits(parts).values()]
    return total + spec.beta_fused * torch.stack(fused).sum()


def _epoch(loader: Any, epoch: int) -> Iterator[Batch]:
    loader.batch_sampler.set_state(epoch, 0)
    yield from loader


def _first(people: PersonDataset, persons: int) -> PersonDataset:
    """The dataset with its first persons alone; its cache stays whole, rows keep their numbers."""
    people.records = people.records[:persons]
    if people.targets is not None:
        people.targets = people.targets[:persons]
    return people


def save_trained(file: Path, made: Trained, facts: Mapping[str, Any]) -> None:
    """Model, heads and learned gate in one file; facts: what else is to be known."""
    tensors = {f"model.{k}": v for k, v in made.model.state_dict().items()}
    tensors |= {f"heads.{k}": v for k, v in made.heads.state_dict().items()}
    tensors |= {f"gate.{k}": v for k, v in made.settings.gate.state_dict().items()}
    ready = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    write_file(file, lambda path: save_file(ready, path, {"facts": json.dumps(dict(facts))}))


def load_trained(file: Path, config: Config, clips: Mapping[str, ClipReader]) -> Trained:
    """What `save_trained` wrote, in eval mode. Raises CheckpointError where it does not fit."""
    made = new_parts(config, clips, pretrained=False)
    tensors = load_file(file)
    for prefix, module in (("model.", made.model), ("heads.", made.heads), ("gate.", made.settings.gate)):
        load_state(module, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, str(file))
    made.model.eval()
    return made
