"""Weights of anybody: no file runs code, reaches the network, asks for memory that it does not hold, or answers when damaged."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from release_files import write_torchscript
from safetensors.torch import load_file, save_file
from training_world import ROOT, TOWER, make_world, read

from cocoer.config import Config
from cocoer.description import SKIPPED, VERIFIED, WITHOUT
from cocoer.errors import CheckpointError, CocoerError, ConfigError
from cocoer.model.build import BlankWeights, build_model
from cocoer.model.checkpoint import load_weights, read_metadata, save_weights
from cocoer.model.foreign_weights import read_foreign_weights
from cocoer.model.tensor_file import CHECKSUMS, read_tensor_file, write_tensors
from cocoer.model.tower_config import checked_tower
from cocoer.weights.catalog import DEMO_CHECKPOINT


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return read(make_world(tmp_path_factory.mktemp("world"), train=2, other=1))


@pytest.fixture(scope="module")
def weights(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    return save_weights(path, build_model(config), config, metrics={}, thresholds={"classes": {"Anger": 0.25}})


def rewritten(source: Path, out: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The file with its description changed, without checksums (a forger writes what he likes)."""
    about = read_metadata(source)
    change(about)
    save_file(load_file(source), out, {"cocoer": json.dumps(about)})
    return out


# ---- OpenAI's archive: tensors, and nothing run --------------------------------------------------------------------


class _Evil(torch.nn.Module):
    """TorchScript that writes a file in `__setstate__`, before anybody has looked at a tensor."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.weight = torch.ones(4)
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, str, bool]:
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, str, bool]) -> None:
        self.path, self.training = state[1], state[2]
        self.weight = torch.from_file(self.path, shared=True, size=4)  # makes a file of 16 bytes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_clip_archive_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "written_by_the_archive"
    torch.jit.script(_Evil(str(mark))).save(str(tmp_path / "evil.pt"))
    torch.jit.load(str(tmp_path / "evil.pt"))
    assert mark.is_file(), "the archive does write a file when TorchScript is run"
    mark.unlink()
    with pytest.raises(CheckpointError, match="truncated or damaged: wanted a module with named attributes"):
        read_foreign_weights(tmp_path / "evil.pt", "CLIP weights")
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*jit.load:DeprecationWarning")
def test_a_clip_archive_gives_the_tensors_that_torch_reads(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    base = torch.randn(6, 4, generator=rng)
    state = {
        "visual.conv1.weight": torch.randn(3, 2, 1, 1, generator=rng).half(),
        "visual.turned": base.T,
        "visual.part": base[2:4],
        "deep.er.scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "count": torch.tensor([7]),
        "flag": torch.tensor([True, False]),
    }
    file = write_torchscript(tmp_path / "clip.pt", state)
    wanted, got = torch.jit.load(str(file)).state_dict(), read_foreign_weights(file, "CLIP weights")
    assert set(got) == set(wanted) == set(state)
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


def test_plain_tensors_are_known_by_their_content_whatever_the_name(tmp_path: Path) -> None:
    wanted = {"w": torch.arange(6.0)}
    save_file(wanted, tmp_path / "tower.bin")
    assert torch.equal(read_foreign_weights(tmp_path / "tower.bin", "x")["w"], wanted["w"])
    torch.save(wanted, tmp_path / "pickle.safetensors")  # a name that promises plain tensors is held to it
    with pytest.raises(CheckpointError, match=r"pickle\.safetensors"):
        read_foreign_weights(tmp_path / "pickle.safetensors", "x")


def forged_archive(path: Path, description: bytes, members: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"constants.pkl": b"", "data.pkl": description, **(members or {})}.items():
            archive.writestr(f"a/{name}", content)
    return path


def described_tensor(
    count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, key: str = "0"
) -> bytes:
    """A module with one tensor, as TorchScript pickles it."""

    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    def number(value: int) -> bytes:
        return b"L%dL\n" % value

    def row(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + number(count) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + row(size) + row(stride) + b"tR"
    return b"\x80\x02c__torch__\nM\n)\x81}" + text("w") + tensor + b"sb."


def test_the_forged_archive_of_these_tests_is_readable(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype=np.float32)
    file = forged_archive(tmp_path / "a.pt", described_tensor(6, (2, 3), (3, 1)), {"data/0": numbers.tobytes()})
    assert torch.equal(read_foreign_weights(file, "x")["w"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "case",
    {
        "more numbers than the member": described_tensor(10**12, (10**12,), (1,)),
        "a view beyond the storage": described_tensor(6, (2, 3), (100, 1)),
        "an offset beyond the storage": described_tensor(6, (2, 3), (3, 1), offset=5),
        "one number as many": described_tensor(6, (10**9, 10**9), (0, 0)),
        "a negative stride": described_tensor(6, (2, 3), (-1, 1)),
        "a member elsewhere": described_tensor(6, (6,), (1,), key="../../etc/passwd"),
        "a function": b"cposix\nsystem\nX\x04\x00\x00\x00trueR.",
        "a function of numpy": b"cnumpy\nfromfile\nX\x0b\x00\x00\x00/etc/passwdR.",
        "a class of builtins": b"cbuiltins\nbytes\nL10000000000000L\n\x85R.",
        "a large memo": b"}r\xff\xff\xff\xff.",
        "a text longer than the file": b"\x8d\xff\xff\xff\xff\xff\x00\x00\x00x.",
        "a list in itself": b"]q\x00h\x00a.",
        "nothing": b"",
        "a module in itself": b"c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.",
    }.items(),
    ids=lambda case: case[0],
)
def test_a_forged_archive_is_one_error(tmp_path: Path, case: tuple[str, bytes]) -> None:
    file = forged_archive(tmp_path / "a.pt", case[1], {"data/0": b"\0" * 24})
    with pytest.raises(
        CheckpointError, match=r"^CLIP weights .*a\.pt: truncated or damaged: .+; download the file again$"
    ):
        read_foreign_weights(file, "CLIP weights")


class _Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made_by_a_pickle",)


def test_a_pickle_of_torch_runs_nothing_and_holds_plain_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    forged: dict[str, Any] = {
        "runs": {"w": _Runs()},
        "sparse": {"w": torch.eye(3).to_sparse()},
        "expanded": {"w": torch.ones(1).expand(10**6)},
        "nowhere": {"w": torch.ones(10**9, device="meta")},
    }
    for name, content in forged.items():
        for modern in (True, False):
            torch.save(content, f"{name}.pt", _use_new_zipfile_serialization=modern)
            with pytest.raises(CheckpointError, match=f"^backbone weights {name}.pt: "):
                read_foreign_weights(f"{name}.pt", "backbone weights")
    assert not Path("made_by_a_pickle").exists()


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2**20)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "bomb.pt").stat().st_size < 2**16
    with pytest.raises(CheckpointError, match="a member is compressed"):
        read_foreign_weights(tmp_path / "bomb.pt", "CLIP weights")


# ---- what a checkpoint may name ------------------------------------------------------------------------------------


def changed_tower(**changes: Any) -> dict[str, Any]:
    tower = json.loads(json.dumps(TOWER))
    for place, value in changes.items():
        section, _, key = place.rpartition("__")
        (tower[section] if section else tower)[key] = value
    return tower


FORGED_TOWERS: dict[str, dict[str, Any]] = {
    "a Hub image tower": changed_tower(vision_cfg__timm_model_name="hf-hub:a/b", vision_cfg__timm_model_pretrained=True),
    "a timm image tower": changed_tower(vision_cfg__timm_model_name="resnet50", vision_cfg__timm_model_pretrained=True),
    "a Hub text tower": changed_tower(text_cfg__hf_model_name="someone/model"),
    "a Hub tokenizer": changed_tower(text_cfg__hf_tokenizer_name="someone/tokenizer"),
    "pretrained": changed_tower(pretrained="openai"),
    "another class": changed_tower(custom_text=True),
    "coca": changed_tower(multimodal_cfg={"layers": 12}),
    "norm_kwargs": changed_tower(vision_cfg__norm_kwargs={"eps": "1"}),
    "a million layers": changed_tower(vision_cfg__layers=1_000_000),
    "a wide tower": changed_tower(vision_cfg__width=10**9),
    "a large image": changed_tower(vision_cfg__image_size=10**6),
    "a large vocabulary": changed_tower(text_cfg__vocab_size=10**12),
    "NaN": changed_tower(vision_cfg__mlp_ratio=float("nan")),
    "a text": changed_tower(embed_dim="16"),
    "heads that do not divide": changed_tower(vision_cfg__width=17),
    "no sections": {"embed_dim": 16},
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGED_TOWERS)
def test_a_checkpoint_names_only_towers_that_are_built_here(tmp_path: Path, weights: Path, kind: str) -> None:
    forged = rewritten(weights, tmp_path / "w.safetensors", lambda about: about.update(tower=FORGED_TOWERS[kind]))
    with pytest.raises(CocoerError) as caught:
        load_weights(forged)
    assert "tower" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "tower", ["hf-hub:someone/model", "local-dir:/tmp", "https://example.org/tower.json", "RN50x1"]
)
def test_a_tower_by_another_address_is_refused(tmp_path: Path, weights: Path, tower: str) -> None:
    def change(about: dict[str, Any]) -> None:
        about["tower"] = None
        about["config"]["model"]["vocabulary"]["tower"] = tower

    with pytest.raises(ConfigError, match=r"model\.vocabulary\.tower: "):
        load_weights(rewritten(weights, tmp_path / "w.safetensors", change))


def test_every_key_of_the_allowed_tower_is_one_of_open_clips() -> None:
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    from cocoer.model import tower_config as tc

    assert set(tc._Vision.model_fields) <= set(CLIPVisionCfg.__dataclass_fields__)
    assert set(tc._Text.model_fields) <= set(CLIPTextCfg.__dataclass_fields__)
    assert checked_tower(TOWER, "x") == TOWER


def test_a_tower_whose_text_side_lies_on_a_hub_is_refused(no_network: list[str]) -> None:
    from cocoer.model.clip_tower import build_clip

    with pytest.raises(ConfigError, match="fetches the text tower or tokenizer of 'roberta-ViT-B-32'"):
        build_clip("roberta-ViT-B-32", quick_gelu=False, with_text=True)
    assert no_network == []


NO_SOCKETS = """
import os, socket, sys
os.environ.pop("HF_HUB_OFFLINE", None)
def refuse(*args, **kwargs):
    print("NETWORK", args, file=sys.stderr)
    os._exit(9)
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def test_no_loader_opens_a_socket(tmp_path: Path, weights: Path, config: Config) -> None:
    """Each loader in a process whose first socket ends it, with Hub downloads switched on."""
    from cocoer.weights.catalog import DEMO_FACE

    write_torchscript(tmp_path / "clip.pt", {"visual.w": torch.ones(2)})
    torch.save({"w": torch.ones(2)}, tmp_path / "state.pt")
    names = ["hub", "timm"]
    for name, kind in zip(names, ["a Hub image tower", "a timm image tower"], strict=True):
        tower = FORGED_TOWERS[kind]
        rewritten(weights, tmp_path / f"{name}.safetensors", lambda about, tower=tower: about.update(tower=tower))
    program = (
        NO_SOCKETS
        + f"""
from cocoer.errors import CocoerError
from cocoer.model.build import build_model
from cocoer.model.checkpoint import load_weights
from cocoer.model.clip_tower import build_clip
from cocoer.model.foreign_weights import read_foreign_weights
from cocoer.data.detect import PeopleDetector
from cocoer.config import load_config
from pathlib import Path
here = Path({str(tmp_path)!r})
loaded = load_weights({str(weights)!r})
read_foreign_weights(here / "clip.pt", "x")
read_foreign_weights(here / "state.pt", "x")
PeopleDetector(Path({str(DEMO_FACE)!r}), Path({str(DEMO_FACE)!r}))
build_clip("convnext_base", False, False)
for what in (lambda: load_weights(here / "hub.safetensors"), lambda: load_weights(here / "timm.safetensors"),
             lambda: build_clip("roberta-ViT-B-32", False, True), lambda: build_clip("hf-hub:a/b", False, True),
             lambda: read_foreign_weights("https://example.org/w.pt", "x")):
    try:
        what()
    except CocoerError:
        continue
    raise SystemExit("accepted")
print("done")
"""
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.stdout.strip().endswith("done") and done.returncode == 0, done.stderr[-2000:]


EVERY_READER = """
from pathlib import Path
import json
import numpy as np
from cocoer.benchmark.model import Row
from cocoer.cli.main import main
from cocoer.config import load_config
from cocoer.data.array_file import map_array, read_arrays
from cocoer.data.boxes_file import GivenBoxes
from cocoer.data.decode import decode_image
from cocoer.data.detect_permissive import CocoPersons
from cocoer.data.index import read_records
from cocoer.datasets import find_dataset
from cocoer.errors import DetectorError
from cocoer.export.onnx_model import load_exported
from cocoer.report.runlog import read_log
from cocoer.studies.tables.measurements import Measurement, stored_run
from cocoer.training.state import read_training, save_state
from cocoer.vlm.prompts import DEFAULT_WORDINGS, read_sets
import torch
here = Path("here").resolve()
def run(*words):
    if (code := main([str(w) for w in words])) != 0:
        raise SystemExit(f"{words}: {code}")
run("weights", "verify", "w.safetensors")
run("export", "--checkpoint", "w.safetensors", "--output", "m.onnx")
load_exported(Path("m.onnx"))
run("export", "--checkpoint", "w.safetensors", "--format", "torch", "--output", "m.pt2")
read_sets(DEFAULT_WORDINGS)
run("prepare", "demo", "--output", "world", "--train", 2, "--val", 1, "--test", 1, "--workers", 1)
run("prepare", "emotic", "--root", "world", "--output", "index", "--heads", "estimate")
splits = {name: read_records(Path(f"index/{name}.jsonl")) for name in ("train", "val", "test")}
records = splits["train"]
rows = [f"{r.image},{i} 0 {30 + i} 30,{('Happy', 'Sad')[i % 2]},{name}" for name in splits for i, r in enumerate(splits[name])]
Path("t.csv").write_text("\\n".join(["image,body,labels,split", *rows]))
run("prepare", "table", "t.csv", "--root", "world", "--output", "own", "--heads", "estimate")
find_dataset(str(next(Path("own").glob("*.yaml"))))
load_config(SHIPPED / "configs/emotic.yaml")
run("data", "check", "index", "--root", "world")
for name in ("one", "two"):
    more = ["--against", "one/scores.npz"] if name == "two" else []
    run("evaluate", "--checkpoint", "w.safetensors", "--index", "index", "--root", "world", "--split", "test", "--output", name,
        "--resamples", 2, "--device", "cpu", *more)
read_arrays("one/scores.npz")
image = Path("world") / records[0].image
Path("b.json").write_text(json.dumps({"persons": [{"body": [0, 0, 20, 20]}]}))
Path("speed.json").write_text(json.dumps([Row("model", "folded", "paper", "cpu", "float32", 1).to_dict()]))
main(["benchmark", "--check", "speed.json"])
run("tables", "--from", "one/result.json", "--output", "board")
Path("few").mkdir()
Path("few/a.jpg").write_bytes(image.read_bytes())
Path("few/a.boxes.json").write_text(json.dumps({"persons": [{"body": [0, 0, 20, 20]}]}))
run("annotate", "few", "--checkpoint", "w.safetensors", "--output", "answers", "--device", "cpu")
run("annotate", "flatten", "answers", "--table", "people.csv")
stored = Measurement({}, {"pred": np.ones((2, 3))}, np.ones((2, 3)))
for _ in range(2):
    stored_run(["one"], Path("stored"), lambda: stored)
Path("log.jsonl").write_text("{}\\n")
read_log("log.jsonl")
torch.save({"a": torch.ones(2)}, "people.pth")
try:
    CocoPersons(Path("people.pth"), 320, 0.5, 0.5, "cpu")
except DetectorError:
    pass
run("predict", "--input", image, "--boxes", "b.json", "--checkpoint", "w.safetensors", "--output", "out", "--device", "cpu")
read_training(save_state(Path("states"), 1, lambda path: path.write_bytes(b"weights"), {"a": torch.ones(2)}))
"""


def test_no_loader_of_the_table_opens_a_socket(tmp_path: Path, weights: Path) -> None:
    """Everything that docs/security.md lists is read, by the module that it lists, in a process whose first socket ends it."""
    table = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").split("## Limits")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    modules = {f"cocoer.{m.replace('/', '.')}" for row in rows for m in re.findall(r"`([\w/]+)\.py`", row[3])}
    assert len(modules) > 8
    program = NO_SOCKETS + f"from pathlib import Path; SHIPPED = Path({str(ROOT)!r})" + EVERY_READER
    program += f"wanted = {sorted(modules)!r}\nprint([m for m in wanted if m not in sys.modules], 'done')"
    (tmp_path / "w.safetensors").write_bytes(weights.read_bytes())
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, cwd=tmp_path,
                          env=environment)  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    unread = ast.literal_eval(done.stdout.strip().splitlines()[-1].removesuffix(" done"))
    assert set(unread) <= {"cocoer.vlm.client"}  # which asks where the user says


# ---- sizes ---------------------------------------------------------------------------------------------------------

LARGE = {
    "model.attention.blocks": 1_000_000, "model.attention.heads": 10**6, "model.attention.head_size": 10**9,
    "model.attention.feed_forward": 10**9, "model.tokens.size": 10**9, "model.tokens.patch": 10**6,
    "model.level_head.feature_size": 10**9, "model.backbone.widths": [10**9], "data.image_size": 10**6,
    "inference.detector.input_size": 10**6, "run.threads": 10**6, "data.workers": 10**6, "optim.batch_size": 10**12,
}  # fmt: skip


@pytest.mark.parametrize("key", LARGE)
def test_sizes_in_a_config_are_bounded(tmp_path: Path, weights: Path, key: str) -> None:
    def change(about: dict[str, Any]) -> None:
        here = about["config"]
        *sections, last = key.split(".")
        for section in sections:
            here = here[section]
        here[last] = LARGE[key]

    with pytest.raises(ConfigError, match=rf"{key.rpartition('.')[2]}.*less than or equal"):
        load_weights(rewritten(weights, tmp_path / "w.safetensors", change))


def test_no_more_memory_is_taken_than_the_file_has_tensors(tmp_path: Path, weights: Path) -> None:
    """Every size within its bound, their product a terabyte."""

    def change(about: dict[str, Any]) -> None:
        about["config"]["model"]["attention"] |= {
            "blocks": 64,
            "feed_forward": 16_384,
            "heads": 64,
            "head_size": 16_384,
        }
        about["config"]["model"]["tokens"]["size"] = 16_384

    with pytest.raises(CheckpointError, match="more weights than the file has"):
        load_weights(rewritten(weights, tmp_path / "w.safetensors", change))


def test_blank_weights_count_every_way_of_saying_a_size() -> None:
    for make in (
        lambda: torch.empty(3, 4),
        lambda: torch.zeros((3, 4)),
        lambda: torch.ones(size=(3, 4)),
        lambda: torch.empty([12]),
    ):
        with BlankWeights(most=12):
            make()
        with BlankWeights(most=11), pytest.raises(CheckpointError, match="more weights"):
            make()


# ---- content -------------------------------------------------------------------------------------------------------


def test_weights_that_we_write_are_verified(weights: Path, tmp_path: Path) -> None:
    assert load_weights(weights).checksums == VERIFIED
    old = tmp_path / "old.safetensors"
    save_file(load_file(weights), old, {"cocoer": json.dumps(read_metadata(weights))})
    assert load_weights(old).checksums == WITHOUT


def test_weights_have_the_mode_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x")
    write_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(2)})
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_shipped_weights_are_verified() -> None:
    assert load_weights(DEMO_CHECKPOINT).checksums == VERIFIED


def flipped(source: Path, out: Path, name: str, bit: int = 3) -> Path:
    """The file with one bit of one tensor flipped."""
    data = bytearray(source.read_bytes())
    length = int.from_bytes(data[:8], "little")
    start = json.loads(bytes(data[8 : 8 + length]))[name]["data_offsets"][0]
    data[8 + length + start] ^= 1 << bit
    out.write_bytes(data)
    return out


def test_one_flipped_bit_in_any_tensor_is_named(weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    for name in [name for name, t in tensors.items() if t.numel()][::7]:
        damaged = flipped(weights, tmp_path / "w.safetensors", name)
        with pytest.raises(CheckpointError, match=rf"{name}: not what was written"):
            load_weights(damaged)
        assert load_weights(damaged, verify=False).checksums == SKIPPED


def test_a_changed_description_is_named(weights: Path, tmp_path: Path) -> None:
    stored = read_tensor_file(weights).metadata
    changed = stored | {"cocoer": stored["cocoer"].replace("0.25", "0.75")}
    save_file(load_file(weights), tmp_path / "w.safetensors", changed)
    with pytest.raises(CheckpointError, match="the description: not what was written"):
        load_weights(tmp_path / "w.safetensors")
    fewer = load_file(weights)
    fewer.pop(next(iter(fewer)))
    save_file(fewer, tmp_path / "w.safetensors", stored)
    with pytest.raises(CheckpointError, match="not what was written"):
        load_weights(tmp_path / "w.safetensors")
    for nonsense in ("[]", "{", "5", '"a"', "[" * 100_000):
        save_file(load_file(weights), tmp_path / "w.safetensors", stored | {CHECKSUMS: nonsense})
        with pytest.raises(CheckpointError, match="checksums"):
            load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_tensor_that_is_not_finite_is_named(weights: Path, tmp_path: Path, value: float) -> None:
    tensors = load_file(weights)
    name = next(n for n in tensors if n.endswith("running_var"))
    tensors[name][1] = value
    save_file(tensors, tmp_path / "w.safetensors", {"cocoer": json.dumps(read_metadata(weights))})
    with pytest.raises(CheckpointError, match=f"NaN or infinity in {name}"):
        load_weights(tmp_path / "w.safetensors", verify=False)
    for suffix in (".safetensors", ".pt"):
        file = tmp_path / f"clip{suffix}"
        save_file(tensors, file) if suffix == ".safetensors" else torch.save(tensors, file)
        with pytest.raises(CheckpointError, match=f"NaN or infinity in {name}"):
            read_foreign_weights(file, "CLIP weights")


FORGED_DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a threshold that is NaN": lambda a: a["thresholds"]["classes"].update(Anger=float("nan")),
    "a threshold above one": lambda a: a["thresholds"]["classes"].update(Anger=1.5),
    "a threshold that is a text": lambda a: a["thresholds"]["classes"].update(Anger="0.5"),
    "thresholds that are a list": lambda a: a.update(thresholds=[0.5]),
    "no config": lambda a: a.pop("config"),
    "a config that is a list": lambda a: a.update(config=[]),
    "classes that are numbers": lambda a: a.update(classes=[1, 2]),
    "no classes": lambda a: a.pop("classes"),
    "class counts of another length": lambda a: a.update(class_counts=[1.0]),
    "class counts that are infinite": lambda a: a.update(class_counts=[float("inf")] * 26),
    "a note that is a number": lambda a: a.update(note=3),
    "metrics that are a text": lambda a: a.update(metrics="good"),
    "a version that is a text": lambda a: a.update(format_version="1"),
    "a tower that is a text": lambda a: a.update(tower="RN50"),
    "a prompt that looks into objects": lambda a: a["config"]["model"]["vocabulary"].update(prompt="{emotion.__class__}"),
    "a prompt of any width": lambda a: a["config"]["model"]["vocabulary"].update(prompt="{emotion:>9999999999}"),
    "a config with a very large number": lambda a: a["config"]["optim"].update(epochs=10**400),
    "a config with another key": lambda a: a["config"].update(shell="rm"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGED_DESCRIPTIONS)
def test_a_forged_description_is_one_error(weights: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(CocoerError):
        load_weights(rewritten(weights, tmp_path / "w.safetensors", FORGED_DESCRIPTIONS[kind]))


def raw(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + body


HEADERS = {
    "a header of 99 MB": raw(b"{}", length=99_000_000) + b" " * 200,
    "a header longer than the file": raw(b"{}", length=2**63),
    "nested lists": raw(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "a number of 5,000 digits": raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,' + b"9" * 5000 + b"]}}"),
    "a very large number": raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e999]}}'),
    "a shape beyond its bytes": raw(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}', b"0" * 4),
    "negative offsets": raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,4]}}', b"0" * 4),
    "overlapping tensors": raw(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"0" * 4,
    ),
    "an unknown type": raw(b'{"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}}', b"0" * 4),
    "metadata that is a number": raw(b'{"__metadata__":5}'),
    "metadata with a number": raw(b'{"__metadata__":{"cocoer":5}}'),
    "an entry that is a text": raw(b'{"a":"b"}'),
    "a list": raw(b'{["a"]}'),
    "no text": raw(b"{\xff\xfe}"),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_forged_container_is_one_error(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(HEADERS[kind])
    for read_it in (
        load_weights,
        read_metadata,
        read_tensor_file,
        lambda f: read_foreign_weights(f, "backbone weights"),
    ):
        with pytest.raises(CheckpointError) as caught:
            read_it(file)
        assert "\n" not in str(caught.value)


def test_pickled_files_under_the_name_of_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(CheckpointError, match="pickled PyTorch file"):
        load_weights(tmp_path / "w.safetensors")
