"""What a weights file is checked for, each check on a few tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cocoer.config import load_config
from cocoer.errors import CheckpointError
from cocoer.model import build
from cocoer.model import checkpoint as c

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "checkpoints/demo/demo_emotic.safetensors"


def test_a_model_is_built_no_larger_than_twice_the_files_numbers_and_sixteen_mebibytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2^22 numbers of four bytes: for tables that are computed and the placeholder of the text tower."""

    class Told(Exception):
        pass

    def told(most: int) -> None:
        raise Told(most)

    monkeypatch.setattr(build, "BlankWeights", told)
    with pytest.raises(Told) as most:
        c.load_weights(DEMO)
    numbers = sum(tensor.numel() for tensor in c.read_tensors(DEMO).values())
    assert most.value.args[0] == 2 * numbers + 16 * 1024 * 1024 // 4


def test_every_name_and_shape_is_compared() -> None:
    model = nn.Linear(3, 2)
    assert c.compare_keys(model, model.state_dict()).fits
    found = c.compare_keys(model, {"weight": torch.ones(3, 2), "more": torch.ones(1), "again": torch.ones(1)})
    assert found == c.KeyReport(("bias",), ("again", "more"), ("weight: wanted [2, 3], got [3, 2]",))
    for one in (("a",), (), ()), ((), ("a",), ()), ((), (), ("a",)):
        assert not c.KeyReport(*one).fits
    assert str(c.KeyReport(("a",), ("b",), ("c",))) == "  missing: a\n  unexpected: b\n  misshapen: c"


def test_the_frozen_tower_is_its_numbers_and_not_its_counters() -> None:
    model = nn.ModuleDict({"vocabulary": nn.ModuleDict({"tower": nn.BatchNorm1d(2), "other": nn.Linear(1, 1)})})
    prefix = "vocabulary.tower."
    assert c.frozen_tower_keys(model) == {prefix + n for n in ("weight", "bias", "running_mean", "running_var")}


@pytest.mark.parametrize(("widen", "folded"), [((6, 4), True), ((6, 12), False), (None, False)])
def test_weights_are_folded_where_ffn1_sees_one_embedding(widen: tuple[int, ...] | None, folded: bool) -> None:
    tensors = {"vocabulary.alignment.weight": torch.ones(4, 4)}
    if widen:
        tensors["vocabulary.widen.weight"] = torch.ones(widen)
    assert c._stored_folded(tensors) == folded
    assert not c._stored_folded({"vocabulary.widen.weight": torch.ones(6, 4)})


def test_a_norm_that_was_shared_is_given_to_the_context_too() -> None:
    model = nn.ModuleDict({"block": nn.ModuleDict({"norm_query": nn.LayerNorm(2), "norm_context": nn.LayerNorm(2)})})
    old = {"block.norm_query.weight": torch.tensor([1.0, 2.0]), "block.norm_query.bias": torch.tensor([3.0, 4.0])}
    found = c._with_context_norms(model, old)
    assert set(found) == set(model.state_dict())
    for part in ("weight", "bias"):
        assert torch.equal(found[f"block.norm_context.{part}"], old[f"block.norm_query.{part}"])
    today = model.state_dict() | {"block.norm_context.bias": torch.ones(2)}
    assert c._with_context_norms(model, today) is today


@pytest.mark.parametrize(
    ("texts", "prompt", "said"),
    [
        (torch.eye(2), "a", None),
        (torch.eye(2), "b", "are those of the prompt 'a', got 'b'"),
        (None, "a", "has no text embeddings of its classes"),
        (torch.zeros(2, 2), "a", "has no text embeddings of its classes"),
        (torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "a", "has no text embeddings of its classes"),
        (torch.tensor([[1.0, 0.0], [1.0, 0.0]]), "a", None),  # no class has the second number, but each has one
    ],
)  # fmt: skip
def test_agreement_reads_against_the_texts_of_its_prompt(texts: Tensor | None, prompt: str, said: str | None) -> None:
    tensors: dict[str, Any] = {} if texts is None else {"vocabulary.text_embeddings": texts}
    if said is None:
        c._check_texts(tensors, "a", prompt, "weights x")
    else:
        with pytest.raises(CheckpointError, match=f"weights x: .*{said}"):
            c._check_texts(tensors, "a", prompt, "weights x")


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ([], True),
        (["model.vocabulary.enabled=false"], False),
        (["model.vocabulary.tower=RN50"], False),
    ],
)  # fmt: skip
def test_a_towers_own_file_goes_into_the_weights_that_use_it(changes: list[str], kept: bool) -> None:
    config = load_config(ROOT / "configs/demo_emotic.yaml", changes)
    assert (c._tower_config(config) is not None) == kept


def test_a_folder_stands_for_the_weights_in_it_and_thresholds_are_those_that_were_stored(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert c.find_weights(tmp_path) == c.find_weights(tmp_path / "model.safetensors") == tmp_path / "model.safetensors"
    stored = {"split": "val", "classes": {"Peace": 0.3}}
    config: Any = None
    for metadata, wanted in (({"thresholds": stored}, stored), ({"thresholds": None}, {}), ({}, {})):
        assert c.Loaded(config, config, metadata, tmp_path).thresholds == wanted
