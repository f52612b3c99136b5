"""Numbers by group: worked by hand, against slow references, and nothing said of few persons."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from cocoer.data.batch import PersonRecord
from cocoer.errors import ScoreError
from cocoer.evaluation import groups as g
from cocoer.evaluation import metrics as m
from cocoer.evaluation.evaluate import Evaluation
from cocoer.names import HEAD_SOURCES
from cocoer.report.evaluation import few_persons, group_grid, group_text

RNG = np.random.default_rng(5)


def record(image: int, person: int = 0, head_source: str = "annotated", **extra: object) -> PersonRecord:
    return PersonRecord(
        f"{image}.jpg", 640, 480, person, (0.0, 0.0, 100.0, 400.0), (10.0, 0.0, 60.0, 50.0), head_source, (), None, "test", extra
    )  # fmt: skip


def facts(n: int = 120, k: int = 4, multi_label: bool = True, per_image: int = 3) -> g.Facts:
    scores = RNG.random((n, k))
    targets = (RNG.random((n, k)) < 0.4).astype(float) if multi_label else np.eye(k)[RNG.integers(0, k, n)]
    first = RNG.integers(0, 3, n)
    return g.Facts(
        scores, targets, first, np.array(HEAD_SOURCES)[RNG.integers(0, 3, n)], np.arange(n) // per_image, multi_label
    )


def rows(of: g.Facts, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and targets with every person as often as it counts."""
    return of.scores.repeat(counts, axis=0), of.targets.repeat(counts, axis=0)


def test_weighted_numbers_are_those_of_repeated_persons() -> None:
    for multi_label in (True, False):
        some = facts(multi_label=multi_label)
        counts = RNG.integers(0, 4, len(some.scores))
        scores, targets = rows(some, counts)
        if multi_label:
            wanted = np.mean([sk.average_precision_score(targets[:, j], scores[:, j]) for j in range(4)])
            error = m.expected_calibration_error(scores, targets)
        else:
            right = scores.argmax(1) == targets.argmax(1)
            wanted, error = right.mean(), m.expected_calibration_error(scores.max(1), right)
        weights = counts[None].astype(float)
        assert g.weighted_headline(some, weights)[0] == pytest.approx(wanted, abs=1e-12)
        assert g.weighted_calibration_error(some, weights)[0] == pytest.approx(error, abs=1e-12)


def test_persons_of_one_image_are_drawn_together_and_images_as_often_as_there_are() -> None:
    images = np.array([0, 0, 0, 1, 2, 2])
    draws = g.image_draws(images, 400)
    assert (
        (draws[:, 0] == draws[:, 1]).all() and (draws[:, 1] == draws[:, 2]).all() and (draws[:, 4] == draws[:, 5]).all()
    )
    assert (draws[:, 0] + draws[:, 3] + draws[:, 4] == 3).all() and len(np.unique(draws[:, 3])) > 2


def test_an_interval_over_images_is_wider_where_persons_of_an_image_agree() -> None:
    """200 persons in 20 images whose ten persons are all right or all wrong: 20 independent answers, not 200."""
    right = np.repeat(RNG.integers(0, 2, 20), 10)
    scores = np.stack([right, 1 - right], axis=1).astype(float)
    some = g.Facts(scores, np.eye(2)[np.zeros(200, int)], None, np.full(200, "annotated"), np.arange(200) // 10, False)
    alone = g.Facts(scores, some.targets, None, some.sources, np.arange(200), False)
    width = []
    for one in (some, alone):
        (numbers,) = g.group_numbers(one, ["all"] * 200)["groups"].values()
        width.append(numbers["accuracy"]["high"] - numbers["accuracy"]["low"])
        assert numbers["accuracy"]["value"] == right.mean()
    assert 2.2 < width[0] / width[1] < 4.5  # sqrt(10) = 3.2


def test_a_group_is_measured_as_if_it_were_alone_and_differences_share_their_classes() -> None:
    some = facts(180)
    some.targets[:90, 3] = 0  # the first group has no positive of the last class
    some.targets[90:, 3] = RNG.integers(0, 2, 90)
    names = ["a"] * 90 + ["b"] * 90
    report = g.group_numbers(some, names, resamples=200)
    ap_a = m.average_precision(some.scores[:90], some.targets[:90])
    ap_b = m.average_precision(some.scores[90:], some.targets[90:])
    assert report["groups"]["a"]["mAP"]["value"] == pytest.approx(m.mean_over_classes(ap_a))
    assert report["groups"]["b"]["mAP"]["value"] == pytest.approx(m.mean_over_classes(ap_b))
    assert report["reference"] == "a" and report["differences"]["b"]["classes"] == 3
    gap = report["differences"]["b"]["mAP"]
    assert gap["value"] == pytest.approx(ap_b[:3].mean() - ap_a[:3].mean()) and gap["low"] < gap["value"] < gap["high"]
    assert report["groups"]["a"]["first_excluded_body"]["value"] == pytest.approx((some.first[:90] == 1).mean())
    for source in ("detected", "estimated"):  # numbers that depend on a detector
        assert report["groups"]["a"][f"head_{source}"]["value"] == pytest.approx((some.sources[:90] == source).mean())
    share = some.targets[:90].mean(0)
    assert report["groups"]["a"]["chance"] == pytest.approx(share[share > 0].mean())


def test_groups_and_differences_are_those_of_fairlearns_metric_frame() -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    some = facts(400, 7, multi_label=False)
    names = list(RNG.choice(["a", "b", "c"], 400, p=[0.5, 0.3, 0.2]))
    true, said = some.targets.argmax(1), some.scores.argmax(1)
    frame = fairlearn.MetricFrame(
        metrics={"accuracy": sk.accuracy_score, "persons": fairlearn.count},
        y_true=true,
        y_pred=said,
        sensitive_features=names,
    )
    report = g.group_numbers(some, names, resamples=20)
    found = {name: by["accuracy"]["value"] for name, by in report["groups"].items()}
    assert found == pytest.approx(frame.by_group["accuracy"].to_dict())
    assert {name: by["persons"] for name, by in report["groups"].items()} == frame.by_group["persons"].to_dict()
    gaps = {name: by["accuracy"]["value"] for name, by in report["differences"].items()}
    assert gaps == pytest.approx({n: found[n] - found["a"] for n in "bc"})
    assert frame.difference()["accuracy"] == pytest.approx(max([*gaps.values(), 0]) - min([*gaps.values(), 0]))


@pytest.mark.parametrize("multi_label", [True, False])
def test_person_weights_may_have_any_scale(multi_label: bool) -> None:
    some = facts(multi_label=multi_label)
    weights = RNG.integers(0, 3, (4, 120)).astype(float)
    for name, measure in g.measures(some).items():
        np.testing.assert_allclose(measure(weights * 1e-4), measure(weights), rtol=1e-9, err_msg=name)


def test_a_column_is_numbers_only_where_its_values_are() -> None:
    words = [record(i, mood=f"mood {i % 9}") for i in range(36)]
    assert set(g.column_values(words, "mood")) == {f"mood {i}" for i in range(9)}
    mixed = [record(i, pain=i if i % 2 else None, yes=bool(i % 2)) for i in range(36)]
    assert set(g.column_values(mixed, "pain")) == {
        "(not given)",
        "at most 12.3333",
        "12.3333 to 23.6667",
        "above 23.6667",
    }
    assert set(g.column_values(mixed, "yes")) == {"True", "False"}
    six = [record(i, level=i % 6) for i in range(36)]
    assert set(g.column_values(six, "level")) == set("012345")
    seven = [record(i, level=i % 7) for i in range(35)]
    assert set(g.column_values(seven, "level")) == {"at most 2", "2 to 4", "above 4"}
    both = [record(i, pain="old" if i % 4 == 0 else i) for i in range(36)]  # a text among numbers stays what it is
    assert set(g.column_values(both, "pain")) == {"old", "at most 12.3333", "12.3333 to 23.6667", "above 23.6667"}
    broken = [record(i, pain=[math.nan, math.inf, -math.inf, 3.5][i % 4]) for i in range(8)]
    assert g.column_values(broken, "pain") == ["(not given)"] * 3 + ["3.5"] + ["(not given)"] * 3 + ["3.5"]
    whole = [record(i, age=1234567 + i % 2) for i in range(4)]
    assert set(g.column_values(whole, "age")) == {"1234567", "1234568"}
    spaced = [record(i, mood=[" calm", "calm\n", "very\tcalm"][i]) for i in range(3)]
    assert g.column_values(spaced, "mood") == ["calm", "calm", "very calm"]
    empty = [record(i, mood="" if i else "calm") for i in range(3)]
    assert g.column_values(empty, "mood") == ["calm", "(not given)", "(not given)"]


@pytest.mark.parametrize("value", [None, "", "  ", math.nan, -math.inf])
def test_a_column_without_a_value_is_said_like_one_that_is_not_there(value: object) -> None:
    with pytest.raises(
        ScoreError, match=r"no person of this split has a value in the column 'mood'; there are .*, age$"
    ):
        g.column_values([record(i, mood=value, age=3) for i in range(4)], "mood")


@pytest.mark.parametrize(
    ("value", "words"), [([1, 2], "got a list"), ({"a": 1}, "got an object"), ("x" * 81, "got one of 81")]
)
def test_what_names_no_group_is_said(value: object, words: str) -> None:
    with pytest.raises(ScoreError, match=f"--groups mood: wanted .*{words}"):
        g.column_values([record(0, mood="calm"), record(1, mood=value)], "mood")


def test_many_small_groups_are_the_ten_largest_and_a_count() -> None:
    few = {f"group {i:02d}": 1 + i % 3 for i in range(14)}
    said = few_persons({"too_few": few})
    assert said.startswith("group 02 (3), group 05 (3), group 08 (3), group 11 (3), group 01 (2)")
    assert said.count("(") == 10 and said.endswith(" and 4 more groups")


def test_a_mean_says_over_how_many_classes_it_is() -> None:
    some = facts(120)
    targets = some.targets.copy()
    targets[:60, 1], targets[60:, 2] = 0, 0
    report = g.group_numbers(replace(some, targets=targets), ["a"] * 60 + ["b"] * 60, resamples=20)
    assert [report["groups"][name]["classes"] for name in "ab"] == [3, 3] and report["differences"]["b"]["classes"] == 2
    grid = group_grid("column", report)
    assert grid[0][:5] == ("column", "persons", "images", "classes", "chance")
    assert [row[3] for row in grid[1:]] == ["3", "3", "2"] and len({len(row) for row in grid}) == 1
    one_label = g.group_numbers(facts(60, multi_label=False), ["a"] * 60, resamples=20)
    assert "classes" not in one_label["groups"]["a"] and "classes" not in group_grid("column", one_label)[0]


def test_nothing_is_said_of_few_persons() -> None:
    report = g.group_numbers(facts(60), ["many"] * 57 + ["few"] * 3, resamples=50)
    assert report["too_few"] == {"few": 3} and list(report["groups"]) == ["many"] and "differences" not in report


def test_equal_groups_differ_by_an_interval_that_holds_zero() -> None:
    some = facts(600, multi_label=False)
    report = g.group_numbers(some, list(RNG.permutation(["a"] * 300 + ["b"] * 300)), resamples=300)
    gap = next(iter(report["differences"].values()))["accuracy"]
    assert gap["low"] < 0 < gap["high"]


def test_columns_come_from_the_index_and_from_what_it_implies() -> None:
    people = [record(0, 0, gender="Male", age=30), record(0, 1, gender="Female"), record(1, head_source="estimated")]
    assert g.column_values(people, "gender") == ["Male", "Female", g.NONE]
    assert g.column_values(people, "head_source") == ["annotated", "annotated", "estimated"]
    assert g.column_values(people, "persons_in_image") == ["2", "2", "1"]
    assert g.column_values(people, "body_size") == ["96 to 224 px"] * 3  # 100 x 400: side 200
    many = [record(i, age=i) for i in range(9)]
    assert g.column_values(many, "age") == ["at most 2.66667"] * 3 + ["2.66667 to 5.33333"] * 3 + ["above 5.33333"] * 3
    with pytest.raises(ScoreError, match=r"column 'sex'; there are persons_in_image, body_size, head_source.*gender"):
        g.column_values(people, "sex")


def test_records_must_be_the_evaluated_persons(tmp_path: Path) -> None:
    people = [record(i) for i in range(3)]
    scores = np.full((3, 2), 0.5, dtype=np.float32)
    targets = np.eye(2, dtype=np.float32)[[0, 1, 0]]
    keys = tuple(r.key for r in people)
    result = Evaluation(keys, targets, {"pred": scores}, None, None, None, None, None)
    found = g.by_groups(result, people, ["head_source"], multi_label=True, resamples=20)
    assert found["head_source"]["too_few"] == {"annotated": 3} and found["head_source"]["groups"] == {}
    with pytest.raises(ScoreError, match="evaluated persons in their order"):
        g.by_groups(result, people[::-1], ["head_source"], multi_label=True)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ((500.0, 300.0, 590.0, 390.0), "below 96 px"),  # side 90: a sum of corners would be over a thousand
        ((10.0, 20.0, 106.0, 116.0), "96 to 224 px"),  # side 96
        ((0.0, 0.0, 10.0, 400.0), "below 96 px"),  # side 63, whatever is long
        ((100.0, 50.0, 324.0, 274.0), "224 px or more"),  # side 224
    ],
)
def test_the_size_of_a_body_is_the_side_of_its_box(body: tuple[float, float, float, float], wanted: str) -> None:
    assert g.derived_columns([replace(record(0), body=body)])["body_size"] == [wanted]


def test_nothing_is_said_below_the_least_count_and_something_at_it() -> None:
    some = facts(59, per_image=1)
    names = ["a"] * 30 + ["b"] * 29
    found = g.group_numbers(some, names, resamples=20)
    assert set(found["groups"]) == {"a"} and found["too_few"] == {"b": 29} and found["least_persons"] == 30
    assert "differences" not in found and found["groups"]["a"]["images"] == 30


def test_a_crowd_in_nine_images_is_no_group_and_in_ten_it_is() -> None:
    some = facts(190, per_image=10)
    found = g.group_numbers(some, ["ten"] * 100 + ["nine"] * 90, resamples=20)
    assert set(found["groups"]) == {"ten"} and found["too_few"] == {"nine": 90} and found["least_images"] == 10
    assert "fewer than 30 persons or 10 images, nothing is said: nine (90)" in group_text("crowd", found)


def test_a_data_set_of_three_persons_has_no_groups_and_says_so() -> None:
    some = facts(3, per_image=1)
    found = g.group_numbers(some, ["a", "a", "b"], resamples=20)
    assert found["groups"] == {} and found["too_few"] == {"a": 2, "b": 1} and "reference" not in found


@pytest.mark.parametrize("multi_label", [True, False])
def test_a_draw_that_has_nobody_has_no_headline(multi_label: bool) -> None:
    some = facts(multi_label=multi_label)
    nobody, everybody = np.zeros((1, 120)), np.ones((1, 120))
    assert np.isnan(g.weighted_headline(some, np.concatenate([nobody, everybody]))).tolist() == [True, False]


def test_a_class_with_one_positive_in_a_group_counts_in_the_difference_and_one_without_does_not() -> None:
    some = facts(80, per_image=1)
    some.targets[40:, 0], some.targets[40:, 1] = 0, 0
    some.targets[:40, 2] = np.arange(40) == 7  # one positive of the third class in the other group
    some.targets[45, 0] = 1  # one positive of the first class, none of the second
    found = g.group_numbers(some, ["a"] * 40 + ["b"] * 40, resamples=20)
    assert found["differences"]["b"]["classes"] == 3
    kept = [0, 2, 3]
    values = [m.mean_over_classes(m.average_precision(some.scores[rows][:, kept], some.targets[rows][:, kept]))
              for rows in (slice(40, 80), slice(0, 40))]  # fmt: skip
    assert found["differences"]["b"]["mAP"]["value"] == pytest.approx(values[0] - values[1])


def test_the_draws_are_of_the_seed_that_a_result_names() -> None:
    images = np.array([0, 0, 1, 2, 3])
    np.testing.assert_array_equal(g.image_draws(images, 50), g.image_draws(images, 50, seed=0))
    assert (g.image_draws(images, 50) != g.image_draws(images, 50, seed=1)).any()


def test_persons_of_both_groups_with_equal_answers_in_every_image_differ_by_nothing_in_every_draw() -> None:
    """One image holds a person of each group: drawn together, so the difference is 0 in each draw, not only in the mean."""
    half = facts(60, multi_label=False, per_image=1)
    both = g.Facts(
        half.scores.repeat(2, 0), half.targets.repeat(2, 0), None, np.full(120, "detected"), np.arange(120) // 2, False
    )
    gap = g.group_numbers(both, ["a", "b"] * 60, resamples=50)["differences"]["b"]
    assert {name: list(gap[name].values()) for name in ("accuracy", "calibration_error")} == {
        "accuracy": [0.0, 0.0, 0.0],
        "calibration_error": [0.0, 0.0, 0.0],
    }


def test_an_accuracy_is_over_all_classes_even_where_a_group_lacks_one() -> None:
    """Persons of the third class are answered rightly, and only the first group has them: 40 of 40 against 20 of 40."""
    label = np.array([2] * 40 + [0, 1] * 20)
    said = np.array([2] * 40 + [0] * 40)
    some = g.Facts(np.eye(3)[said], np.eye(3)[label], None, np.full(80, "annotated"), np.arange(80), False)
    found = g.group_numbers(some, ["a"] * 40 + ["b"] * 40, resamples=20)["differences"]["b"]
    assert found["accuracy"]["value"] == pytest.approx(-0.5) and found["classes"] == 0
    label[:10], label[40:50], said[40:50] = 0, 2, 1  # now two classes are in both groups, and the second in one
    some = replace(some, scores=np.eye(3)[said], targets=np.eye(3)[label])
    found = g.group_numbers(some, ["a"] * 40 + ["b"] * 40, resamples=20)["differences"]["b"]
    assert found["classes"] == 2 and found["accuracy"]["value"] == pytest.approx(15 / 40 - 30 / 40)


def test_a_certain_answer_is_in_the_last_bin_and_0_9_in_the_one_before() -> None:
    """Said with 1.0 and wrong, said with 0.9 and right: bins of a fifteenth keep them apart, off by 1 and by 0.1."""
    some = g.Facts(
        np.array([[1.0], [0.9]]), np.array([[0.0], [1.0]]), None, np.full(2, "annotated"), np.arange(2), True
    )
    weights = np.array([[1.0, 1.0], [0.0, 3.0], [3.0, 1.0]])
    np.testing.assert_allclose(g.weighted_calibration_error(some, weights), [1.1 / 2, 0.1, 3.1 / 4])


def test_a_value_on_a_tercile_is_in_the_group_that_names_it() -> None:
    assert g.column_values([record(i, level=i % 7) for i in range(35)], "level")[:7] == (
        ["at most 2"] * 3 + ["2 to 4"] * 2 + ["above 4"] * 2
    )


def test_three_persons_or_more_in_an_image_are_one_group() -> None:
    people = [record(image, person) for image, count in ((0, 1), (1, 2), (2, 3), (3, 4)) for person in range(count)]
    assert g.column_values(people, "persons_in_image") == ["1"] + ["2"] * 2 + ["3 or more"] * 7


def test_shares_are_told_of_head_sources_that_there_are_and_of_the_level_that_leaves_first() -> None:
    people = [record(i, head_source="detected") for i in range(40)]
    order = np.tile([[1, 2, 0]], (40, 1))  # the body leaves first, the context second
    order[:10] = [0, 1, 2]
    scores, targets = np.full((40, 2), 0.5, np.float32), np.eye(2, dtype=np.float32)[np.arange(40) % 2]
    result = Evaluation(tuple(r.key for r in people), targets, {"pred": scores}, None, None, order, None, None)
    (found,) = g.by_groups(result, people, ["split"], multi_label=True, resamples=10)["split"]["groups"].values()
    assert found["head_detected"]["value"] == 1.0 and "head_estimated" not in found and "head_annotated" not in found
    shares = [found[f"first_excluded_{level}"]["value"] for level in ("head", "body", "context")]
    assert shares == pytest.approx([0.25, 0.75, 0.0])


def test_seed_0_unless_it_is_said_otherwise() -> None:
    """The seed that `result.json` names."""
    some = facts(40, per_image=1)
    assert g.group_numbers(some, ["f"] * 40, resamples=50) == g.group_numbers(some, ["f"] * 40, resamples=50, seed=0)
