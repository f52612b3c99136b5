"""Calibration: the form that generalises wins, what comes out can be believed, and nobody changes places."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from programs import load_program
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss
from tiny_recognizer import tiny_checkpoint
from training_world import make_world, train

from cocoer.calibration import Calibration, ClassMap, calibration_of, logit
from cocoer.data.batch import PersonRecord
from cocoer.data.index import write_index
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.errors import CheckpointError, ConfigError, ScoreError
from cocoer.evaluation import calibration as c
from cocoer.evaluation import metrics as m
from cocoer.evaluation.evaluate import Evaluation
from cocoer.evaluation.groups import Facts
from cocoer.inference.recognizer import Recognizer
from cocoer.model.checkpoint import add_to_description, load_weights, read_metadata

RNG = np.random.default_rng(3)


def overconfident(n: int, slope: float = 2.5, shift: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities, said too loudly: the calibrated answer is sigmoid((logit - shift) / slope)."""
    true = RNG.beta(1.2, 2.5, n)
    said = 1 / (1 + np.exp(-(slope * logit(true) + shift)))
    return said, (RNG.random(n) < true).astype(float)


def names(n: int) -> list[str]:
    return [f"{i // 2}.jpg" for i in range(n)]


def test_platt_finds_the_line_that_was_hidden() -> None:
    said, truth = overconfident(20_000)
    found = c.platt(said, truth)
    assert found.slope == pytest.approx(1 / 2.5, rel=0.05) and found.shift == pytest.approx(-0.8 / 2.5, abs=0.05)
    assert m.expected_calibration_error(found(said), truth) < 0.02 < m.expected_calibration_error(said, truth)


def test_isotonic_is_scikit_learns_between_and_outside_its_points() -> None:
    said, truth = overconfident(400)
    found = c.isotonic(said, truth)
    wanted = IsotonicRegression(y_min=1 / 402, y_max=401 / 402, out_of_bounds="clip").fit(said, truth)
    at = np.linspace(0, 1, 101)
    np.testing.assert_allclose(found(at), wanted.predict(at), atol=1e-7)
    flat = c.isotonic(np.full(50, 0.5), np.r_[np.zeros(25), np.ones(25)])
    assert flat(np.array([0.1, 0.9])) == pytest.approx(0.5) and flat.at == (0.0, 1.0)  # wherever a probability can be
    two = c.isotonic(np.repeat([0.2, 0.6], 10), np.r_[np.zeros(8), np.ones(12)])  # the upper ten are all positive
    assert two.at == (0.2, 0.6) and two.value == pytest.approx((0.2, 1 - 1 / 22))


def test_platt_fits_smoothed_targets_and_stays_finite_where_classes_can_be_separated() -> None:
    said, truth = overconfident(300)
    up, down = (truth.sum() + 1) / (truth.sum() + 2), 1 / (300 - truth.sum() + 2)  # Platt 1999, section 2.2

    def loss(line: np.ndarray) -> float:
        z = line[0] * logit(said) + line[1]
        return float((np.logaddexp(0, z) - np.where(truth > 0, up, down) * z).sum())

    slope, shift = minimize(loss, [1.0, 0.0]).x
    found = c.platt(said, truth)
    assert (found.slope, found.shift) == pytest.approx((slope, shift), abs=1e-3)
    apart = np.r_[np.linspace(0.05, 0.3, 30), np.linspace(0.5, 0.9, 12)]
    found = c.platt(apart, (apart > 0.4).astype(float))
    assert 0.001 < found(np.array([0.1]))[0] < 0.1 and 0.8 < found(np.array([0.7]))[0] < 0.999


def test_isotonic_competes_from_a_thousand_persons_on() -> None:
    for count, forms in ((999, {"none", "platt"}), (1000, {"none", "platt", "isotonic"})):
        assert set(c.fit_class(*overconfident(count), names(count))[1]) == forms


def test_an_answer_worse_than_chance_keeps_only_its_share_of_positives() -> None:
    truth = np.r_[np.ones(30), np.zeros(90)]
    found = c.platt(np.where(truth > 0, 0.3, 0.6) + RNG.uniform(-0.2, 0.2, 120), truth)
    assert found.kind == "platt" and found.slope == 0
    np.testing.assert_allclose(found(np.array([0.01, 0.5, 0.99])), 0.25)


def test_a_class_that_is_calibrated_already_keeps_its_numbers_more_often_than_not() -> None:
    kept = 0
    for _ in range(8):
        true = RNG.random(1000)
        found, losses = c.fit_class(true, (RNG.random(1000) < true).astype(float), names(1000))
        kept += found.kind != "isotonic"  # 1000 persons cannot pay for its steps
        assert losses["isotonic"] >= min(losses.values())
    assert kept >= 6


def test_the_form_with_the_smallest_held_out_loss_wins() -> None:
    said, truth = overconfident(3000)
    found, losses = c.fit_class(said, truth, names(3000))
    assert found.kind == min(losses, key=lambda name: losses[name]) == "platt"
    bent = RNG.random(6000)
    true = np.where(bent > 0.5, 0.9, 0.1)  # a step: no line on the logit
    found, _ = c.fit_class(bent, (RNG.random(6000) < true).astype(float), names(6000))
    assert found.kind == "isotonic" and abs(found(np.array([0.3]))[0] - 0.1) < 0.05


def test_few_positives_keep_their_probabilities() -> None:
    said, truth = RNG.random(200), np.zeros(200)
    truth[:9] = 1
    assert c.fit_class(said, truth, names(200)) == (ClassMap(), {})


@pytest.mark.parametrize(("positives", "negatives", "images", "fitted"), [
    (10, 30, 40, True), (9, 30, 39, False), (30, 10, 40, True), (30, 9, 39, False), (10, 30, 5, True), (10, 30, 4, False),
])  # fmt: skip
def test_a_class_is_fitted_from_ten_persons_of_each_kind_and_five_images_on(
    positives: int, negatives: int, images: int, fitted: bool
) -> None:
    truth = np.array([1.0] * positives + [0.0] * negatives)
    said = np.linspace(0.9, 0.1, len(truth))
    where = [f"{i % images}.jpg" for i in range(len(truth))]
    found, losses = c.fit_class(said, truth, where)
    assert (set(losses) == {"none", "platt"}) == fitted and (losses == {}) != fitted
    assert fitted or found == ClassMap()


def test_log_loss_and_its_weighted_form_are_scikit_learns() -> None:
    said, truth = RNG.uniform(0.02, 0.98, 60), (RNG.random(60) < 0.4).astype(float)
    assert c.log_loss(said, truth) == pytest.approx(log_loss(truth, said))
    assert c.log_loss(np.array([0.0, 1.0]), np.array([1.0, 1.0])) == pytest.approx(-np.log(1e-6) / 2, rel=1e-5)
    counts = RNG.integers(0, 4, (1, 60))
    both = Facts(said[:, None], truth[:, None], None, np.full(60, "annotated"), np.arange(60), True)
    assert c.weighted_log_loss(both, counts.astype(float))[0] == pytest.approx(
        log_loss(truth, said, sample_weight=counts[0])
    )
    scores = RNG.dirichlet(np.ones(4), 60)
    label = RNG.integers(0, 4, 60)
    single = Facts(scores, np.eye(4)[label], None, np.full(60, "annotated"), np.arange(60), False)
    sure = Facts(np.array([[1.0], [0.0]]), np.array([[0.0], [0.0]]), None, both.sources[:2], both.images[:2], True)
    assert c.weighted_log_loss(sure, np.array([[1.0, 0.0]]))[0] == pytest.approx(-np.log(1e-6))  # sure and wrong
    wanted = log_loss(label, scores, sample_weight=counts[0], labels=range(4))
    assert c.weighted_log_loss(single, counts.astype(float))[0] == pytest.approx(wanted, rel=1e-5)


def test_a_temperature_is_the_one_that_was_hidden() -> None:
    logits = RNG.normal(size=(4000, 5))
    truth = np.array([RNG.choice(5, p=p) for p in np.exp(logits) / np.exp(logits).sum(1, keepdims=True)])
    for hidden in (0.4, 1.0, 2.5):
        loud = np.exp(logits / hidden)
        loud /= loud.sum(1, keepdims=True)
        assert c.fit_temperature(loud, np.eye(5)[truth]) == pytest.approx(1 / hidden, rel=0.12)


def test_a_temperature_stays_within_e_to_the_three() -> None:
    """Answers that are always right, or always wrong, would want 0 or infinity."""
    said = np.tile([[0.7, 0.2, 0.1]], (20, 1))
    assert c.fit_temperature(said, np.eye(3)[np.zeros(20, int)]) == pytest.approx(np.exp(-3), rel=1e-3)
    assert c.fit_temperature(said, np.eye(3)[np.full(20, 2)]) == pytest.approx(np.exp(3), rel=1e-3)


def test_a_whole_split_is_better_afterwards_on_other_persons_and_order_stays() -> None:
    k, n = 3, 4000
    parts = [overconfident(n, slope=1.5 + j) for j in range(k)]
    scores, targets = (np.stack([p[i] for p in parts], axis=1) for i in (0, 1))
    classes = ["Peace", "Fear", "Anger"]
    half = n // 2
    found = c.fit_calibration(scores[:half], targets[:half], names(half), classes, multi_label=True, split="val")
    after = found(scores[half:], classes)
    assert c.log_loss(after, targets[half:]) < c.log_loss(scores[half:], targets[half:])
    assert m.expected_calibration_error(after, targets[half:]) < 0.03
    for j in range(k):
        order = np.argsort(scores[half:, j])
        assert (np.diff(after[order, j]) >= 0).all()
    assert calibration_of(json.loads(json.dumps(found.to_dict()))) == found


def test_a_temperature_for_one_label_a_person() -> None:
    logits = RNG.normal(size=(4000, 5)) * 2
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    label = np.array([RNG.choice(5, p=row) for row in true])
    loud = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)
    found = c.fit_calibration(loud, np.eye(5)[label], names(4000), list("abcde"), multi_label=False, split="val")
    assert found.temperature == pytest.approx(3.0, rel=0.08) and not found.classes
    after = found(loud.astype(np.float32), list("abcde"))
    assert after.dtype == np.float32 and (after.argmax(1) == loud.argmax(1)).all()
    np.testing.assert_allclose(after.sum(1), 1, atol=1e-6)


def test_never_on_test_and_never_on_nothing() -> None:
    with pytest.raises(ScoreError, match="got test"):
        c.fit_calibration(np.ones((2, 1)) / 2, np.ones((2, 1)), ["a", "b"], ["x"], multi_label=True, split="test")
    with pytest.raises(ScoreError, match="at least one person"):
        c.fit_calibration(np.ones((0, 1)), np.ones((0, 1)), [], ["x"], multi_label=True, split="val")


def test_images_that_test_has_too_are_found_by_path_and_by_bytes(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"three"), ("d", b"two"), ("e", b"six")):
        (tmp_path / f"{name}.jpg").write_bytes(content)
    index = tmp_path / "index"
    write_index(index, [person_of("a.jpg", "test"), person_of("d.jpg", "test"), person_of("gone.jpg", "test")], {})
    mine = ["a.jpg", "b.jpg", "c.jpg", "e.jpg", "gone.jpg"]
    assert c.images_of_test(mine, tmp_path, index) == {"a.jpg", "b.jpg", "gone.jpg"}
    assert c.images_of_test(["c.jpg", "e.jpg"], tmp_path, index) == set()
    assert c.images_of_test(mine, tmp_path, tmp_path / "no index") == set()


def person_of(image: str, split: str) -> PersonRecord:
    return PersonRecord(
        image, 8, 8, 0, (1.0, 1.0, 7.0, 7.0), (2.0, 2.0, 4.0, 4.0), "annotated", ("Peace",), None, split
    )


def test_a_steep_line_ends_at_0_and_1_without_a_warning() -> None:
    steep = ClassMap("platt", slope=1e6, shift=0.0)
    np.testing.assert_array_equal(steep(np.array([0.0, 0.4, 0.5, 0.6, 1.0])).round(9), [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "magic"},
        {"kind": "platt", "slope": float("nan"), "shift": 0},
        {"kind": "platt", "slope": -1.0, "shift": 0},
        {"kind": "isotonic", "at": [0.1, 0.9], "value": [0.8, 0.2]},
        {"kind": "isotonic", "at": [0.1], "value": [0.8]},
        {"kind": "isotonic", "at": [0.1, 0.9], "value": [0.5, 1.5]},
    ],
)
def test_a_broken_calibration_is_named(broken: dict[str, object]) -> None:
    stored = {"split": "val", "persons": 3, "temperature": None, "classes": {"Peace": broken}}
    with pytest.raises(CheckpointError, match="cocoer calibrate"):
        calibration_of(stored)
    assert calibration_of(None) is None and calibration_of({}) is None


def test_classes_without_a_map_stay_and_reliability_counts_everybody() -> None:
    said = RNG.random((50, 2))
    np.testing.assert_array_equal(Calibration("val", 5, {"a": ClassMap()})(said, ["a", "b"]), said)


def test_before_and_after_are_measured_on_the_same_draws() -> None:
    said, truth = overconfident(600)
    scores, targets = said.reshape(200, 3).astype(np.float32), truth.reshape(200, 3).astype(np.float32)
    people = [
        PersonRecord(f"{i}.jpg", 9, 9, 0, (0, 0, 9, 9), (0, 0, 4, 4), "annotated", (), None, "test") for i in range(200)
    ]
    result = Evaluation(tuple(r.key for r in people), targets, {"pred": scores}, None, None, None, None, None)
    maps = {name: ClassMap("platt", slope=1 / 2.5, shift=-0.8 / 2.5) for name in "abc"}
    found = c.before_and_after(result, people, Calibration("val", 9, maps), "abc", multi_label=True, resamples=200)
    assert found["before"]["log_loss"]["value"] == pytest.approx(c.log_loss(scores, targets), abs=1e-6)
    after = Calibration("val", 9, maps)(scores, "abc")
    assert found["after"]["calibration_error"]["value"] == pytest.approx(
        m.expected_calibration_error(after, targets), abs=1e-6
    )
    assert found["difference"]["log_loss"]["high"] < 0 and found["difference"]["calibration_error"]["high"] < 0
    assert sum(p["count"] for p in found["after"]["reliability"]) == 600
    for measure in ("calibration_error", "log_loss"):
        for when in ("before", "after"):
            ends = found[when][measure]
            assert 0 <= ends["low"] < ends["value"] < ends["high"]
    same = c.before_and_after(result, people, Calibration("val", 9, {}), "abc", multi_label=True, resamples=50)
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}  # in every draw: both are drawn together
    assert same["difference"] == {"calibration_error": nothing, "log_loss": nothing}
    raw = c.before_and_after(result, people, None, "abc", multi_label=True, resamples=200)
    assert set(raw) == {"before"} and raw["before"] == found["before"]


def test_a_reliability_diagram_is_counted_by_hand_and_its_intervals_are_over_images() -> None:
    scores = np.array([[0.05, 0.90], [0.06, 0.10], [0.04, 0.91], [0.02, 0.92]])
    targets = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    sources, images = np.full(4, "annotated"), np.array([0, 0, 1, 1])
    facts = Facts(scores, targets, None, sources, images, True)
    points = c.reliability(facts, np.array([[2.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 2.0]]))
    assert [p["count"] for p in points] == [
        4,
        1,
        3,
    ]  # bins of a fifteenth: below 0.0667, 0.0667..0.1333, 0.8667..0.9333
    assert points[0]["confidence"] == pytest.approx(0.0425) and points[0]["correct"] == 0.25
    assert points[2]["confidence"] == pytest.approx(0.91) and points[2]["correct"] == pytest.approx(2 / 3)
    assert (points[0]["low"], points[0]["high"]) == pytest.approx((0.0125, 0.4875))  # drawn shares 1/2 and 0
    assert (points[1]["low"], points[1]["high"]) == (0.0, 0.0)  # one draw lacks the bin
    single = Facts(np.array([[0.7, 0.3], [0.4, 0.6]]), np.eye(2)[[0, 0]], None, sources[:2], images[:2], False)
    assert [(p["confidence"], p["correct"]) for p in c.reliability(single, np.ones((1, 2)))] == [(0.6, 0.0), (0.7, 1.0)]
    certain = Facts(np.array([[1.0], [0.95], [0.9]]), np.ones((3, 1)), None, sources[:3], images[:3], True)
    assert [p["count"] for p in c.reliability(certain, np.ones((1, 3)))] == [1, 2]  # 0.9333 parts the last two bins


def test_a_reliability_diagram_is_scikit_learns_calibration_curve() -> None:
    said, truth = overconfident(3000)
    of = Facts(said[:, None], truth[:, None], None, np.full(3000, "annotated"), np.arange(3000), True)
    points = c.reliability(of, np.ones((2, 3000)))
    correct, confidence = calibration_curve(truth, said, n_bins=15)
    np.testing.assert_allclose([p["correct"] for p in points], correct, atol=1e-12)
    np.testing.assert_allclose([p["confidence"] for p in points], confidence, atol=1e-12)


def test_a_temperature_has_the_smallest_log_loss_of_scikit_learn_on_a_grid() -> None:
    logits = RNG.normal(size=(500, 4)) * 3
    truth = np.array([RNG.choice(4, p=row) for row in softmax(logits / 2.5, axis=1)])
    told = log_softmax(logits, axis=1)
    found = c.fit_temperature(np.exp(told), np.eye(4)[truth])
    grid = np.exp(np.linspace(-2.0, 2.0, 801))
    losses = [log_loss(truth, softmax(told / t, axis=1), labels=range(4)) for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.01)


def test_a_fold_whose_other_folds_have_no_positive_is_answered_as_it_was() -> None:
    """All positives are persons of one image, so the four folds without it have nothing to fit."""
    truth = np.r_[np.ones(10), np.zeros(40)]
    said = np.linspace(0.9, 0.1, 50)
    found, losses = c.fit_class(said, truth, ["0.jpg"] * 10 + [f"{i}.jpg" for i in range(1, 41)])
    assert losses["none"] == pytest.approx(c.log_loss(said, truth)) and np.isfinite(list(losses.values())).all()
    assert found.kind in losses


def test_a_recogniser_tells_calibrated_probabilities_and_the_labels_of_the_raw_ones(tmp_path: Path) -> None:
    weights = tiny_checkpoint(tmp_path)
    maps = {name: ClassMap("platt", slope=0.5, shift=-1.0) for name in EMOTIC_CLASSES}
    stored = Calibration("val", 40, maps)
    copy = tmp_path / "calibrated.safetensors"
    add_to_description(weights, copy, {"calibration": stored.to_dict()})
    assert load_weights(copy).checksums == load_weights(weights).checksums
    image = RNG.integers(0, 256, (96, 120, 3), dtype=np.uint8)
    boxes = [{"body": [10, 5, 60, 90], "head": [20, 5, 40, 30]}]
    (raw,) = Recognizer.from_checkpoint(copy, "cpu")(image, boxes)
    (told,) = Recognizer.from_checkpoint(copy, "cpu", ["inference.calibrated=true"])(image, boxes)
    assert told.labels == raw.labels and told.probabilities["head"] == raw.probabilities["head"]
    before = np.array([raw.probabilities["pred"][name] for name in EMOTIC_CLASSES])
    after = np.array([told.probabilities["pred"][name] for name in EMOTIC_CLASSES])
    np.testing.assert_allclose(after, 1 / (1 + np.exp(-(0.5 * logit(before) - 1))), atol=1e-6)
    with pytest.raises(ConfigError, match="carries no calibration.*cocoer calibrate"):
        Recognizer.from_checkpoint(weights, "cpu", ["inference.calibrated=true"])
    told_by = Recognizer.from_checkpoint(copy, "cpu", ["inference.calibrated=true"])
    assert told_by.about["calibrated_on"] == "val"


def test_the_command_writes_a_copy_and_evaluate_tells_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path, other=160)
    assert train(config) == 0
    (weights,) = tmp_path.rglob("best.safetensors")
    copy, places = tmp_path / "calibrated.safetensors", ["--device", "cpu", "--set", "data.workers=0"]
    assert load_program("calibrate").main(["--checkpoint", str(weights), "--output", str(copy), *places]) == 0
    assert "persons of val" in capsys.readouterr().out
    stored = read_metadata(copy)["calibration"]
    assert stored["split"] == "val" and set(stored["classes"]) == set(EMOTIC_CLASSES)
    out = tmp_path / "evaluation"
    given = ["--checkpoint", str(copy), "--output", str(out), "--resamples", "20", *places]
    assert load_program("evaluate").main(given) == 0
    assert "calibration, fitted on" in capsys.readouterr().out
    assert json.loads((out / "evaluation.json").read_text())["calibration"]["fitted_on"] == "val"
    with pytest.raises(SystemExit):
        load_program("calibrate").main(["--checkpoint", str(weights), "--output", str(copy), "--split", "test"])
    index = tmp_path / "renamed"
    index.mkdir()
    test = (tmp_path / "index/test.jsonl").read_text()
    (index / "test.jsonl").write_text(test)
    (index / "val.jsonl").write_text(test.replace('"split": "test"', '"split": "val"'))
    fit = ["--checkpoint", str(weights), "--output", str(tmp_path / "no.safetensors"), "--index", str(index), *places]
    assert load_program("calibrate").main(fit) == 1 and not (tmp_path / "no.safetensors").exists()
    assert "is in the test split, too" in capsys.readouterr().err
    with (index / "val.jsonl").open("a") as file:
        file.write((tmp_path / "index/val.jsonl").read_text())
    assert load_program("calibrate").main(fit) == 0
    assert f"left out {len(test.splitlines())} persons whose image is in test" in capsys.readouterr().out
    assert read_metadata(tmp_path / "no.safetensors")["calibration"]["persons"] == stored["persons"]


def test_an_empty_split_is_said_and_nothing_is_fitted() -> None:
    for multi_label in (True, False):
        with pytest.raises(ScoreError, match="wanted at least one person, got none; is the split empty"):
            c.fit_calibration(np.zeros((0, 3)), np.zeros((0, 3)), [], "abc", multi_label=multi_label, split="val")


def test_nothing_is_fitted_to_a_few_persons() -> None:
    """Ten with and ten without one class, thirty with one label each, in five images; one less is an error."""
    images = [str(i % 5) for i in range(40)]
    several = np.zeros((20, 2))
    several[:10, 0] = 1
    scores = np.full((40, 2), 0.5)
    assert c.fit_calibration(scores[:20], several, images[:20], "ab", multi_label=True, split="val").persons == 20
    one = np.eye(2)[np.arange(30) % 2]
    assert c.fit_calibration(scores[:30], one, images[:30], "ab", multi_label=False, split="val").persons == 30
    for targets, where, multi_label in (
        (several[:19], images, True), (several, ["a", "b", "c", "d"] * 5, True), (one[:29], images, False),
        (one, ["a", "b", "c", "d"] * 10, False),
    ):  # fmt: skip
        n = len(targets)
        with pytest.raises(ScoreError, match=f"got {n} persons of val in .* too few to fit a number to"):
            c.fit_calibration(scores[:n], targets, where[:n], "ab", multi_label=multi_label, split="val")


def test_calibrate_says_that_there_is_no_val_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tiny_checkpoint(tmp_path)
    (tmp_path / "index").mkdir()
    (tmp_path / "index/val.jsonl").write_text("")
    given = ["--checkpoint", str(weights), "--output", str(tmp_path / "c.safetensors"), "--device", "cpu"]
    places = ["--root", str(tmp_path), "--index"]
    assert load_program("calibrate").main([*given, *places, str(tmp_path / "index")]) == 1
    assert "wanted persons of split 'val', got none" in capsys.readouterr().err
    assert load_program("calibrate").main([*given, *places, str(tmp_path / "nowhere")]) == 1
    assert "no such person index" in capsys.readouterr().err and not (tmp_path / "c.safetensors").exists()
