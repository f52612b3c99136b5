"""Metrics against their definitions written out, against scikit-learn and torchmetrics, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, jaccard_score

from cocoer.evaluation import metrics as m

Array = NDArray[np.float64]


def made_up(n: int, k: int, seed: int, ties: bool) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, k)) < rng.uniform(0.05, 0.7, k)).astype(float)
    scores = np.clip(0.3 * targets + rng.random((n, k)), 0, 1.3) / 1.3
    return (scores.round(1) if ties else scores), targets


def curve(scores: Array, targets: Array) -> list[tuple[float, float]]:
    """(recall, precision) at every distinct score, highest first; one class, by counting."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        chosen = [t for s, t in zip(scores, targets, strict=True) if s >= threshold]
        points.append((sum(chosen) / sum(targets), sum(chosen) / len(chosen)))
    return points


def by_definition(scores: Array, targets: Array, definition: str) -> float:
    if not targets.any():
        return float("nan")
    points = curve(scores, targets)
    if definition == "voc_11_point":
        best = [max((p for r, p in points if r >= i / 10 - 1e-9), default=0.0) for i in range(11)]
        return sum(best) / 11
    area, before = 0.0, 0.0
    for i, (recall, precision) in enumerate(points):
        height = max(p for _, p in points[i:]) if definition == "voc_all_point" else precision
        area += (recall - before) * height
        before = recall
    return area


@pytest.mark.parametrize("definition", m.DEFINITIONS)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_its_definition(definition: m.Definition, ties: bool, seed: int) -> None:
    scores, targets = made_up(37, 4, seed, ties)
    got = m.average_precision(scores, targets, definition)
    wanted = [by_definition(scores[:, j], targets[:, j], definition) for j in range(4)]
    np.testing.assert_allclose(got, wanted, atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_the_headline_is_torchmetrics_average_precision(ties: bool) -> None:
    scores, targets = made_up(200, 26, 5, ties)
    wanted = tm.multilabel_average_precision(
        torch.tensor(scores), torch.tensor(targets).long(), num_labels=26, average="none"
    )
    np.testing.assert_allclose(m.average_precision(scores, targets), wanted.numpy(), atol=1e-6)


def test_the_three_definitions_worked_by_hand() -> None:
    scores, targets = np.array([[0.9], [0.8], [0.7], [0.6]]), np.array([[0.0], [1.0], [0.0], [1.0]])
    # precision 0, 1/2, 1/3, 1/2 at recall 0, 1/2, 1/2, 1
    assert m.average_precision(scores, targets)[0] == pytest.approx(0.5)
    scores, targets = np.array([[0.9], [0.8], [0.7]]), np.array([[1.0], [0.0], [1.0]])
    # precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
    assert m.average_precision(scores, targets)[0] == pytest.approx(0.5 + 1 / 3)
    assert m.average_precision(scores, targets, "voc_all_point")[0] == pytest.approx(0.5 + 1 / 3)
    assert m.average_precision(scores, targets, "voc_11_point")[0] == pytest.approx((6 + 5 * 2 / 3) / 11)


@given(st.integers(2, 30), st.integers(0, 1000), st.sampled_from(m.DEFINITIONS))
def test_average_precision_does_not_see_the_order_of_persons_nor_the_scale(
    n: int, seed: int, how: m.Definition
) -> None:
    scores, targets = made_up(n, 3, seed, ties=True)
    wanted = m.average_precision(scores, targets, how)
    order = np.random.default_rng(seed).permutation(n)
    np.testing.assert_allclose(m.average_precision(scores[order], targets[order], how), wanted)
    np.testing.assert_allclose(m.average_precision(scores**3, targets, how), wanted)  # any rising function
    inside = wanted[~np.isnan(wanted)]
    assert ((inside > 0) & (inside <= 1 + 1e-12)).all()


def test_a_class_without_a_positive_is_left_out_of_the_mean() -> None:
    scores, targets = made_up(20, 3, 0, ties=False)
    targets[:, 1] = 0
    per_class = m.average_precision(scores, targets)
    assert np.isnan(per_class[1]) and not np.isnan(per_class[[0, 2]]).any()
    assert m.mean_over_classes(per_class) == pytest.approx(per_class[[0, 2]].mean())
    assert np.isnan(m.mean_over_classes(np.array([np.nan])))
    one = m.average_precision(np.array([[0.2, 0.4]]), np.array([[1.0, 0.0]]))  # one person
    assert one[0] == 1.0 and np.isnan(one[1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused_by_name(value: float) -> None:
    scores, targets = made_up(5, 3, 0, ties=False)
    scores[3, 2] = value
    with pytest.raises(m.ScoreError, match=r"score of person d\.png#0, class C: wanted a finite number, got (nan|inf)"):
        m.checked(scores, targets, ["a", "b", "c", "d.png#0", "e"], ["A", "B", "C"])
    with pytest.raises(m.ScoreError, match="person number 3, class number 2"):
        m.average_precision(scores, targets)


def test_other_unusable_input_is_refused() -> None:
    scores, targets = made_up(5, 3, 0, ties=False)
    with pytest.raises(m.ScoreError, match="at least one person"):
        m.checked(scores[:0], targets[:0])
    with pytest.raises(m.ScoreError, match=r"one shape.*\(5, 3\) and \(5, 2\)"):
        m.checked(scores, targets[:, :2])
    with pytest.raises(m.ScoreError, match="wanted 0 or 1, got 0.5"):
        m.checked(scores, targets * 0.5)


@pytest.mark.parametrize("ties", [False, True])
def test_the_weighted_form_is_scikit_learns_and_whole_weights_are_repeated_persons(ties: bool) -> None:
    scores, targets = made_up(40, 1, 3, ties)
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 4, (6, 40)).astype(float)
    got = m.weighted_average_precision(scores[:, 0], targets[:, 0], weights)
    for row, value in zip(weights, got, strict=True):
        assert value == pytest.approx(average_precision_score(targets[:, 0], scores[:, 0], sample_weight=row))
        again = np.repeat(np.arange(40), row.astype(int))
        assert value == pytest.approx(m.average_precision(scores[again], targets[again])[0])
    assert np.isnan(m.weighted_average_precision(scores[:, 0], np.zeros(40), weights)).all()


def test_bootstrap_draws_are_means_over_drawn_persons() -> None:
    scores, targets = made_up(30, 4, 8, ties=False)
    draws = m.bootstrap_mean_average_precision(scores, targets, resamples=7, seed=2, chunk=3)
    weights = m._draws(30, 7, 2)
    for row, value in zip(weights, draws, strict=True):
        again = np.repeat(np.arange(30), row.astype(int))
        assert value == pytest.approx(m.mean_over_classes(m.average_precision(scores[again], targets[again])))
    np.testing.assert_allclose(draws, m.bootstrap_mean_average_precision(scores, targets, 7, 2), rtol=1e-14)


def test_intervals_cover_as_often_as_they_say() -> None:
    """A share of 0.3 from 60 persons, 300 times: the 95 % interval holds it in about 95 % of them."""
    rng = np.random.default_rng(0)
    hits = 0
    for i in range(300):
        interval = m.mean_interval((rng.random(60) < 0.3).astype(float), resamples=300, seed=i)
        assert interval.low <= interval.value <= interval.high
        hits += interval.low <= 0.3 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98
    assert np.isnan(m.mean_interval(np.array([])).value)


def test_thresholds_meet_precision_and_recall() -> None:
    scores, targets = made_up(60, 5, 4, ties=False)
    targets[:, 4] = 0
    thresholds = m.break_even_thresholds(scores, targets)
    assert np.isnan(thresholds[4])
    for j in range(4):
        chosen = scores[:, j] > thresholds[j]
        assert (chosen == (scores[:, j] >= thresholds[j])).all()
        # without ties, as many are predicted as there are positives: precision = recall
        assert chosen.sum() == targets[:, j].sum()
    perfect = m.break_even_thresholds(targets[:, :4] * 0.5 + 0.2, targets[:, :4])
    np.testing.assert_allclose(perfect, 0.45)
    everybody = m.break_even_thresholds(np.array([[0.3], [0.8]]), np.ones((2, 1)))
    np.testing.assert_allclose(
        everybody, 0.15
    )  # half-way from the lowest score to 0: all are predicted, as all are positive


def test_label_metrics_agree_with_the_references() -> None:
    scores, targets = made_up(80, 6, 1, ties=False)
    predicted = scores > 0.5
    wanted = tm.multilabel_f1_score(
        torch.tensor(predicted).float(), torch.tensor(targets).long(), num_labels=6, average="none"
    )
    np.testing.assert_allclose(m.f1_per_class(predicted, targets), wanted.numpy(), atol=1e-6)
    kept = (predicted | (targets > 0)).any(1)
    reference = jaccard_score(targets[kept].astype(int), predicted[kept].astype(int), average="samples")
    assert m.jaccard(predicted[kept], targets[kept]) == pytest.approx(reference)
    assert m.jaccard(np.zeros((1, 3), bool), np.zeros((1, 3))) == 1.0
    assert m.f1_per_class(np.zeros((2, 1), bool), np.zeros((2, 1))).tolist() == [0.0]


def test_calibration_agrees_with_torchmetrics() -> None:
    scores, targets = made_up(300, 1, 6, ties=False)
    wanted = tm.binary_calibration_error(torch.tensor(scores[:, 0]), torch.tensor(targets[:, 0]).long(), n_bins=15)
    assert m.expected_calibration_error(scores, targets) == pytest.approx(float(wanted), abs=1e-6)
    assert m.expected_calibration_error(np.ones(4), np.ones(4)) == 0.0
    # said with 1.0 and wrong, with 0.95 and right: one bin, off by 0.95 in sum; said with 0.9 and right: a bin of its own
    assert m.expected_calibration_error(np.array([1.0, 0.95, 0.9]), np.array([0, 1, 1])) == pytest.approx(1.05 / 3)
    assert m.expected_calibration_error(np.full(4, 0.75), np.array([1, 1, 1, 0])) == pytest.approx(0.0)


def test_confusion_and_recall_per_class() -> None:
    truth, answer = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 2])
    matrix = m.confusion(np.eye(4)[answer], np.eye(4)[truth])
    wanted = tm.multiclass_confusion_matrix(torch.tensor(answer), torch.tensor(truth), num_classes=4)
    np.testing.assert_array_equal(matrix, wanted.numpy())
    np.testing.assert_allclose(m.recall_per_class(matrix), [0.5, 1.0, 2 / 3, np.nan])


@pytest.mark.parametrize("hits", [0, 1, 9, 10])
def test_the_interval_of_a_share_never_leaves_what_a_share_can_be(hits: int) -> None:
    values = np.array([1.0] * hits + [0.0] * (10 - hits))
    interval = m.mean_interval(values, resamples=500)
    assert 0.0 <= interval.low <= interval.value <= interval.high <= 1.0
    difference = m.mean_interval(np.array([-1.0] * hits + [0.0] * (10 - hits)), resamples=500)
    assert -1.0 <= difference.low <= difference.high <= 0.0


def test_the_interval_of_a_mean_average_precision_never_leaves_what_it_can_be() -> None:
    targets = np.eye(3)[[0, 0, 1, 1, 2, 2, 0, 1]]
    for scores in (targets, 1.0 - targets, targets * 0.5 + 0.1 * np.arange(24).reshape(8, 3)):
        value = m.mean_over_classes(m.average_precision(scores, targets))
        interval = m.interval_of(value, m.bootstrap_mean_average_precision(scores, targets, 300), 0.0, 1.0)
        assert 0.0 <= interval.low <= value <= interval.high <= 1.0


def test_the_ends_of_an_interval_are_the_percentiles_of_its_draws() -> None:
    draws = np.random.default_rng(4).exponential(
        size=4001
    )  # 2.5 and 97.5 percent of 4000 steps are whole numbers of draws
    ordered = np.sort(draws - draws.mean())
    found = m.interval_of(2.0, draws)
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0 + ordered[100], 2.0 + ordered[3900]))
    tenth = m.interval_of(2.0, draws, level=0.8)
    assert (tenth.low, tenth.high) == pytest.approx((2.0 + ordered[400], 2.0 + ordered[3600]))
    values = np.random.default_rng(5).random(30)
    own = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=4001) @ values / 30
    share = m.mean_interval(values, 4001)
    assert (share.low, share.high) == pytest.approx((np.sort(own)[100], np.sort(own)[3900]))


def test_a_thousand_draws_of_seed_0_unless_it_is_said_otherwise() -> None:
    """25 draws lie beyond each end of an interval, and the seed is the one that `result.json` names."""
    scores, targets = made_up(12, 2, 1, ties=False)
    draws = m.bootstrap_mean_average_precision(scores, targets)
    assert 0.025 * len(draws) == 25
    np.testing.assert_array_equal(draws[:5], m.bootstrap_mean_average_precision(scores, targets, 1000, seed=0)[:5])
    assert m.mean_interval(targets[:, 0]) == m.mean_interval(targets[:, 0], 1000, seed=0)
    assert m.mean_interval(np.arange(40.0) ** 3, 7) == m.mean_interval(np.arange(40.0) ** 3, 7, seed=0)
