"""Agreement inside the model: who leaves, what the simplex program and the fusion see, training, export and bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import persons, tiny_config, tiny_model
from tiny_recognizer import tiny_checkpoint
from training_world import make_world, train

from cocoer.config import change_config, config_to_dict
from cocoer.errors import CheckpointError, ConfigError
from cocoer.evaluation.evaluate import _columns
from cocoer.export.onnx_export import export_model, largest_difference
from cocoer.export.onnx_model import load_exported
from cocoer.inference.predictions import LabelRule, Scores, answers_of, placed
from cocoer.model.agreement import Agreement, agree, vote_label
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_weights, save_weights
from cocoer.model.cocoer import CocoER, ModelOutput
from cocoer.model.competition import compete
from cocoer.model.losses import competition_weights
from cocoer.model.simplex_qp import solve_simplex_qp
from cocoer.model.zero_shot import Tower, load_tower
from cocoer.names import LEVELS
from cocoer.outputs import PersonBoxes
from cocoer.report.runlog import read_log

RULE = "model.competition.rule=agreement"
GATE = "model.competition.gate=true"
VIEWS = ("context", "body", "levels")


def alike(first: CocoER, *changes: str) -> CocoER:
    """Another model with the same weights."""
    made = tiny_model(*changes)
    made.load_state_dict(first.state_dict())
    return made


def people(count: int, side: int = 80) -> tuple[torch.Tensor, ...]:
    """Made-up persons whose crops differ in coarse shapes, as images do: one noise is like another to a pooling tower."""
    *_, head_xyxy, body_xyxy = persons(count, side)
    rng = torch.Generator().manual_seed(4)
    coarse = 3.0 * torch.randn(3 * count, 3, 3, 3, generator=rng)
    shapes = torch.nn.functional.interpolate(coarse, side, mode="nearest").unflatten(0, (3, count))
    return (*shapes, head_xyxy, body_xyxy)


def answers(model: CocoER, inputs: tuple[torch.Tensor, ...]) -> ModelOutput:
    with torch.no_grad():
        return model(*inputs)


def read_by_hand(model: CocoER, inputs: tuple[torch.Tensor, ...], scale: float = 20.0) -> Agreement:
    """What CLIP reads in each crop by itself, one view at a time."""
    branch = model.vocabulary
    assert branch is not None
    with torch.inference_mode():
        each = [branch.image_embedding(crop) @ branch.text_embeddings.T for crop in inputs[:3]]
    return agree(torch.stack(each, dim=1), scale)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dataset", ["emotic", "caers"])
def test_the_readings_say_who_leaves_and_nothing_else_changes(view: str, dataset: str) -> None:
    base = (f"model.vocabulary.view={view}", f"data.dataset={dataset}")
    plain, inputs = tiny_model(*base), people(8)
    agreeing = alike(plain, *base, RULE)
    before, after, wanted = answers(plain, inputs), answers(agreeing, inputs), read_by_hand(plain, inputs)
    assert after.agreement is not None and after.competition is not None and before.agreement is None
    torch.testing.assert_close(after.competition.losses, wanted.losses, rtol=1e-4, atol=1e-5)
    assert torch.equal(after.competition.exclusion, wanted.exclusion)
    assert not torch.equal(after.competition.exclusion, before.competition.exclusion)
    assert len({tuple(order) for order in wanted.exclusion.tolist()}) > 1
    for name in ("level_logits", "vocabulary_logits", "pseudo_label", "level_features"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), rtol=1e-5, atol=1e-6)


def test_the_simplex_program_runs_on_the_losses_of_agreement() -> None:
    model, inputs = tiny_model(RULE, "model.coordination.update=two"), people(6)
    output = answers(model, inputs)
    found, label = output.competition, output.pseudo_label
    assert output.agreement is not None and found is not None and label is not None
    weights = competition_weights("dynamic", label)
    own = compete(output.level_features, model.head_parameters(), label, weights, multi_label=True)
    gram = (own.errors @ own.errors.mT) * (own.features @ own.features.mT)
    stays = torch.arange(3) != output.agreement.exclusion[:, :1]
    torch.testing.assert_close(found.weights[:, 0], solve_simplex_qp(gram, output.agreement.losses))
    torch.testing.assert_close(found.weights[:, 1], solve_simplex_qp(gram, output.agreement.losses, stays))
    survivor = output.agreement.exclusion[:, 2]
    still = output.refined[torch.arange(6), survivor]
    torch.testing.assert_close(still, output.level_features[torch.arange(6), survivor])
    assert (output.refined != output.level_features).any(-1).sum() == 12  # type two moves the two that left


@pytest.mark.parametrize("changes", [(), ("model.competition.gate_slope=2.0", "model.competition.gate_threshold=0.1")])
def test_the_gate_weakens_what_the_fusion_sees_of_the_first_to_leave(changes: tuple[str, ...]) -> None:
    plain, inputs = tiny_model(RULE, *changes), people(6)
    gate = alike(plain, RULE, GATE, *changes)
    before, after = answers(plain, inputs), answers(gate, inputs)
    assert after.agreement is not None
    torch.testing.assert_close(after.refined, before.refined * 3 * after.agreement.shares.unsqueeze(-1))
    torch.testing.assert_close(after.fused_features[:, : after.refined[0].numel()], after.refined.flatten(1))
    torch.testing.assert_close(after.logits, plain.fusion(after.fused_features))
    first = after.agreement.shares.gather(1, after.agreement.exclusion[:, :1])
    assert (first <= after.agreement.shares.amin(1, keepdim=True)).all() and (after.logits != before.logits).any()


def test_the_vote_can_judge() -> None:
    for dataset, positives in (("emotic", None), ("caers", 1)):
        base = (f"data.dataset={dataset}",)
        plain, inputs = tiny_model(*base), people(6)
        judged = answers(alike(plain, *base, "model.competition.pseudo_label=agreement"), inputs)
        vote = read_by_hand(plain, inputs).vote
        assert torch.equal(judged.pseudo_label, vote_label(vote, multi_label=dataset == "emotic"))
        assert judged.agreement is None  # the paper's rule says who leaves
        assert positives is None or (judged.pseudo_label.sum(1) == positives).all()
        assert dataset == "caers" or torch.equal(judged.pseudo_label, (vote > 2 / 26).float())


@pytest.mark.parametrize("view", VIEWS)
def test_known_embeddings_take_the_place_of_the_crops(view: str) -> None:
    model, inputs = tiny_model(RULE, GATE, f"model.vocabulary.view={view}"), people(4)
    assert model.vocabulary is not None
    with torch.inference_mode():
        looked = model.vocabulary.look(*inputs[:3])
        assert looked.shape == (4, 3, 64)
        direct, known = model(*inputs), model(*inputs, embedding=looked)
    torch.testing.assert_close(known.logits, direct.logits)


def test_a_person_does_not_depend_on_its_neighbours_and_training_gives_gradients() -> None:
    model, inputs = tiny_model(RULE, GATE, "model.competition.pseudo_label=agreement"), people(5)
    whole = answers(model, inputs)
    for i in range(5):
        alone = answers(model, tuple(x[i : i + 1] for x in inputs))
        torch.testing.assert_close(alone.logits, whole.logits[i : i + 1], rtol=1e-4, atol=1e-5)
    model.train()
    model(*inputs).logits.sum().backward()
    named = dict(model.named_parameters())
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for n, p in named.items()
        if n.startswith(("fusion", "backbones"))
    )
    assert all(p.grad is None for n, p in named.items() if n.startswith("vocabulary.tower"))


@pytest.mark.parametrize(
    ("changes", "rule"), [((), "paper"), ((RULE,), "agreement"), (("model.coordination.update=none",), "paper")]
)
def test_every_person_says_which_rule_decided(changes: tuple[str, ...], rule: str) -> None:
    model, told = tiny_model(*changes), LabelRule.of(tiny_config(*changes))
    for answer in answers_of(Scores.of_output(answers(model, people(2)), True), told):
        assert placed(answer, 0, PersonBoxes((0, 0, 9, 9), (1, 1, 3, 3)), {}).to_dict()["rule"] == rule


def test_a_blank_person_gets_the_status(tmp_path: Path) -> None:
    model = tiny_model(RULE)
    blank = torch.full((1, 3, 80, 80), 0.3)
    boxes = torch.tensor([[0.0, 0, 40, 40]])
    mixed = tuple(torch.cat([a[:1], b]) for a, b in zip(people(1), (blank, blank, blank, boxes, boxes), strict=True))
    (first, second) = answers_of(Scores.of_output(answers(model, mixed), True), LabelRule.of(tiny_config()))
    assert first.status == "ok" and second.status == "equal_readings"
    assert second.competition is not None and second.competition.exclusion == ("head", "body", "context")
    plain = answers_of(Scores.of_output(answers(tiny_model(), mixed), True), LabelRule.of(tiny_config()))
    assert not any(answer.status == "equal_readings" for answer in plain)


@pytest.mark.parametrize("gate", [False, True])
def test_the_exported_file_answers_as_the_model_does(gate: bool, tmp_path: Path) -> None:
    settings = (RULE, f"model.competition.gate={str(gate).lower()}", "model.competition.logit_scale=500")
    model, config = tiny_model(*settings), tiny_config(*settings)
    metadata = {"format_version": 1, "config": config_to_dict(config), "classes": list(config.classes)}
    assert export_model(model, config, metadata, tmp_path / "own.onnx") <= 1e-4
    run, stored, _ = load_exported(tmp_path / "own.onnx")
    assert stored.model.competition.rule == "agreement"
    inputs = people(5, config.data.image_size)
    for crops in inputs[:3]:
        crops[0] = 0.25  # a blank person
    wanted, got = answers(model, inputs), answers(run, inputs)
    assert got.agreement is not None and wanted.agreement is not None
    assert torch.equal(got.competition.exclusion, wanted.competition.exclusion)
    assert largest_difference(got.logits, wanted.logits) <= 1e-4
    assert wanted.agreement.undecided[0] and not wanted.agreement.undecided.all()
    assert got.agreement.undecided.tolist() == wanted.agreement.undecided.tolist()


def test_a_run_trains_with_it_and_kept_embeddings_are_the_same_run(tmp_path: Path) -> None:
    config = make_world(tmp_path / "world", train=12, other=4)
    seen = {}
    kept = f"data.embeddings={tmp_path}/embeddings"
    for name, more in (("plain", []), ("kept", [kept]), ("again", [kept])):
        still = ["data.augment.flip=0", "data.augment.jitter=0", f"run.dir={tmp_path}/{name}", "run.max_steps=3"]
        assert train(config, settings=[*still, RULE, GATE, *more]) == 0
        lines = read_log(tmp_path / name / "log.jsonl")
        seen[name] = [line["loss"] for line in lines if line["kind"] in ("step", "epoch")]
    assert seen["kept"] == pytest.approx(seen["plain"], rel=1e-5) and seen["again"] == seen["kept"]
    (file,) = (tmp_path / "embeddings").iterdir()
    assert load_file(file)["embeddings"].shape == (12, 3, 16)
    assert load_weights(tmp_path / "plain" / "last.safetensors").config.model.competition.gate


STILL = ("data.embeddings=kept", "data.augment.jitter=0", "data.augment.flip=0", "data.augment.box_shift=0.1")
NO_CLIP = "model.vocabulary.enabled=false"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([RULE, NO_CLIP], "agreement reads the crops with V-I's CLIP; set model.vocabulary.enabled to true"),
        (["model.competition.pseudo_label=agreement", NO_CLIP], "set model.vocabulary.enabled to true"),
        ([RULE, "model.coordination.update=release"], "set model.coordination.update to one, two or none"),
        ([GATE], r"model.competition.gate: wanted model.competition.rule: agreement beside it, got 'paper'"),
        ([RULE, "model.competition.logit_scale=0"], "logit_scale"),
        ([RULE, "model.competition.gate_slope=-1"], "gate_slope"),
        ([RULE, "model.vocabulary.view=context", *STILL], "box_shift"),
    ],
)
def test_a_config_that_cannot_be_is_an_error(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(*settings)


def test_weights_that_cannot_be_read_against_are_an_error(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(tmp_path)

    def loaded(*changes: str) -> object:
        return load_weights(checkpoint, change=lambda config: change_config(config, changes))

    assert loaded(RULE)
    with pytest.raises(CheckpointError, match=r"are those of the prompt .This photo shows .*, got 'a \{emotion\}'"):
        loaded(RULE, "model.vocabulary.prompt='a {emotion}'")
    with pytest.raises(CheckpointError, match="made for 26 classes"):
        loaded(RULE, "data.dataset=caers")
    stored = load_weights(checkpoint)
    assert stored.model.vocabulary is not None
    stored.model.vocabulary.text_embeddings[4] = 0.0
    save_weights(checkpoint, stored.model, stored.config, metrics={}, thresholds={})
    assert loaded()
    with pytest.raises(CheckpointError, match="has no text embeddings of its classes"):
        loaded(RULE)


def test_a_tower_without_text_is_an_error(tmp_path: Path) -> None:
    whole = load_tower(Tower("configs/demo_clip.json", "checkpoints/demo/clip.safetensors")).state_dict()
    torch.save({k: v for k, v in whole.items() if k.startswith("visual")}, tmp_path / "visual.pt")
    config = tiny_config(RULE, f"model.vocabulary.weights={tmp_path / 'visual.pt'}")
    with pytest.raises(ValueError, match=r"do not fit the tower: .* keys missing"):
        build_model(config)


def test_with_a_gate_the_vote_counts_the_levels_by_their_shares() -> None:
    plain, inputs = tiny_model(RULE, GATE), people(6)
    before, after = answers(plain, inputs), answers(alike(plain, RULE, GATE, "model.competition.vote=true"), inputs)
    assert before.agreement is not None
    levels = (before.agreement.shares.unsqueeze(-1) * before.level_logits.sigmoid()).sum(1)
    torch.testing.assert_close(
        after.logits.sigmoid(), 0.5 * before.logits.sigmoid() + 0.5 * levels, rtol=1e-4, atol=1e-5
    )


def test_an_empty_pseudo_label_leaves_agreement_its_word() -> None:
    model, inputs = tiny_model(RULE, "model.vocabulary.threshold=1.0"), people(4)
    output = answers(model, inputs)
    assert output.agreement is not None and output.pseudo_label is not None and not output.pseudo_label.any()
    found = answers_of(Scores.of_output(output, True), LabelRule.of(tiny_config()))
    orders = [answer.competition.exclusion for answer in found if answer.competition is not None]
    assert orders == [tuple(LEVELS[m] for m in order) for order in output.agreement.exclusion.tolist()]
    kept = _columns(output, True)["exclusion"]
    assert kept.tolist() == output.agreement.exclusion.tolist()
    unjudged = _columns(answers(tiny_model("model.vocabulary.threshold=1.0"), inputs), True)["exclusion"]
    assert (unjudged == -1).all()
