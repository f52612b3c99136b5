"""Tables from weights: the numbers are the metrics', nothing is measured twice, what is missing or broken is said."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from browser import BROWSER, browse
from PIL import Image
from programs import load_program
from training_world import make_world, read

from cocoer.config_file import own_settings
from cocoer.datasets import find_dataset
from cocoer.errors import CheckpointError, IndexFileError, ScoreError, TableError, TrainingError
from cocoer.evaluation.metrics import average_precision, mean_over_classes
from cocoer.files import LOCK_NAME, hold_folder
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_weights, save_weights
from cocoer.model.clip_tower import TEMPLATES
from cocoer.model.zero_shot import Tower
from cocoer.outputs import ResultTable, TableRow
from cocoer.report import tables as report
from cocoer.report.table_summary import publish, summary
from cocoer.runtime import Runtime
from cocoer.studies.tables import measurements as table_runs
from cocoer.studies.tables import study as table_study
from cocoer.studies.tables import tables
from cocoer.studies.tables.measurements import CLIP_WHOLE, averaged, check_weights, measure, open_target, read_run
from cocoer.studies.tables.progress import gather_with_progress, wanted
from cocoer.studies.tables.training import TrainingPlan
from cocoer.studies.tables.variants import KINDS, chosen_variants, find_variants
from cocoer.studies.tables.zero_shot import source, zero_shot
from cocoer.training.launch import TrainingRun, is_done, seeds_of, train_all

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
    code: int = load_program("tables").main([*words, "--device", "cpu", *more])
    return code


def lines_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "tables.csv").read_text())))


def test_rows_are_the_metrics_of_the_weights_and_nothing_is_done_twice(
    world: tuple[Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, weights = world
    assert run_script(root, weights, tmp_path) == 0
    printed, lines = capsys.readouterr().out, lines_of(tmp_path)
    assert all(figure in printed for figure in ("37.32 ± 0.05", "35.05", "36.70")) and "SYNTHETIC: Table 1" in printed
    assert all(x["table"] in printed for x in lines)
    target = open_target(root, "emotic")
    runs = [measure(file, target, [], tmp_path / "runs", HERE, resamples=20) for file in weights]
    values = [100 * mean_over_classes(average_precision(r.scores["pred"], r.targets)) for r in runs]
    main = next(x for x in lines if x["row"] == "CocoER")
    assert float(main["ours"]) == pytest.approx(np.mean(values)) and (main["paper"], main["paper_deviation"]) == (
        "37.32",
        "0.05",
    )
    assert not main["difference"]  # drawn scenes are not compared with photographs
    assert float(main["deviation"]) == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert main["seeds"] == "2" and main["persons"] == "7" and main["selected_on"] == "val" and main["commit"]
    shares = [float(x["ours"]) for x in lines if x["table"].endswith("first excluded level")]
    assert sum(shares) == pytest.approx(100)
    missing = [x for x in lines if "no weights at" in x["note"]]
    variants = find_variants(ROOT / "configs", tmp_path, "emotic", "again")
    assert len(missing) == sum(not v.same_as_full for v in variants) and not any(x["ours"] for x in missing)
    same = [x for x in lines if x["note"] == "the full model itself"]
    assert len(same) == sum(v.same_as_full for v in variants) and {x["ours"] for x in same} == {main["ours"]}
    assert len({x["table"] for x in lines if ": Table 4" in x["table"]}) == 5
    labels = [x for x in lines if x["table"].endswith("Labels and calibration")]
    quality = runs[0].numbers["labels"], runs[1].numbers["labels"]
    assert float(labels[0]["ours"]) == pytest.approx(50 * (quality[0]["f1_macro"] + quality[1]["f1_macro"]))
    for text in ((tmp_path / "tables.html").read_text(), (tmp_path / "tables.md").read_text()):
        assert all(x["table"].startswith("SYNTHETIC") for x in lines) and "SYNTHETIC DATA" in text
        assert "src=http" not in text and "37.32 ± 0.05" in text and "35.05" in text and "36.70" in text
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

    study = table_study.Study(target, tuple(weights), tmp_path, HERE, "command", resamples=20)
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
    main = next(x for x in lines if x["row"] == "CocoER")
    assert (main["paper"], main["paper_deviation"]) == ("91.86", "0.11")
    assert {x["row"]: x["paper"] for x in lines if x["table"].endswith("first excluded level")}["body"] == "88.15"
    assert float(main["ours"]) == pytest.approx(100 * (run.scores["pred"].argmax(1) == run.targets.argmax(1)).mean())
    assert main["definition"] == "top-1 accuracy" and float(main["low"]) <= float(main["ours"])
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

    def with_nan(
        path: Path, *more: object
    ) -> object:  # a file with NaN in it is refused, so the model gets it afterwards
        loaded = load_weights(path, *more)  # type: ignore[arg-type]
        with torch.no_grad():
            next(p for name, p in loaded.model.named_parameters() if name.startswith("fusion")).fill_(torch.nan)
        return loaded

    with (
        mock.patch.object(table_runs, "load_weights", side_effect=with_nan),
        pytest.raises(ScoreError, match="person test/000.png#0, class Affection"),
    ):
        measure(weights[0], open_target(root, "emotic"), [], tmp_path / "runs", HERE, resamples=20)
    assert not list((tmp_path / "runs").glob("*/result.json"))


def test_the_script_says_what_it_wants(
    world: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main = load_program("tables").main
    assert main(["--dataset", "emotic", "nowhere"]) == 2
    assert main(["--dataset", "caers", str(world[0])]) == 1  # other labels
    assert main(["--dataset", "emotic", str(world[0]), str(tmp_path / "none.safetensors")]) == 1
    assert main(["--dataset", "emotic", str(world[0]), "--train", "--with", "head_onyl"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "wanted EMOTIC, prepared, at nowhere" in said[0] and "--demo" in said[0]
    assert any("none.safetensors" in line and "no such file" in line for line in said)
    assert "--with: wanted names out of ablations, all, alpha_0," in said[-1] and "got head_onyl" in said[-1]
    for words in (["--with", "all"], ["--seeds", "0,0"], ["--seeds", "x"], ["--limit", "0"], ["x", "w", "--train"]):
        with pytest.raises(SystemExit):
            main(["--dataset", "emotic", *words])
    said = capsys.readouterr().err
    assert "--with says what --train trains" in said and "wanted different whole numbers like 0,1,2, got '0,0'" in said
    assert "--train makes its own weights" in said


def test_two_tables_in_one_folder_are_refused(
    world: tuple[Path, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, weights = world
    with hold_folder(tmp_path / "tables"):
        assert run_script(root, weights, tmp_path / "tables") == 1
        assert f"process {os.getpid()} on " in (said := capsys.readouterr().err) and "writes into this folder" in said
        assert [p.name for p in (tmp_path / "tables").iterdir()] == [LOCK_NAME]


def test_without_data_the_demo_world_takes_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    module = load_program("tables")
    monkeypatch.setattr(module, "_DEMO_SIZES", {"emotic": (0, 0, 3), "caers": (2, 1, 3)})
    args = module.arguments(["--dataset", "emotic"])
    root = module.data_root(args)
    assert (
        root == Path("outputs/demo_data/emotic_test") and "SYNTHETIC scenes take its place" in capsys.readouterr().err
    )
    target = open_target(root, "emotic")
    assert target.synthetic and len(target.records) == 3
    monkeypatch.setattr(module.subprocess, "run", None)  # drawn once
    assert module.data_root(args) == root
    (tmp_path / "data/emotic/index").mkdir(parents=True)
    assert module.data_root(args) == Path("data/emotic")
    assert module.data_root(module.arguments(["--dataset", "emotic", "--demo"])) == root
    caers = module.arguments(["--dataset", "caers"])
    with pytest.raises(module.UsageError, match="wanted persons in train.jsonl and val.jsonl"):  # nothing to train on
        module.trained_weights(
            caers, target.__class__(**{**vars(target), "entry": find_dataset("caers")}), tmp_path / "out"
        )


def test_train_makes_the_seeds_once_and_the_baselines_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = world_with_weights(tmp_path / "w", seeds=1)
    config = read(tmp_path / "w/config.yaml")
    module, out = load_program("tables"), tmp_path / "out"
    words = ["--dataset", "emotic", str(root), "--train", "--seeds", "0,5", "--config", str(tmp_path / "w/config.yaml")]
    words += [
        "--with",
        "head_only",
        "--set",
        "run.max_steps=1",
        "--output",
        str(out),
        "--resamples",
        "20",
        "--device",
        "cpu",
    ]
    assert module.main(words) == 0
    folders = {p.parent.relative_to(out / "models").as_posix() for p in (out / "models").rglob("best.safetensors")}
    assert folders == {"seed-0", "seed-5", "baselines/head_only/seed-0", "baselines/head_only/seed-5"}
    alone = load_weights(out / "models/baselines/head_only/seed-5/best.safetensors")
    assert alone.config.model.single_level == "head" and alone.config.run.seed == 5
    assert (
        alone.config.model.tokens == config.model.tokens
    )  # laid over the config that is trained, not over emotic.yaml
    lines = lines_of(out)
    assert next(x for x in lines if x["row"] == "CocoER")["seeds"] == "2"
    (row,) = [x for x in lines if x["row"] == "head only, trained alone"]
    assert row["ours"] and row["seeds"] == "2" and row["selected_on"] == "val"
    # made again with everything there: no training starts, and no weights are read
    monkeypatch.setattr("cocoer.training.launch.subprocess.Popen", None)
    with mock.patch.object(table_runs, "load_weights", side_effect=AssertionError("measured again")):
        assert module.main(words) == 0
    with pytest.raises(TrainingError, match=r"holds a run of another config:\n  optim.lr: was 0.001, is now 0.5"):
        is_done(TrainingRun(tmp_path / "w/config.yaml", (
            f"data.root={root}", f"data.index={root / 'index'}", "optim.lr=0.5", f"run.dir={out / 'models/seed-0'}", "run.seed=0",
        )))  # fmt: skip
    longer = TrainingRun(tmp_path / "w/config.yaml", (f"data.root={root}", f"data.index={root / 'index'}"))
    (longer,) = seeds_of(longer, [5], out / "models")
    assert not is_done(longer)  # without max_steps it has two epochs to go


def test_a_training_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    config = make_world(tmp_path)
    (run,) = seeds_of(TrainingRun(config, ("data.index=nowhere",)), [0], tmp_path / "runs")
    with pytest.raises(
        TrainingError, match=r"runs/seed-0: the training ended with 1: cocoer train: .*nowhere.*train.log"
    ):
        train_all([run], "cpu")
    assert not is_done(run)


def test_the_plan_of_a_page_is_train_py_s_own(tmp_path: Path) -> None:
    variants = find_variants(ROOT / "configs", tmp_path, "emotic")
    chosen = chosen_variants(variants, ["alpha_0", "alpha_0.1", "baselines"])  # alpha_0.1 is the full model
    plan = TrainingPlan(
        ROOT / "configs/emotic.yaml", Path("outputs/emotic"), Path("outputs"), Path("data/emotic"), (0, 1)
    )
    runs = plan.runs(chosen)
    assert [r.config.run.dir for r in runs[:3]] == [
        "outputs/emotic/seed-0", "outputs/emotic/seed-1", "outputs/ablations/alpha_0/seed-0",
    ]  # fmt: skip
    assert len(runs) == 2 * (1 + 1 + 7) and runs[2].config.loss.alpha == 0 and runs[1].config.run.seed == 1
    assert {r.config.data.root for r in runs} == {"data/emotic"}
    words = runs[1].words("cpu")
    assert words[:3] == ["train", "--config", str(ROOT / "configs/emotic.yaml")] and "--resume" in words


def test_zero_shot_with_any_tower_and_an_ensemble(world: tuple[Path, list[Path]], tmp_path: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    from cocoer.model.clip_tower import build_clip

    torch.manual_seed(0)
    spec = json.dumps({
        "embed_dim": 16,
        "vision_cfg": {"image_size": 48, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    })  # fmt: skip
    (tmp_path / "other_tower.json").write_text(spec)
    clip = build_clip(str(tmp_path / "other_tower.json"), quick_gelu=False, with_text=True).eval()
    save_file({k: v.contiguous() for k, v in clip.state_dict().items()}, tmp_path / "other.safetensors")
    tower = Tower.parse(f"{tmp_path / 'other_tower.json'}={tmp_path / 'other.safetensors'}")
    target = open_target(world[0], "emotic")
    run = zero_shot(tower, target, "a {emotion} photo", tmp_path / "runs", HERE, batch_size=3, resamples=20)
    people = table_runs.PersonDataset(target.records, world[0], target.classes, 48)
    batch = next(iter(table_runs.build_loader(load_weights(world[1][0]).config.data, "test", 7, dataset=people)))
    tokenizer = open_clip.get_tokenizer("RN50")

    def texts(templates: tuple[str, ...]) -> torch.Tensor:
        every = [
            torch.nn.functional.normalize(
                clip.encode_text(tokenizer([t.format(emotion=c) for c in target.classes])), dim=-1
            )
            for t in templates
        ]
        return torch.stack(every).mean(0)

    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    want_mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    want_std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    with torch.inference_mode():
        for view, crop in (("image", batch.context), ("body", batch.body)):  # type: ignore[attr-defined]
            image = clip.encode_image((crop * std + mean - want_mean) / want_std)
            for prompts, templates in (("paper", ("a {emotion} photo",)), ("ensemble", TEMPLATES)):
                expected = torch.cosine_similarity(image[:, None], texts(templates)[None], dim=-1)
                np.testing.assert_allclose(run.scores[source(view, prompts)], expected.numpy(), atol=2e-5)
    with mock.patch("cocoer.studies.tables.zero_shot.load_tower", side_effect=AssertionError("measured again")):
        again = zero_shot(tower, target, "a {emotion} photo", tmp_path / "runs", HERE, batch_size=3, resamples=20)
    assert again.numbers == run.numbers
    with pytest.raises(TableError, match=r"CLIP RN50: wanted its weights at checkpoints/clip/RN50.pt.*fetch clip-rn50"):
        zero_shot(Tower.parse("RN50"), target, "{emotion}", tmp_path / "runs", HERE)
    assert (
        run_script(
            world[0], world[1][:1], tmp_path / "out", "--clip", "ViT-B-32", "--clip", f"{tower.name}={tower.weights}"
        )
        == 0
    )
    rows = {x["row"]: x for x in lines_of(tmp_path / "out") if x["table"].endswith("Zero-shot CLIP")}
    assert "no CLIP weights at checkpoints/clip/ViT-B-32.pt" in rows["ViT-B-32, zero-shot"]["note"]
    assert (
        rows["other_tower, body, template ensemble"]["ours"]
        and rows["other_tower, body, template ensemble"]["seeds"] == "0"
    )


def test_late_fusion_of_models_trained_apart_is_their_mean(world: tuple[Path, list[Path]], tmp_path: Path) -> None:
    target = open_target(world[0], "emotic")
    runs = [measure(file, target, [], tmp_path, HERE, resamples=20) for file in world[1]]
    both = averaged(runs, target, resamples=20)
    expected = (runs[0].scores["pred"] + runs[1].scores["pred"]) / 2
    np.testing.assert_allclose(both.scores["pred"], expected, atol=1e-6)
    value = both.numbers["intervals"]["pred"]["value"]
    assert value == pytest.approx(mean_over_classes(average_precision(expected, runs[0].targets)))


def test_every_variant_has_its_place_and_finds_its_weights(tmp_path: Path) -> None:
    (tmp_path / "ablations/alpha_0/seed-1").mkdir(parents=True)
    (tmp_path / "ablations/alpha_0/seed-1/best.safetensors").touch()
    (tmp_path / "baselines/head_only").mkdir(parents=True)
    (tmp_path / "baselines/head_only/best.safetensors").touch()
    every = [v for dataset in ("emotic", "caers") for v in find_variants(ROOT / "configs", tmp_path, dataset)]
    found = {v.config.stem: v for v in every}
    assert len(found) == len(every) == len([p for kind in KINDS for p in (ROOT / "configs" / kind).glob("*.yaml")])
    assert found["alpha_0"].weights and found["alpha_0"].paper is not None and not found["alpha_1"].weights
    assert found["head_only"].weights and found["head_only"].what == "head only, trained alone"
    assert found["body_only"].train == "python train.py --config configs/baselines/body_only.yaml"
    assert not found["alpha_0"].same_as_full and found["alpha_0.1"].same_as_full
    assert set(own_settings(ROOT / "configs/baselines/head_only.yaml")) == {
        'model.single_level="head"', "model.vocabulary.enabled=false", "model.attention.enabled=false",
    }  # fmt: skip
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for kind, said in (
        ("ablations", "what: x\n"),
        ("ablations", 'paper: {table: "4b", row: "0.4"}\n'),
        ("studies", ""),
    ):
        odd = tmp_path / "configs" / kind / "odd.yaml"
        odd.write_text(f"base: ../emotic.yaml\n{said}")
        with pytest.raises(TableError, match=r"odd.yaml: wanted `what: a few words`"):
            find_variants(tmp_path / "configs", tmp_path, "emotic")
        odd.unlink()


def test_all_measurements_are_known_before_the_first_and_the_time_that_is_left_is_told(
    world: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, weights = world
    variants = tuple(find_variants(ROOT / "configs", tmp_path, "emotic", "again"))
    study = table_study.Study(
        open_target(root, "emotic"), tuple(weights), tmp_path / "runs", HERE, "command", resamples=5, variants=variants
    )
    monkeypatch.setattr("cocoer.studies.tables.progress._AT_MOST_EVERY", 0.0)
    said: list[str] = []
    with mock.patch.object(table_runs, "load_weights", side_effect=load_weights) as loads:
        gather_with_progress(study, said.append)
    assert loads.call_count == len(wanted(study)) == len(list((tmp_path / "runs").iterdir()))
    assert said[0].startswith(f"{len(wanted(study))} measurements of 7 persons") and "about" in said[1]


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
    assert len(lines) == 5 and len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "50.00 [40.00, 60.00]" in lines[2] and "+22.62" in lines[2] and "0123456789+changes" in lines[2]
    assert "| no weights |  |  |  |" in lines[3] and "51.00 ± 0.50" in lines[4]
    assert "Command: `run me`" in text and "Command: <code>run me</code>" in page and "7 persons." in text
    assert r"a \& b\_$<$1$>$" in tex and r"51.00 $\pm$ 0.50" in tex and tex.count(r"\\") == 4
    back = list(csv.DictReader(io.StringIO(report.as_csv([table]))))
    assert [row["row"] for row in back] == [row.name for row in ROWS]
    assert float(back[0]["difference"]) == pytest.approx(22.62) and back[1]["ours"] == "" and back[2]["seeds"] == "3"


def test_only_measured_rows_are_drawn() -> None:
    assert report.plot(ResultTable("t", "T", "", ROWS[:2], plotted=True)) is None
    assert report.plot(ResultTable("t", "T", "", ROWS)) is None
    two = report.plot(ResultTable("t", "T", "", ROWS, plotted=True))
    assert two is not None and two.width == 1000


def test_a_grid_is_in_every_format(tmp_path: Path) -> None:
    grid = (("true, then predicted", "A & B", "C|D"), ("A & B (3)", "66.7", "33.3"), ("C|D (0)", "-", "-"))
    table = ResultTable("confusion", "Confusion", "Caption", ROWS[:1], grid=grid)
    page, text, tex = report.as_html([table], "H"), report.as_markdown([table], "H"), report.as_latex([table], "H")
    assert "| A & B (3) | 66.7 | 33.3 |" in text and "C\\|D (0)" in text
    assert 'rgb(38 110 190 / 0.367)">66.7<' in page and 'rgb(38 110 190 / 0.000)">-<' in page
    assert r"A \& B (3) & 66.7 & 33.3 \\" in tex and tex.count(r"\begin{tabular}") == 2
    back = {row["row"]: row["ours"] for row in csv.DictReader(io.StringIO(report.as_csv([table])))}
    assert back["A & B (3): C|D"] == "33.3" and len(back) == 5


def test_a_confusion_matrix_has_the_persons_of_every_class(tmp_path: Path) -> None:
    root, weights = world_with_weights(tmp_path, "caers", seeds=2)
    target = open_target(root, "caers")
    study = table_study.Study(target, tuple(weights), tmp_path / "runs", HERE, "command", resamples=20)
    runs = study.runs()
    table = tables.confusion_table(study, runs)
    for i, (name, *cells) in enumerate(table.grid[1:]):
        persons = [j for j in range(7) if runs[0].targets[j, i]]
        assert name == f"{target.classes[i]} ({len(persons)})"
        for k, cell in enumerate(cells):
            hits = [np.mean([run.scores["pred"][j].argmax() == k for j in persons]) for run in runs]
            assert cell == f"{100 * np.mean(hits):.1f}"


def test_the_page_fits_a_phone_and_says_every_column_there(tmp_path: Path) -> None:
    long = TableRow("a row with a name that goes on", ours=51.0, note="x" * 90, command="python train.py " + "y" * 200)
    tables_of = [
        ResultTable("t", "Title", "Caption " * 20, (*ROWS, long), plotted=True),
        ResultTable(
            "c",
            "Confusion",
            "",
            ROWS[:1],
            grid=(("true", *"ABCDEFG"), *((f"class {n}", *["14.3"] * 7) for n in range(7))),
        ),
    ]
    page = report.as_html(tables_of, "Heading", ["a remark"])
    assert 'name="viewport" content="width=device-width' in page and page.count('data-label="definition"') == 4
    if BROWSER is None:
        return
    frame = f'<iframe id="f" width="360" height="640" srcdoc="{html.escape(page)}"></iframe>'
    measure_it = "f.onload=()=>{document.title='wide '+f.contentDocument.documentElement.scrollWidth}"
    (tmp_path / "phone.html").write_text(f"<!doctype html><title></title>{frame}<script>{measure_it}</script>")
    found = re.search(r"<title>wide (\d+)</title>", browse(tmp_path / "phone.html", "--dump-dom"))
    assert found is not None and int(found[1]) <= 360
    (tmp_path / "page.html").write_text(page)
    browse(tmp_path / "page.html", f"--screenshot={tmp_path / 'page.png'}", "--window-size=500,900")
    assert len(Image.open(tmp_path / "page.png").convert("RGB").getcolors(2**20) or ()) > 50


def test_measured_rows_go_into_their_place_of_a_page(tmp_path: Path) -> None:
    made = [
        ResultTable("main", "SYNTHETIC: Table 1", "", ROWS),
        ResultTable("per_class", "AP per class", "", (replace(ROWS[0], name="Fear"),)),
        ResultTable("again", "A later table", "", (ROWS[0], replace(ROWS[2], name="full model"))),
    ]
    text = summary(made, ["A remark."])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and "A remark." in text and "1. `run me`" in text and "0123456789abcdef+changes" in text
    assert "Table 1" in lines[2] and "50.00 [40.00, 60.00]" in lines[2] and "+22.62" in lines[2] and "[1]" in lines[2]
    assert "no weights" not in text and "Fear" not in text and "A later table" not in text
    page = tmp_path / "results.md"
    page.write_text("before\n<!-- begin x -->\nold\n<!-- end x -->\nafter\n<!-- begin y -->\nkept\n<!-- end y -->\n")
    for _ in range(2):  # again writes the same
        publish(page, "x", text)
        assert page.read_text() == (
            f"before\n<!-- begin x -->\n\n{text.strip()}\n\n<!-- end x -->\nafter\n<!-- begin y -->\nkept\n<!-- end y -->\n"
        )
    with pytest.raises(ValueError, match=r"results.md: wanted the marks <!-- begin z --> and <!-- end z --> once each"):
        publish(page, "z", text)


def test_the_results_page_has_a_place_for_every_data_set() -> None:
    page = (ROOT / "docs/results.md").read_text()
    for key in ("emotic", "caers", "emotic_demo", "caers_demo"):
        assert page.count(f"<!-- begin {key} -->") == page.count(f"<!-- end {key} -->") == 1
