"""The published checkpoint's names and shapes against ours, on state dicts of a few tensors each."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from cocoer.model.release.keys import WIDE, KeyFates, key_fates, our_state, published_names

CLASSES, SIZE = 3, 4  # k emotions, e numbers of an embedding

OURS = {
    "vocabulary.text_embeddings": (CLASSES, SIZE),
    "vocabulary.tower.conv1.weight": (2, 3),
    "vocabulary.widen.weight": (3, SIZE),  # folded: e inputs in place of k * e
    "vocabulary.widen.bias": (3,),
    "heads.body.norm.bias": (5,),
    "tokens.head.project.weight": (6, 2),
    "cross_level.positions.row": (7, 2),
    "cross_level.blocks.context.1.attention.to_out.weight": (2, 2),
    "backbones.context.layers.4.0.bn1.num_batches_tracked": (),
}
THEIRS = {
    WIDE: (3, CLASSES * SIZE),
    "VI_ffn.1.bias": (3,),
    "cls_HFE_body.3.bias": (5,),
    "head_proj.weight": (6, 2, 1, 1),  # a 1x1 convolution there, a Linear here
    "en_pos.row_embed.weight": (7, 2),
    "encoder3.1.cross_attn.linears.3.weight": (2, 2),
    "backbone.context.4.0.bn1.num_batches_tracked": (),
}


class Model:
    """Of a model, all that is asked for: its state."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._state = {name: torch.zeros(shape) for name, shape in shapes.items()}

    def state_dict(self) -> dict[str, Tensor]:
        return self._state


def model(**changes: Any) -> nn.Module:
    return cast("nn.Module", Model(OURS | changes))


def published() -> dict[str, Tensor]:
    return {name: torch.ones(shape) for name, shape in THEIRS.items()}


def test_every_key_of_ours_has_the_published_name() -> None:
    assert list(published_names(OURS, 2).values()) == list(THEIRS)
    for stray in ("novelty.weight", "novelty", ".novelty", "heads.body.novelty.bias"):
        with pytest.raises(KeyError, match="has no counterpart in the published checkpoint"):
            published_names([stray], 2)
    with pytest.raises(KeyError):
        published_names(["cross_level.blocks.head.1.norm_query.bias"], 1)  # the second block of one


def test_a_key_is_used_ignored_unknown_missing_or_of_another_shape() -> None:
    whole = published()
    fates = key_fates(whole, model(), 2)
    assert fates.used == dict(zip(THEIRS, published_names(OURS, 2), strict=True))
    assert fates == KeyFates(fates.used, (), (), (), ())
    changed = whole | {"head_proj.weight": torch.ones(6, 2), WIDE: torch.ones(3, SIZE), "b": torch.ones(1)}
    changed |= {
        "a": torch.ones(1),
        "shar_after.bias": torch.ones(2),
        "encoder_head.0": torch.ones(2),
        "cls_en_all.1": torch.ones(1),
    }
    del changed["VI_ffn.1.bias"], changed["cls_HFE_body.3.bias"]
    fates = key_fates(changed, model(), 2)
    assert fates.ignored == ("cls_en_all.1", "encoder_head.0", "shar_after.bias") and fates.unknown == ("a", "b")
    assert fates.missing == ("VI_ffn.1.bias", "cls_HFE_body.3.bias") and len(fates.used) == len(THEIRS) - 2
    assert fates.misshapen == (
        f"{WIDE}: wanted [3, 12], got [3, 4]",
        "head_proj.weight: wanted [6, 2, 1, 1], got [6, 2]",
    )
    assert str(fates) == (
        "5 keys used, 3 ignored: cls_en_all (1), encoder_head (1), shar_after (1); 2 unknown, 2 missing, 2 of a wrong shape"
    )
    assert fates.lines()[-3:] == ["missing cls_HFE_body.3.bias", *(f"misshapen {line}" for line in fates.misshapen)]


def test_a_state_of_theirs_becomes_one_of_ours_number_by_number() -> None:
    theirs = {name: torch.randn(shape, generator=torch.Generator().manual_seed(3)) for name, shape in THEIRS.items()}
    counter = "backbone.context.4.0.bn1.num_batches_tracked"
    theirs |= {counter: torch.tensor(7), "cls_HFE_body.3.bias": theirs["cls_HFE_body.3.bias"].half()}
    ours = our_state(theirs, model(), 2)
    names = published_names(OURS, 2)
    assert list(ours) == list(names)
    for here, there in names.items():
        wanted = theirs[there] if there == counter else theirs[there].float()
        if there == WIDE:  # k blocks of columns see the same copy, so their sum is what they do
            wanted = sum(wanted[:, i * SIZE : (i + 1) * SIZE] for i in range(CLASSES))
        assert ours[here].dtype == wanted.dtype
        torch.testing.assert_close(ours[here], wanted.reshape(OURS[here]))
    unfolded = our_state(theirs, model(**{"vocabulary.widen.weight": (3, CLASSES * SIZE)}), 2)
    assert torch.equal(unfolded["vocabulary.widen.weight"], theirs[WIDE])
