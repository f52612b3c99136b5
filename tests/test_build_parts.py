"""What a key of the config does to the model that is built, seen on the smallest one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from release_files import small_config
from tiny_models import tiny_config

from cocoer.config import Config
from cocoer.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from cocoer.errors import CheckpointError
from cocoer.model import build
from cocoer.model.agreement import AgreementRule
from cocoer.model.backbone import build_backbone
from cocoer.model.build import BlankWeights, build_model, load_torchvision
from cocoer.model.clip_tower import CLIP_MEAN, CLIP_STD
from cocoer.model.two_stream import TwoStream
from cocoer.model.vocabulary import ClipReader
from cocoer.weights import places

BASELINE = ("model.two_stream=clip", "model.vocabulary.enabled=false", "model.attention.enabled=false")


@pytest.mark.parametrize("baseline", [False, True], ids=["vocabulary branch", "two streams"])
@pytest.mark.parametrize(
    ("name", "mean", "std"), [("clip", CLIP_MEAN, CLIP_STD), ("imagenet", IMAGENET_MEAN, IMAGENET_STD)]
)
def test_the_tower_sees_images_with_the_statistics_that_the_config_names(
    name: str, mean: tuple[float, ...], std: tuple[float, ...], baseline: bool
) -> None:
    more = BASELINE if baseline else ()
    model = build_model(tiny_config(f"model.vocabulary.normalisation={name}", *more), pretrained=False)
    reader = model.scene if isinstance(model, TwoStream) else model.vocabulary
    assert isinstance(reader, ClipReader) and isinstance(model, TwoStream) == baseline
    image = torch.rand(3, 4, 4)
    seen = (image - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    wanted = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(seen * reader.normalisation["scale"] + reader.normalisation["shift"], wanted)


def test_a_backbone_takes_its_own_weights_by_name_and_torchvisions_in_their_order() -> None:
    torch.manual_seed(0)
    there, here = (build_backbone("small", (4, 6)) for _ in range(2))
    own = there.state_dict()

    def same() -> bool:
        return all(torch.equal(a, b) for a, b in zip(here.state_dict().values(), own.values(), strict=True))

    assert not same()
    load_torchvision(here, dict(reversed(own.items())), "x")  # in any order
    assert same()
    here = build_backbone("small", (4, 6))
    foreign = {f"features.{i}.{key}": value for i, (key, value) in enumerate(own.items())}
    load_torchvision(here, foreign | {"fc.weight": torch.ones(2), "classifier.0.bias": torch.ones(2)}, "x")
    assert same()
    here = build_backbone("small", (4, 6))
    load_torchvision(
        here, {key: value for key, value in foreign.items() if "num_batches" not in key}, "x"
    )  # an old file
    assert same()
    last = next(reversed(foreign))
    for wrong in (
        {key: value for key, value in foreign.items() if key != last},
        foreign | {"more": torch.ones(1)},
        foreign | {last: torch.ones(7)},
    ):
        with pytest.raises(
            ValueError, match=f"backbone weights x are not of this network: {len(wrong)} tensors for {len(own)}"
        ):
            load_torchvision(here, wrong, "x")


def test_a_network_of_timm_takes_timms_own_names() -> None:
    torch.manual_seed(0)
    there, here = (build_backbone("timm", timm="test_resnet") for _ in range(2))
    named = {key.removeprefix("layers.network."): value for key, value in there.state_dict().items()}
    load_torchvision(here, dict(reversed(named.items())) | {"fc.weight": torch.ones(2)}, "x")
    for key, value in here.state_dict().items():
        assert torch.equal(value, there.state_dict()[key])
    here = build_backbone("timm", timm="test_resnet")
    load_torchvision(here, dict(there.state_dict()), "x")  # and a backbone's own
    assert torch.equal(next(here.parameters()), next(there.parameters()))


def test_weights_of_backbones_are_found_by_the_name_of_the_network_or_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "CLONE", None)
    monkeypatch.setenv("COCOER_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    own = build_backbone("small", (4, 6)).state_dict()
    for name, file in (
        ("imagenet", "checkpoints/imagenet/small.pth"),
        ("mine.pth", "mine.pth"),
        (str(tmp_path / "a.pth"), "a.pth"),
    ):
        spec = replace(Config().model.backbone, name="small", widths=(4, 6), weights=name)
        model = replace(Config().model, backbone=spec)
        with pytest.raises(
            FileNotFoundError, match=f"no such file: .*{file}; get them with `cocoer weights fetch small`"
        ):
            build._load_backbones({"head": build_backbone("small", (4, 6))}, model)
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        torch.save(own, tmp_path / file)
        into = build_backbone("small", (4, 6))
        build._load_backbones({"head": into}, model)
        assert torch.equal(next(into.parameters()), next(iter(own.values())))


def test_blank_weights_count_up_to_the_last_number_and_fill_in_place() -> None:
    with BlankWeights(6):
        torch.empty(2, 3)
        torch.empty(0)
        with pytest.raises(CheckpointError, match="more weights than the file has"):
            torch.empty(1)
    plain, learned = torch.ones(3), torch.nn.Parameter(torch.ones(3))
    with BlankWeights():
        assert torch.nn.init.normal_(plain) is plain and plain.tolist() == [0, 0, 0]
        torch.nn.init.uniform_(learned)
    assert learned.tolist() == [0, 0, 0] and learned.requires_grad


def test_clip_weights_that_do_not_fit_name_three_keys_of_each_kind() -> None:
    clip = torch.nn.ModuleDict({name: torch.nn.Linear(1, 1, bias=False) for name in "abcdefgh"})
    weights = {f"{name}.weight": torch.ones(2, 2) for name in "abcd"}
    with pytest.raises(ValueError) as told:
        build.load_clip(clip, weights, "x.pt")
    assert (
        "4 keys missing (e.g. ['e.weight', 'f.weight', 'g.weight']), 4 of another shape"
        " (e.g. ['a.weight', 'b.weight', 'c.weight'])"
    ) in str(told.value)
    clip.register_buffer("attn_mask", torch.ones(1))
    right = {f"{name}.weight": torch.full((1, 1), 2.0).half() for name in "abcdefgh"} | {
        "input_resolution": torch.tensor(8)
    }
    build.load_clip(clip, right, "x.pt")
    assert all(layer.weight.item() == 2 for layer in clip.values())  # type: ignore[union-attr,operator]


def test_a_file_of_clip_that_is_not_there_is_named(tmp_path: Path) -> None:
    spec = replace(tiny_config().model.vocabulary, weights=str(tmp_path / "none.pt"))
    with pytest.raises(FileNotFoundError, match=f"no such file: {tmp_path}/none.pt"):
        build._clip(spec, pretrained=True)


def test_agreement_excludes_where_it_is_the_rule_and_gates_where_it_is_said() -> None:
    spec = Config().model.competition
    for rule, excludes in (("agreement", True), ("paper", False)):
        found = build._agreement(
            replace(spec, rule=rule, gate=True, logit_scale=7.0, gate_slope=3.0, gate_threshold=0.5)
        )
        assert found == AgreementRule(7.0, 3.0, 0.5, excludes=excludes, gates=True)


def test_a_cell_of_the_published_positions_is_what_a_token_covers_and_a_vit_mapping_has_two_blocks() -> None:
    config = small_config()
    cross = build._cross_level(config.model, 49, 7, 224)
    assert cross.positions.cell == 32  # 224 pixels over 7 cells
    model = replace(config.model, level_head=replace(config.model.level_head, mapping="vit"))
    assert len(build._mapping(model, 49).blocks) == 2  # type: ignore[union-attr,arg-type]
