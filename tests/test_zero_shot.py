"""The recogniser without training: CLIP reads the crops, the levels compete by agreement, the survivors answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from programs import load_program

from cocoer import Recognizer
from cocoer.config import change_config
from cocoer.data.batch import PersonRecord
from cocoer.data.decode import decode_record
from cocoer.data.index import read_index
from cocoer.data.synthetic.export import write_caers, write_emotic
from cocoer.data.transforms import crop_levels
from cocoer.datasets import CAERS_CLASSES, EMOTIC_CLASSES
from cocoer.errors import CheckpointError
from cocoer.model.clip_tower import CLIP_MEAN, CLIP_STD, TEMPLATES
from cocoer.model.zero_shot import Tower, ZeroShot, image_mean_std, is_zero_shot, load_model, load_tower
from cocoer.names import LEVELS
from cocoer.outputs import LEVEL_SOURCES
from cocoer.weights import places

DEMO = "zero-shot:demo"
DEMO_TOWER = Tower.parse("configs/demo_clip.json=checkpoints/demo/clip.safetensors")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_emotic(root, {"test": 24}, seed=5)
    return root


@pytest.fixture(scope="module")
def records(tree: Path) -> list[PersonRecord]:
    return read_index(tree / "index", "test", EMOTIC_CLASSES)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.from_checkpoint(DEMO, device="cpu")


def seen_by_clip(crops: list[np.ndarray], templates: tuple[str, ...], classes: tuple[str, ...]) -> torch.Tensor:
    """Cosines of crops (uint8 [S, S, 3]) and classes through open_clip's own calls alone: [crops, k]."""
    clip = load_tower(DEMO_TOWER)
    tokenizer = open_clip.get_tokenizer("RN50")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    images = (torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.inference_mode():
        every = [clip.encode_text(tokenizer([t.format(emotion=c) for c in classes]), normalize=True) for t in templates]
        text = torch.nn.functional.normalize(torch.stack(every).mean(0), dim=-1)
        return clip.encode_image(images, normalize=True) @ text.T


def test_the_answer_is_that_of_the_levels_that_agree(
    recognizer: Recognizer, records: list[PersonRecord], tree: Path
) -> None:
    for record in records[:8]:
        image = decode_record(record, tree)
        (person,) = recognizer(image, [{"body": record.body, "head": record.head}])
        cosines = seen_by_clip(
            list(crop_levels(image, record.body, record.head, 80).pixels), TEMPLATES[:1], EMOTIC_CLASSES
        )
        read = torch.softmax(20 * cosines, dim=-1)  # [L, k]
        vote = torch.softmax(20 * cosines.mean(0), dim=-1)
        losses = -(vote * read.log()).sum(-1)
        assert person.competition is not None
        np.testing.assert_allclose(person.competition.losses, losses, atol=2e-4)
        assert person.competition.exclusion == tuple(LEVELS[i] for i in losses.argsort(descending=True))
        for level, source in LEVEL_SOURCES.items():
            got = [person.probabilities[source][c] for c in EMOTIC_CLASSES]
            np.testing.assert_allclose(got, read[LEVELS.index(level)], atol=1e-4)
        np.testing.assert_allclose([person.probabilities["VI"][c] for c in EMOTIC_CLASSES], vote, atol=1e-4)
        shares = torch.tensor(person.competition.weights[0])
        answer = [person.probabilities["pred"][c] for c in EMOTIC_CLASSES]
        np.testing.assert_allclose(answer, (shares[:, None] * read).sum(0), atol=1e-4)
        assert abs(sum(answer) - 1) < 1e-4 and abs(float(shares.sum()) - 1) < 1e-5
        assert person.labels["pred"] == tuple(c for c, p in zip(EMOTIC_CLASSES, answer, strict=True) if p > 2 / 26)
        assert person.status == "ok"


def test_it_says_what_it_is(recognizer: Recognizer) -> None:
    about = recognizer.about
    assert about["weights"] == "zero-shot:demo_clip" and about["mode"] == "zero-shot"
    assert "no weights of CocoER" in about["note"] and "synthetic" in about["note"]


def test_batches_and_fused_norms_change_nothing(
    recognizer: Recognizer, records: list[PersonRecord], tree: Path
) -> None:
    plain = Recognizer.from_checkpoint(DEMO, "cpu", ["inference.fold=false", "inference.prepack=false"])
    images = [decode_record(r, tree) for r in records[:5]]
    boxes = [[{"body": r.body, "head": r.head}] for r in records[:5]]
    for one, together, image, box in zip(plain(images, boxes), recognizer(images, boxes), images, boxes, strict=True):
        alone = recognizer(image, box)
        for other in (together, alone):
            first, second = ([p.probabilities["pred"][c] for c in EMOTIC_CLASSES] for p in (one[0], other[0]))
            np.testing.assert_allclose(first, second, atol=2e-5)


def test_a_blank_image_has_a_defined_order_and_its_status_says_so(recognizer: Recognizer) -> None:
    blank = Image.new("RGB", (120, 90), (90, 120, 150))
    (person,) = recognizer(blank, [{"body": [10, 5, 60, 85], "head": [25, 8, 45, 30]}])
    assert person.status == "equal_readings" and "default order head, body, context" in person.message
    assert person.competition is not None and person.competition.exclusion == LEVELS
    assert person.labels["pred"]


def test_other_classes_and_prompts(tmp_path: Path) -> None:
    caers = Recognizer.from_checkpoint(DEMO, "cpu", ["data.dataset=caers", "model.vocabulary.prompt=ensemble"])
    image = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    (person,) = caers(image, [{"body": [0, 0, 96, 96], "head": [20, 10, 60, 50]}])
    assert set(person.probabilities["pred"]) == set(CAERS_CLASSES) and len(person.labels["pred"]) == 1
    crops = crop_levels(Image.fromarray(image), (0, 0, 96, 96), (20, 10, 60, 50), 80).pixels
    read = torch.softmax(20 * seen_by_clip(list(crops), TEMPLATES, CAERS_CLASSES), dim=-1)
    np.testing.assert_allclose([person.probabilities["head"][c] for c in CAERS_CLASSES], read[0], atol=1e-4)
    write_caers(tmp_path / "caers", {"test": 14}, seed=2)
    program = load_program("evaluate")
    given = ["--checkpoint", DEMO, "--config", "configs/demo_caers.yaml", "--root", str(tmp_path / "caers")]
    given += ["--index", str(tmp_path / "caers" / "index"), "--output", str(tmp_path / "out"), "--resamples", "20"]
    assert program.main([*given, "--set", "data.workers=0"]) == 0
    assert "accuracy" in (tmp_path / "out" / "evaluation.txt").read_text()


def test_evaluate_says_who_leaves_first(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--checkpoint", DEMO, "--root", str(tree), "--index", str(tree / "index"), "--output", str(tmp_path)]
    assert load_program("evaluate").main([*given, "--resamples", "20", "--set", "data.workers=0"]) == 0
    text = capsys.readouterr().out
    assert "first excluded = contradicting level" in text and "zero-shot" in text and "synthetic" in text


@pytest.mark.parametrize("name", ["zero-shot", "zero-shot:RN50", "zero-shot:demo"])
def test_names(name: str) -> None:
    assert is_zero_shot(name) and is_zero_shot(Path(name))
    assert not is_zero_shot(f"outputs/{name}/best.safetensors") and not is_zero_shot("zero-shots")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zero-shot", r"wanted its weights at checkpoints/clip/RN50.pt, found none; .*cocoer weights fetch clip-rn50"),
        ("zero-shot:ViT-L-14", r"checkpoints/clip/ViT-L-14.pt, found none; .*cocoer weights fetch clip-vit-l-14"),
        ("zero-shot:ViT-H-14", r"checkpoints/clip/ViT-H-14.pt, found none; name an existing file: ViT-H-14=FILE"),
        ("zero-shot:RN50=nothing.pt", r"wanted its weights at nothing.pt, found none"),
        ("zero-shot:RN5=checkpoints/demo/clip.safetensors", "open_clip does not have 'RN5', did you mean 'RN50'"),
        ("zero-shot:RN50=checkpoints/demo/clip.safetensors", "do not fit the tower"),
    ],
)
def test_a_clip_that_cannot_be_used_is_an_error(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "CLONE", None)  # where real weights may have been fetched to
    monkeypatch.setenv(places.HOME_VARIABLE, str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_model(name)


def test_a_clip_without_weights_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"model.vocabulary.weights: null"):
        load_model(DEMO, change=lambda config: change_config(config, ["model.vocabulary.weights=null"]))


def test_the_tower_brings_size_scale_and_statistics(tmp_path: Path) -> None:
    loaded = load_model(f"zero-shot:{DEMO_TOWER.name}={DEMO_TOWER.weights}")
    stored = load_tower(DEMO_TOWER).logit_scale.exp().item()
    assert loaded.config.model.competition.logit_scale == pytest.approx(stored)
    assert loaded.config.data.image_size == 80 and isinstance(loaded.model, ZeroShot)
    assert image_mean_std("RN50") == (CLIP_MEAN, CLIP_STD)
    assert image_mean_std("ViT-B-16-SigLIP") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    crops = torch.zeros(2, 3, 80, 80)
    with pytest.raises(ValueError, match=r"head crops: wanted \[2, 3, 80, 80\]"):
        loaded.model(crops[..., :40], crops, crops, torch.zeros(2, 4), torch.zeros(2, 4))


def test_bfloat16_changes_little_and_saliency_is_refused(
    recognizer: Recognizer, records: list[PersonRecord], tree: Path
) -> None:
    half = Recognizer.from_checkpoint(DEMO, "cpu", ["inference.precision=bf16"])
    record = records[0]
    image, box = decode_record(record, tree), [{"body": record.body, "head": record.head}]
    first, second = (
        [p.probabilities["pred"][c] for c in EMOTIC_CLASSES] for p in (half(image, box)[0], recognizer(image, box)[0])
    )
    np.testing.assert_allclose(first, second, atol=0.05)
    assert (
        load_program("explain").main(
            ["--input", str(tree / record.image), "--checkpoint", DEMO, "--output", str(tree / "out")]
        )
        == 2
    )
