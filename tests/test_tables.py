"""Tables from weights: the numbers are the metrics', nothing is measured twice, what is missing or broken is said."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from training_world import make_world, read, script

from cocoer.data.index import IndexFileError
from cocoer.engine import table_runs, tables
from cocoer.engine.ablations import find_ablations
from cocoer.engine.metrics import ScoreError, average_precision, mean_over_classes
from cocoer.engine.runtime import Runtime
from cocoer.engine.table_runs import CLIP_WHOLE, TableError, check_weights, measure, open_target, read_run
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_weights, save_weights
from cocoer.model.checkpoint_error import CheckpointError
from cocoer.outputs import ResultTable, TableRow
from cocoer.report import tables as report

ROOT = Path(__file__).resolve().parent.parent
HERE = Runtime(0, 1, torch.device("cpu"))


def world_with_weights(folder: Path, dataset: str = "emotic", seeds: int = 2) -> tuple[Path, list[Path]]:
    """The root of a prepared tiny data set, and that many untrained weights for it."""
    config = read(make_world(folder, dataset, train=1))
    shutil.copytree(folder / "index", folder / "root/index")
    files = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = build_model(config, pretrained=False)
        files.append(
            save_weights(folder / f"{seed}.safetensors", model, config, metrics={"selected_on": "val"}, thresholds={})
        )
    return folder / "root", files


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    return world_with_weights(tmp_path_factory.mktemp("world"))


def run_script(root: Path, weights: list[Path], output: Path, *more: str, dataset: str = "emotic") -> int:
    words = ["--dataset", dataset, str(root), *map(str, weights), "--output", str(output), "--resamples", "20"]
    code: int = script("scripts/tables.py").main([*words, "--device", "cpu", *more])
    return code


def lines_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "tables.csv").read_text())))


def test_rows_are_the_metrics_of_the_weights_and_nothing_is_done_twice(
    world: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    root, weights = world
    assert run_script(root, weights, tmp_path) == 0
    lines = lines_of(tmp_path)
    target = open_target(root, "emotic")
    runs = [measure(file, target, [], tmp_path / "runs", HERE, resamples=20) for file in weights]
    values = [100 * mean_over_classes(average_precision(r.scores["pred"], r.targets)) for r in runs]
    main = lines[0]
    assert float(main["ours"]) == pytest.approx(np.mean(values)) and main["paper"] == "not at hand"
    assert float(main["deviation"]) == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert main["seeds"] == "2" and main["persons"] == "7" and main["selected_on"] == "val" and main["commit"]
    shares = [float(x["ours"]) for x in lines if x["table"].endswith("first excluded level")]
    assert sum(shares) == pytest.approx(100)
    missing = [x for x in lines if "no weights at" in x["note"]]
    assert len(missing) == len(list((ROOT / "configs/ablations").glob("*.yaml"))) and not any(
        x["ours"] for x in missing
    )
    for text in ((tmp_path / "tables.html").read_text(), (tmp_path / "tables.md").read_text()):
        assert all(x["table"].startswith("SYNTHETIC") for x in lines) and "SYNTHETIC DATA" in text
        assert "src=http" not in text and "not at hand" in text
    before = (tmp_path / "tables.csv").read_text()
    with mock.patch.object(table_runs, "load_weights", side_effect=AssertionError("measured again")):
        assert run_script(root, weights, tmp_path) == 0
    assert (tmp_path / "tables.csv").read_text() == before


def test_an_interrupted_table_continues(world: tuple[Path, list[Path]], tmp_path: Path) -> None:
    root, weights = world
    target, done = open_target(root, "emotic"), []

    def stop_at_second(path: Path, *more: object) -> object:
        if done:
            raise KeyboardInterrupt
        done.append(path)
        return load_weights(path, *more)  # type: ignore[arg-type]

    study = tables.Study(target, tuple(weights), tmp_path, HERE, "command", resamples=20)
    with mock.patch.object(table_runs, "load_weights", side_effect=stop_at_second), pytest.raises(KeyboardInterrupt):
        study.runs()
    with mock.patch.object(table_runs, "load_weights", side_effect=load_weights) as loads:
        assert len(study.runs()) == 2
    assert [call.args[0] for call in loads.call_args_list] == [weights[1]]


def test_overrides_weights_and_persons_each_make_another_run(world: tuple[Path, list[Path]], tmp_path: Path) -> None:
    root, weights = world
    target = open_target(root, "emotic")
    first = measure(weights[0], target, [], tmp_path, HERE, resamples=20)
    off = measure(weights[0], target, ["model.coordination.update=none"], tmp_path, HERE, resamples=20)
    assert not np.array_equal(first.scores["pred"], off.scores["pred"])
    np.testing.assert_array_equal(first.scores["head"], off.scores["head"])  # the levels themselves do not move
    few = measure(weights[0], open_target(root, "emotic", limit=3), [], tmp_path, HERE, resamples=20)
    assert few.numbers["persons"] == 3 and len(list(tmp_path.iterdir())) == 3
    np.testing.assert_allclose(few.scores["pred"], first.scores["pred"][:3], atol=2e-6)


def test_zero_shot_scores_are_cosines_of_the_stored_prompts(world: tuple[Path, list[Path]], tmp_path: Path) -> None:
    root, weights = world
    target = open_target(root, "emotic")
    clip = measure(weights[0], target, [], tmp_path, HERE, kind="clip", resamples=20)
    loaded = load_weights(weights[0])
    branch = loaded.model.vocabulary
    assert branch is not None
    people = table_runs.PersonDataset(target.records, root, target.classes, 32)
    batch = table_runs.build_loader(loaded.config.data, "test", 7, dataset=people)
    with torch.inference_mode():
        context = next(iter(batch)).context  # type: ignore[attr-defined]
        image = branch.image_embedding(context)
    expected = torch.cosine_similarity(image[:, None], branch.text_embeddings[None], dim=-1)
    np.testing.assert_allclose(clip.scores[CLIP_WHOLE], expected.numpy(), atol=1e-5)


def test_one_label_a_person(tmp_path: Path) -> None:
    root, weights = world_with_weights(tmp_path, "caers", seeds=1)
    assert run_script(root, weights, tmp_path / "out", dataset="caers") == 0
    lines = lines_of(tmp_path / "out")
    run = measure(weights[0], open_target(root, "caers"), [], tmp_path / "out/runs", HERE, resamples=20)
    assert float(lines[0]["ours"]) == pytest.approx(
        100 * (run.scores["pred"].argmax(1) == run.targets.argmax(1)).mean()
    )
    assert lines[0]["definition"] == "top-1 accuracy" and float(lines[0]["low"]) <= float(lines[0]["ours"])
    assert any("CAER-Net-S" in x["row"] and x["paper"] == "73.51" and not x["difference"] for x in lines)


def test_broken_results_weights_and_persons_are_named(world: tuple[Path, list[Path]], tmp_path: Path) -> None:
    root, weights = world
    target = open_target(root, "emotic")
    measure(weights[0], target, [], tmp_path / "runs", HERE, resamples=20)
    (folder,) = (tmp_path / "runs").iterdir()
    for name in ("result.json", "scores.npz"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(TableError, match=r"result.json: truncated or damaged results file.*delete the folder"):
            read_run(folder)
        (folder / name).write_bytes(whole)
    assert read_run(folder).numbers["persons"] == 7
    with pytest.raises(TableError, match="given 2 times"):
        check_weights([weights[0], weights[0]], target)
    caers_root, caers_weights = world_with_weights(tmp_path / "caers", "caers", seeds=1)
    with pytest.raises(CheckpointError, match="made for 7 classes .* wanted 26"):
        check_weights(caers_weights, target)
    with pytest.raises(IndexFileError, match="unknown class 'Disgust'"):
        open_target(caers_root, "emotic")


def test_persons_twice_and_without_labels_are_named(world: tuple[Path, list[Path]], tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(world[0], root)
    rows = [json.loads(line) for line in (root / "index/test.jsonl").read_text().splitlines()]
    (root / "index/test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*rows, rows[0]]))
    with pytest.raises(IndexFileError, match="row 8: person .* is already in row 1"):
        open_target(root, "emotic")
    (root / "index/test.jsonl").write_text("".join(json.dumps(r | {"labels": []}) + "\n" for r in rows))
    with pytest.raises(TableError, match="7 persons and not one label"):
        open_target(root, "emotic")


def test_scores_that_are_not_numbers_are_named(world: tuple[Path, list[Path]], tmp_path: Path) -> None:
    root, weights = world
    loaded = load_weights(weights[0])
    with torch.no_grad():
        next(p for n, p in loaded.model.named_parameters() if n.startswith("fusion") or "fuse" in n).fill_(torch.nan)
    broken = save_weights(tmp_path / "nan.safetensors", loaded.model, loaded.config, metrics={}, thresholds={})
    with pytest.raises(ScoreError, match="person test/000.png#0, class Affection"):
        measure(broken, open_target(root, "emotic"), [], tmp_path / "runs", HERE, resamples=20)
    assert not list((tmp_path / "runs").glob("*/result.json"))


def test_the_script_says_what_it_wants(
    world: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main = script("scripts/tables.py").main
    assert main(["--dataset", "emotic"]) == 2
    assert main(["--dataset", "caers", str(world[0])]) == 1  # other labels
    assert main(["--dataset", "emotic", str(world[0])]) == 2  # no weights
    assert main(["--dataset", "emotic", str(world[0]), str(tmp_path / "none.safetensors")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "wanted EMOTIC, prepared, at data/emotic" in said[0] and "--demo" in said[0]
    assert any("wanted weights, got none" in line for line in said) and "no such file" in said[-1]


def test_every_ablation_has_its_place_and_finds_its_weights(tmp_path: Path) -> None:
    (tmp_path / "alpha_0/seed-1").mkdir(parents=True)
    (tmp_path / "alpha_0/seed-1/best.safetensors").touch()
    found = {a.config.stem: a for a in find_ablations(ROOT / "configs/ablations", tmp_path)}
    assert len(found) == len(list((ROOT / "configs/ablations").glob("*.yaml")))
    assert found["alpha_0"].weights and found["alpha_0"].place == "Tab. 4" and not found["alpha_1"].weights
    assert {a.place for a in found.values()} == {"Tab. 3", "Tab. 4", "Fig. 2", "Fig. 3"}
    (tmp_path / "x.yaml").write_text("base: y\n")
    with pytest.raises(TableError, match="x.yaml: wanted a first line"):
        find_ablations(tmp_path, tmp_path)


ROWS = (
    TableRow("a & b_<1>", ours=50.0, interval=(40.0, 60.0), paper=27.38, source="them", persons=7, seeds=1,
             definition="d", selection="val", commit="0123456789abcdef+changes", command="run me"),
    TableRow("no weights", note="wanted: x | y", command="train me"),
    TableRow("three seeds", ours=51.0, deviation=0.5, seeds=3, persons=7, command="run me"),
)  # fmt: skip


def test_no_row_is_lost_and_nothing_escapes_its_format() -> None:
    table = ResultTable("t", "Title & <tag>", "Caption 100 %", ROWS, plotted=True, reference=("chance", 33.3))
    page, text, tex = report.as_html([table], "H"), report.as_markdown([table], "H"), report.as_latex([table], "H")
    assert page.count("<tr>") == 4 and "a &amp; b_&lt;1&gt;" in page and "<tag>" not in page
    assert page.count("data:image/png;base64,") == 1 and "http" not in page
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 5 and {line.replace("\\|", "").count("|") for line in lines} == {12}
    assert "50.00 [40.00, 60.00]" in lines[2] and "+22.62" in lines[2] and "0123456789+changes" in lines[2]
    assert "not measured" in lines[3] and "not at hand" in lines[3] and "51.00 ± 0.50" in lines[4]
    assert r"a \& b\_$<$1$>$" in tex and r"51.00 $\pm$ 0.50" in tex and tex.count(r"\\") == 4
    back = list(csv.DictReader(io.StringIO(report.as_csv([table]))))
    assert [row["row"] for row in back] == [row.name for row in ROWS]
    assert float(back[0]["difference"]) == pytest.approx(22.62) and back[1]["ours"] == "" and back[2]["seeds"] == "3"


def test_only_measured_rows_are_drawn() -> None:
    assert report.plot(ResultTable("t", "T", "", ROWS[:2], plotted=True)) is None
    assert report.plot(ResultTable("t", "T", "", ROWS)) is None
    two = report.plot(ResultTable("t", "T", "", ROWS, plotted=True))
    assert two is not None and two.width == 1000
