"""Vocabulary-informed branch (V-I): CLIP's embedding of the whole image, aligned with the emotion vocabulary.

Letters: B persons, e CLIP embedding size, k emotions, d feature size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cocoer import ideas
from cocoer.config import Config
from cocoer.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from cocoer.model.clip_tower import CLIP_MEAN, CLIP_STD, image_side
from cocoer.names import LEVELS

_CANNOT_FOLD = "only the layout 'repeat' can be folded, this branch has {!r}"


class VocabularyOutput(NamedTuple):
    """aligned: [B, e], omega times the unit-norm image embedding. z: [B, d], the branch's feature. logits: [B, k]."""

    aligned: Tensor
    z: Tensor
    logits: Tensor


class RepeatedInputLinear(nn.Linear):
    """A Linear over `copies` times the same vector, which is handed in once: [..., size] -> [..., outputs].

    The blocks of columns are added up first. So the weight, half of the model's, is read once, and no product of its size is
    taken, forward or backward; every block gets the same gradient. docs/performance.md says what that saves in training.
    """

    def __init__(self, size: int, copies: int, outputs: int) -> None:
        super().__init__(size * copies, outputs)
        self._copies = copies

    def forward(self, input: Tensor) -> Tensor:
        """[..., size] -> [..., outputs]: what the Linear gives for `copies` times the input, side by side."""
        return F.linear(input, self.weight.unflatten(1, (self._copies, -1)).sum(1), self.bias)


class ClipReader(nn.Module):
    """A frozen CLIP image tower beside the text embeddings of the classes: what an image says in the words of the vocabulary.

    tower: image tower of CLIP, with `image_size`. text_embeddings: unit norm, [k, e].
    image_mean_std: mean and std of the images that the tower wants; crops come with ImageNet's.
    """

    text_embeddings: Tensor
    _scale: Tensor
    _shift: Tensor

    def __init__(
        self, tower: nn.Module, text_embeddings: Tensor, image_mean_std: tuple[Sequence[float], Sequence[float]]
    ) -> None:
        super().__init__()
        self.tower = tower.requires_grad_(False).eval()
        self.register_buffer("text_embeddings", text_embeddings.clone())
        # crops come with ImageNet's mean and std; one affine map gives the tower its own
        mean, std = (torch.tensor(values) for values in image_mean_std)
        self.register_buffer("_scale", (torch.tensor(IMAGENET_STD) / std).view(3, 1, 1), persistent=False)
        self.register_buffer("_shift", ((torch.tensor(IMAGENET_MEAN) - mean) / std).view(3, 1, 1), persistent=False)

    @property
    def normalisation(self) -> dict[str, Tensor]:
        """The affine map from crops with ImageNet's mean and std to those of the tower."""
        return {"scale": self._scale, "shift": self._shift}

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is learned; the frozen tower stays in eval, or its batch norms would drift."""
        super().train(mode)
        self.tower.eval()
        return self

    @torch.no_grad()
    def embeddings(self, *crops: Tensor) -> Tensor:
        """Unit-norm CLIP embeddings [B, V, e] of V crops [B, 3, S, S] (ImageNet mean and std); no gradient."""
        images = torch.cat(crops) * self._scale + self._shift
        side = image_side(self.tower)
        if images.shape[-1] != side:
            images = F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False)
        single = F.normalize(self.tower(images).float(), dim=1)  # [V * B, e]
        return single.unflatten(0, (len(crops), -1)).transpose(0, 1)  # not chunk: ONNX cannot cut a free number of rows

    def readings(self, embeddings: Tensor) -> Tensor:
        """How well each crop fits each class, in -1..1: embeddings [B, V, e] -> cosines [B, V, k]; float32."""
        return embeddings.float() @ self.text_embeddings.float().T


class VocabularyBranch(ClipReader):
    """Frozen CLIP image tower -> unit norm -> omega -> laid out per emotion -> FFN1 -> z_t and logits.

    layout `repeat`: k copies of the aligned embedding (as released); `modulate`: copy j is multiplied elementwise by
    sqrt(e) times the text embedding of emotion j. FFN1 is GELU, Linear(k*e, k*e/4), GELU, Linear(., d), GELU,
    Linear(d, k); z_t is the input of its last Linear (docs/method.md#the-equations-and-where-each-one-is).
    folded: build it as `fold` leaves it, for weights that were stored so.
    view: what the tower looks at: `context`, `body`, or all `levels`.
    reads_levels: it looks at head, body and context of every person, for competition by agreement.
    """

    def __init__(
        self,
        tower: nn.Module,
        text_embeddings: Tensor,
        features: int,
        layout: str = "repeat",
        clip_normalisation: bool = True,
        folded: bool = False,
        view: str = "context",
        reads_levels: bool = False,
    ) -> None:
        mean_std = (CLIP_MEAN, CLIP_STD) if clip_normalisation else (IMAGENET_MEAN, IMAGENET_STD)
        super().__init__(tower, text_embeddings, mean_std)
        classes, size = text_embeddings.shape
        self.layout = layout
        self.view = view
        self.reads_levels = reads_levels
        self.alignment = nn.Linear(size, size, bias=False)  # omega
        nn.init.orthogonal_(self.alignment.weight)
        if folded and layout != "repeat":
            raise ValueError(_CANNOT_FOLD.format(layout))
        hidden = classes * size // 4
        repeated = layout == "repeat" and not folded
        self.widen: nn.Linear = (
            RepeatedInputLinear(size, classes, hidden)
            if repeated
            else nn.Linear(size if folded else classes * size, hidden)
        )
        self.narrow = nn.Linear(hidden, features)
        self.prediction = nn.Linear(features, classes)

    @property
    def folded(self) -> bool:
        """True once the repeated copies have been added up into one small Linear."""
        return self.widen.in_features == self.alignment.out_features

    def fold(self) -> None:
        """Add up the k blocks of columns of FFN1's first Linear, which all see the same copy: same outputs, less memory.

        For CLIP RN50 and 26 emotions that is 170 M parameters less. Does nothing when already folded.
        Raises ValueError for the layout `modulate`, whose copies differ.
        """
        if self.folded:
            return
        if self.layout != "repeat":
            raise ValueError(_CANNOT_FOLD.format(self.layout))
        classes = self.text_embeddings.shape[0]
        wide = self.widen
        small = nn.utils.skip_init(nn.Linear, self.alignment.out_features, wide.out_features)
        small = small.to(wide.weight.device, wide.weight.dtype)
        with torch.no_grad():
            small.weight.copy_(fold_copies(wide.weight, classes))
            assert wide.bias is not None, "FFN1's first Linear always has a bias"
            small.bias.copy_(wide.bias)
        self.widen = small

    def seen(self, head: Tensor, body: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        """The crops [B, 3, S, S] that the tower looks at: the whole image unless the config's `view` says otherwise."""
        return {"context": (context,), "body": (body,), "levels": (head, body, context)}[self.view]

    def image_embedding(self, *crops: Tensor) -> Tensor:
        """Unit-norm CLIP embeddings [B, e] of one or more crops [B, 3, S, S] (ImageNet mean and std); no gradient.

        Of several crops the unit-norm embeddings are added up, and the sum has unit norm again.
        """
        return together(self.embeddings(*crops))

    def look(self, head: Tensor, body: Tensor, context: Tensor) -> Tensor:
        """All that the tower is asked of a person: its embedding [B, e], or [B, L, e] where CLIP reads every level."""
        if not self.reads_levels:
            return self.image_embedding(*self.seen(head, body, context))
        return self.embeddings(head, body, context)

    def own_view(self, looked: Tensor) -> Tensor:
        """What `look` gave -> the embedding of the branch's own view, [B, e]."""
        if not self.reads_levels:
            return looked
        return together(looked if self.view == "levels" else looked[:, [LEVELS.index(self.view)]])

    def _laid_out(self, aligned: Tensor) -> Tensor:
        """What FFN1's first Linear looks at, [B, e] -> [B, e] or [B, k*e]: of equal copies it wants one."""
        if self.layout == "repeat":
            return aligned
        size = self.text_embeddings.shape[1]
        return (aligned[:, None, :] * (size**0.5 * self.text_embeddings)).flatten(1)

    def from_embedding(self, embedding: Tensor) -> VocabularyOutput:
        """The trainable part of the branch, from unit-norm image embeddings [B, e]."""
        aligned = self.alignment(embedding)
        hidden = F.gelu(self.widen(F.gelu(self._laid_out(aligned))))  # [B, k*e/4]
        z = F.gelu(self.narrow(hidden))  # [B, d]
        return VocabularyOutput(aligned, z, self.prediction(z))

    def forward(self, *crops: Tensor) -> VocabularyOutput:
        """The crops that `seen` chose, each [B, 3, S, S] with ImageNet mean and std -> `VocabularyOutput`."""
        return self.from_embedding(self.image_embedding(*crops))


def together(embeddings: Tensor) -> Tensor:
    """One unit-norm embedding [B, e] of several [B, V, e]: their sum, brought to unit norm; of one, itself."""
    return embeddings[:, 0] if embeddings.shape[1] == 1 else F.normalize(embeddings.sum(1), dim=1)


def fold_copies(weight: Tensor, copies: int) -> Tensor:
    """What a Linear with weight [n, copies * e] does to `copies` times the same vector, as a weight [n, e].

    Summed in float64, some rows at a time, so that the widest layer (6656 x 26624) is not held twice.
    """
    rows = [part.unflatten(1, (copies, -1)).sum(1, dtype=torch.float64) for part in weight.detach().split(256)]
    return torch.cat(rows).to(weight.dtype)


Judge = Literal["vocabulary", "fused", "agreement"]


@dataclass(frozen=True)
class PseudoLabelRule:
    """How y_t is made, and of whose logits: judge `vocabulary` (the V-I branch, the paper), `fused` (a first answer).

    Judge `agreement` has no logits: its label is that of the vote (`agreement.vote_label`).
    """

    judge: Judge
    multi_label: bool
    threshold: float

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits [B, k] -> y_t [B, k]; see `pseudo_label`."""
        return pseudo_label(logits, self.multi_label, self.threshold)


def build_pseudo_label(config: Config) -> PseudoLabelRule:
    """The rule that `model.competition.pseudo_label` names."""
    name, threshold = config.model.competition.pseudo_label, config.model.vocabulary.threshold
    if name in ideas.added("pseudo_label"):
        own: PseudoLabelRule = ideas.added("pseudo_label")[name](config)
        return own
    return PseudoLabelRule(cast("Judge", name), config.multi_label, threshold)


def pseudo_label(logits: Tensor, multi_label: bool, threshold: float) -> Tensor:
    """y_t [B, k] of 0 and 1 from the branch's logits [B, k]: sigmoid > threshold, or the one-hot top class; no gradient."""
    logits = logits.detach()
    if multi_label:
        return (logits.sigmoid() > threshold).to(logits.dtype)
    return F.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)
