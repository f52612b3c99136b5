"""What an evaluation gathers and says: every person once, each number the one its name promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from programs import load_program
from sklearn import metrics as sk
from training_world import make_world, read, train

from cocoer.config import Config
from cocoer.data.loaders import build_dataset, build_loader
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.errors import ScoreError
from cocoer.evaluation import metrics as m
from cocoer.evaluation import summary as s
from cocoer.evaluation.evaluate import LATE_FUSION, Evaluation, _assembled, evaluate
from cocoer.evaluation.numbers import numbers_of
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_weights, save_weights
from cocoer.names import LEVELS
from cocoer.runtime import Runtime
from cocoer.weights.catalog import DEMO_CHECKPOINT

HERE = Runtime(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"), other=11)


@pytest.fixture(scope="module")
def weights(world: Path) -> Path:
    assert train(world, settings=["run.max_steps=2"]) == 0
    return world.parent / "run/best.safetensors"


def evaluated(config: Config, batch_size: int, split: str = "test", **changes: Any) -> Evaluation:
    torch.manual_seed(0)
    model = build_model(config, pretrained=False)
    people = build_dataset(config.data, split)
    loader = build_loader(config.data, split, batch_size, dataset=people)
    order = changes.get("order", [r.key for r in people.records])
    result = evaluate(model, loader, multi_label=config.multi_label, order=order, runtime=HERE)  # type: ignore[arg-type]
    assert model.training  # restored
    return result


def test_answers_do_not_depend_on_the_batch_size_and_come_in_index_order(world: Path) -> None:
    config = read(world)
    one, all_at_once = evaluated(config, 1), evaluated(config, 64)
    assert one.keys == tuple(f"test/{i:03d}.png#0" for i in range(11)) and len(one) == 11
    for source, scores in one.probabilities.items():
        np.testing.assert_allclose(scores, all_at_once.probabilities[source], atol=2e-6)
        assert scores.shape == (11, 26) and scores.dtype == np.float32
    assert one.exclusion is not None and (np.sort(one.exclusion, 1) == [0, 1, 2]).all()
    assert one.weights is not None and one.weights.shape == (11, 2, 3)
    levels = np.stack([one.probabilities[name] for name in ("head", "body", "ctx")])
    np.testing.assert_allclose(one.probabilities[LATE_FUSION], levels.mean(0), atol=1e-7)


def test_single_label_answers_sum_to_one(tmp_path: Path) -> None:
    config = read(make_world(tmp_path, "caers"))
    result = evaluated(config, 4)
    for scores in result.probabilities.values():
        np.testing.assert_allclose(scores.sum(1), 1.0, atol=1e-5)
    numbers = s.summarise(result, config.classes, False, "test")
    assert numbers["accuracy"] == pytest.approx(np.trace(np.array(numbers["confusion"])) / 7)
    assert set(numbers["recall"]) == set(config.classes) and "mAP" not in numbers


def test_an_ablated_model_is_evaluated_without_what_it_lacks(world: Path) -> None:
    result = evaluated(read(world, "model.vocabulary.enabled=false"), 8)
    assert result.exclusion is None and "VI" not in result.probabilities
    assert "exclusion" not in s.summarise(result, EMOTIC_CLASSES, True, "test")
    assert s.contradiction(result, ["head"] * 11) == {}


def rows(keys: list[str], value: float) -> tuple[list[str], dict[str, Any]]:
    return keys, {"p/pred": np.full((len(keys), 2), value), "targets": np.zeros((len(keys), 2))}


def test_parts_of_several_processes_are_put_in_order_without_padding() -> None:
    result = _assembled([rows(["c", "a"], 1.0), rows([], 0.0), rows(["b"], 2.0)], ["a", "b", "c"])
    assert result.keys == ("a", "b", "c") and result.probabilities["pred"][:, 0].tolist() == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("parts", "order"),
    [
        ([rows(["a", "b"], 1.0), rows(["b"], 1.0)], ["a", "b"]),  # a person twice, as padding would make
        ([rows(["a"], 1.0)], ["a", "b"]),
        ([rows(["a", "z"], 1.0)], ["a"]),
    ],
)
def test_missing_double_and_foreign_persons_are_refused(parts: Any, order: list[str]) -> None:
    with pytest.raises(ScoreError, match="persons once each"):
        _assembled(parts, order)


@pytest.mark.parametrize("count", [5, 7])
def test_a_refusal_names_five_persons(count: int) -> None:
    with pytest.raises(ScoreError) as told:
        _assembled([rows(["z"], 1.0)], ["z", *(f"m{i}" for i in range(count))])
    assert str(told.value).endswith("missing or foreign: m0, m1, m2, m3, m4")


def made_up(n: int = 300, seed: int = 0) -> Evaluation:
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 26)) < 0.2).astype(np.float32)
    scores = {name: (0.3 * targets + rng.random((n, 26))).astype(np.float32) / 1.3 for name in ("pred", "VI", "head")}
    exclusion = np.argsort(rng.random((n, 3)), axis=1)
    return Evaluation(
        tuple(map(str, range(n))), targets, scores, rng.random((n, 3)).astype(np.float32),
        np.full((n, 2, 3), 1 / 3, np.float32), exclusion, np.ones(n, np.float32), targets,
    )  # fmt: skip


def test_exclusion_shares_are_counts() -> None:
    shares = s.exclusion_shares(np.array([[0, 1, 2], [0, 2, 1], [2, 0, 1], [0, 1, 2]]))
    assert shares["first"] == {"head": 0.75, "body": 0.0, "context": 0.25}
    assert shares["survivor"] == {"head": 0.0, "body": 0.5, "context": 0.5}


def test_how_levels_competed_is_counted_by_hand() -> None:
    made = made_up(4)
    exclusion = np.array([[0, 1, 2], [1, 0, 2], [-1, -1, -1], [0, 2, 1]])
    weights = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    result = replace(made, exclusion=exclusion, weights=weights, delta_norm=np.array([1, 2, 3, 6], np.float32))
    found = s.mechanism(result)
    assert found["without_pseudo_label"] == 1 and found["delta_norm"] == 3
    assert found["exclusion"]["first"] == pytest.approx({"head": 2 / 3, "body": 1 / 3, "context": 0})
    assert found["exclusion"]["second"] == pytest.approx({"head": 1 / 3, "body": 1 / 3, "context": 1 / 3})
    assert found["exclusion"]["survivor"] == pytest.approx({"head": 0, "body": 1 / 3, "context": 2 / 3})
    assert [list(by.values()) for by in found["lambda"]] == [[9, 10, 11], [12, 13, 14]]
    assert list(found["hierarchy_loss"]) == list(LEVELS)
    assert list(found["hierarchy_loss"].values()) == pytest.approx(result.losses.mean(0).tolist())  # type: ignore[union-attr]
    assert s.mechanism(replace(made, exclusion=None)) == {}


def test_contradictions_count_marked_persons_only() -> None:
    result = made_up()
    assert result.exclusion is not None
    first = result.exclusion[:, 0]
    levels: list[str | None] = [
        LEVELS[first[i]] if i < 30 else LEVELS[(first[i] + 1) % 3] if i < 40 else None for i in range(300)
    ]
    found = s.contradiction(result, levels, resamples=200)
    assert found["persons"] == 40 and found["first_excluded"]["value"] == pytest.approx(0.75)
    assert found["first_excluded"]["low"] < 0.75 < found["first_excluded"]["high"]
    assert sum(by["persons"] for by in found["per_level"].values()) == 40
    by_chance = s.contradiction(result, [LEVELS[i % 3] for i in range(300)], resamples=200)["first_excluded"]
    assert by_chance["low"] < 1 / 3 < by_chance["high"]
    assert s.contradiction(result, [None] * 300) == {}


def test_the_class_frequency_baseline_is_the_score_of_equal_scores() -> None:
    result = made_up()
    equal = replace(result, probabilities={"pred": np.tile(result.targets.mean(0), (300, 1))})
    assert s.class_frequency_baseline(result.targets) == pytest.approx(s.headline(equal, True))


def test_differences_are_paired() -> None:
    """Two score sets that differ a little on the same persons: the pairs' interval is narrower than the two alone."""
    result = made_up()
    first = result.probabilities["pred"]
    second = first + np.random.default_rng(1).normal(0, 0.01, first.shape)
    pair = s.paired_difference(result.targets, first, second, True, resamples=200)
    alone = s.value_interval(result, True, resamples=200)
    assert pair.low <= pair.value <= pair.high
    assert pair.high - pair.low < 0.5 * (alone.high - alone.low)
    assert s.paired_difference(result.targets, first, first, True, resamples=50).to_dict() == {
        "value": 0,
        "low": 0,
        "high": 0,
    }


def test_thresholds_of_the_validation_split_give_labels() -> None:
    result = made_up()
    fitted = s.fitted_thresholds(result, EMOTIC_CLASSES, "val")
    assert fitted["split"] == "val" and set(fitted["classes"]) == set(EMOTIC_CLASSES)
    quality = s.label_quality(result, EMOTIC_CLASSES, fitted["classes"], 0.5)
    assert 0 < quality["jaccard"] < 1 and quality["f1_macro"] == pytest.approx(np.mean(list(quality["f1"].values())))
    nobody = s.label_quality(result, EMOTIC_CLASSES, {}, 2.0)
    assert nobody["f1_macro"] == 0.0


def test_a_score_on_its_threshold_is_a_label() -> None:
    made = replace(made_up(2), targets=np.eye(2, 26, dtype=np.float32))
    made.probabilities["pred"][:] = 0.25
    made.probabilities["pred"][[0, 1], [0, 1]] = 0.5
    thresholds = {EMOTIC_CLASSES[0]: 0.75}  # the second class and the others use 0.5
    found = s.label_quality(made, EMOTIC_CLASSES, thresholds, 0.5)
    assert found["f1"][EMOTIC_CLASSES[0]] == 0 and found["f1"][EMOTIC_CLASSES[1]] == 1
    assert found["f1_macro"] == pytest.approx(1 / 26) and found["jaccard"] == 0.5


@pytest.mark.parametrize("multi_label", [True, False])
def test_the_numbers_of_an_evaluation_are_scikit_learns(multi_label: bool) -> None:
    result = made_up(60)
    classes = EMOTIC_CLASSES[:4]
    scores = {name: value[:, :4] for name, value in result.probabilities.items()}
    targets = result.targets[:, :4] if multi_label else np.eye(4, dtype=np.float32)[np.arange(60) % 3]
    targets[:, 3] = 0  # a class without a positive person
    contradicted = ["body"] * 20 + [None] * 40
    result = replace(result, probabilities=scores, targets=targets)
    found = numbers_of(result, classes, multi_label, "val", contradicted, 30)
    assert (found["persons"], found["split"]) == (60, "val")
    assert found["classes_without_positives"] == [classes[3]]
    marked = replace(result, targets=targets[:20], probabilities={n: v[:20] for n, v in scores.items()})
    if multi_label:

        def mean(one: Evaluation, name: str) -> float:
            there = [j for j in range(4) if one.targets[:, j].any()]
            return float(
                np.mean([sk.average_precision_score(one.targets[:, j], one.probabilities[name][:, j]) for j in there])
            )

        assert found["class_frequency_mAP"] == pytest.approx(targets[:, :3].mean())
        assert found["mAP"] == pytest.approx(mean(result, "pred")) and found["ap"][classes[3]] is None
        for how in ("voc_all_point", "voc_11_point"):
            wanted = m.mean_over_classes(m.average_precision(scores["pred"], targets, how))
            assert found[f"mAP_{how}"] == found["intervals"]["pred"][how] == pytest.approx(wanted)
        assert found["calibration_error"] == pytest.approx(m.expected_calibration_error(scores["pred"], targets))
    else:

        def mean(one: Evaluation, name: str) -> float:
            return float(sk.accuracy_score(one.targets.argmax(1), one.probabilities[name].argmax(1)))

        assert found["accuracy"] == pytest.approx(mean(result, "pred")) and found["recall"][classes[3]] is None
        right = scores["pred"].argmax(1) == targets.argmax(1)
        error = m.expected_calibration_error(scores["pred"].max(1), right)
        assert found["calibration_error"] == pytest.approx(error) and "voc_11_point" not in found["intervals"]["pred"]
    for name in scores:
        assert found["sources"][name] == found["intervals"][name]["value"] == pytest.approx(mean(result, name))
        assert found["on_contradicted"][name]["value"] == pytest.approx(mean(marked, name))
        assert 0 <= found["intervals"][name]["low"] < found["intervals"][name]["high"] <= 1
    assert found["headline"] == {key: found["intervals"]["pred"][key] for key in ("value", "low", "high")}
    first = result.exclusion[:20, 0]  # type: ignore[index]
    assert found["contradiction"]["per_level"] == {"body": found["contradiction"]["first_excluded"] | {"persons": 20}}
    assert found["contradiction"]["first_excluded"]["value"] == pytest.approx((first == 1).mean())
    assert "on_contradicted" not in numbers_of(result, classes, multi_label, "val", [None] * 60, 5)


@pytest.mark.parametrize("multi_label", [True, False])
def test_the_difference_of_a_perfect_and_a_wrong_answer_ends_at_one(multi_label: bool) -> None:
    """38 of 40 right against 2 of 40, and the other way round: the spread would reach beyond 1 or -1."""
    targets = np.eye(2)[np.arange(40) % 2]
    right, wrong = targets.copy(), 1 - targets
    right[:2], wrong[:2] = wrong[:2].copy(), right[:2].copy()
    up = s.paired_difference(targets, right, wrong, multi_label, 300)
    down = s.paired_difference(targets, wrong, right, multi_label, 300)
    assert 0 < up.low < up.value < up.high <= 1 and -1 <= down.low < down.value < down.high < 0
    assert up.value == pytest.approx(-down.value)
    if not multi_label:
        assert up.value == pytest.approx(36 / 40)


def test_intervals_of_mean_average_precisions_end_where_they_can_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws of which half are 0 and half 1 reach half a width to each side: beyond 1 around 1, and so do differences."""

    def drawn(scores: Any, *_: Any) -> Any:
        return np.array([0.0, 1.0] * 50) if scores[0, 0] > 0.5 else np.array([1.0, 0.0] * 50)

    monkeypatch.setattr(m, "bootstrap_mean_average_precision", drawn)
    targets = np.eye(2, 26, dtype=np.float32)
    made = replace(made_up(2), targets=targets, probabilities={"pred": targets, "VI": 1 - targets})
    right, wrong = s.value_interval(made, True).to_dict(), s.value_interval(made, True, "VI").to_dict()
    assert right == {"value": 1.0, "low": 0.5, "high": 1.0}
    assert wrong == {"value": 0.5, "low": 0.0, "high": 1.0}  # one of two persons has each class
    up = s.paired_difference(targets, targets, 1 - targets, True).to_dict()
    assert up == {"value": 0.5, "low": -0.5, "high": 1.0}  # the draws differ by -1 or 1
    down = s.paired_difference(targets, 1 - targets, targets, True).to_dict()
    assert down == {"value": -0.5, "low": -1.0, "high": 0.5}


def test_a_contradiction_that_was_not_judged_does_not_count() -> None:
    """Two persons whose head contradicts, one without a pseudo label; and nobody left where both have none."""
    made = made_up(3)
    order = np.array([[0, 1, 2], [-1, -1, -1], [0, 2, 1]])
    found = s.contradiction(replace(made, exclusion=order), ["head", "head", None], 10)
    assert found["persons"] == 1 and found["per_level"] == {"head": found["first_excluded"] | {"persons": 1}}
    assert s.contradiction(replace(made, exclusion=order * 0 - 1), ["head", "head", None]) == {}


def test_a_broken_model_is_named_not_scored() -> None:
    result = made_up()
    result.probabilities["pred"][7, 3] = np.nan
    with pytest.raises(ScoreError, match="person 7, class Anticipation"):
        s.summarise(result, EMOTIC_CLASSES, True, "val")


def test_the_script_writes_what_it_says(
    world: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = load_program("evaluate").main
    base = ["--checkpoint", str(weights), "--config", str(world), "--device", "cpu", "--resamples", "20"]
    assert main([*base, "--output", str(tmp_path / "on"), "--jsonl", str(tmp_path / "p.jsonl")]) == 0
    text = capsys.readouterr().out
    numbers = json.loads((tmp_path / "on/evaluation.json").read_text())
    assert text == (tmp_path / "on/evaluation.txt").read_text()
    for part in ("mAP of the class frequencies", "late_fusion", "survivor", "first excluded = contradicting level"):
        assert part in text
    assert numbers["persons"] == 11 and numbers["contradiction"]["persons"] == 4
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(lines) == 11 and sorted(lines[0]["emo_process"]) == sorted(LEVELS)
    scores = np.load(tmp_path / "on/scores.npz")
    direct = evaluate_directly(world, weights)
    np.testing.assert_allclose(scores["pred"], direct.probabilities["pred"], atol=2e-6)
    few = [*base, "--groups", "head_source,persons_in_image", "--output", str(tmp_path / "groups")]
    assert main(few) == 0 and "nothing is said" in capsys.readouterr().out
    groups = json.loads((tmp_path / "groups/evaluation.json").read_text())["groups"]
    assert sum(groups["persons_in_image"]["too_few"].values()) == 11  # fewer than 30 of each
    assert main([*base, "--groups", "head_source,shoe_size", "--output", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert (
        "no person of this split has a value in the column 'shoe_size'; there are persons_in_image, body_size" in said
    )
    assert not (tmp_path / "none/result.json").exists()
    off = ["--set", "model.coordination.update=none", "--output", str(tmp_path / "off")]
    assert main([*base, *off, "--against", str(tmp_path / "on/scores.npz")]) == 0
    against = json.loads((tmp_path / "off/evaluation.json").read_text())
    assert against["weights"]["coordination"] == "none" and "difference to" in capsys.readouterr().out
    mine = s.headline(direct, True)
    assert against["against"]["difference"]["value"] == pytest.approx(against["mAP"] - mine, abs=1e-6)
    assert against["exclusion"] == numbers["exclusion"]  # who leaves does not depend on the update


def test_thresholds_that_do_not_name_their_split_are_used_and_said(
    world: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_weights(weights)
    file = save_weights(
        tmp_path / "w.safetensors", loaded.model, loaded.config, metrics={}, thresholds={"classes": {"Anger": 0.5}}
    )
    words = ["--checkpoint", str(file), "--config", str(world), "--device", "cpu", "--resamples", "20"]
    assert load_program("evaluate").main([*words, "--output", str(tmp_path / "o")]) == 0
    numbers = json.loads((tmp_path / "o/evaluation.json").read_text())
    assert numbers["labels"]["thresholds"] == "precision = recall on a split that is not named"


def test_weights_have_the_names_that_predict_knows(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COCOER_HOME", str(tmp_path))
    words = ["--config", str(world), "--device", "cpu", "--output", str(tmp_path / "o")]
    assert load_program("evaluate").main(["--checkpoint", "release", *words]) == 1
    assert "the authors' checkpoint is not set up; run `cocoer setup photos --with release`" in capsys.readouterr().err
    assert load_program("evaluate").arguments(["--checkpoint", "demo"]).checkpoint == str(DEMO_CHECKPOINT)


def evaluate_directly(world: Path, weights: Path) -> Evaluation:
    config = read(world)
    people = build_dataset(config.data, "test")
    loader = build_loader(config.data, "test", 3, dataset=people)
    model = load_weights(weights).model
    return evaluate(model, loader, multi_label=True, order=[r.key for r in people.records], runtime=HERE)  # type: ignore[arg-type]


def test_scores_to_compare_with_that_cannot_be_used_are_named(world: Path, weights: Path, tmp_path: Path) -> None:
    result = evaluate_directly(world, weights)
    compared = load_program("evaluate").compared
    file, scores = tmp_path / "scores.npz", result.probabilities["pred"]

    def store(**arrays: object) -> None:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    store(keys=np.array(result.keys), pred=scores)
    assert compared(result, file, True, 20)["difference"]["value"] == 0
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"keys"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"scores.npz: truncated or no scores of cocoer evaluate"):
            compared(result, file, True, 20)
    store(pred=scores)
    with pytest.raises(ValueError, match=r"no scores of cocoer evaluate.*keys"):
        compared(result, file, True, 20)
    store(keys=np.array([*result.keys[1:], result.keys[1]]), pred=scores)  # one person twice
    with pytest.raises(ValueError, match="persons that are not these 11 in this order"):
        compared(result, file, True, 20)
    store(keys=np.array(result.keys), pred=scores[:, :7])
    with pytest.raises(ValueError, match=r"--against .*wanted scores and targets of one shape"):
        compared(result, file, True, 20)
    broken = scores.copy()
    broken[2, 3] = np.nan
    store(keys=np.array(result.keys), pred=broken)
    with pytest.raises(
        ValueError, match=r"--against .*score of person test/002.png#0, .*wanted a finite number, got nan"
    ):
        compared(result, file, True, 20)


def test_the_script_says_what_is_wrong(
    world: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = load_program("evaluate").main
    base = ["--device", "cpu", "--output", str(tmp_path)]
    assert main([*base, "--checkpoint", str(tmp_path / "none.safetensors")]) == 1
    assert main([*base, "--checkpoint", str(weights), "--index", str(tmp_path)]) == 1
    assert main([*base, "--checkpoint", str(weights), "--set", "model.modes=paper"]) == 2
    assert main([*base, "--checkpoint", str(weights), "--config", str(make_world(tmp_path / "c", "caers"))]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4 and all(line.startswith("cocoer evaluate: ") for line in said)
    assert "no such file" in said[0] and "test.jsonl" in said[1] and "did you mean 'mode'" in said[2]
