"""Weights to and from a server that speaks the Hub's protocol: round trip, pinned revision, offline, what is refused."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hub_server import HubServer, hub_server
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes
from tiny_recognizer import tiny_checkpoint

from cocoer.errors import CheckpointError
from cocoer.inference.hub import model_card
from cocoer.inference.recognizer import Recognizer
from cocoer.model.checkpoint import read_metadata
from cocoer.weights.catalog import DEMO_CHECKPOINT

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)
BOXES = [{"body": [10, 5, 60, 90], "head": [25, 8, 45, 30]}]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hub, with a cache of its own."""
    from huggingface_hub import constants, file_download

    with hub_server() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        # As where HF_ENDPOINT is set before the start: the library reads it when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        where = f"{running.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", where)
        monkeypatch.setattr(
            file_download, "HUGGINGFACE_CO_URL_TEMPLATE", where, raising=False
        )  # version 0.34 copies it
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # as the other tests run
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("COCOER_HOME", str(tmp_path / "home"))
        yield running


@pytest.fixture
def shared(tmp_path: Path) -> Recognizer:
    return Recognizer.from_checkpoint(tiny_checkpoint(tmp_path), "cpu")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own call of httpx2
def test_what_is_pushed_comes_back_and_stays_offline(
    server: HubServer, shared: Recognizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = shared.push_to_hub("anna/emotions", token="secret")
    assert address.startswith(server.address) and set(server.repos["anna/emotions"][-1]) == {
        "model.safetensors",
        "README.md",
    }
    loaded = Recognizer.from_pretrained("anna/emotions", device="cpu")
    wanted = shared(IMAGE, BOXES)[0]
    assert loaded(IMAGE, BOXES)[0].probabilities == wanted.probabilities
    assert loaded.about["sha256"] == shared.about["sha256"] and loaded.about["weights"] == "anna/emotions"
    commit = loaded.about["revision"]
    assert address.endswith(commit) and (tmp_path / "home" / "hub").is_dir()

    other = Recognizer.from_checkpoint(tiny_checkpoint(tmp_path / "other", seed=5), "cpu")
    other.push_to_hub("anna/emotions", token="secret")
    assert Recognizer.from_pretrained("anna/emotions", device="cpu").about["sha256"] == other.about["sha256"]
    pinned = Recognizer.from_pretrained("anna/emotions", revision=commit, device="cpu")
    assert pinned.about["sha256"] == shared.about["sha256"]

    asked = len(server.asked)
    monkeypatch.setenv("COCOER_OFFLINE", "1")
    assert Recognizer.from_pretrained("anna/emotions", revision=commit, device="cpu").about["revision"] == commit
    with pytest.raises(CheckpointError, match="not in the local cache"):
        Recognizer.from_pretrained("anna/absent", device="cpu")
    assert len(server.asked) == asked, "nothing is asked offline"


def test_a_folder_is_loaded_as_it_was_saved(shared: Recognizer, tmp_path: Path) -> None:
    folder = shared.save_pretrained(tmp_path / "saved")
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "README.md"}
    again = Recognizer.from_pretrained(folder, device="cpu")
    assert again(IMAGE, BOXES)[0].probabilities == shared(IMAGE, BOXES)[0].probabilities
    (folder / "README.md").write_text("mine")
    shared.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"pytorch_model.bin": pickle.dumps(0), "config.json": b"{}"},
            r"has no model\.safetensors; it has config\.json, pytorch",
        ),
        ({"model.safetensors": pickled()}, "pickled PyTorch file, which is not opened"),
        ({"model.safetensors": safetensors_bytes({"w": torch.zeros(2)})}, "cocoer"),
        ({}, "it has no files"),
    ],
)
def test_other_repositories_are_refused_by_name(server: HubServer, files: dict[str, bytes], said: str) -> None:
    server.commit("bob/other", files)
    with pytest.raises(CheckpointError, match=said):
        Recognizer.from_pretrained("bob/other", device="cpu")


def test_weights_of_another_architecture_are_refused_by_name(server: HubServer, tmp_path: Path) -> None:
    """Tensors under other names than the config's model has; --no-verify's way past the checksum does not help them."""
    weights = tiny_checkpoint(tmp_path)
    with safe_open(weights, "pt") as file:
        about = file.metadata()
    tensors = {f"vit.{name}": tensor for name, tensor in load_file(weights).items()}
    server.commit("bob/other", {"model.safetensors": safetensors_bytes(tensors, about)})
    with pytest.raises(CheckpointError, match=r"^bob/other: weights .*model\.safetensors: backbones"):
        Recognizer.from_pretrained("bob/other", device="cpu")


def test_a_home_that_cannot_be_written_is_said_with_its_variable(server: HubServer, tmp_path: Path) -> None:
    server.commit("anna/emotions", {"model.safetensors": b"never fetched"})
    (tmp_path / "home").write_text("a file in the folder's place")
    with pytest.raises(CheckpointError, match=r"home.*cannot be written \(.*\); .*COCOER_HOME"):
        Recognizer.from_pretrained("anna/emotions", device="cpu")


def test_what_the_hub_does_not_know_is_said(server: HubServer) -> None:
    server.commit("bob/other", {"a": b""})
    with pytest.raises(CheckpointError, match="bob/none: the Hub has no such repository"):
        Recognizer.from_pretrained("bob/none", device="cpu")
    with pytest.raises(CheckpointError, match="has no revision 'v9'"):
        Recognizer.from_pretrained("bob/other", revision="v9", device="cpu")
    with pytest.raises(CheckpointError, match="wanted user/repository"):
        Recognizer.from_pretrained("a//b c", device="cpu")


def test_a_push_without_a_key_is_refused(server: HubServer, shared: Recognizer) -> None:
    with pytest.raises(CheckpointError, match="did not take it.*hf auth login"):
        shared.push_to_hub("anna/emotions", token="wrong")


def test_only_weights_are_shared(shared: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="wanted a recogniser made from a weights file"):
        Recognizer(shared.model, shared.config).save_pretrained(tmp_path / "a")
    tiny_checkpoint(shared._weights()[0].parent, seed=3)
    with pytest.raises(CheckpointError, match="is not the file any more"):
        shared.save_pretrained(tmp_path / "b")


def test_the_card_says_whose_numbers_and_what_it_is_not_for() -> None:
    metadata = read_metadata(DEMO_CHECKPOINT)
    start, header, text = model_card(metadata).split("---\n", 2)
    about = yaml.safe_load(header)
    assert start == "" and about["license"] == "mit" and "synthetic" in about["tags"] and "datasets" not in about
    (result,) = about["model-index"][0]["results"]
    assert "synthetic" in result["dataset"]["name"] and result["dataset"]["split"] == "val"
    assert result["metrics"][0]["value"] == pytest.approx(metadata["metrics"]["mAP"], abs=1e-4)
    assert "Not for decisions about people" in text and "92.02 % on a synthetic split" in text
    real = yaml.safe_load(model_card({**metadata, "note": ""}).split("---\n", 2)[1])
    assert real["license"] == "other" and real["datasets"] == ["emotic"]
