"""The conflict benchmark: its rules are the model's, its numbers the metrics', and nothing is done twice or mixed up."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from programs import load_program
from scipy import stats
from tiny_models import persons, tiny_config, tiny_model
from training_world import TOWER, make_people

from cocoer.data.batch import Batch
from cocoer.data.index import write_index
from cocoer.errors import ConflictError
from cocoer.evaluation.metrics import average_precision, mean_over_classes
from cocoer.model.cocoer import CocoER
from cocoer.model.level_head import LevelStack
from cocoer.model.losses import competition_weights
from cocoer.model.release.coordination import release_compete, release_coordinate
from cocoer.names import LEVELS
from cocoer.outputs import ConflictPoint
from cocoer.report import conflict as report
from cocoer.report.conflict_points import Points
from cocoer.report.conflict_words import verdict
from cocoer.runtime import Runtime
from cocoer.studies.conflict import benchmark as conflict
from cocoer.studies.conflict.rules import LABELS, LATE, Features, Rules, features_of
from cocoer.studies.conflict.summary import over_models, point
from cocoer.studies.conflict.world import POOLS, SHARES, Mixing, Sizes, Tree, plan_scenes, read_pools
from cocoer.studies.kept import check_settings, write_json

HERE = Runtime(0, 1, torch.device("cpu"))


def batch_of(count: int, seed: int) -> Batch:
    head, body, context, head_xyxy, body_xyxy = persons(count, seed=seed)
    targets = (torch.rand(count, 26, generator=torch.Generator().manual_seed(seed)) < 0.3).float()
    return Batch(head, body, context, head_xyxy, body_xyxy, targets, tuple(map(str, range(count))))


def tiled(features: Features, times: int) -> Features:
    """The same persons over and over."""
    stack = features.levels
    parts = (stack.sq_norm, stack.pre, stack.z, stack.logits, features.z_t, features.logits_t, features.targets)
    sq_norm, pre, z, logits, *rest = (t.repeat(times, *[1] * (t.ndim - 1)) for t in parts)
    return Features(LevelStack(sq_norm, pre, z, logits), *rest)


def rules_of(model: CocoER, *changes: str) -> Rules:
    return Rules(model, tiny_config(*changes))


def answers(changes: tuple[str, ...], weights: CocoER, batch: Batch) -> Any:
    """What the whole model, built with the changes and given the weights, says."""
    model = tiny_model(*changes)
    model.load_state_dict(weights.state_dict())
    with torch.inference_mode():
        return model(batch.head, batch.body, batch.context, batch.head_xyxy, batch.body_xyxy)


@pytest.fixture(scope="module")
def model() -> CocoER:
    return tiny_model()


@pytest.fixture(scope="module")
def batch() -> Batch:
    return batch_of(9, 0)


@pytest.fixture(scope="module")
def features(model: CocoER, batch: Batch) -> Features:
    return features_of(model, [batch], HERE)


# ---- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", ["vocabulary", "fused"])
@pytest.mark.parametrize("update", ["none", "one", "two"])
def test_a_rule_on_stored_features_is_the_whole_model(
    model: CocoER, batch: Batch, features: Features, update: str, judge: str
) -> None:
    changes = (f"model.coordination.update={update}", f"model.competition.pseudo_label={judge}")
    output = answers(changes, model, batch)
    rules = rules_of(model)
    np.testing.assert_allclose(rules.scores(features, update, judge), output.logits.sigmoid(), atol=1e-6)
    torch.testing.assert_close(rules.label(features, judge), output.pseudo_label)
    assert (rules.fused_features(features, update, judge)[1] == output.competition.exclusion.numpy()).all()


def test_the_release_rule_takes_the_published_step(model: CocoER, features: Features) -> None:
    rules = rules_of(model)
    label = rules.label(features, "vocabulary")
    with torch.inference_mode():
        found = release_compete(
            features.levels.z, rules.heads, label, competition_weights("dynamic", label), multi_label=True
        )
        refined = release_coordinate(features.levels.pre, features.levels.sq_norm, rules.heads, found, step=0.1)
        expected = model.fusion(torch.cat([refined.flatten(1), features.z_t], 1)).sigmoid()
    np.testing.assert_allclose(rules.scores(features, "release", "vocabulary"), expected, atol=1e-6)


def test_the_true_label_is_the_ground_truth_and_changes_who_leaves(model: CocoER, features: Features) -> None:
    rules = rules_of(model)
    assert torch.equal(rules.label(features, "true"), features.targets)
    ways = [rules.fused_features(features, "none", label)[1] for label in LABELS]
    assert not np.array_equal(ways[0], ways[2])


def test_late_fusion_by_hand(model: CocoER, features: Features) -> None:
    rules = rules_of(model)
    levels = features.levels.logits.sigmoid().numpy()
    np.testing.assert_allclose(rules.scores(features, "late_fusion", ""), levels.mean(1), atol=1e-6)
    order = rules.fused_features(features, "none", "true")[1]
    for row, person, scores in zip(rules.scores(features, "late_fusion_two", "true"), order, levels, strict=True):
        np.testing.assert_allclose(row, (scores[person[1]] + scores[person[2]]) / 2, atol=1e-6)


@pytest.mark.parametrize("judge", ["vocabulary", "fused"])
def test_the_vote_is_the_option_and_its_control_asks_all_three(
    model: CocoER, batch: Batch, features: Features, judge: str
) -> None:
    output = answers(("model.competition.vote=true", f"model.competition.pseudo_label={judge}"), model, batch)
    rules = rules_of(model)
    np.testing.assert_allclose(rules.scores(features, "vote", judge), output.logits.sigmoid(), atol=1e-6)
    three = rules.scores(features, "one", judge) / 2 + features.levels.logits.sigmoid().numpy().mean(1) / 2
    np.testing.assert_allclose(rules.scores(features, "vote_three", judge), three, atol=1e-6)


def test_a_refitted_fusion_learns_and_touches_nothing_else(model: CocoER, features: Features) -> None:
    rules = rules_of(model)
    before, state = model.fusion.state_dict(), torch.get_rng_state()
    kept = {name: value.clone() for name, value in before.items()}
    many = tiled(features, 40)
    first, again = (rules.refitted(many, "one", "true", seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.fusion.state_dict().items():
        assert torch.equal(value, kept[name])
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    targets = features.targets.numpy()
    learned = mean_over_classes(average_precision(rules.scores(features, "one", "true", first), targets))
    assert learned > mean_over_classes(average_precision(rules.scores(features, "one", "true"), targets)) + 0.1


def test_a_model_without_a_pseudo_label_is_refused(batch: Batch) -> None:
    with pytest.raises(ValueError, match="wants a model with the V-I branch"):
        features_of(tiny_model("model.vocabulary.enabled=false"), [batch], HERE)


# ---- mixtures -------------------------------------------------------------------------------------------------------


def test_mixtures_are_nested_and_as_large_as_they_say() -> None:
    mixing = Mixing.of(3000)
    assert (mixing.pool("any", 0.0) == 0).all() and (mixing.pool("body", 1.0) == 2).all()
    before = np.zeros(3000, dtype=bool)
    for share in SHARES:
        pool = mixing.pool("any", share)
        assert abs((pool > 0).mean() - share) < 0.03
        assert not (before & (pool == 0)).any()  # whoever was contradicted still is
        before = pool > 0
        np.testing.assert_array_equal(mixing.pool("head", share) > 0, before)
    assert np.bincount(mixing.pool("any", 1.0)).tolist() == [0, 1000, 1000, 1000]


def test_rows_are_the_metrics_of_the_mixture(model: CocoER) -> None:
    pools = {name: features_of(model, [batch_of(12, seed)], HERE) for seed, name in enumerate(POOLS)}
    rules = rules_of(model)
    rows = conflict.measure_rules(rules, pools, pools["none"], seed=0)
    keys = [tuple(r[k] for k in ("measure", "fusion", "rule", "label", "condition", "share")) for r in rows]
    mixtures = 1 + 4 * (len(SHARES) - 1)
    trained, refitted = 2 + 3 * 6, 1 + 3 * 5
    assert len(set(keys)) == len(keys) == (trained + refitted) * mixtures + 3 * (mixtures - 1)
    by_key = dict(zip(keys, rows, strict=True))
    mixing = Mixing.of(12)
    for condition, share in (("any", 0.5), ("context", 0.3), ("any", 0.0)):
        pool = mixing.pool(condition, share)
        scores = {name: rules.scores(pools[name], "two", "true") for name in POOLS}
        mixed = np.stack([scores[POOLS[p]][i] for i, p in enumerate(pool)])
        targets = np.stack([pools[POOLS[p]].targets[i].numpy() for i, p in enumerate(pool)])
        expected = mean_over_classes(average_precision(mixed, targets))
        assert by_key["score", "trained", "two", "true", condition, share]["value"] == pytest.approx(expected)
        hits = [
            rules.fused_features(pools[POOLS[p]], "none", "fused")[1][i, 0] == p - 1 for i, p in enumerate(pool) if p
        ]
        if hits:
            row = by_key["first_excluded", "", "", "fused", condition, share]
            assert row["value"] == pytest.approx(np.mean(hits)) and row["persons"] == len(hits)


# ---- over the models ------------------------------------------------------------------------------------------------


def made_rows(seed: int) -> dict[str, Any]:
    """Rows as a seed stores them, of made-up values."""
    rng = np.random.default_rng(seed)
    rows = []
    for condition, share in conflict._mixtures():
        for rule, label in conflict._combinations():
            for fusion in ("trained",) if rule in LATE else ("trained", "refitted"):
                what = {"measure": "score", "fusion": fusion, "rule": rule, "label": label}
                rows.append(
                    what | {"condition": condition, "share": share, "value": rng.uniform(0.5, 0.9), "persons": 600}
                )
        for label in LABELS if share else ():
            what = {"measure": "first_excluded", "fusion": "", "rule": "", "label": label}
            rows.append(what | {"condition": condition, "share": share, "value": rng.uniform(0.3, 0.8), "persons": 100})
    return {
        "seed": seed, "rows": rows, "selected_on": "val", "val_mAP": 0.5, "epoch": 2, "weights_sha256": "ab" * 32,
        "identity": "x",
    }  # fmt: skip


def test_means_deviations_and_paired_gains() -> None:
    results = [made_rows(seed) for seed in range(4)]
    found = Points(over_models(results))

    def values(**what: object) -> list[float]:
        return [next(r["value"] for r in result["rows"] if what.items() <= r.items()) for result in results]

    mine = {"rule": "two", "label": "true", "condition": "body", "share": 0.4}
    base = {"rule": "none", "condition": "body", "share": 0.4}
    for fusion in ("trained", "refitted"):
        scores, plain = values(fusion=fusion, **mine), values(fusion=fusion, **base)
        score = found("score", 0.4, "body", "two", "true", fusion)
        assert score.mean == pytest.approx(100 * np.mean(scores))
        assert score.deviation == pytest.approx(100 * np.std(scores, ddof=1))
        gain = found("gain", 0.4, "body", "two", "true", fusion)
        test = stats.ttest_rel(scores, plain).confidence_interval(0.95)
        assert gain.interval == pytest.approx((100 * test.low, 100 * test.high))
        assert gain.mean == pytest.approx(100 * (np.mean(scores) - np.mean(plain)))
    late = found("gain", 0.4, "body", "late_fusion_two", "fused")
    expected = np.mean(values(rule="late_fusion_two", label="fused", condition="body", share=0.4)) - np.mean(
        values(fusion="trained", **base)
    )
    assert late.mean == pytest.approx(100 * expected)
    vote, control = (
        values(rule=r, label="true", fusion="refitted", condition="head", share=0.7) for r in ("vote", "vote_three")
    )
    over = found("vote_gain", 0.7, "head", "vote", "true", "refitted")
    assert over.mean == pytest.approx(100 * (np.mean(vote) - np.mean(control)))
    where = {"measure": "first_excluded", "condition": "any", "share": 0.7}
    ours = np.mean(values(label="fused", **where)) - np.mean(values(label="vocabulary", **where))
    assert found("first_excluded_gain", 0.7, label="fused").mean == pytest.approx(100 * ours)
    one = Points(over_models(results[:1]))("score", 0.4, "body", "none")
    assert one.deviation is None and one.interval is None


def test_seeds_that_do_not_fit_and_values_that_are_no_numbers_are_named() -> None:
    with pytest.raises(ConflictError, match="at least one seed, got none"):
        over_models([])
    short = made_rows(1)
    short["rows"] = short["rows"][1:]
    with pytest.raises(ConflictError, match="seed 1: holds other rows than seed 0"):
        over_models([made_rows(0), short])
    twice = made_rows(1)
    twice["rows"].append(twice["rows"][0])
    with pytest.raises(ConflictError, match="seed 1: holds other rows"):
        over_models([made_rows(0), twice])
    broken = made_rows(1)
    broken["rows"][0]["value"] = float("nan")
    with pytest.raises(ConflictError, match=r"seed 1: score trained none  any 0.0 is nan, wanted a finite number"):
        over_models([made_rows(0), broken])


# ---- scenes and stored results --------------------------------------------------------------------------------------


def test_the_pools_hold_the_same_persons_with_another_contradiction(tmp_path: Path) -> None:
    scenes = plan_scenes(tmp_path, Sizes(train=2, val=1, refit=2, pool=3, epochs=1, seeds=(0,)))
    for tree in scenes.pools.values():
        tree.draw(workers=1)
    pools = read_pools(scenes)
    for name, records in pools.items():
        assert len(records) == 3
        for record, plain in zip(records, pools["none"], strict=True):
            made, before = record.extra["synthetic"], plain.extra["synthetic"]
            assert record.key == plain.key and made["archetypes"]["context"] == before["archetypes"]["context"]
            assert made["contradicted_level"] == (None if name == "none" else name)
            assert [m for m in LEVELS if made["archetypes"][m] == made["archetypes"]["context"]] == {
                "none": list(LEVELS), "head": ["body", "context"], "body": ["head", "context"], "context": ["context"],
            }[name]  # fmt: skip
    with mock.patch("cocoer.studies.conflict.world.write_emotic", side_effect=AssertionError("drawn again")):
        for tree in scenes.pools.values():
            tree.draw(workers=1)
    half = scenes.pools["head"]
    (half.root / "index/sidecar.json").unlink()  # as an interrupted drawing leaves it
    half.draw(workers=1)
    assert [r.key for r in read_pools(scenes)["head"]] == [r.key for r in pools["head"]]
    shutil.rmtree(half.root)
    Tree(half.root, {"test": 2}, half.seed, half.share, half.level).draw(workers=1)
    with pytest.raises(ConflictError, match=r"test_head: wanted the 3 persons of .*test_none, got 2 others"):
        read_pools(scenes)
    shutil.rmtree(half.root)
    Tree(half.root, {"test": 3}, half.seed, 1.0, "body").draw(workers=1)
    with pytest.raises(ConflictError, match="wanted persons with contradiction at head"):
        read_pools(scenes)


@pytest.fixture
def tiny(tmp_path: Path) -> conflict.Benchmark:
    """A benchmark whose scenes are random images and whose models are a few thousand weights."""
    (tmp_path / "tower.json").write_text(json.dumps(TOWER))
    overrides = (
        "data.image_size=32", "model.backbone.weights=null", "model.backbone.widths=[4, 8]", "model.tokens.size=8",
        "model.attention.head_size=4", "model.attention.feed_forward=16", "model.level_head.feature_size=8",
        f"model.vocabulary.tower={tmp_path / 'tower.json'}", "model.vocabulary.weights=null", "vocabulary_stage.epochs=1",
        "optim.batch_size=8",
    )  # fmt: skip
    sizes = Sizes(train=16, val=6, refit=8, pool=6, epochs=1, seeds=(0, 1))
    made = conflict.Benchmark(tmp_path / "out", sizes, Path("configs/demo_emotic.yaml").resolve(), overrides)

    def draw(tree: Tree, _workers: int) -> None:
        if (tree.root / "index").is_dir():
            return
        people = make_people(tree.root, "emotic", {k: v for k, v in tree.counts.items() if v}, seed=tree.seed)
        for person in people:
            person.extra["synthetic"]["contradicted_level"] = tree.level  # type: ignore[index]
        write_index(tree.root / "index", people, {})

    with mock.patch.object(Tree, "draw", draw):
        yield made  # type: ignore[misc]


def test_the_whole_benchmark_continues_and_does_nothing_twice(tiny: conflict.Benchmark, tmp_path: Path) -> None:
    facts = conflict.run_benchmark(tiny, HERE, "cpu", jobs=2)
    assert [s["seed"] for s in facts["seeds"]] == [0, 1] and facts["seeds"][0]["selected_on"] == "val"
    assert facts["seeds"][0]["weights_sha256"] != facts["seeds"][1]["weights_sha256"]
    log = tiny.folder / "models/seed-0/train.log"
    trained = log.read_text()
    (tiny.folder / "seed-1.json").unlink()
    with mock.patch.object(conflict, "load_weights", side_effect=conflict.load_weights) as loads:
        again = conflict.run_benchmark(tiny, HERE, "cpu", jobs=2)
    assert len(loads.call_args_list) == 1 and "seed-1" in str(loads.call_args[0][0])
    assert [s["rows"] for s in again["seeds"]] == [s["rows"] for s in facts["seeds"]]
    assert log.read_text() == trained  # no second training
    points = over_models(facts["seeds"])
    paths = report.write_conflict(points, facts, tmp_path / "page", "the command")
    plots = {Path(name).with_suffix(suffix).name for name in report.PLOTS for suffix in (".png", ".pdf")}
    assert {p.name for p in paths} == {*report.FILES, *plots} and all(p.stat().st_size for p in paths)
    page = (tmp_path / "page/conflict.md").read_text()
    assert "**synthetic**" in page and "the command" in page and "figures mean nothing" in page
    lines = list(csv.DictReader(io.StringIO((tmp_path / "page/conflict.csv").read_text())))
    assert len(lines) == len(points) and {line["command"] for line in lines} == {"the command"}
    assert {line["selected_on"] for line in lines} == {"val"} and {line["data"] for line in lines} == {"synthetic"}
    assert len(json.loads((tmp_path / "page/conflict.json").read_text())["points"]) == len(points)
    published = report.publish_conflict(points, facts, tmp_path / "docs", "the command")
    assert (
        "](images/conflict_map.png)" in published[0].read_text()
        and (tmp_path / "docs/images/conflict_map.png").is_file()
    )

    stored = tiny.folder / "seed-0.json"
    stored.write_text(stored.read_text()[:200])
    with pytest.raises(ConflictError, match=r"seed-0.json: truncated or damaged results file .*; delete it"):
        conflict.run_benchmark(tiny, HERE, "cpu")
    stored.unlink()
    other = conflict.Benchmark(tiny.folder, tiny.sizes, tiny.config, (*tiny.overrides, "optim.lr=0.5"))
    with pytest.raises(ConflictError, match=r"begun with other settings.*\n  config.optim.lr: was 0.0008, is now 0.5"):
        conflict.run_benchmark(other, HERE, "cpu")
    settings = json.loads((tiny.folder / "settings.json").read_text())
    del settings["config"]["model"]["competition"]["vote"]  # as a folder that was begun before the key came
    write_json(tiny.folder / "settings.json", settings)
    check_settings(tiny.folder / "settings.json", conflict.settings_of(tiny), conflict.updated)


# ---- the page -------------------------------------------------------------------------------------------------------


def gained(*values: float) -> ConflictPoint:
    return point(("gain", "trained", "one", "true", "any", 0.7), values, 600)


def test_a_gain_is_claimed_only_where_the_interval_says_so() -> None:
    assert verdict(gained(0.010, 0.011, 0.012)) == "a gain"
    assert verdict(gained(-0.010, -0.011, -0.012)) == "a loss"
    assert verdict(gained(0.010, -0.011, 0.012)) == "no significant difference"
    assert verdict(gained(0.010)) == "one model, no interval"


def test_the_script_refuses_to_publish_a_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load_program("conflict").main
    with pytest.raises(SystemExit):
        main(["--quick", "--publish", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["--jobs", "0"])
    assert main(["--output", str(tmp_path), "--set", "optim.lrr=1"]) == 2
    assert main(["--output", str(tmp_path), "--config", str(tmp_path / "none.yaml")]) == 2
    said = capsys.readouterr().err
    assert "must not be published" in said and "optim.lrr: unknown key" in said and "no such file" in said
