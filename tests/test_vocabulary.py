"""The vocabulary-informed branch: frozen tower, layouts, folding, pseudo label."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_models import ROOT
from torch import Tensor, nn

from cocoer.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from cocoer.model.clip_tower import CLIP_MEAN, CLIP_STD, build_clip, encode_prompts, image_side
from cocoer.model.foreign_weights import read_foreign_weights
from cocoer.model.vocabulary import (
    RepeatedInputLinear,
    VocabularyBranch,
    fold_copies,
    pseudo_label,
    together,
)

SIZE, CLASSES, FEATURES = 12, 5, 7


class Tower(nn.Module):
    """Stands for CLIP's image tower: a batch norm, a pooled projection, an input size."""

    def __init__(self, image_size: int = 16) -> None:
        super().__init__()
        self.image_size = (image_size, image_size)
        self.norm = nn.BatchNorm2d(3)
        self.project = nn.Linear(3 * 4, SIZE)
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        return self.project(F.adaptive_avg_pool2d(self.norm(images), 2).flatten(1))


def branch(layout: str = "repeat", seed: int = 0, **options: bool) -> VocabularyBranch:
    torch.manual_seed(seed)
    text = F.normalize(torch.randn(CLASSES, SIZE), dim=-1)
    return VocabularyBranch(Tower(), text, FEATURES, layout, **options)


def test_shapes_and_unit_norm() -> None:
    made = branch().eval()
    images = torch.randn(3, 3, 16, 16)
    embedding = made.image_embedding(images)
    torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(3))
    output = made(images)
    assert (output.aligned.shape, output.z.shape, output.logits.shape) == ((3, SIZE), (3, FEATURES), (3, CLASSES))
    torch.testing.assert_close(output.aligned, embedding @ made.alignment.weight.T)
    torch.testing.assert_close(output.logits, made.prediction(output.z))
    torch.testing.assert_close(made.alignment.weight @ made.alignment.weight.T, torch.eye(SIZE), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["repeat", "modulate"])
def test_layouts_are_their_definition(layout: str) -> None:
    made = branch(layout)
    embedding = F.normalize(torch.randn(2, SIZE), dim=-1)
    aligned = made.alignment(embedding)
    copies = []
    for j in range(CLASSES):
        copies.append(aligned if layout == "repeat" else aligned * SIZE**0.5 * made.text_embeddings[j])
    hidden = F.gelu(F.linear(F.gelu(torch.cat(copies, dim=1)), made.widen.weight, made.widen.bias))
    z = F.gelu(made.narrow(hidden))
    output = made.from_embedding(embedding)
    torch.testing.assert_close(output.z, z)
    torch.testing.assert_close(output.logits, made.prediction(z))


@pytest.mark.parametrize("layout", ["repeat", "modulate"])
def test_the_hidden_layer_has_a_quarter_of_its_input(layout: str) -> None:
    made = branch(layout)
    assert made.widen.weight.shape == (CLASSES * SIZE // 4, CLASSES * SIZE) and made.narrow.weight.shape == (
        FEATURES,
        15,
    )
    assert made.prediction.weight.shape == (CLASSES, FEATURES) and made.alignment.weight.shape == (SIZE, SIZE)
    if layout == "repeat":
        assert branch(layout, folded=True).widen.weight.shape == (CLASSES * SIZE // 4, SIZE)


def test_repeated_input_gives_answers_and_gradients_of_the_written_out_copies() -> None:
    torch.manual_seed(0)
    layer = RepeatedInputLinear(SIZE, CLASSES, 9).double()
    x = torch.randn(4, SIZE, dtype=torch.float64, requires_grad=True)
    seen = torch.randn(4, 9, dtype=torch.float64)  # a gradient that differs from output to output
    wanted = F.linear(x.repeat(1, CLASSES), layer.weight, layer.bias)
    inputs = (x, layer.weight, layer.bias)
    gradients = torch.autograd.grad((wanted * seen).sum(), inputs)
    got = layer(x)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    for a, b in zip(torch.autograd.grad((got * seen).sum(), inputs), gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_vocabulary_speaks_at_inference_only_where_it_modulates() -> None:
    for layout, speaks in (("repeat", False), ("modulate", True)):
        made = branch(layout)
        embedding = F.normalize(torch.randn(2, SIZE), dim=-1)
        before = made.from_embedding(embedding).logits
        made.text_embeddings.copy_(made.text_embeddings.flip(0))
        assert torch.equal(made.from_embedding(embedding).logits, before) != speaks


def test_folding_changes_the_size_and_not_the_answer() -> None:
    made = branch().double()
    embedding = F.normalize(torch.randn(4, SIZE, dtype=torch.float64), dim=-1)
    before = made.from_embedding(embedding)
    assert not made.folded
    made.fold()
    assert made.folded
    for a, b in zip(made.from_embedding(embedding), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    state = made.state_dict()
    made.fold()
    assert all(torch.equal(value, state[name]) for name, value in made.state_dict().items())
    again = branch(folded=True).double()
    again.load_state_dict(state)
    torch.testing.assert_close(again.from_embedding(embedding).logits, before.logits, rtol=1e-12, atol=1e-12)


def test_folding_needs_equal_copies() -> None:
    with pytest.raises(ValueError, match="only the layout 'repeat' can be folded, this branch has 'modulate'"):
        branch("modulate").fold()
    with pytest.raises(ValueError, match="only the layout 'repeat'"):
        branch("modulate", folded=True)


def test_fold_copies_is_exact_to_the_last_bits() -> None:
    weight = torch.randn(600, 5 * 8, generator=torch.Generator().manual_seed(0))
    x = torch.randn(8, dtype=torch.float64)
    wanted = weight.double() @ x.repeat(5)
    torch.testing.assert_close(fold_copies(weight, 5).double() @ x, wanted, rtol=0, atol=1e-5)


def test_the_tower_is_frozen_and_stays_in_eval() -> None:
    made = branch().train()
    assert made.training and not made.tower.training
    statistics = made.tower.norm.running_mean.clone()  # type: ignore[union-attr,operator]
    made(torch.randn(4, 3, 16, 16)).logits.sum().backward()
    assert torch.equal(made.tower.norm.running_mean, statistics)  # type: ignore[union-attr,arg-type]
    assert all(p.grad is None and not p.requires_grad for p in made.tower.parameters())
    assert all(p.grad is not None for name, p in made.named_parameters() if not name.startswith("tower"))


def test_the_tower_sees_its_own_normalisation_and_size() -> None:
    pixels = torch.rand(2, 3, 20, 20)

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    for clip, wanted in ((True, normalised(CLIP_MEAN, CLIP_STD)), (False, normalised(IMAGENET_MEAN, IMAGENET_STD))):
        made = VocabularyBranch(Tower(20), torch.eye(CLASSES, SIZE), FEATURES, clip_normalisation=clip).eval()
        made(normalised(IMAGENET_MEAN, IMAGENET_STD))
        torch.testing.assert_close(made.tower.seen[-1], wanted, rtol=1e-5, atol=1e-5)  # type: ignore[index,union-attr]
    small = branch().eval()
    small(normalised(IMAGENET_MEAN, IMAGENET_STD))
    assert small.tower.seen[-1].shape == (2, 3, 16, 16)  # type: ignore[index,union-attr]


def test_an_image_of_the_towers_own_side_is_not_resized_and_of_sides_the_first_is_the_height(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = branch().eval()
    with monkeypatch.context() as patch:
        patch.setattr(F, "interpolate", None)
        made(torch.zeros(2, 3, 16, 16))
    wide, one = (torch.nn.Module() for _ in range(2))
    wide.image_size, one.image_size = (32, 64), 24  # type: ignore[assignment]
    assert image_side(wide) == 32 and image_side(one) == 24


def test_one_embedding_stays_and_several_become_the_direction_of_their_sum() -> None:
    given = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(together(given[:, :1]), given[:, 0])
    for count in (2, 3):
        for person in range(2):
            total = sum(given[person, i] for i in range(count))
            torch.testing.assert_close(together(given[:, :count])[person], total / total.norm())  # type: ignore[union-attr,operator]


@pytest.mark.parametrize(("view", "place"), [("context", 2), ("body", 1), ("levels", None)])
def test_of_a_look_at_all_levels_the_branch_takes_its_own_view(view: str, place: int | None) -> None:
    looked = F.normalize(torch.randn(2, 3, SIZE, generator=torch.Generator().manual_seed(1)), dim=-1)
    made = VocabularyBranch(Tower(), torch.eye(CLASSES, SIZE), FEATURES, view=view, reads_levels=True)
    own = made.own_view(looked)
    assert torch.equal(own, together(looked) if place is None else looked[:, place])


def test_pseudo_labels() -> None:
    logits = torch.tensor([[0.0, -0.8, -0.9, 5.0], [-9.0, -9.0, -9.0, -8.0]], requires_grad=True)
    assert pseudo_label(logits, True, 0.3).tolist() == [
        [1, 1, 0, 1],
        [0, 0, 0, 0],
    ]  # sigmoid(-0.8) = 0.31, of -0.9: 0.29
    assert pseudo_label(logits, False, 0.3).tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]
    assert not pseudo_label(logits, True, 0.3).requires_grad
    assert pseudo_label(logits.bfloat16(), False, 0.3).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("error", "said"), [(AssertionError("odd width"), "odd width"), (AssertionError(), "AssertionError")]
)
def test_why_a_tower_cannot_be_built_is_said_also_where_open_clip_is_silent(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("open_clip.create_model", refuse)
    with pytest.raises(ValueError, match=f"RN50 cannot be built: {said}$"):
        build_clip("RN50", quick_gelu=True, with_text=False)


def test_unknown_towers_are_named() -> None:
    with pytest.raises(ValueError, match="open_clip does not have 'RN51', did you mean 'RN50'"):
        build_clip("RN51", quick_gelu=True, with_text=False)
    with pytest.raises(ValueError, match="no such file: nowhere.json"):
        build_clip("nowhere.json", quick_gelu=True, with_text=False)
    with pytest.raises(FileNotFoundError, match="CLIP weights: no such file"):
        read_foreign_weights("nowhere.pt", "CLIP weights")


def test_prompts_become_unit_vectors_that_tell_emotions_apart() -> None:
    tower = str(ROOT / "configs" / "demo_clip.json")
    torch.manual_seed(0)
    clip = build_clip(tower, quick_gelu=False, with_text=True)
    text = encode_prompts(clip, tower, [f"This photo shows {name} emotion." for name in ("Peace", "Anger", "Peace")])
    assert text.shape == (3, clip.visual.output_dim)  # type: ignore[union-attr]
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(3))
    assert torch.equal(text[0], text[2])
    assert not torch.allclose(text[0], text[1])
    assert text.dtype == torch.float32


def test_a_class_at_the_threshold_is_no_label_and_one_just_above_it_is() -> None:
    logits = torch.tensor([[0.0, 1e-6, -1e-6]], dtype=torch.float64)  # sigmoid(0) is 0.5 exactly
    assert pseudo_label(logits, True, 0.5).tolist() == [[0.0, 1.0, 0.0]]
