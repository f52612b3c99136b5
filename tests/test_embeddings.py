"""CLIP's embeddings kept on disk: the same run without looking twice, and no file that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_world import make_world, read, train

from cocoer.data.index import read_index, write_index
from cocoer.datasets import find_dataset
from cocoer.errors import ConfigError
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_weights
from cocoer.model.vocabulary import VocabularyBranch
from cocoer.report.runlog import read_log
from cocoer.training.embedding_cache import KnownEmbeddings, tower_hash

STILL = ["data.augment.flip=0", "data.augment.jitter=0"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return make_world(tmp_path / "world", train=12, other=4)


def settings(folder: Path, name: str, cached: bool = True) -> list[str]:
    kept = [f"data.embeddings={folder}/kept"] if cached else []
    return [*STILL, f"run.dir={folder}/{name}", "run.max_steps=3", *kept]


def losses(run: Path) -> list[float]:
    return [r["loss"] for r in read_log(run / "log.jsonl") if r["kind"] in ("step", "epoch")]


def test_a_run_with_kept_embeddings_is_the_run_without(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    inner = VocabularyBranch.image_embedding

    def counted(branch: VocabularyBranch, *crops: torch.Tensor) -> torch.Tensor:
        if branch.training:
            looked.append(len(crops[0]))
        return inner(branch, *crops)

    monkeypatch.setattr(VocabularyBranch, "image_embedding", counted)
    assert train(config, settings=settings(tmp_path, "plain", cached=False)) == 0
    assert sum(looked) == 12  # three steps of four persons
    looked.clear()
    for name in ("first", "second"):  # the first one writes the file, the second one reads it
        assert train(config, settings=settings(tmp_path, name)) == 0
        assert not looked, "the tower looked in a training step"
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
    (file,) = (tmp_path / "kept").iterdir()
    table = load_file(file)["embeddings"]
    assert table.shape == (12, 16)
    torch.testing.assert_close(table.norm(dim=1), torch.ones(12))


def test_a_resumed_run_reads_them_too(config: Path, tmp_path: Path) -> None:
    assert train(config, settings=settings(tmp_path, "whole")) == 0
    assert train(config, settings=[*settings(tmp_path, "parts"), "run.max_steps=1"]) == 0
    assert train(config, "--resume", "latest", settings=settings(tmp_path, "parts")) == 0
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_stale_and_foreign_files_are_refused(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, settings=settings(tmp_path, "first")) == 0
    (file,) = (tmp_path / "kept").iterdir()
    root, index = config.parent / "root", config.parent / "index"
    image = root / "train/003.png"
    original = image.read_bytes()
    Image.new("RGB", (48, 40), "red").save(image)
    assert train(config, settings=settings(tmp_path, "changed")) == 1
    said = capsys.readouterr().err
    assert "stale" in said and "of 1 persons" in said and "train/003.png#0" in said and f"delete {file}" in said
    image.write_bytes(original)
    names = find_dataset("emotic").class_names
    records = read_index(index, "train", names)
    others = [person for split in ("val", "test") for person in read_index(index, split, names)]
    write_index(index, [*records[:-1], *others], {})
    assert train(config, settings=settings(tmp_path, "fewer")) == 1
    assert "made for 12 persons, this index has 11" in capsys.readouterr().err
    write_index(index, [*records, *others], {})
    file.write_bytes(file.read_bytes()[:100])
    assert train(config, settings=settings(tmp_path, "damaged")) == 1
    assert "no file of embeddings" in capsys.readouterr().err


def test_another_tower_makes_another_file(config: Path, tmp_path: Path) -> None:
    assert train(config, settings=settings(tmp_path, "first")) == 0
    assert train(config, settings=[*settings(tmp_path, "other"), "run.seed=4"]) == 0  # its random tower differs
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_the_tower_s_hash_changes_with_all_that_changes_an_embedding(config: Path) -> None:
    def hashed(*changes: str) -> str:
        torch.manual_seed(0)
        made = read(config, *changes)
        branch = build_model(made).vocabulary
        assert branch is not None
        return tower_hash(branch, made.data.image_size)

    first = hashed()
    assert hashed("optim.lr=0.5") == first
    different = ["model.vocabulary.view=body", "model.vocabulary.normalisation=imagenet", "data.image_size=48"]
    assert len({first, *(hashed(change) for change in different)}) == 4


@pytest.mark.parametrize("touched", ["flip=0.5", "crop=0.1", "jitter=0.2"])
def test_images_that_are_changed_cannot_have_kept_embeddings(config: Path, touched: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.embeddings: .* wanted data\.augment\.flip, crop, jitter at 0, got"):
        read(config, *STILL, "data.embeddings=kept", f"data.augment.{touched}")


def test_shifted_boxes_matter_only_where_the_tower_sees_them(config: Path) -> None:
    shifted = [*STILL, "data.embeddings=kept", "data.augment.box_shift=0.1"]
    assert read(config, *shifted).data.embeddings == "kept"
    with pytest.raises(ConfigError, match=r"box_shift at 0, got .*box_shift 0\.1"):
        read(config, *shifted, "model.vocabulary.view=body")


def test_rows_come_in_the_order_of_the_keys() -> None:
    known = KnownEmbeddings(torch.eye(3), {"a": 0, "b": 1, "c": 2})
    assert known.of(["c", "a"]).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_weights_do_not_depend_on_where_embeddings_came_from(config: Path, tmp_path: Path) -> None:
    for name in ("plain", "kept"):
        assert train(config, settings=settings(tmp_path, name, cached=name == "kept")) == 0
    first, second = (
        load_weights(tmp_path / name / "last.safetensors").model.state_dict() for name in ("plain", "kept")
    )
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-4, msg=name)
