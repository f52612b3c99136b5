"""An exponential moving average of the trained weights (EMA), kept beside them and evaluated in their place.

The step is that of torch.optim.swa_utils. Its `AveragedModel` is not used: it copies the whole model, the frozen CLIP tower and
the batch norms' buffers included, where this keeps the trained parameters alone, in memory and in the saved states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """average <- decay * average + (1 - decay) * weight after every optimizer step, for the trained parameters.

    Frozen parameters and buffers (batch-norm statistics are averages already) are the model's own.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._step = get_ema_multi_avg_fn(decay)
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's present weights."""
        own = dict(model.named_parameters())
        names = list(self.weights)
        self._step([self.weights[n] for n in names], [own[n].detach() for n in names], None)

    @contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """While active, the model holds the averaged weights."""
        kept = self.state_of(model)
        self._put(model, self.weights)
        try:
            yield
        finally:
            self._put(model, kept)

    def state_of(self, model: nn.Module) -> dict[str, Tensor]:
        """Copies of the model's present values of the averaged parameters."""
        own = dict(model.named_parameters())
        return {name: own[name].detach().clone() for name in self.weights}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take over a saved average. Raises ValueError where the names differ."""
        if weights.keys() != self.weights.keys():
            raise ValueError(f"averaged weights do not fit: {sorted(weights.keys() ^ self.weights.keys())[:5]}")
        for name, value in weights.items():
            self.weights[name].copy_(value)

    @staticmethod
    @torch.no_grad()
    def _put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        own = dict(model.named_parameters())
        for name, value in weights.items():
            own[name].copy_(value)
