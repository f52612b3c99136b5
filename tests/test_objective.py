"""The training loss is the weighted sum that the paper writes, term by term."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from tiny_models import tiny_config

from cocoer.model.level_model import ModelOutput
from cocoer.model.objective import total_loss


def made_up(penalty: torch.Tensor | None) -> ModelOutput:
    """Logits of four persons and five classes; a competition that has this penalty, or none."""
    rng = torch.Generator().manual_seed(0)
    levels, fused, words, features = (torch.randn(4, *shape, generator=rng) for shape in ((3, 5), (5,), (5,), (3, 2)))
    competition: Any = None if penalty is None else SimpleNamespace(penalty=lambda kind: penalty)
    return ModelOutput(fused, levels, words, None, features, features, fused, competition)


def test_every_term_counts_by_its_own_weight() -> None:
    betas = {"head": 2.0, "body": 3.0, "context": 5.0, "vocabulary": 7.0, "fused": 11.0}
    loss = replace(tiny_config().loss, alpha=13.0, **{f"beta_{name}": value for name, value in betas.items()})
    penalty = torch.tensor([0.1, 0.2, 0.3, 0.6])
    output, targets = made_up(penalty), torch.eye(5)[:4]
    assert output.vocabulary_logits is not None
    parts = dict(zip(("head", "body", "context"), output.level_logits.unbind(1), strict=True))
    parts |= {"vocabulary": output.vocabulary_logits, "fused": output.logits}

    def one(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)

    wanted = {name: one(values, targets, None).mean() for name, values in parts.items()}
    total, terms = total_loss(output, targets, loss, multi_label=True, per_person=one)
    for name, value in wanted.items():
        torch.testing.assert_close(terms[f"loss_{name}"], value)
    torch.testing.assert_close(terms["penalty"], torch.tensor(0.3))
    torch.testing.assert_close(total, torch.stack([betas[n] * v for n, v in wanted.items()]).sum() + 13.0 * 0.3)
    torch.testing.assert_close(terms["loss"], total)
    without, terms = total_loss(made_up(None), targets, loss, multi_label=True, per_person=one)
    torch.testing.assert_close(total - without, torch.tensor(13.0 * 0.3))
    assert "penalty" not in terms
