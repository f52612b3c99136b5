"""Videos: ids that stay with people who cross, smoothed probabilities, an MP4, a timeline; memory that does not grow."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_film import draw_film
from PIL import Image
from programs import load_program
from scipy.optimize import linear_sum_assignment
from tiny_recognizer import tiny_checkpoint

from cocoer.boxes import iou
from cocoer.cli.films import frame_rate
from cocoer.data.detect import PeopleDetector
from cocoer.data.people import people_from_detections
from cocoer.errors import MissingExtra
from cocoer.inference.identities import Identities, clearly_seen, colours_of, distance
from cocoer.inference.predictions import LabelRule
from cocoer.inference.tracking import SMOOTHING_S, FrameTracker
from cocoer.outputs import CompetitionRecord, ImageResult, PersonBoxes, PersonPrediction
from cocoer.report.film import FilmWriter, draw_frame
from cocoer.report.timeline import MOST_BINS, Timeline
from cocoer.weights.catalog import DEMO_FACE, DEMO_PERSON

RULE = LabelRule(("Joy", "Fear"), True, 0.5, 0.5, 0.5)
RATE = 25.0


def person(place: int, boxes: PersonBoxes, joy: float = 0.5) -> PersonPrediction:
    by_source = {source: {"Joy": joy, "Fear": 1 - joy} for source in ("pred", "head", "body", "ctx")}
    record = CompetitionRecord((1.0, 2.0, 3.0), ((1.0, 0.0, 0.0),), ("head", "body", "context"), 0.1)
    return PersonPrediction(place, dict.fromkeys(by_source, ()), by_source, record, boxes)


def ids_on_a_film(seed: int, people: int, speed: float) -> tuple[float, int, list[int]]:
    """The demo world's detectors and the tracker on 300 frames, against the true boxes.

    Returns the share of frames in which no id lies on another person than its own, the number of ids that are on people at all,
    and for how many frames each person has its own id. As in identity measures of tracking (Ristani et al. 2016), ids and
    people are paired once for the whole film; a box is on a person from an IoU of 0.4 on, and where two people coincide it may
    be on both.
    """
    detector = PeopleDetector(DEMO_FACE, DEMO_PERSON, 256, device="cpu", threads=1)
    tracker, frames = FrameTracker(RATE, RULE), []
    for number, frame in enumerate(draw_film(seed, 300, people, speed)):
        found = people_from_detections(detector(np.asarray(frame.image)), *frame.image.size)
        result = ImageResult("film", *frame.image.size, tuple(person(i, b) for i, b in enumerate(found)), frame=number)
        tracked = [p.boxes for p in tracker(result, frame.image).persons if p.boxes and p.boxes.track is not None]
        overlap = iou([body for body, _ in frame.boxes], [b.body for b in tracked]).reshape(people, -1)
        frames.append({b.track: overlap[:, i] >= 0.4 for i, b in enumerate(tracked) if (overlap[:, i] >= 0.4).any()})
    ids = sorted({number for on in frames for number in on}, key=str)
    together = np.array([sum(on[n] for on in frames if n in on) for n in ids]).reshape(len(ids), people)
    owner = {ids[i]: who for i, who in zip(*linear_sum_assignment(-together), strict=True)}
    right = [all(n in owner and on[n][owner[n]] for n in on) for on in frames]
    return float(np.mean(right)), len(ids), [int(together[ids.index(n), who]) for n, who in owner.items()]


FILMS = [
    pytest.param(0, 3, 1.0, 0.95, id="three people"),
    pytest.param(2, 3, 1.5, 0.95, id="faster", marks=pytest.mark.slow),
    pytest.param(3, 3, 2.0, 0.95, id="two who walk together", marks=pytest.mark.slow),
    pytest.param(5, 3, 3.0, 0.95, id="three times as fast", marks=pytest.mark.slow),
    pytest.param(4, 4, 1.0, 0.93, id="four people who hide each other", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("seed", "people", "speed", "least"), FILMS)
def test_ids_stay_with_people_who_cross_in_300_frames(seed: int, people: int, speed: float, least: float) -> None:
    """Only the first film was looked at when the constants of `identities` were chosen."""
    share, ids, own = ids_on_a_film(seed, people, speed)
    assert share >= least and ids == people == len(own)
    assert all(count >= 150 for count in own), "and people do have an id"


def walker(colour: tuple[int, int, int], x: float) -> tuple[tuple[int, int, int], tuple[float, float, float, float]]:
    return colour, (x, 40.0, x + 40, 160.0)


def test_colours_put_exchanged_ids_right_and_equal_colours_leave_them() -> None:
    def scene(
        first: tuple[int, int, int], second: tuple[int, int, int], x1: float, x2: float
    ) -> tuple[Image.Image, list]:
        image = Image.new("RGB", (400, 200), (90, 90, 90))
        bodies = []
        for colour, body in (walker(first, x1), walker(second, x2)):
            image.paste(colour, tuple(round(v) for v in body))  # type: ignore[arg-type]
            bodies.append(body)
        return image, bodies

    red, blue = (200, 30, 30), (30, 30, 200)
    identities = Identities()
    image, bodies = scene(red, blue, 50, 300)
    assert identities([7, 8], bodies, image, 0.0) == [1, 2]
    assert identities([8, 7], bodies, image, 0.1) == [1, 2], "the tracker exchanged them, the colours did not"
    assert identities([9, 7], bodies, image, 0.2) == [1, 2], "a new raw id for somebody known"
    same = Identities()
    image, bodies = scene(red, red, 50, 300)
    assert same([7, 8], bodies, image, 0.0) == [1, 2] and same([8, 7], bodies, image, 0.1) == [2, 1]
    image, bodies = scene(red, blue, 100, 110)
    assert Identities()([1, 2], bodies, image, 0.0) == [None, None] and clearly_seen(bodies) == [False, False]
    assert identities([], [], image, 1.0) == []


def test_the_distance_of_colours_is_0_to_1() -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    red, blue = Image.new("RGB", (64, 64), (250, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 250))
    seen = [colours_of(image, (0, 0, 64, 64)) for image in (noise, red, blue)]
    assert distance(seen[0], seen[0]) == pytest.approx(0, abs=1e-6) and distance(seen[1], seen[2]) == 1
    assert 0 < distance(seen[0], seen[1]) <= 1


def test_probabilities_are_smoothed_with_the_stated_time_constant() -> None:
    tracker = FrameTracker(RATE, RULE)
    image = Image.new("RGB", (400, 200), (120, 40, 40))
    boxes = PersonBoxes((50.0, 20.0, 120.0, 180.0), (70.0, 20.0, 100.0, 60.0), body_score=0.9)
    expected = 0.0
    for number in range(40):
        joy = 0.0 if number == 0 else 1.0
        result = ImageResult("film", 400, 200, (person(0, boxes, joy),), frame=number, model={"weights": "w"})
        tracked = tracker(result, image)
        expected = joy if number == 0 else expected + (1 - math.exp(-1 / RATE / SMOOTHING_S)) * (joy - expected)
        (answer,) = tracked.persons
        assert answer.probabilities["pred"]["Joy"] == pytest.approx(expected)
        assert answer.labels["pred"] == (("Joy",) if expected > 0.5 else ("Fear",) if 1 - expected > 0.5 else ())
        assert answer.boxes is not None and answer.boxes.track == 1
        assert answer.competition == result.persons[0].competition
    assert str(SMOOTHING_S) in tracked.model["tracking"]["smoothing"] and tracked.model["weights"] == "w"


def test_a_missing_tracker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trackers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cocoer\[track\]'"):
        FrameTracker(RATE, RULE)


def frames_of(path: Path) -> tuple[int, tuple[int, int], float]:
    import cv2

    video = cv2.VideoCapture(str(path))
    size = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
    count = 0
    while video.grab():
        count += 1
    video.release()
    return count, size, frame_rate(path)


def test_the_film_has_every_frame_at_its_rate(tmp_path: Path) -> None:
    writer = FilmWriter(tmp_path / "deep" / "film.mp4", 29.97)
    result = ImageResult(
        "film", 321, 200, (person(0, PersonBoxes((50.0, 20.0, 120.0, 180.0), (70.0, 20.0, 100.0, 60.0))),)
    )
    for _ in range(30):
        writer.add(draw_frame(Image.new("RGB", (321, 200)), result))
    assert not (tmp_path / "deep" / "film.mp4").exists(), "nothing under its name before it is whole"
    writer.close()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["film.mp4"]
    count, size, rate = frames_of(tmp_path / "deep" / "film.mp4")
    assert count == 30 and size == (320, 200) and rate == pytest.approx(29.97, abs=0.01)
    given_up = FilmWriter(tmp_path / "gone.mp4", 25)
    given_up.add(Image.new("RGB", (32, 32)))
    given_up.give_up()
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*"))


def test_a_timeline_stays_small_and_keeps_its_means() -> None:
    """3,000 frames in at most 600 stretches, the means as they are over all frames."""
    timeline = Timeline(RATE)
    rng = np.random.default_rng(0)
    joys = rng.uniform(0, 1, 3000)
    boxes = PersonBoxes((50.0, 20.0, 120.0, 180.0), (70.0, 20.0, 100.0, 60.0), track=4)
    for number, joy in enumerate(joys):
        timeline.add(ImageResult("film", 400, 200, (person(0, boxes, float(joy)),), frame=number))
    seconds, probabilities, excluded = timeline.means(4)
    assert len(seconds) <= MOST_BINS and seconds[-1] == pytest.approx(3000 / RATE, rel=0.01)
    assert probabilities[:, 0].mean() == pytest.approx(joys.mean(), abs=0.01)
    assert excluded.sum(1) == pytest.approx(1) and excluded[:, 0] == pytest.approx(1)
    assert timeline.people == [4] and len(timeline.figure("film").axes) == 2
    with pytest.raises(ValueError, match="got none"):
        Timeline(RATE).figure("film")


def test_the_command_writes_rows_a_film_and_a_timeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = FilmWriter(tmp_path / "walk.mp4", 10)
    truth = {}
    for number, frame in enumerate(draw_film(1, 12, people=2)):
        source.add(frame.image)
        truth[f"walk.mp4#{number}"] = {"persons": [{"body": list(b), "head": list(h)} for b, h in frame.boxes]}
    source.close()
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(truth))
    out = tmp_path / "out"
    args = [
        "--input",
        tmp_path / "walk.mp4",
        "--boxes",
        boxes,
        "--checkpoint",
        tiny_checkpoint(tmp_path / "w"),
        "--track",
    ]
    assert load_program("predict").main([str(a) for a in (*args, "--output", out, "--device", "cpu")]) == 0
    names = {p.name for p in out.iterdir()}
    assert {"walk.mp4", "walk.timeline.png", "results.jsonl", "results.csv"} <= names
    assert not [n for n in names if n.startswith("walk_")], "no file per frame unless it is asked for"
    assert frames_of(out / "walk.mp4")[0] == 12 and frames_of(out / "walk.mp4")[2] == pytest.approx(10)
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert {p["track"] for row in rows for p in row["persons"]} == {1, 2}
    assert "time constant" in rows[0]["model"]["tracking"]["smoothing"]
    with pytest.raises(SystemExit):
        load_program("predict").main(["--input", "walk.mp4", "--track", "--resume"])
    assert "leave --resume" in capsys.readouterr().err


def test_memory_and_time_are_flat_over_3000_frames() -> None:
    """Tracker, timeline and drawing keep nothing of frames gone by, and no frame waits for them."""
    import time
    import tracemalloc

    tracker, timeline = FrameTracker(RATE, RULE), Timeline(RATE)
    image = Image.new("RGB", (160, 120), (120, 40, 40))
    held, spent = [], []
    tracemalloc.start()
    for number in range(3000):
        x = 30 + 20 * math.sin(number / 50)
        boxes = PersonBoxes((x, 20.0, x + 40, 110.0), (x + 10, 20.0, x + 30, 40.0), body_score=0.9)
        result = tracker(ImageResult("film", 160, 120, (person(0, replace(boxes)),), frame=number), image)
        timeline.add(result)
        if number % 1000 == 999:
            held.append(tracemalloc.get_traced_memory()[0])
            spent.append(time.process_time())
    tracemalloc.stop()
    assert held[2] < held[1] + 200_000, held
    assert spent[2] - spent[1] < 2 * (spent[1] - spent[0]), spent
