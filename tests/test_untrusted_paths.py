"""Which files of this machine are opened is not for an index, a list or a link to say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from real_trees import save_image
from training_world import make_world, read

from cocoer.config import DataConfig, load_config
from cocoer.data.batch import PersonRecord
from cocoer.data.boxes_file import boxes_beside
from cocoer.data.cache import open_cache
from cocoer.data.decode import decode_record, image_path
from cocoer.data.files import scan_files
from cocoer.data.index import data_root_of, read_index, write_index
from cocoer.data.inputs import iterate_inputs, survey_inputs
from cocoer.data.loaders import build_dataset
from cocoer.data.prepare.checks import check_images
from cocoer.data.prepare.derived.convert import convert
from cocoer.data.validate import data_of_index
from cocoer.errors import BoxesError, ConfigError, DerivedError, ImageError, IndexFileError
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_weights, read_metadata, save_weights
from cocoer.yaml_file import parse_yaml


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A data root with an image inside, one beside it, and links of all kinds."""
    root = tmp_path / "root"
    save_image(root / "inside.jpg")
    save_image(tmp_path / "secret/outside.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "secret/outside.jpg")
    (root / "folder").symlink_to(tmp_path / "secret")
    (root / "round").symlink_to(root / "round")
    (root / "near.jpg").symlink_to(root / "inside.jpg")
    return root


def record(image: str) -> PersonRecord:
    return PersonRecord(image, 80, 100, 0, (1, 1, 50, 70), (2, 2, 20, 20), "annotated", ("Anger",), None, "train")


OUTSIDE = {
    "a way up": "../secret/outside.jpg",
    "a way up and back": "../root/inside.jpg",
    "a link": "link.jpg",
    "a folder that is a link": "folder/outside.jpg",
    "an absolute path": "ABSOLUTE",
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_an_index_reads_nothing_outside_its_root(tree: Path, tmp_path: Path, kind: str) -> None:
    image = OUTSIDE[kind].replace("ABSOLUTE", str(tmp_path / "secret/outside.jpg"))
    with pytest.raises(ImageError, match="leads out of the images' folder .* data.allow_outside: true"):
        decode_record(record(image), tree)
    assert "leads out" in scan_files(tree, [image])[image].error
    assert "leads out" in check_images([record(image)], tree)[0].reason
    with pytest.raises(ImageError, match="leads out"):
        open_cache(tmp_path / "cache", "train", [record(image)], tree, 16)
    assert decode_record(record(image), tree, allow_outside=True).size == (80, 100)
    assert not check_images([record(image)], tree, allow_outside=True)


def test_what_lies_inside_is_read_by_any_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for image in ("inside.jpg", "./inside.jpg", "near.jpg"):
        assert decode_record(record(image), tree).size == (80, 100)
    monkeypatch.chdir(tree.parent)
    assert decode_record(record("inside.jpg"), Path("root")).size == (80, 100)
    (tree.parent / "other_name").symlink_to(tree)  # the root itself may be a link: its owner names it
    assert decode_record(record("inside.jpg"), tree.parent / "other_name").size == (80, 100)


@pytest.mark.parametrize("image", ["round", "a\0b.jpg", "x" * 5000, "", "."])
def test_names_that_are_no_file_are_one_error(tree: Path, image: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_record(record(image), tree)
    assert "\n" not in str(caught.value)


def test_a_config_decides_and_a_checkpoint_does_not(tree: Path, tmp_path: Path) -> None:
    write_index(tree / "index", [record("link.jpg")], {})
    data = DataConfig(root=str(tree), index=str(tree / "index"), image_size=16)
    with pytest.raises(ImageError, match="leads out"):
        build_dataset(data, "train")[0]
    assert build_dataset(replace(data, allow_outside=True), "train")[0].key == "link.jpg#0"

    config = read(make_world(tmp_path / "world", train=2, other=1), "data.allow_outside=true")
    file = save_weights(tmp_path / "w.safetensors", build_model(config), config, metrics={}, thresholds={})
    assert read_metadata(file)["config"]["data"]["allow_outside"] is True
    assert load_weights(file).config.data.allow_outside is False


def test_a_table_of_others_names_nothing_outside(tree: Path, tmp_path: Path) -> None:
    rows = "Index,Folder,Filename,Image Size,BBox,Categorical_Labels,Continuous_Labels\n"
    (tmp_path / "train.csv").write_text(
        rows + '0,../secret,outside.jpg,"[80, 100]","[1, 1, 50, 70]","[\'Anger\']","[5, 5, 5]"\n'
    )
    with pytest.raises(DerivedError, match="leads out"):
        convert(tmp_path / "train.csv", "tandon-csv", tree)


def test_a_prepared_folder_may_be_put_together_from_links(tree: Path) -> None:
    assert image_path(tree, "folder/outside.jpg", follow_links=True) == tree / "folder/outside.jpg"
    for image in ("../secret/outside.jpg", str(tree.parent / "secret/outside.jpg")):
        with pytest.raises(ImageError, match="leads out"):
            image_path(tree, image, follow_links=True)


def test_a_list_names_only_what_lies_below_it_or_below_this_folder(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret/outside.jpg"
    (tree / "list.txt").write_text(f"inside.jpg\n{secret}\nlink.jpg\n../secret\n{tree / 'inside.jpg'}\n")
    monkeypatch.chdir("/")
    (here := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(here)
    given = [str(tree / "list.txt")]
    items = list(iterate_inputs(given))
    assert [bool(item.fault) for item in items] == [False, True, True, True, False]
    assert all("data.allow_outside=true" in item.fault for item in items if item.fault)
    assert survey_inputs(given).total == len(items)
    assert not any(item.fault for item in iterate_inputs(given, allow_outside=True))
    monkeypatch.chdir(tmp_path)  # now all of it lies below this folder
    assert not any(item.fault for item in iterate_inputs(given))


def test_a_boxes_file_that_is_a_link_is_not_read(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret/x.json").write_text(json.dumps({"persons": []}))
    (tree / "inside.boxes.json").symlink_to(tmp_path / "secret/x.json")
    with pytest.raises(BoxesError, match="a link that leads out"):
        boxes_beside(tree / "inside.jpg")
    (tree / "own.json").write_text("{}")
    (tree / "near.boxes.json").symlink_to(tree / "own.json")
    assert boxes_beside(tree / "near.jpg") == tree / "near.boxes.json"


YAML: dict[str, Any] = {
    "nested aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{c}: &{c} [*{p}]\n" for p, c in ("ab", "bc", "cd")),
    "a merge": "a: &a {x: 1}\nb: {<<: *a}\n",
    "deep lists": "a: " + "[" * 5000,
    "deep mappings": "{a: " * 5000,
    "too long": "# " + "x" * 300_000,
    "a number of 5,000 digits": "a: " + "9" * 5000,
    "an object": "a: !!python/object/apply:os.system [true]\n",
    "an unhashable key": "? [a]\n: b\n",
    "bytes": b"\xff\xfe\x00",
    "control letters": "a: \x07",
    "two documents": "a: 1\n---\nb: 2\n",
    "an unknown anchor": "a: *b\n",
    "a tab": "a:\n\t- b\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", YAML)
def test_a_yaml_file_of_anybody_is_values_or_one_error(tmp_path: Path, kind: str) -> None:
    content = YAML[kind]
    (tmp_path / "c.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    assert "c.yaml" in str(caught.value)


def test_yaml_reads_numbers_as_writers_mean_them(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("\ufeffa: 6e-5\nb: [1, .5]\n", encoding="utf-8")
    assert parse_yaml(tmp_path / "c.yaml") == {"a": 6e-5, "b": [1, 0.5]}


def test_an_index_that_names_a_file_outside_can_still_be_read_as_text(tree: Path) -> None:
    write_index(tree / "index", [record("../secret/outside.jpg")], {})
    assert read_index(tree / "index", "train")[0].image == "../secret/outside.jpg"


@pytest.mark.parametrize(
    "said",
    [
        {"dataset": 5},
        {"dataset": [1]},
        {"data": 5},
        {"data": {"classes": 5}},
        {"data": {"classes": [1], "labels": "x", "foo": 1}},
    ],
)
def test_a_sidecar_that_does_not_say_its_data_set_is_one_error(said: Any, tmp_path: Path) -> None:
    (tmp_path / "sidecar.json").write_text(json.dumps(said))
    with pytest.raises(IndexFileError, match="sidecar.json: does not say which data set this is"):
        data_of_index(tmp_path, tmp_path)


@pytest.mark.parametrize("said", ['{"data_root": 5}', "[]", "5", "[" * 100_000, "\0"])
def test_a_sidecar_of_anybody_never_ends_a_command(said: str, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "sidecar.json").write_text(said)
    assert data_root_of(tmp_path / "index") == tmp_path
