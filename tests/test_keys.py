"""The published checkpoint's names and shapes against ours, on state dicts of a few tensors each."""

from __future__ import annotations

import pytest
import torch
from release_files import FEW_CLASSES, FEW_OURS, FEW_SIZE, FEW_THEIRS, few_published, few_tensors

from cocoer.model.release.keys import WIDE, KeyFates, key_fates, our_state, published_names


def test_every_key_of_ours_has_the_published_name() -> None:
    assert list(published_names(FEW_OURS, 2).values()) == list(FEW_THEIRS)
    for stray in ("novelty.weight", "novelty", ".novelty", "heads.body.novelty.bias"):
        with pytest.raises(KeyError, match="has no counterpart in the published checkpoint"):
            published_names([stray], 2)
    with pytest.raises(KeyError):
        published_names(["cross_level.blocks.head.1.norm_query.bias"], 1)  # the second block of one


def test_a_key_is_used_ignored_unknown_missing_or_of_another_shape() -> None:
    whole = few_published()
    fates = key_fates(whole, few_tensors(), 2)
    assert fates.used == dict(zip(FEW_THEIRS, published_names(FEW_OURS, 2), strict=True))
    assert fates == KeyFates(fates.used, (), (), (), ())
    changed = whole | {"head_proj.weight": torch.ones(6, 2), WIDE: torch.ones(3, FEW_SIZE), "b": torch.ones(1)}
    changed |= {
        "a": torch.ones(1),
        "shar_after.bias": torch.ones(2),
        "encoder_head.0": torch.ones(2),
        "cls_en_all.1": torch.ones(1),
    }
    del changed["VI_ffn.1.bias"], changed["cls_HFE_body.3.bias"]
    fates = key_fates(changed, few_tensors(), 2)
    assert fates.ignored == ("cls_en_all.1", "encoder_head.0", "shar_after.bias") and fates.unknown == ("a", "b")
    assert fates.missing == ("VI_ffn.1.bias", "cls_HFE_body.3.bias") and len(fates.used) == len(FEW_THEIRS) - 2
    assert fates.misshapen == (
        f"{WIDE}: wanted [3, 12], got [3, 4]",
        "head_proj.weight: wanted [6, 2, 1, 1], got [6, 2]",
    )
    assert str(fates) == (
        "5 keys used, 3 ignored: cls_en_all (1), encoder_head (1), shar_after (1); 2 unknown, 2 missing, 2 of a wrong shape"
    )
    assert fates.lines()[-3:] == ["missing cls_HFE_body.3.bias", *(f"misshapen {line}" for line in fates.misshapen)]


def test_a_state_of_theirs_becomes_one_of_ours_number_by_number() -> None:
    theirs = {
        name: torch.randn(shape, generator=torch.Generator().manual_seed(3)) for name, shape in FEW_THEIRS.items()
    }
    counter = "backbone.context.4.0.bn1.num_batches_tracked"
    theirs |= {counter: torch.tensor(7), "cls_HFE_body.3.bias": theirs["cls_HFE_body.3.bias"].half()}
    ours = our_state(theirs, few_tensors(), 2)
    names = published_names(FEW_OURS, 2)
    assert list(ours) == list(names)
    for here, there in names.items():
        wanted = theirs[there] if there == counter else theirs[there].float()
        if there == WIDE:  # k blocks of columns see the same copy, so their sum is what they do
            wanted = sum(wanted[:, i * FEW_SIZE : (i + 1) * FEW_SIZE] for i in range(FEW_CLASSES))
        assert ours[here].dtype == wanted.dtype
        torch.testing.assert_close(ours[here], wanted.reshape(FEW_OURS[here]))
    unfolded = our_state(theirs, few_tensors({"vocabulary.widen.weight": (3, FEW_CLASSES * FEW_SIZE)}), 2)
    assert torch.equal(unfolded["vocabulary.widen.weight"], theirs[WIDE])
