"""Damaged persons: each kind does what its name says, more at a higher strength, and what it does is counted rightly."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from programs import load_program
from sklearn import metrics as sk
from training_world import make_world, read, train

from cocoer.data import damage as d
from cocoer.data.batch import PersonRecord
from cocoer.data.loaders import build_dataset
from cocoer.data.transforms import LevelCrops, crop_levels
from cocoer.errors import IndexFileError
from cocoer.evaluation.evaluate import Evaluation
from cocoer.evaluation.robustness import _minus, _told, robustness
from cocoer.names import LEVELS

RNG = np.random.default_rng(3)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((160, 120), 3))


@pytest.mark.parametrize("kind", [k for k in d.KINDS if k != "occlude-head"])
def test_a_stronger_damage_changes_more_and_the_same_name_gives_the_same(kind: str) -> None:
    errors = []
    for strength in d.STRENGTHS:
        made = d.damaged_pixels(SMOOTH, kind, strength, "a")
        assert made.shape == SMOOTH.shape and made.dtype == np.uint8
        np.testing.assert_array_equal(made, d.damaged_pixels(SMOOTH, kind, strength, "a"))
        errors.append(np.abs(made.astype(float) - SMOOTH).mean())
    assert errors == sorted(errors) and errors[0] > 0 and len(set(errors)) == 5


def test_each_kind_is_what_it_is_called() -> None:
    flat = np.full((200, 300, 3), 100, np.uint8)
    np.testing.assert_array_equal(d.damaged_pixels(flat, "dark", 3, ""), np.full_like(flat, 35))
    noisy = d.damaged_pixels(flat, "noise", 2, "one").astype(float) / 255
    assert noisy.std() == pytest.approx(0.12, rel=0.02) and noisy.mean() == pytest.approx(100 / 255, abs=0.003)
    assert (d.damaged_pixels(flat, "noise", 2, "two") != noisy * 255).mean() > 0.9
    edge = np.zeros((64, 64, 3), np.uint8)
    edge[:, 32:] = 255
    soft = d.damaged_pixels(edge, "blur", 4, "")[32, :, 0].astype(float)  # radius 64/16 = 4 pixels
    assert (np.diff(soft) >= 0).all() and 0.1 * 255 < soft[28] < 0.25 * 255  # the normal's 16 % at one deviation


@pytest.mark.parametrize("strength", d.STRENGTHS)
def test_the_strengths_are_those_that_the_documentation_lists(strength: int) -> None:
    """docs/trust.md: noise and JPEG are ImageNet-C's; every strength is measured on pixels, not read from the table."""
    place = strength - 1
    flat = np.full((160, 160, 3), 200, np.uint8)
    factor = (0.7, 0.5, 0.35, 0.2, 0.1)[place]
    np.testing.assert_array_equal(d.damaged_pixels(flat, "dark", strength, ""), np.full_like(flat, round(200 * factor)))
    middle = np.full((160, 160, 3), 128, np.uint8)
    noisy = d.damaged_pixels(middle, "noise", strength, "x") / 255.0
    draws = np.random.default_rng(0).normal(0, (0.08, 0.12, 0.18, 0.26, 0.38)[place], 10**6)
    assert noisy.std() == pytest.approx(np.clip(128 / 255 + draws, 0, 1).std(), rel=0.01)
    assert noisy.min() >= 0 and noisy.max() <= 1
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, "JPEG", quality=(25, 18, 15, 10, 7)[place])
    np.testing.assert_array_equal(
        d.damaged_pixels(SMOOTH, "jpeg", strength, ""), np.asarray(Image.open(file).convert("RGB"))
    )
    soft = Image.fromarray(SMOOTH).filter(
        ImageFilter.GaussianBlur(120 * (1 / 128, 1 / 64, 1 / 32, 1 / 16, 1 / 8)[place])
    )
    np.testing.assert_array_equal(d.damaged_pixels(SMOOTH, "blur", strength, ""), np.asarray(soft))
    side = round(100 * (0.3, 0.5, 0.7, 0.85, 1.0)[place])
    white = np.full((100, 200, 3), 255, np.uint8)
    for grey in (
        (d.covered(white, side / 100) == 128).all(-1),
        (
            np.asarray(d.damage_image(Image.fromarray(white), (0, 0, 200, 100), d.Damage("occlude-head", strength), ""))
            == 128
        ).all(-1),
    ):
        ys, xs = np.nonzero(grey)
        assert grey.sum() == (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
        assert abs((ys.min() + ys.max() + 1) / 2 - 50) <= 0.5 and abs((xs.min() + xs.max() + 1) / 2 - 100) <= 0.5
        assert abs(ys.max() - ys.min() + 1 - side) <= 1 and abs(xs.max() - xs.min() + 1 - 2 * side) <= 1


def test_each_strength_and_each_person_has_noise_of_its_own() -> None:
    grey = np.full((30, 30, 3), 128, np.uint8)
    seen = {d.damaged_pixels(grey, "noise", strength, name).tobytes() for strength in d.STRENGTHS for name in "ab"}
    assert len(seen) == 10
    signs = [d.damaged_pixels(grey, "noise", strength, "a") > 128 for strength in (1, 2)]
    assert 0.3 < (signs[0] == signs[1]).mean() < 0.7  # not the same draws, only larger


def test_the_noise_of_a_name_never_changes_from_one_version_to_the_next() -> None:
    """Results with damage are compared by the name alone: these came from the first version. Black and white are clipped."""
    pixels = np.array([[[0, 128, 255], [100, 250, 5]]], np.uint8)
    assert d.damaged_pixels(pixels, "noise", 1, "a").tolist() == [[[40, 104, 243], [118, 255, 0]]]
    assert d.damaged_pixels(pixels, "noise", 5, "a").tolist() == [[[0, 146, 255], [0, 196, 0]]]


def test_a_covered_head_is_grey_in_the_image_where_the_head_is() -> None:
    image = Image.new("RGB", (100, 80), (200, 10, 10))
    seen = np.asarray(d.damage_image(image, (20.0, 10.0, 60.0, 50.0), d.Damage("occlude-head", 5), "x"))
    grey = (seen == d.GREY).all(-1)
    assert grey[10:50, 20:60].all() and grey.sum() == 40 * 40
    half = np.asarray(d.damage_image(image, (20.0, 10.0, 60.0, 50.0), d.Damage("occlude-head", 2), "x"))
    assert (half == d.GREY).all(-1)[20:40, 30:50].all() and (half == d.GREY).all(-1).sum() == 20 * 20
    assert np.asarray(image)[30, 40, 0] == 200  # the given image is left alone


@pytest.mark.parametrize("where", LEVELS)
def test_one_level_is_damaged_and_nothing_else(where: str) -> None:
    crops = LevelCrops(np.stack([SMOOTH[:100, :100]] * 3), np.arange(4.0, dtype=np.float32), np.ones(4, np.float32))
    for made in d.all_damages(d.KINDS, [where]):
        after = d.damage_crops(crops, made, "a")
        same = [(after.pixels[i] == crops.pixels[i]).all() for i in range(3)]
        assert same == [i != LEVELS.index(where) for i in range(3)] and made.level == where
        assert after.head_xyxy is crops.head_xyxy
    assert len(d.all_damages(d.KINDS, [where])) == (25 if where == "head" else 20)


def test_what_is_no_damage_is_said() -> None:
    for given, words in (
        (("fog", 1), "wanted a kind of blur, noise"), (("blur", 6), "wanted a strength of 1, 2, 3, 4, 5, got 6"),
        (("blur", 1, "feet"), "wanted a place of image, head"), (("occlude-head", 1, "body"), "not in the body's"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            d.Damage(*given)  # type: ignore[arg-type]


def test_a_data_set_shows_its_persons_damaged_and_stays_as_it_was(tmp_path: Path) -> None:
    config = read(make_world(tmp_path))
    people = build_dataset(config.data, "test")
    before = people[2].crops.pixels
    dark = people.damaged(d.Damage("dark", 5))
    record = people.records[2]
    image = Image.fromarray(d.damaged_pixels(np.asarray(Image.open(tmp_path / "root" / record.image)), "dark", 5, ""))
    np.testing.assert_array_equal(dark[2].crops.pixels, crop_levels(image, record.body, record.head, 32).pixels)
    body = people.damaged(d.Damage("noise", 5, "body"))
    assert (body[2].crops.pixels[[0, 2]] == before[[0, 2]]).all() and (body[2].crops.pixels[1] != before[1]).any()
    np.testing.assert_array_equal(people[2].crops.pixels, before)
    cached = build_dataset(read(tmp_path / "config.yaml", f"data.cache={tmp_path / 'cache'}").data, "test")
    np.testing.assert_array_equal(cached.damaged(d.Damage("noise", 5, "body"))[2].crops.pixels, body[2].crops.pixels)
    with pytest.raises(IndexFileError, match=r"set data.cache=null"):
        cached.damaged(d.Damage("dark", 5))


def people_of(n: int, contradicted: int) -> list[PersonRecord]:
    """Two persons an image; the first ones have a body that contradicts."""
    return [
        PersonRecord(
            f"{i // 2}.jpg", 9, 9, i % 2, (0, 0, 9, 9), (0, 0, 4, 4), "annotated", (), None, "test",
            {"synthetic": {"contradicted_level": "body" if i < contradicted else None}},
        )
        for i in range(n)
    ]  # fmt: skip


def test_shares_and_changes_are_counts_by_hand() -> None:
    people = people_of(40, 10)
    targets = np.eye(2, dtype=np.float32)[np.arange(40) % 2]
    right, half = targets * 0.8 + 0.1, targets.copy() * 0.8 + 0.1
    half[:20] = half[:20, ::-1]  # the first 20 are answered wrongly

    def made(scores: np.ndarray, first: list[int]) -> Evaluation:
        exclusion = np.array([[i, *(j for j in range(3) if j != i)] if i >= 0 else [-1] * 3 for i in first])
        return Evaluation(tuple(r.key for r in people), targets, {"pred": scores}, None, None, exclusion, None, None)

    clean = made(right, [0] * 10 + [1] * 20 + [2] * 10)
    after = made(half, [-1] * 4 + [0] * 27 + [1] * 9)
    found = robustness(clean, [d.Damage("blur", 3, "head"), d.Damage("dark", 1)], lambda _: after, people, False, 300)
    head, image = found["conditions"]
    assert found["metric"] == "accuracy" and found["clean"]["headline"]["value"] == 1.0
    assert head["headline"]["value"] == 0.5 and head["difference"]["value"] == -0.5
    assert -0.8 < head["difference"]["low"] < -0.5 < head["difference"]["high"] < -0.2
    assert head["damaged_first"]["value"] == pytest.approx(27 / 36)
    assert head["damaged_first_gain"]["value"] == pytest.approx(27 / 36 - 10 / 40)
    assert head["damaged_first_consistent"]["value"] == pytest.approx(
        21 / 30
    )  # persons 10.. of whom 21 exclude the head
    assert head["first"]["body"]["value"] == pytest.approx(9 / 36) and found["consistent_persons"] == 30
    assert "damaged_first" not in image and image["level"] is None


def test_each_level_damaged_in_turn_is_one_number_whose_chance_is_a_third() -> None:
    """Undamaged, head, body and context leave first in 4, 10 and 6 of 20; the damage moves them to 16, 12 and 8."""
    people = people_of(20, 0)
    targets = np.eye(2, dtype=np.float32)[np.arange(20) % 2]

    def made(first: list[int]) -> Evaluation:
        exclusion = np.array([[i, *(j for j in range(3) if j != i)] for i in first])
        return Evaluation(tuple(r.key for r in people), targets, {"pred": targets}, None, None, exclusion, None, None)

    clean = made([0] * 4 + [1] * 10 + [2] * 6)
    after = {"head": [0] * 16 + [1] * 4, "body": [1] * 12 + [0] * 8, "context": [2] * 8 + [1] * 12}
    damages = [d.Damage("blur", 2, level) for level in LEVELS]
    found = robustness(clean, damages, lambda damage: made(after[damage.where]), people, False, 300)
    (pooled,) = found["any_level"]["blur"].values()
    assert pooled["value"] == pytest.approx((16 + 12 + 8) / 60)
    assert pooled["low"] < pooled["value"] < pooled["high"]
    same = robustness(clean, damages, lambda _: clean, people, False, 300)["any_level"]["blur"]["2"]
    assert same == pytest.approx({"value": 1 / 3, "low": 1 / 3, "high": 1 / 3})  # under every draw
    two = [d.Damage("blur", 2, "head"), d.Damage("blur", 2, "body"), d.Damage("occlude-head", 2), d.Damage("blur", 2)]
    assert "any_level" not in robustness(clean, two, lambda _: clean, people, False, 20)


def test_an_interval_ends_where_a_share_or_a_change_can_end() -> None:
    """38 of 40 after, 2 of 40 before, and the other way round: the spread would reach beyond 1."""
    people = people_of(40, 0)
    targets = np.eye(2, dtype=np.float32)[np.arange(40) % 2]

    def made(scores: np.ndarray, first: list[int]) -> Evaluation:
        exclusion = np.array([[i, *(j for j in range(3) if j != i)] for i in first])
        return Evaluation(tuple(r.key for r in people), targets, {"pred": scores}, None, None, exclusion, None, None)

    right, wrong = targets.copy(), 1 - targets
    right[:2], wrong[:2] = wrong[:2].copy(), right[:2].copy()
    few, many = made(wrong, [0] * 2 + [1] * 38), made(right, [0] * 38 + [1] * 2)
    up = robustness(few, [d.Damage("blur", 1, "head")], lambda _: many, people, False, 400)["conditions"][0]
    down = robustness(many, [d.Damage("blur", 1, "head")], lambda _: few, people, False, 400)["conditions"][0]
    for row, sign in ((up, 1), (down, -1)):
        for name in ("difference", "damaged_first_gain"):
            assert row[name]["value"] == pytest.approx(0.9 * sign)
            assert -1 <= row[name]["low"] < 0.9 * sign < row[name]["high"] <= 1
        assert 0 <= row["headline"]["low"] < row["headline"]["high"] <= 1


def test_a_share_is_told_within_0_and_1_and_a_difference_within_one_of_0() -> None:
    draws = np.array([0.0, 1.0] * 50)
    assert _told((0.9, draws)) == {"value": 0.9, "low": pytest.approx(0.4), "high": 1.0}
    assert _told((0.1, draws)) == {"value": 0.1, "low": 0.0, "high": pytest.approx(0.6)}
    assert _minus((0.9, 2 * draws), (0.0, draws * 0)) == {"value": 0.9, "low": pytest.approx(-0.1), "high": 1.0}
    assert _minus((0.0, draws * 0), (0.9, 2 * draws)) == {"value": -0.9, "low": -1.0, "high": pytest.approx(0.1)}


def test_photographs_tell_the_damaged_level_and_scenes_that_all_contradict_have_nobody_consistent() -> None:
    targets = np.eye(2, dtype=np.float32)[np.arange(40) % 2]
    order = np.tile([[0, 1, 2]], (40, 1))
    photos = [replace(person, extra={}) for person in people_of(40, 0)]
    for people in (photos, people_of(40, 40)):
        result = Evaluation(tuple(r.key for r in people), targets, {"pred": targets}, None, None, order, None, None)
        found = robustness(result, [d.Damage("blur", 1, "head")], lambda _, r=result: r, people, False, 20)
        (row,) = found["conditions"]
        assert row["damaged_first"]["value"] == 1.0 and "damaged_first_consistent" not in row
        assert found.get("consistent_persons") == (None if people is photos else 0)


def test_the_headline_of_several_labels_is_the_mean_average_precision() -> None:
    people = people_of(30, 0)
    targets = (RNG.random((30, 3)) < 0.5).astype(np.float32)
    scores = RNG.random((30, 3)).astype(np.float32)
    result = Evaluation(tuple(r.key for r in people), targets, {"pred": scores}, None, None, None, None, None)
    found = robustness(result, [d.Damage("jpeg", 1, "head")], lambda _: result, people, True, 50)
    (row,) = found["conditions"]
    wanted = np.mean([sk.average_precision_score(targets[:, j], scores[:, j]) for j in range(3)])
    assert row["headline"]["value"] == pytest.approx(wanted, abs=1e-6)
    assert row["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}  # the same draws
    assert row["first"] == {} and "damaged_first" not in row  # nothing competed


def test_the_command_tells_what_damage_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path)
    assert train(config, settings=["run.max_steps=2"]) == 0
    weights, out = tmp_path / "run/best.safetensors", tmp_path / "out"
    given = ["--checkpoint", str(weights), "--device", "cpu", "--resamples", "20", "--output", str(out)]
    assert (
        load_program("evaluate").main([*given, "--corrupt", "dark,occlude-head", "--corrupt-where", "image,body"]) == 0
    )
    told = json.loads((out / "evaluation.json").read_text())["robustness"]
    assert [(by["kind"], by["where"]) for by in told["conditions"][::5]] == [
        ("dark", "image"), ("dark", "body"), ("occlude-head", "image"),
    ]  # fmt: skip
    assert "damaged persons" in capsys.readouterr().out
    for wrong, words in (
        (["--corrupt", "fog"], "--corrupt: wanted some of blur, noise, jpeg, dark, occlude-head, got 'fog'"),
        (["--corrupt", "blur", "--corrupt-where", "feet"], "--corrupt-where: wanted some of image, head"),
        (["--corrupt", "blur:0"], "got 'blur:0'"),
        (["--corrupt", ","], "wanted words with commas between them, got ','"),
        (["--groups", " , "], "wanted words with commas between them"),
        (["--corrupt-where", "head"], "give --corrupt, too"),
        (["--corrupt", "occlude-head", "--corrupt-where", "body"], "add one to --corrupt-where"),
    ):
        with pytest.raises(SystemExit, match="2"):
            load_program("evaluate").main([*given, *wrong])
        assert words in capsys.readouterr().err
