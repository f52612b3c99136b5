"""The description of a model: the paper's parameter count, pinned part by part, and agreement with a real model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_models import persons, tiny_config, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from cocoer.cli import describe as describe_command
from cocoer.config import load_config
from cocoer.model.describe import Description, blank_model, describe

ROOT = Path(__file__).resolve().parents[1]
EMOTIC = load_config(ROOT / "configs" / "emotic.yaml")


@cache
def paper() -> Description:
    """The description of the paper's model; worked out once."""
    return describe(EMOTIC)


def test_the_papers_parameter_count_part_by_part() -> None:
    description = paper()
    parts = {part.name: part.parameters for part in description.parts}
    assert list(parts)[-2:] == ["competition and coordination", "fusion FFN2"]  # in the order of the forward pass
    assert description.parts[-2].trainable == 0
    assert parts == {
        "backbones": 3 * 23_508_032,  # ResNet-50 without its classifier
        "patch projections E": 3 * (4 * 2048 * 1024 + 1024),
        "cross-level attention": 25_209_847,
        "level heads: mapping": 3 * (16 * 1024 * 256 + 256),
        "level heads: norm, prediction": 3 * (2 * 256 + 256 * 26 + 26),
        "V-I: CLIP image tower, frozen": 38_316_896,
        "V-I: alignment omega": 1024 * 1024,
        "V-I: FFN1": (26_624 * 6656 + 6656) + (6656 * 256 + 256) + (256 * 26 + 26),
        "competition and coordination": 0,
        "fusion FFN2": 337_946,
    }
    assert description.parameters == 352_138_393  # the paper: approximately 352.14 M
    block = 3 * 2 * 1024 + 3 * (1024 * 1023 + 1023) + (1023 * 1024 + 1024) + 2 * 1024 * 2048 + 2048 + 1024
    assert parts["cross-level attention"] == 3 * block + 16 * 1024  # one block a level, one position table for all
    frozen = {part.name for part in description.parts if part.parameters and not part.trainable}
    assert frozen == {"V-I: CLIP image tower, frozen"}


def test_multiply_adds_of_parts_that_can_be_worked_out_by_hand() -> None:
    description = paper()
    work = {part.name: part.multiply_adds for part in description.parts}
    assert work["patch projections E"] == 3 * 16 * 8192 * 1024
    assert work["level heads: mapping"] == 3 * 16 * 1024 * 256
    assert work["level heads: norm, prediction"] == 3 * 256 * 26  # a norm multiplies no matrices
    assert work["V-I: FFN1"] == 1024 * 6656 + 6656 * 256 + 256 * 26  # one of 26 equal copies is looked at
    assert work["fusion FFN2"] == 1024 * 256 + 256 * 256 + 256 * 26
    linear, attend = 16 * (4 * 1024 * 1023 + 2 * 1024 * 2048), 2 * 16 * 16 * 1023
    assert work["cross-level attention"] == 3 * (linear + attend)
    assert work["competition and coordination"] < 1e-4 * description.multiply_adds


def test_folding_takes_170_million_parameters_away() -> None:
    before, after = paper(), describe(EMOTIC, folded=True)
    copies = 25 * 1024 * 6656  # blocks of columns of FFN1's first Linear that all saw the same vector
    norms = (
        3 * 26_560 + 26_624
    )  # channels with a batch norm, in three backbones and in CLIP: scale and shift leave, a bias comes
    assert before.parameters - after.parameters == copies + norms == 170_393_600 + 106_304
    assert after.shapes == before.shapes
    assert after.multiply_adds == before.multiply_adds  # the repeated input is multiplied once before as well


def test_a_blank_model_is_the_real_one_without_numbers() -> None:
    blank, real = blank_model(tiny_config()), tiny_model()
    wanted = {name: tuple(value.shape) for name, value in real.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in blank.state_dict().items()} == wanted
    assert all(value.is_meta for value in blank.state_dict().values())
    description = describe(tiny_config())
    assert description.parameters == sum(p.numel() for p in real.parameters())
    shapes = dict(description.shapes)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        output = real(*persons(1))
    assert description.multiply_adds == counter.get_total_flops() // 2
    assert shapes["logits"] == tuple(output.logits.shape)
    assert shapes["fused features"] == tuple(output.fused_features.shape)
    assert shapes["tokens of a level"] == (1, 9, 24)  # 80 pixels: 5x5 cells, padded to 6x6, patches of 2x2


@pytest.mark.parametrize(("flags", "wanted"), [([], "352.14 M parameters"), (["--folded"], "folded: 181.6")])
def test_the_command(flags: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert describe_command.main(["--config", str(ROOT / "configs" / "emotic.yaml"), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert wanted in lines[0]
    assert any(line.startswith("fusion FFN2") and "337,946" in line for line in lines)


def test_the_command_names_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        describe_command.main(["--config", str(ROOT / "configs" / "emotic.yaml"), "--set", "model.tokens.pach=3"]) == 2
    )
    assert "did you mean 'patch'" in capsys.readouterr().err
