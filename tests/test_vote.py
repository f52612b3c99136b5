"""The survivors' vote: the mean of the answers that stay, in logits; nothing of it in training, nothing by default."""

from __future__ import annotations

import pytest
import torch
from tiny_models import persons, tiny_config, tiny_model

from cocoer.errors import ConfigError
from cocoer.model.vote import survivors_vote

VOTE = "model.competition.vote=true"


def mean_by_hand(
    logits: torch.Tensor, levels: torch.Tensor, exclusion: torch.Tensor, multi_label: bool
) -> torch.Tensor:
    rows = []
    for fused, own, order in zip(logits.double(), levels.double(), exclusion, strict=True):
        p = [torch.sigmoid(x) if multi_label else torch.softmax(x, -1) for x in (fused, own[order[1]], own[order[2]])]
        rows.append(0.5 * p[0] + 0.25 * p[1] + 0.25 * p[2])
    return torch.stack(rows)


@pytest.mark.parametrize("multi_label", [True, False])
def test_the_vote_is_the_mean_of_probabilities(multi_label: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    logits, levels = torch.randn(40, 7, generator=rng) * 4, torch.randn(40, 3, 7, generator=rng) * 4
    exclusion = torch.stack([torch.randperm(3, generator=rng) for _ in range(40)])
    voted = survivors_vote(logits, levels, exclusion, multi_label=multi_label)
    probabilities = torch.sigmoid(voted) if multi_label else torch.softmax(voted, -1)
    expected = mean_by_hand(logits, levels, exclusion, multi_label)
    torch.testing.assert_close(probabilities.double(), expected, rtol=1e-5, atol=1e-7)
    # what the excluded level says changes nothing
    other = levels.clone()
    other[torch.arange(40), exclusion[:, 0]] = 99.0
    assert torch.equal(survivors_vote(logits, other, exclusion, multi_label=multi_label), voted)


def test_sure_answers_stay_finite() -> None:
    levels, exclusion = torch.full((1, 3, 4), 300.0), torch.tensor([[0, 1, 2]])
    for sign in (1.0, -1.0):
        for multi_label in (True, False):
            voted = survivors_vote(sign * torch.full((1, 4), 300.0), sign * levels, exclusion, multi_label=multi_label)
            assert voted.isfinite().all()
    half = survivors_vote(torch.full((1, 4), 1.0).bfloat16(), levels.bfloat16() / 300, exclusion, multi_label=True)
    assert half.dtype == torch.float32


@pytest.mark.parametrize("changes", [(), ("data.dataset=caers",), ("model.competition.pseudo_label=fused",)])
def test_the_option_changes_the_answer_alone_and_not_in_training(changes: tuple[str, ...]) -> None:
    plain, voting = tiny_model(*changes), tiny_model(VOTE, *changes)
    voting.load_state_dict(plain.state_dict())
    inputs = persons(6)
    with torch.inference_mode():
        before, after = plain(*inputs), voting(*inputs)
    multi_label = not changes or "caers" not in changes[0]
    expected = mean_by_hand(before.logits, before.level_logits, before.competition.exclusion, multi_label)
    found = torch.sigmoid(after.logits) if multi_label else torch.softmax(after.logits, -1)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    for name in ("level_logits", "vocabulary_logits", "refined", "pseudo_label"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name))
    plain.train(), voting.train()
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    trained = plain(*inputs).logits
    voting.load_state_dict(state)
    torch.testing.assert_close(voting(*inputs).logits, trained)


def test_by_default_nobody_votes_and_without_a_competition_nobody_can() -> None:
    assert not tiny_config().model.competition.vote
    with pytest.raises(ConfigError, match="model.competition.vote: without V-I there is no competition"):
        tiny_config(VOTE, "model.vocabulary.enabled=false")
