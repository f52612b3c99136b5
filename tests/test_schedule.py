"""Learning rates of the recipes, written out; a rate depends on the place in training alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cocoer.config import OptimConfig, load_config
from cocoer.training.schedule import learning_rate, set_learning_rate

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def test_the_published_recipes_epoch_by_epoch() -> None:
    emotic = load_config(CONFIGS / "emotic.yaml").optim
    assert (emotic.name, emotic.epochs, emotic.batch_size, emotic.weight_decay) == ("adam", 9, 64, 0.0005)
    rates = [learning_rate(1000 * e, e, emotic) for e in range(9)]
    assert rates == pytest.approx([6e-5] * 3 + [6e-7] * 3 + [6e-9] * 3)
    caers = load_config(CONFIGS / "caers.yaml").optim
    assert (caers.name, caers.epochs, caers.batch_size) == ("adam", 70, 96)
    rates = [learning_rate(1000 * e, e, caers) for e in range(70)]
    assert rates == pytest.approx([8e-5] * 20 + [4e-5] * 20 + [2e-5] * 20 + [1e-5] * 10)
    release = load_config(CONFIGS / "emotic_release_train.yaml")
    optim = release.optim
    assert (optim.name, optim.beta1, optim.beta2, optim.weight_decay, optim.epochs) == ("adamw", 0.9, 0.96, 0.01, 20)
    assert learning_rate(0, 7, optim) == pytest.approx(6e-5 * 0.1**2)
    assert release.model.vocabulary.threshold == 0.3 and release.model.coordination.step == 0.1


@given(st.integers(0, 500), st.integers(0, 60), st.integers(1, 9), st.integers(0, 50))
def test_warmup_rises_to_the_plain_rate_and_drops_only_lower_it(step: int, epoch: int, every: int, warmup: int) -> None:
    optim = OptimConfig(lr=0.5, decay_every=every, decay_factor=0.5, warmup_steps=warmup)
    plain = replace(optim, warmup_steps=0)
    rate = learning_rate(step, epoch, optim)
    assert 0 < rate <= learning_rate(step, epoch, plain)
    if step + 1 >= warmup:
        assert rate == learning_rate(step, epoch, plain) == pytest.approx(0.5 * 0.5 ** (epoch // every))
    else:
        assert rate == pytest.approx(learning_rate(step, epoch, plain) * (step + 1) / warmup)
    assert learning_rate(step, epoch + every, optim) == pytest.approx(rate / 2)


def test_negative_places_are_refused_and_every_group_gets_the_rate() -> None:
    for step, epoch in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="wanted step >= 0"):
            learning_rate(step, epoch, OptimConfig())
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [w]} for w in weights], lr=1.0)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
