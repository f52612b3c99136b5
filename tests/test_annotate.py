"""`cocoer annotate`: every image of an archive once, whatever it comes in and whatever stops the run."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from archive_world import assert_same, image, rows, run, weights, write_images, write_shard
from rights import as_anybody, needs_rights
from tiny_recognizer import ROOT

from cocoer.cli import annotate, predict
from cocoer.cli.main import main
from cocoer.errors import OutputError, ScaleError
from cocoer.scale import dataset
from cocoer.scale.listing import list_inputs
from cocoer.scale.places import place_of
from cocoer.scale.tries import ALONE, Mark
from cocoer.scale.worker import Worker

IMAGES = 10


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "photos"
    write_images(folder, IMAGES)
    return folder


@pytest.fixture(scope="module")
def answers(photos: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of an undisturbed run."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run(photos, "--output", out, "--checkpoint", checkpoint, "--chunk", 4) == 0
    return rows(out)


def ids(*inputs: object) -> list[str]:
    table, _ = list_inputs([str(text) for text in inputs])
    return list(table["id"].to_pylist())


def manifest_of(place: Path, **columns: list[Any]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), place)
    return place


# What INPUT names


def test_a_folder_is_listed_by_name_without_hidden_files_and_videos(tmp_path: Path) -> None:
    for name in (
        "b.jpg",
        "a/z.PNG",
        "a/y.tiff",
        ".hidden.jpg",
        ".h/x.jpg",
        "film.mp4",
        "notes.txt",
        "c.jpg",
        "c.boxes.json",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "round").symlink_to(tmp_path)
    table, videos = list_inputs([str(tmp_path)])
    assert table["id"].to_pylist() == ["b.jpg", "c.jpg", "a/y.tiff", "a/z.PNG"] and videos == 1
    assert table["boxes_uri"].to_pylist() == [None, str(tmp_path / "c.boxes.json"), None, None]


def test_a_bucket_is_listed_as_the_same_folder(tmp_path: Path) -> None:
    import fsspec

    bucket = fsspec.filesystem("memory")
    for name in ("b.jpg", "a/z.png", "a/y #1.png", "a.jpg", ".h/x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(image(1))
        bucket.pipe(f"/bucket/{name}", image(1))
    table, _ = list_inputs(["memory://bucket"])
    assert table["id"].to_pylist() == ids(tmp_path)
    for uri in table["uri"].to_pylist():
        assert place_of(uri).read() == image(1)


def test_the_options_of_a_bucket_stay_with_what_lies_in_it() -> None:
    options = "?endpoint_override=127.0.0.1:1&scheme=http&region=none"
    top = place_of(f"s3://bucket/my photos{options}")
    image = top / "a b" / "c?d.jpg"
    assert (
        image.uri == f"s3://bucket/my photos/a%20b/c%3Fd.jpg{options}" and image.path == "bucket/my photos/a b/c?d.jpg"
    )
    assert place_of(image.uri).path == image.path and place_of(image.uri).fs == image.fs
    assert image.parent == top / "a b" and place_of(image.parent.uri).path == "bucket/my photos/a b"
    local = place_of("/photos?x=1/b") / "c.jpg"
    assert local.uri == local.path == "/photos?x=1/b/c.jpg" and local.parent.uri == "/photos?x=1/b"
    other = place_of("memory://bucket/what?") / "a.jpg"
    assert place_of(other.uri).path == other.path == "/bucket/what?/a.jpg"


@pytest.mark.parametrize(
    "address",
    ["s3://me:hidden@bucket/a", "sftp://me:hidden@host/a", "abfs://box@account/a?sas_token=hidden", "s3://[hidden/a"],
)
def test_a_password_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ScaleError) as refused:
        place_of(address)
    assert "hidden" not in str(refused.value) or "[" in address


def test_a_shard_is_read_by_offsets(tmp_path: Path) -> None:
    members = {"000.png": image(1), "000.json": b"{}", "sub/001.jpg": image(2), "000.boxes.json": b"[]", ".x.png": b""}
    write_shard(tmp_path / "s-00.tar", members)
    write_shard(tmp_path / "s-01.tar", {"000.png": image(3)})
    table, _ = list_inputs([str(tmp_path / "s-{00..01}.tar")])
    found = table.to_pylist()
    assert [row["id"].removeprefix(f"{tmp_path}/") for row in found] == [
        "s-00.tar/000.png",
        "s-00.tar/sub/001.jpg",
        "s-01.tar/000.png",
    ]
    assert [row["boxes"] for row in found] == ["[]", None, None]
    for row, number in zip(found, (1, 2, 3), strict=True):
        assert place_of(row["uri"]).read(row["offset"], row["size"]) == image(number)


@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[:1300], lambda data: data[:700], lambda data: b"no tar at all" * 100, lambda data: b""],
    ids=["cut in a header", "cut in an image", "other content", "empty"],
)
def test_an_unreadable_shard_is_one_row_and_the_rest_goes_on(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    write_shard(tmp_path / "a.tar", {f"{n}.png": image(n) for n in range(5)})
    write_shard(tmp_path / "b.tar", {"0.png": image(0)})
    (tmp_path / "a.tar").write_bytes(spoil((tmp_path / "a.tar").read_bytes()))
    table, _ = list_inputs([str(tmp_path)])
    faults = {row["id"]: row["fault"] for row in table.to_pylist() if row["fault"]}
    assert list(faults) == ["a.tar"] and "wanted a whole, uncompressed .tar" in faults["a.tar"]
    assert "b.tar/0.png" in table["id"].to_pylist()


def test_a_name_that_stands_in_a_shard_twice_is_told(tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in (1, 2):
            info = tarfile.TarInfo("x.png")
            info.size = len(image(number))
            tar.addfile(info, io.BytesIO(image(number)))
    table, _ = list_inputs([str(tmp_path / "a.tar")])
    assert table["fault"].to_pylist()[0] is None and "has this name twice" in table["fault"].to_pylist()[1]


@pytest.mark.parametrize(
    "columns, said",
    [
        ({"id": ["a"], "path": ["a.jpg"]}, "missing: uri"),
        ({"id": ["a", "b", "a"], "uri": ["1.jpg", "2.jpg", "3.jpg"]}, "wanted every id once, got 'a' twice"),
        ({"id": ["a", None], "uri": ["1.jpg", "2.jpg"]}, "row 2: wanted id and uri"),
        ({"id": ["a"], "uri": [""]}, "row 1: wanted id and uri"),
        ({"id": pyarrow.array([], pyarrow.string()), "uri": pyarrow.array([], pyarrow.string())}, "found none"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    with pytest.raises(ScaleError, match=said):
        list_inputs([str(manifest_of(tmp_path / "m.parquet", **columns))])


@pytest.mark.parametrize("name", ["nothing", "m.parquet", "notes.txt", "strange://bucket/x", "empty"])
def test_an_input_that_is_none_is_refused(
    tmp_path: Path, name: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    text = name if "://" in name else tmp_path / name
    assert run(text, "--output", tmp_path / "out", "--checkpoint", checkpoint) == 2
    assert name.split("://")[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs_rights
def test_a_folder_without_rights_is_one_row(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    (tmp_path / "closed").mkdir(mode=0)
    program = (
        "import json, sys; from cocoer.scale.listing import list_inputs\n"
        "table, _ = list_inputs(sys.argv[1:]); print(json.dumps(table['fault'].to_pylist()))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=True, preexec_fn=as_anybody)  # fmt: skip
    first, last = json.loads(done.stdout)
    assert first is None and last == "closed: cannot be read: Permission denied"


# The data set


def test_answers_are_those_of_predict(photos: Path, checkpoint: Path, answers: dict[str, Any], tmp_path: Path) -> None:
    words = (
        f"{photos} --recursive --format csv --output {tmp_path / 'p'} --checkpoint {checkpoint} --quiet --device cpu"
    )
    code = predict.main(words.split())
    assert code == 0 and len(answers) == IMAGES
    out = tmp_path / "out"
    assert run(photos, "--output", out, "--checkpoint", checkpoint, "--chunk", 3) == 0
    assert annotate.main(["flatten", str(out), "--table", str(tmp_path / "people.csv")]) == 0
    with open(tmp_path / "p" / "results.csv", newline="") as one, open(tmp_path / "people.csv", newline="") as other:
        wanted, found = list(csv.DictReader(one)), list(csv.DictReader(other))
    assert len(wanted) == len(found) > IMAGES
    for row, mine in zip(wanted, found, strict=True):
        assert row["image"].endswith(mine["image"])
        for name in row.keys() - {"image"}:
            a, b = row[name], mine[name]
            assert a == b or math.isclose(float(a), float(b), rel_tol=1e-6, abs_tol=1.5e-6), (name, a, b)
    assert annotate.main(["flatten", str(out), "--table", str(tmp_path / "people.parquet")]) == 0
    assert pyarrow.parquet.read_table(tmp_path / "people.parquet").num_rows == len(found)


def test_every_file_says_what_it_was_made_with(photos: Path, checkpoint: Path, tmp_path: Path) -> None:
    import json

    assert run(photos, "--output", tmp_path / "out", "--checkpoint", checkpoint, "--chunk", 4) == 0
    files = list((tmp_path / "out").glob("*.parquet"))
    assert len(files) == 3
    for file in files:
        facts = json.loads(pyarrow.parquet.read_schema(file).metadata[b"cocoer"])
        assert len(facts["weights"]["sha256"]) == 64 and facts["version"] and facts["config"]["model"]
    assert {p.name for p in (tmp_path / "out" / "_cocoer").iterdir()} == {"run.json"}


def test_shards_manifest_and_bucket_give_the_rows_of_the_folder(
    photos: Path, checkpoint: Path, answers: dict[str, Any], tmp_path: Path
) -> None:
    import fsspec

    write_shard(tmp_path / "a.tar", {name: (photos / name).read_bytes() for name in answers})
    files = [str(photos / name) for name in answers]
    manifest_of(photos.parent / "m.parquet", id=list(answers), uri=[os.path.relpath(f, photos.parent) for f in files])
    for name in answers:
        fsspec.filesystem("memory").pipe(f"/photos/{name}", (photos / name).read_bytes())
    for source, prefix in ((tmp_path / "a.tar", "a.tar/"), (photos.parent / "m.parquet", ""), ("memory://photos", "")):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        assert run(source, "--output", out, "--checkpoint", checkpoint, "--chunk", 4) == 0
        found = rows(out)
        assert found.keys() == {f"{prefix}{name}" for name in answers}
        for name, row in answers.items():
            mine = found[f"{prefix}{name}"]
            assert_same({**row, "id": "", "uri": ""}, {**mine, "id": "", "uri": ""})


def test_a_bucket_can_hold_the_data_set(
    photos: Path, checkpoint: Path, answers: dict[str, Any], tmp_path: Path
) -> None:
    import fsspec

    assert run(photos, "--output", "memory://out/emotions", "--checkpoint", checkpoint, "--chunk", 4) == 0
    fsspec.filesystem("memory").get("/out/emotions", str(tmp_path / "copy"), recursive=True)
    assert_same(answers, rows(tmp_path / "copy"))
    assert run(photos, "--output", "memory://out/emotions", "--checkpoint", checkpoint, "--chunk", 4) == 0
    assert main(["annotate", "flatten", "memory://out/emotions", "--table", str(tmp_path / "bucket.csv")]) == 0
    assert main(["annotate", "flatten", str(tmp_path / "copy"), "--table", str(tmp_path / "copy.csv")]) == 0
    assert (tmp_path / "bucket.csv").read_text() == (tmp_path / "copy.csv").read_text()


def test_boxes_come_with_the_rows(photos: Path, checkpoint: Path, tmp_path: Path) -> None:
    place = str(photos / "000" / "000001.png")
    people = [{"body": [10.0, 10.0, 90.0, 200.0], "head": [30.0, 10.0, 60.0, 40.0], "id": "anna"}]
    manifest = manifest_of(
        photos.parent / "b.parquet", id=["text", "lists", "wrong"], uri=[place] * 3, boxes=["", "", ""]
    )
    table = pyarrow.parquet.read_table(manifest).set_column(
        2, "boxes", [['[{"body": [10, 10, 90, 200], "head": [30, 10, 60, 40], "id": "anna"}]', "[]", "{"]]
    )
    pyarrow.parquet.write_table(table, manifest)
    assert run(manifest, "--output", tmp_path / "out", "--checkpoint", checkpoint) == 1
    found = rows(tmp_path / "out")
    assert (
        found["text"]["persons"][0]["track"] == "anna"
        and found["text"]["persons"][0]["boxes"]["body_source"] == "annotated"
    )
    assert found["lists"]["persons"] == [] and found["lists"]["status"] == "ok"
    assert found["wrong"]["status"] == "error" and "is not JSON" in found["wrong"]["message"]
    manifest_of(photos.parent / "c.parquet", id=["nested"], uri=[place], boxes=[people])
    assert run(photos.parent / "c.parquet", "--output", tmp_path / "nested", "--checkpoint", checkpoint) == 0
    assert_same(found["text"]["persons"], rows(tmp_path / "nested")["nested"]["persons"])


def test_what_cannot_be_read_is_an_errors_row_and_the_rest_goes_on(
    photos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    (photos.parent / "notes.png").write_bytes(b"no image")
    bomb = io.BytesIO()
    from PIL import Image

    Image.new("1", (20000, 20000)).save(bomb, "PNG")
    (photos.parent / "bomb.png").write_bytes(bomb.getvalue())
    names = {"good": "photos/000/000001.png", "text": "notes.png", "bomb": "bomb.png", "gone": "gone.png",
             "outside": "/etc/hostname", "kind": "strange://x/y"}  # fmt: skip
    manifest = manifest_of(photos.parent / "e.parquet", id=list(names), uri=list(names.values()))
    assert run(manifest, "--output", tmp_path / "out", "--checkpoint", checkpoint) == 1
    found = rows(tmp_path / "out")
    assert [name for name, row in found.items() if row["status"] == "ok"] == ["good"]
    for name, said in (
        ("bomb", "pixels"),
        ("gone", "no such file"),
        ("outside", "data.allow_outside=true"),
        ("kind", "strange"),
    ):
        assert said in found[name]["message"], found[name]["message"]
    # the shown remedy works, and rows with errors are done again only where that is asked for
    (photos.parent / "notes.png").write_bytes(image(2))
    assert run(manifest, "--output", tmp_path / "out", "--checkpoint", checkpoint) == 1
    assert rows(tmp_path / "out")["text"]["status"] == "error"
    assert run(manifest, "--output", tmp_path / "out", "--checkpoint", checkpoint, "--retry-errors") == 1
    assert rows(tmp_path / "out")["text"]["status"] == "ok"


# What stops a run


class Stopped(BaseException):
    """Stands for a process that is no more."""


def test_a_run_goes_on_where_it_was_stopped(
    photos: Path, checkpoint: Path, answers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, inner, done = tmp_path / "out", Worker.chunk, []

    def dying(self: Worker, number: int) -> pyarrow.Table:
        done.append(number)
        if len(done) == 2:
            raise Stopped
        return inner(self, number)

    monkeypatch.setattr(Worker, "chunk", dying)
    with pytest.raises(Stopped):
        run(photos, "--output", out, "--checkpoint", checkpoint, "--chunk", 4)
    assert len(rows(out)) == 4
    assert run(photos, "--output", out, "--checkpoint", checkpoint, "--chunk", 4) == 0
    assert done == [0, 1, 0, 1]
    assert_same(answers, rows(out))
    write_images(photos, IMAGES + 1)  # the archive has grown
    try:
        assert run(photos, "--output", out, "--checkpoint", checkpoint, "--chunk", 4) == 0
        assert len(done) == 5 and len(rows(out)) == IMAGES + 1
    finally:
        (photos / "000" / f"{IMAGES:06d}.png").unlink()


def test_what_a_killed_engine_left_is_put_right(
    photos: Path, checkpoint: Path, answers: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(photos, "--output", out, "--checkpoint", checkpoint, "--chunk", 4) == 0
    first, second, third = sorted(out.glob("*.parquet"))
    (out / "again_000.parquet").write_bytes(first.read_bytes())  # a worker that lived on
    second.write_bytes(second.read_bytes()[:500])  # a torn file
    marks = out / "_cocoer" / "commits" / "run"
    marks.mkdir(parents=True)
    (marks / f"{third.stem}.pending.parquet").touch()  # one that was never said to be whole
    (marks / f"{third.stem}.parquet").touch()  # and was, in an earlier try
    done, remarks = dataset.settle(place_of(str(out)))
    assert sorted(done.to_pylist()) == sorted(list(answers)[:4]) and len(remarks) == 2
    assert run(photos, "--output", out, "--checkpoint", checkpoint, "--chunk", 4) == 0
    assert_same(answers, rows(out))


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("part-0a1b-3.parquet", True),
        (f"{'0f' * 16}_000007.parquet", True),
        (f"{'0f' * 16}_000007-0.parquet", True),
        (f"03542bJJxY_{'0f' * 16}_000000-0.parquet", True),  # Ray with checkpoints
        ("notes_2024.parquet", False),
        (f"my_table_{'0f' * 16}_000000.parquet", False),
        (f"{'0f' * 16}_000007.old.parquet", False),
    ],
)
def test_a_torn_file_is_removed_where_an_engine_gave_it_its_name_and_stays_otherwise(
    name: str, ours: bool, tmp_path: Path
) -> None:
    torn = tmp_path / name
    torn.write_bytes(b"PAR1 and no more")
    if ours:
        _, remarks = dataset.settle(place_of(str(tmp_path)))
        assert not torn.exists() and "1 unfinished files" in remarks[0]
        return
    with pytest.raises(ScaleError, match="is no file of this data set, and it stays"):
        dataset.settle(place_of(str(tmp_path)))
    assert torn.exists()


def test_other_weights_settings_or_inputs_are_refused(
    photos: Path, checkpoint: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    assert run(photos, "--output", out, "--checkpoint", checkpoint) == 0
    before = rows(out)
    from tiny_recognizer import tiny_checkpoint

    other = tiny_checkpoint(tmp_path / "other", seed=1)
    for words, said in (
        ((photos, "--checkpoint", other), "begun with weights"),
        (
            (photos, "--checkpoint", checkpoint, "--set", "inference.thresholds.fused=0.4"),
            "begun with inference.thresholds",
        ),
        ((photos.parent, "--checkpoint", checkpoint), "begun with inputs"),
    ):
        assert run(*words, "--output", out) == 2
        assert said in capsys.readouterr().err
    assert run(photos, "--checkpoint", checkpoint, "--set", "inference.batch_size=2", "--output", out) == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").touch()
    assert run(photos, "--checkpoint", checkpoint, "--output", tmp_path / "mine") == 2
    assert "did not write" in capsys.readouterr().err
    assert_same(before, rows(out))


def test_a_full_disk_keeps_what_is_written(
    photos: Path,
    checkpoint: Path,
    answers: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    out, inner = tmp_path / "out", dataset.write_part
    monkeypatch.setattr(
        "cocoer.scale.local.write_part",
        lambda part, table: inner(part, table) if "00000001" not in part.name else full(),
    )

    def full() -> None:
        raise OutputError("no space left on the disk")

    assert run(photos, "--output", out, "--checkpoint", checkpoint, "--chunk", 4) == 1
    assert "no space left" in capsys.readouterr().err and len(rows(out)) == 4
    monkeypatch.undo()
    assert run(photos, "--output", out, "--checkpoint", checkpoint, "--chunk", 4) == 0
    assert_same(answers, rows(out))


POISON = """
import os, sys
from cocoer.inference import pipeline
inner = pipeline.decode_image
def decode(source, *rest):
    if "000005" in str(getattr(source, "name", source)):
        os.kill(os.getpid(), 9)
    return inner(source, *rest)
pipeline.decode_image = decode
from cocoer.cli.annotate import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_image_that_kills_its_worker_becomes_an_errors_row(
    photos: Path, checkpoint: Path, answers: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-c",
        POISON,
        str(photos),
        "--output",
        str(out),
        "--checkpoint",
        str(checkpoint),
        "--chunk",
        "4",
    ]
    codes = [subprocess.run([*command, "--quiet", "--device", "cpu"], timeout=300).returncode for _ in range(2 + ALONE)]
    assert codes == [-9] * (1 + ALONE) + [1]
    found = rows(out)
    poison = found.pop("000/000005.png")
    assert poison["status"] == "error" and f"its worker died {1 + ALONE} times" in poison["message"]
    assert_same({name: row for name, row in answers.items() if name in found}, found)
    assert not (out / "_cocoer" / "tries").exists()


def test_marks_count_what_was_begun_and_never_ended(tmp_path: Path) -> None:
    folder = place_of(str(tmp_path / "tries"))
    mark = Mark.of(folder, ["a", "b"])
    assert mark.count == 0
    for number in (1, 2, 3):
        mark.begin()
        assert Mark.of(folder, ["a", "b"]).count == number and Mark.of(folder, ["a"]).count == 0
    mark.end()
    mark.end()
    assert mark.count == 0
    mark.begin()
    Path(mark.place.path).write_bytes(b"")  # torn by a power cut
    assert mark.count == 1


def test_two_processes_share_the_chunks(
    photos: Path, checkpoint: Path, answers: dict[str, Any], tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "cocoer",
        "annotate",
    ]
    words = [photos, "--output", tmp_path / "out", "--checkpoint", checkpoint, "--chunk", "2", "--device", "cpu"]
    done = subprocess.run([*command, *map(str, words)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert_same(answers, rows(tmp_path / "out"))


def test_a_folder_may_hold_links_and_be_typed_in_another_way(
    photos: Path, checkpoint: Path, answers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "links").mkdir()
    for name in list(answers)[:2]:
        (tmp_path / "links" / Path(name).name).symlink_to(photos / name)
    monkeypatch.chdir(tmp_path)
    for text in ("links", "./links/", tmp_path / "links"):
        assert run(text, "--output", tmp_path / "out", "--checkpoint", checkpoint) == 0
    found = rows(tmp_path / "out")
    assert [row["status"] for row in found.values()] == ["ok", "ok"]


def test_what_is_not_installed_is_named(
    photos: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ["annotate", str(photos), "--output", str(tmp_path / "out"), "--checkpoint", str(checkpoint)]
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*words, "--engine", "ray"]) == 2
    assert "pip install 'cocoer[ray]'" in capsys.readouterr().err
    without = (
        "import sys; sys.modules['pyarrow'] = None; from cocoer.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", without, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "pip install 'cocoer[table]'" in done.stderr


# The examples


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_a_shell_script_is_one(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).stderr == b""


def test_the_slurm_example_asks_ray_for_a_command_that_is_one(tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_text(
        "#!/bin/sh\n[ $1 = show ] && printf 'node1\\nnode2\\n' || echo requeued $2 >> $WORDS\n"
    )
    srun = """#!/bin/sh
printf "%s\\n" "$@" > $WORDS
[ -z "$LATE" ] || { kill -USR1 $PPID; sleep 5; }
exit 3
"""
    (tmp_path / "srun").write_text(srun)
    for name in ("scontrol", "srun"):
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "8"}
    slurm |= {"SLURM_GPUS_ON_NODE": "4", "WORDS": str(tmp_path / "words"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "scripts/slurm_annotate.sh"), "in put", "out", "--set", "inference.batch_size=64"]
    assert subprocess.run(command, env=os.environ | slurm).returncode == 3
    words = (tmp_path / "words").read_text().splitlines()
    args = annotate.parse(words[words.index("annotate") + 1 :])
    assert (args.inputs, args.output, args.engine, args.actors, args.gpus_per_actor) == (["in put"], "out", "ray", 8, 1)
    assert args.address == "node1:20007" == words[words.index("--address") + 1]
    assert subprocess.run(command, env=os.environ | slurm | {"LATE": "1"}).returncode == 0
    assert (tmp_path / "words").read_text().endswith("requeued 7\n")
    assert subprocess.run(command[:3], env=os.environ | slurm, capture_output=True).returncode == 2


def test_the_kuberay_example_is_a_ray_job_with_a_command_that_is_one() -> None:
    [job] = yaml.safe_load_all((ROOT / "docs/examples/kuberay_annotate.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["cocoer", "annotate"]
    args = annotate.parse(words[2:])
    workers = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert args.engine == "ray" and args.actors == sum(group["replicas"] for group in workers)
    for group in (job["spec"]["rayClusterSpec"]["headGroupSpec"], *workers):
        [container] = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
