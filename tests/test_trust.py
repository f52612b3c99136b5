"""Results on disk and side by side: everything that repeats a number is there, and a row is the number of its file."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from programs import load_program
from training_world import make_world, read, train

from cocoer.config import change_config
from cocoer.data.index import write_index
from cocoer.data.loaders import build_dataset
from cocoer.errors import TableError
from cocoer.evaluation.protocol import settings_id
from cocoer.names import LEVELS
from cocoer.outputs import ResultTable
from cocoer.paper import PUBLISHED
from cocoer.report import leaderboard as board
from cocoer.report import trust
from cocoer.report.tables import as_html


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = make_world(tmp_path_factory.mktemp("trust"), other=8)
    assert train(config, settings=["run.max_steps=2"]) == 0
    return config


def evaluate(world: Path, output: Path, *more: str) -> dict[str, Any]:
    weights = world.parent / "run/best.safetensors"
    given = ["--checkpoint", str(weights), "--device", "cpu", "--resamples", "20", "--output", str(output), *more]
    assert load_program("evaluate").main(given) == 0
    content: dict[str, Any] = json.loads((output / "result.json").read_text())
    return content


def test_a_result_holds_what_repeats_it(world: Path, tmp_path: Path) -> None:
    result = evaluate(world, tmp_path, "--groups", "head_source", "--name", "Ours")
    config, people = read(world), build_dataset(read(world).data, "test")
    lines = [record.to_line().encode() for record in people.records]
    sizes = sorted((r.image, (world.parent / "root" / r.image).stat().st_size) for r in people.records)
    wanted = hashlib.sha256(b"".join([*lines, *(f"{name} {size}".encode() for name, size in sizes)])).hexdigest()
    data = result["data"]
    assert data["sha256"] == wanted and data["persons"] == data["images"] == 8 and data["split"] == "test"
    assert data["classes"] == list(config.classes) and result["synthetic"] is True and result["name"] == "Ours"
    assert result["model"]["seed"] == 3 and result["model"]["selected_on"] == "val"
    assert result["metric"] == "mAP" and "non-interpolated" in result["definition"]
    assert result["interval"] == {"level": 0.95, "kind": "bootstrap", "resamples": 20, "seed": 0}
    assert result["command"].startswith("cocoer evaluate --checkpoint") and "--groups head_source" in result["command"]
    assert {"python", "torch", "scikit-learn", "cocoer"} <= set(result["versions"]) and result["revision"]
    assert result["numbers"] == json.loads((tmp_path / "evaluation.json").read_text())
    assert set(result["numbers"]["calibration"]) == {"before"} and "head_source" in result["numbers"]["groups"]
    page = (tmp_path / "evaluation.html").read_text()
    assert "SYNTHETIC" in page and page.count("data:image/png;base64,") == 1 and "by head_source" in page
    for name in ("calibration.png", "calibration.pdf"):
        assert (tmp_path / name).stat().st_size > 1000
    with Image.open(tmp_path / "calibration.png") as image:
        assert image.width > 500


@pytest.mark.parametrize("drawn", [True, False])
def test_a_result_of_drawn_images_says_so_where_only_the_sidecar_knows(
    world: Path, tmp_path: Path, drawn: bool
) -> None:
    """As in an index that `prepare emotic` makes of a drawn tree, whose lines do not say it."""
    people = build_dataset(read(world).data, "test").records
    plain = [replace(r, extra={k: v for k, v in r.extra.items() if k != "synthetic"}) for r in people]
    write_index(tmp_path / "index", plain, {"skipped": [], "synthetic": drawn})
    assert evaluate(world, tmp_path / "out", "--index", str(tmp_path / "index"))["synthetic"] is drawn
    assert ("SYNTHETIC" in (tmp_path / "out/evaluation.html").read_text()) is drawn


def test_settings_are_the_same_for_seeds_and_places_and_another_for_another_model(world: Path) -> None:
    config = read(world)
    same = [
        ["run.seed=9", "run.dir=elsewhere"],
        ["data.root=x", "data.index=y", "data.workers=3"],
        ["inference.thresholds.fused=0.4"],
    ]
    for changes in same:
        assert settings_id(change_config(config, changes)) == settings_id(config)
    for change in ("optim.lr=0.5", "model.coordination.update=none", "data.augment.flip=0.1", "loss.alpha=0.3"):
        assert settings_id(change_config(config, [change])) != settings_id(config)


def made_up(name: str = "a", seed: int = 0, value: float = 0.5, sha: str = "ab" * 32, **changes: Any) -> dict[str, Any]:
    headline = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {
        "format": 1, "name": name, "synthetic": False, "metric": "mAP", "definition": "d", "command": f"run {name} {seed}",
        "data": {"dataset": "emotic", "title": "EMOTIC", "split": "test", "persons": 7, "images": 5, "sha256": sha,
                 "classes": ["a", "b"]},
        "model": {"settings": "s", "mode": "paper", "seed": seed, "selected_on": "val"},
        "interval": {"level": 0.95, "kind": "bootstrap", "resamples": 10, "seed": 0}, "versions": {"torch": "2"},
        "revision": "r" * 40, "numbers": {"headline": headline, "weights": {"file": "w"}, "split": "test"},
    } | changes  # fmt: skip


def test_rows_are_of_the_same_persons_and_seeds_become_one_row() -> None:
    results = [
        made_up("worse", 0, 0.3),
        made_up("a", 0, 0.5),
        made_up("a", 1, 0.6),
        made_up("other data", 0, 0.9, sha="cd" * 32),
    ]
    first, second, quoted = board.leaderboard(results)
    assert [row.name for row in first.rows] == ["a", "worse"] and [row.name for row in second.rows] == ["other data"]
    both, one = first.rows
    assert both.ours == pytest.approx(55) and both.deviation == pytest.approx(50**0.5) and both.seeds == 2
    assert both.interval is None and one.interval == pytest.approx((20, 40)) and one.seeds == 1
    assert first.title == "EMOTIC, test, 7 persons: mAP" and "abab" in first.caption and one.command == "run worse 0"
    assert {(r.name, r.paper, r.source) for r in quoted.rows} == set(PUBLISHED["emotic"])
    assert all(r.ours is None for r in quoted.rows) and ("ResNet-18 body + CLIP ViT-B/16 scene", 34.52) in {
        (r.name, r.paper) for r in quoted.rows
    }
    drawn, told = board.leaderboard([made_up(synthetic=True)])
    assert drawn.title.startswith("SYNTHETIC") and "no synthetic row can be held against them" in told.caption


def test_what_cannot_be_compared_is_in_tables_of_its_own() -> None:
    """Other classes, another split or another definition of the metric, on the same persons."""
    other = [made_up("classes"), made_up("split"), made_up("definition", definition="another"), made_up("same")]
    other[0]["data"]["classes"], other[1]["data"]["split"] = ["a", "c"], "val"
    tables = board.leaderboard([made_up(), *other])
    assert [[row.name for row in table.rows] for table in tables[:-1]] == [
        ["a", "same"],
        ["classes"],
        ["split"],
        ["definition"],
    ]
    assert "2 classes" in tables[0].caption and tables[3].caption.startswith("Another.")


def test_a_paired_difference_stands_below_its_result() -> None:
    result = made_up()
    plain = trust.protocol_grid(result)
    result["numbers"]["against"] = {
        "file": "other/scores.npz",
        "difference": {"value": -0.02, "low": -0.03, "high": 0.01},
    }
    paired = trust.protocol_grid(result)
    assert paired[2] == ("minus other/scores.npz", "-2.00 [-3.00, 1.00], paired over the same persons")
    assert paired[:2] + paired[3:] == plain


def test_a_long_table_is_folded_below_its_figure_and_heads_stand_over_numbers() -> None:
    grid = (("damage", "where", "mAP"), *((f"blur {i}", "image", "1.00") for i in range(31)))
    table = ResultTable("long", "Long", "", (), grid=grid)
    page = as_html([table], "Page", figures={"long": trust.reliability_figure({"before": {"reliability": []}})})
    assert page.index("<img") < page.index("<details><summary>table of 31 rows</summary>") < page.index("blur 30")
    assert '<th scope="col">where</th><th scope="col" class="number">mAP</th>' in page
    short = as_html([ResultTable("short", "Short", "", (), grid=grid[:5])], "Page")
    assert "<details>" not in short


def test_a_result_twice_and_what_is_no_result_are_said(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"'a' with seed 0 is there twice.*--name"):
        board.leaderboard([made_up(), made_up()])
    file = tmp_path / "r.json"
    broken = made_up()
    broken["numbers"]["headline"]["low"] = 0.8
    nobody = made_up()
    nobody["data"]["persons"] = 0
    for content, words in (
        ("{", "cannot be read as a result"), ("[1]", "got format 'list'"), ('{"format": 9}', "format 1.*got format 9"),
        ('{"format": 9}', "another version of cocoer wrote it: evaluate again"), ('{"persons": 3}', "give the result.json that"),
        ('{"format": 1, "name": "x"}', "without synthetic, data"), (json.dumps(broken), "a damaged result"),
        (json.dumps(made_up("")), "a damaged result"), (json.dumps(nobody), "0 persons"),
    ):  # fmt: skip
        file.write_text(content)
        with pytest.raises(TableError, match=words):
            board.read_result(file)
    with pytest.raises(TableError, match="No such file"):
        board.read_result(tmp_path / "none.json")


def test_the_command_makes_one_page_of_several_results(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--corrupt", "blur,occlude-head", "--groups", "persons_in_image")
    evaluate(world, tmp_path / "a", "--name", "first", *more)
    evaluate(world, tmp_path / "b", "--name", "second", "--set", "model.coordination.update=none")
    files = [str(tmp_path / name / "result.json") for name in "ab"]
    capsys.readouterr()
    assert load_program("tables").main(["--from", *files, "--output", str(tmp_path / "board")]) == 0
    written = [Path(line) for line in capsys.readouterr().out.split()]
    assert {p.name for p in written} >= {
        "tables.html",
        "tables.md",
        "1-calibration.pdf",
        "1-robustness.png",
        "2-calibration.png",
    }
    assert all(path.is_file() for path in written)
    page = (tmp_path / "board/tables.html").read_text()
    assert (
        page.count("data:image/png;base64,") == 4
    )  # bars of the leaderboard, two reliability diagrams, one robustness
    rows = {row["row"]: row for row in csv.DictReader((tmp_path / "board/tables.csv").read_text().splitlines())}
    told = json.loads((tmp_path / "a/result.json").read_text())["numbers"]
    assert float(rows["first"]["ours"]) == pytest.approx(100 * told["headline"]["value"])
    text = (tmp_path / "board/tables.md").read_text()
    (blur,) = [
        by
        for by in told["robustness"]["conditions"]
        if (by["kind"], by["where"], by["strength"]) == ("blur", "head", 4)
    ]
    (line,) = [x for x in text.splitlines() if x.startswith("| blur 4 | head")]
    assert line.split(" | ")[2].startswith(f"{100 * blur['headline']['value']:.2f} [")
    assert len(re.findall(r"^\| (?:blur|occlude-head) \d", text, re.M)) == 4 * 5 + 2 * 5
    assert load_program("tables").main(["--from", str(tmp_path / "none.json")]) == 1
    assert "cannot be read as a result" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        load_program("tables").main([])
    assert "--dataset, or --from" in capsys.readouterr().err


def test_a_calibration_measured_where_it_was_fitted_says_so() -> None:
    found = {"fitted_on": "val", "fitted_persons": 7}
    assert "so this shows nothing" in trust.calibration_caption(found, "val")
    assert trust.calibration_caption(found, "test") == "Fitted on 7 persons of val. Percent; intervals over images."


def test_figures_show_the_numbers() -> None:
    points = [{"confidence": 0.1, "correct": 0.2, "low": 0.1, "high": 0.3, "count": 5}]
    figure = trust.reliability_figure({"before": {"reliability": points}, "after": {"reliability": points}})
    (axes,) = figure.axes
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == ["calibrated", "perfect calibration", "uncalibrated"]
    raw, *_ = (line for line in axes.get_lines() if list(line.get_xdata()) == [10.0])  # at what was said, not beside it
    assert list(raw.get_ydata()) == [20.0]
    few = {"value": 0.3, "low": 0.2, "high": 0.4}
    found = {
        "metric": "mAP",
        "clean": {"headline": {"value": 0.9, "low": 0.8, "high": 1.0}, "first": dict.fromkeys(LEVELS, few)},
        "conditions": [
            {"kind": "dark", "strength": s, "where": where, "level": None, "first": {}}
            | {key: {"value": s / 10, "low": s / 20, "high": s / 5} for key in ("headline", "difference", "damaged_first")}
            for where in ("image", *LEVELS) for s in (1, 2, 3, 4, 5)
        ],
    }  # fmt: skip
    panels = trust.robustness_figure(found).axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "Whole image damaged",
        *(f"{m.capitalize()} damaged alone" for m in LEVELS),
    ]
    whole, head, *_ = panels  # both begin with what was without damage
    for axes, start in ((whole, 90.0), (head, 30.0)):
        line = max(axes.get_lines(), key=lambda line: len(line.get_xdata()))
        assert line.get_xdata()[0] == 0 and line.get_ydata()[0] == start and len(line.get_ydata()) == 6
    pooled = {"dark": {str(s): few for s in (1, 2, 3, 4, 5)}}
    assert len(trust.robustness_figure(found | {"any_level": pooled}).axes) == 5
    assert trust.damaged_level_grid({"any_level": pooled})[1][:2] == ("dark", "30.00 [20.00, 40.00]")
    assert "dark 3" in {row[0] for row in trust.robustness_grid(found)} and len(trust.robustness_grid(found)) == 22
