"""Every switch of `inference.*` makes the recogniser do something else and say the same."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_config, tiny_model
from torch import Tensor, nn

from cocoer.benchmark.model import random_model
from cocoer.benchmark.variants import person_batch
from cocoer.config import change_config, load_config
from cocoer.data.batch import Batch
from cocoer.export.onnx_model import ExportedModel
from cocoer.inference.acceleration import _is_recordable, accelerated, lowered
from cocoer.inference.cuda_graph import GraphedModel, recorded_size
from cocoer.inference.recognizer import Recognizer
from cocoer.model.level_model import ModelOutput

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]


def recognizer(*switches: str) -> Recognizer:
    return Recognizer(tiny_model(), tiny_config(*(f"inference.{text}" for text in switches)))


def answer(made: Recognizer, count: int = 4) -> ModelOutput:
    return made.predict_tensors(person_batch(tiny_config(), count, CPU))


def tensors_in(value: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor of an output by its place."""
    if isinstance(value, Tensor):
        return {name: value}
    found = {}
    if is_dataclass(value):
        for f in fields(value):
            found |= tensors_in(getattr(value, f.name), f"{name}.{f.name}")
    return found


def norms_in(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_the_recogniser_fuses_by_itself_and_says_what_the_plain_model_says() -> None:
    plain, folded = recognizer("fold=false", "channels_last=false"), recognizer()
    assert norms_in(plain.model) > 0 == norms_in(folded.model) and folded.model.folded
    wanted = tensors_in(answer(plain))
    for name, value in tensors_in(answer(folded)).items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.slow  # two models of 1.4 GB
@pytest.mark.parametrize("config", ["emotic.yaml", "emotic_release.yaml"])
def test_the_full_size_model_says_the_same_when_it_is_fast(config: str) -> None:
    settings = load_config(ROOT / "configs" / config)
    plain = change_config(
        settings, ["inference.fold=false", "inference.channels_last=false", "inference.prepack=false"]
    )
    model = random_model(settings, CPU)
    slow = Recognizer(deepcopy(model), plain)
    wanted = {n: tensors_in(slow.predict_tensors(person_batch(settings, n, CPU))) for n in (1, 3)}
    del slow
    fast = Recognizer(model, settings)
    for persons, answers in wanted.items():
        for name, value in tensors_in(fast.predict_tensors(person_batch(settings, persons, CPU))).items():
            scale = max(1.0, float(answers[name].abs().max()))  # losses and norms are sums of many
            torch.testing.assert_close(value, answers[name], rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("on", [True, False])
def test_channels_last_reaches_weights_and_images(on: bool) -> None:
    made = recognizer(f"channels_last={str(on).lower()}", "prepack=false")
    layouts = []
    first = next(m for m in made.model.backbones["head"].modules() if isinstance(m, nn.Conv2d))
    first.register_forward_hook(lambda conv, args, _out: layouts.extend([args[0], conv.weight]))
    answer(made)
    assert len(layouts) == 2
    for tensor in layouts:
        assert tensor.is_contiguous(memory_format=torch.channels_last) == on != tensor.is_contiguous()


def test_bf16_is_autocast_with_weights_cast_once() -> None:
    config, batch = tiny_config(), person_batch(tiny_config(), 3, CPU)
    given = (batch.head, batch.body, batch.context, batch.head_xyxy, batch.body_xyxy)
    model = tiny_model()
    model.fold()
    small = lowered(deepcopy(model))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        wanted, got = tensors_in(model(*given)), tensors_in(small(*given))
    assert all(torch.equal(value, wanted[name]) for name, value in got.items())
    kinds = {weight.dtype for weight in small.backbones.parameters()}
    assert kinds == {torch.bfloat16} and small.heads["body"].prediction.weight.dtype == torch.float32
    with torch.inference_mode():
        exact = tensors_in(model(*given))[".logits"]
    assert 0 < (got[".logits"].float() - exact).abs().max() < 0.1
    assert config.inference.precision == "fp32", "the answers of float32 are the default"


def test_bf16_leaves_the_model_in_float32_for_explanations() -> None:
    made = recognizer("precision=bf16")
    exact = answer(recognizer()).logits
    assert 0 < (answer(made).logits.float() - exact).abs().max() < 0.1
    assert {p.dtype for p in made.model.parameters()} == {torch.float32}


def test_an_unfused_branch_adds_its_blocks_up_in_float32() -> None:
    folded, unfolded = recognizer("precision=bf16"), recognizer("precision=bf16", "fold=false")
    torch.testing.assert_close(answer(unfolded).logits, answer(folded).logits, rtol=0, atol=0.1)


@pytest.mark.slow  # the compiler takes a minute
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own
def test_a_compiled_recogniser_says_the_same_for_every_batch_size() -> None:
    plain, made = recognizer(), recognizer("compile=true")
    for count in (4, 1, 7):
        wanted = tensors_in(answer(plain, count))
        for name, value in tensors_in(answer(made, count)).items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-4, msg=name)


def test_a_switch_that_cannot_be_followed_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"inference\.cuda_graph: wanted a GPU, the model is on cpu"):
        recognizer("cuda_graph=true")
    exported = ExportedModel(None, 80)  # type: ignore[arg-type]
    for switch, name in (("precision=bf16", "precision"), ("compile=true", "compile")):
        settings = tiny_config(f"inference.{switch}").inference
        with pytest.raises(ValueError, match=rf"inference\.{name}: an exported file runs in onnxruntime"):
            accelerated(exported, settings, CPU)


class Recorder:
    """Stands for the GPU: does recorded work again, into the tensors of the first time."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, work: Callable[[], ModelOutput]) -> tuple[ModelOutput, Callable[[], object]]:
        self.recorded += 1
        output = work()

        def replay() -> None:
            fresh = tensors_in(work())
            for name, tensor in tensors_in(output).items():
                tensor.copy_(fresh[name])

        return output, replay


@torch.inference_mode()
def test_a_recorded_pass_answers_each_batch_and_keeps_what_it_answered() -> None:
    model, recorder = tiny_model(), Recorder()

    def forward(batch: Batch) -> ModelOutput:
        return model(batch.head, batch.body, batch.context, batch.head_xyxy, batch.body_xyxy)

    graphed = GraphedModel(forward, CPU, record=recorder)
    first, second = person_batch(tiny_config(), 3, CPU), person_batch(tiny_config(), 3, CPU)
    second.context.mul_(-1.0)
    single = person_batch(tiny_config(), 1, CPU)
    answers = [graphed(batch) for batch in (first, second, single, first)]
    assert recorder.recorded == 2, "once per batch size"
    for batch, given in zip((first, second, single, first), answers, strict=True):
        wanted = tensors_in(forward(batch))
        assert all(torch.equal(value, wanted[name]) for name, value in tensors_in(given).items())
    assert not torch.equal(answers[0].logits, answers[1].logits)


@torch.inference_mode()
def test_few_sizes_are_recorded_for_any_number_of_persons() -> None:
    model, recorder = tiny_model(), Recorder()

    def forward(batch: Batch) -> ModelOutput:
        return model(batch.head, batch.body, batch.context, batch.head_xyxy, batch.body_xyxy)

    graphed = GraphedModel(forward, CPU, lambda n: recorded_size(n) if n < 7 else None, recorder)
    for persons in (3, 4, 5, 6, 1, 7, 3):
        batch = person_batch(tiny_config(), persons, CPU)
        given, wanted = tensors_in(graphed(batch)), tensors_in(forward(batch))
        assert all(value.shape == wanted[name].shape for name, value in given.items())
        assert all(torch.allclose(value, wanted[name], atol=1e-5) for name, value in given.items())
    assert recorder.recorded == 3, "1, 4 and 8; seven persons run as they are"
    assert [recorded_size(n) for n in (1, 2, 3, 8, 9, 64, 65)] == [1, 2, 4, 8, 16, 64, None]


def test_by_default_only_what_is_known_to_wait_for_nothing_is_recorded() -> None:
    assert _is_recordable(tiny_model())
    assert not _is_recordable(tiny_model("model.level_head.mapping=vit"))
    other = tiny_model()

    class Own(nn.Identity):
        pass

    other.fusion = nn.Sequential(other.fusion, Own())  # a part of somebody else's module
    assert not _is_recordable(other)
