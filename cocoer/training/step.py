"""One optimizer step, over accumulated batches and several processes.

The persons of a step are those of `accumulate` batches on every process. Class weights and means are taken over all of
them, so two processes (or two accumulated batches) give what one with the doubled batch gives, batch norms aside.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cocoer.data.batch import Batch, targets_of
from cocoer.errors import NonFiniteLoss
from cocoer.model.level_model import ModelOutput
from cocoer.model.losses import class_weights
from cocoer.model.objective import total_loss
from cocoer.names import LEVELS
from cocoer.runtime import Runtime, autocast
from cocoer.training.learner import Learner
from cocoer.training.schedule import set_learning_rate


@dataclass(frozen=True)
class StepFacts:
    """What all processes know of a step before it: positives [k], persons, stop (a signal reached any process), order.

    order: a number that depends on which persons the step has; equal runs have equal numbers.
    """

    positives: Tensor
    persons: int
    stop: bool
    order: int


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of `size` batches, the last one possibly shorter."""
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group


def step_facts(batches: Sequence[Batch], stop: bool, runtime: Runtime) -> StepFacts:
    """Sums over the step's persons on all processes, in one exchange of CPU numbers."""
    positives = torch.stack([targets_of(b).double().sum(0) for b in batches]).sum(0).cpu()  # wherever they lie
    keys = "\n".join(key for b in batches for key in b.keys)
    order = int.from_bytes(hashlib.sha256(keys.encode()).digest()[:5], "big")  # 40 bits: their sum is exact in float64
    persons = sum(len(b) for b in batches)
    numbers = torch.cat([positives, torch.tensor([persons, float(stop), order], dtype=torch.float64)])
    total = runtime.sum(numbers)
    return StepFacts(total[:-3].float(), int(total[-3]), bool(total[-2] > 0), int(total[-1]))


def watched(output: ModelOutput) -> dict[str, Tensor]:
    """What the log shows of the mechanism, as means over the batch: |delta|, lambda and first-exclusion share per level."""
    if output.competition is None or output.pseudo_label is None:
        return {}
    competition = output.competition
    shares = competition.weights.detach().float().mean(dim=(0, 1))  # [L]
    out = {
        "delta_norm": competition.distance.float().mean(),
        "pseudo_label_size": output.pseudo_label.detach().float().sum(1).mean(),
    }
    for m, level in enumerate(LEVELS):
        out[f"lambda_{level}"] = shares[m]
        out[f"excluded_first_{level}"] = (competition.exclusion[:, 0] == m).float().mean()
    return out


def backward(learner: Learner, batches: Sequence[Batch], facts: StepFacts, runtime: Runtime) -> dict[str, Tensor]:
    """Gradients of the step's mean loss into the parameters; returns this process's share of every term.

    A batch's mean loss counts by its share of the step's persons; wrapped models average over processes, hence the
    factor world_size.
    """
    weights = None
    if learner.multi_label:
        rule = learner.loss.class_weights
        # the positives of all persons of the step, as one row: `dynamic` only adds up rows
        weights = class_weights(rule, facts.positives[None], learner.class_counts).to(runtime.device)
    terms: dict[str, Tensor] = {}
    for i, batch in enumerate(batches):
        batch = batch.to(runtime.device, learner.channels_last)
        known = () if learner.embeddings is None else (learner.embeddings.of(batch.keys),)
        more = learner.wrapped is not None and i + 1 < len(batches)
        with learner.wrapped.no_sync() if more else nullcontext():  # type: ignore[union-attr]
            with autocast(runtime.device, learner.optim.precision):
                crops = (batch.head, batch.body, batch.context)
                output = learner.forward(*crops, batch.head_xyxy, batch.body_xyxy, *known)
            loss, parts = total_loss(
                output,
                targets_of(batch),
                learner.loss,
                multi_label=learner.multi_label,
                weights=weights,
                per_person=learner.person_loss,
            )
            share = len(batch) / facts.persons
            (loss * (share * runtime.world_size)).backward()
        for name, value in (parts | watched(output)).items():
            terms[name] = terms.get(name, torch.zeros_like(value)) + value * share
    return terms


def train_step(
    learner: Learner, batches: Sequence[Batch], facts: StepFacts, rate: float, runtime: Runtime, where: str
) -> dict[str, float]:
    """One optimizer step at learning rate `rate`; returns the terms as means over all persons of the step.

    Raises NonFiniteLoss, before anything is updated, when the loss or the gradient's norm is not finite.
    """
    set_learning_rate(learner.optimizer, rate)
    learner.optimizer.zero_grad(set_to_none=True)
    terms = backward(learner, batches, facts, runtime)
    total = runtime.sum(torch.stack([value.double() for value in terms.values()]))
    values = dict(zip(terms, total.tolist(), strict=True))
    trained = [p for p in learner.model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if learner.optim.grad_clip is not None:
        nn.utils.clip_grads_with_norm_(trained, learner.optim.grad_clip, norm)
    values["grad_norm"] = float(norm)
    if not (math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])):
        keys = [key for part in runtime.gather([key for b in batches for key in b.keys]) for key in part]
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise NonFiniteLoss(
            f"{where}: the loss is not finite; no weight was updated. Terms: {shown}. Persons: {', '.join(keys)}."
            " Try a lower optim.lr, optim.grad_clip, or precision fp32; the last saved state is intact (--resume latest)"
        )
    learner.optimizer.step()
    if learner.average is not None:
        learner.average.update(learner.model)
    return values
