"""Where files are looked for: $COCOER_HOME, the clone, the user's cache, what comes with cocoer, the working folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoer.config import load_config
from cocoer.weights import places
from cocoer.weights.catalog import entry


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """$COCOER_HOME, a clone and a user's cache, all empty; the working folder is a fourth one."""
    home, clone, cache, work = (tmp_path / name for name in ("home", "clone", "cache", "work"))
    for folder in (home, clone, cache, work):
        folder.mkdir()
    monkeypatch.setenv("COCOER_HOME", str(home))
    monkeypatch.setattr(places, "CLONE", clone)
    monkeypatch.setattr(places.platformdirs, "user_cache_path", lambda *_, **__: cache)
    monkeypatch.chdir(work)
    return home, clone, cache


def put(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_file_is_found_in_every_place_and_the_nearer_one_wins(folders: tuple[Path, Path, Path]) -> None:
    name = "checkpoints/imagenet/resnet50.pth"
    item = entry("resnet50")
    assert item.files == (folders[0] / name,) and not item.present and places.place_of(name) == folders[0] / name
    for folder in reversed(folders):
        path = put(folder, name)
        assert item.present and item.files == (path,) and places.find(name) == path
    assert places.find(put(Path.cwd(), name).relative_to(Path.cwd())) == Path(name), "the working folder comes first"


@pytest.mark.parametrize("clone", [True, False])
def test_what_is_fetched_goes_to_the_home_the_clone_or_the_cache(
    folders: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, clone: bool
) -> None:
    assert places.home() == folders[0]
    monkeypatch.setenv("COCOER_HOME", "")  # empty means unset
    if not clone:
        monkeypatch.setattr(places, "CLONE", None)
    assert places.home() == folders[1 if clone else 2]


def test_a_pack_is_present_only_where_all_its_members_lie_together(folders: tuple[Path, Path, Path]) -> None:
    item = entry("buffalo_l")
    put(folders[2], "thirdparty/insightface/models/buffalo_l/det_10g.onnx")
    assert item.present and item.files[0].is_relative_to(folders[2])


def test_configs_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("configs/ablations/patch_2.yaml") == load_config(
        places.SHIPPED / "configs/ablations/patch_2.yaml"
    )


def test_a_home_that_names_a_user_is_expanded_and_made_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COCOER_HOME", "~/models")
    assert places.home() == tmp_path / "models"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COCOER_HOME", "models")
    assert places.home() == tmp_path / "models"
