"""Configs: every shipped file loads, every key is read by somebody, every mistake is named."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from cocoer import config as config_module
from cocoer.config import Config, change_config, config_from_dict, config_to_dict, load_config, save_config
from cocoer.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
RUN_CONFIGS = sorted(
    p for p in (ROOT / "configs").rglob("*.yaml") if p.name != "vlm_prompts.yaml" and p.parent.name != "datasets"
)  # wordings: test_vlm; data sets: test_datasets


# ---- the shipped files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RUN_CONFIGS, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_shipped_config_loads_and_survives_saving(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    save_config(config, tmp_path / "resolved.yaml")
    assert load_config(tmp_path / "resolved.yaml") == config
    assert config_from_dict(config_to_dict(config)) == config


def test_the_papers_recipes_are_shipped() -> None:
    names = {str(path.relative_to(ROOT / "configs")) for path in RUN_CONFIGS}
    assert {"emotic.yaml", "caers.yaml", "emotic_release.yaml", "demo_emotic.yaml"} <= names
    emotic, caers = (load_config(ROOT / "configs" / name) for name in ("emotic.yaml", "caers.yaml"))
    recipe = [
        (o.name, o.weight_decay, o.batch_size, o.epochs, o.lr, o.decay_factor, o.decay_every)
        for o in (emotic.optim, caers.optim)
    ]
    assert recipe == [("adam", 0.0005, 64, 9, 6e-5, 0.01, 3), ("adam", 0.0005, 96, 70, 8e-5, 0.5, 20)]
    assert (len(emotic.classes), emotic.multi_label) == (26, True)
    assert (len(caers.classes), caers.multi_label) == (7, False)
    assert emotic.model == caers.model == Config().model
    assert emotic.loss == caers.loss == Config().loss


# ---- every key has a reader -----------------------------------------------------------------------------------------


def sections(cls: type = Config) -> Iterator[tuple[str, type]]:
    """Name and class of every section, the whole config among them as `config`."""
    if cls is Config:
        yield "config", Config
    for name, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield name, hint
            yield from sections(hint)


SECTIONS = list(sections())
CLASSES = {cls.__name__: cls for _, cls in SECTIONS}


class KeyReads(ast.NodeVisitor):
    """Collects (section class, key) for every attribute read on something that is known to be a section.

    Known are: attributes named as a section of Config (`x.model.backbone.name`), names annotated with a section's class, and
    names or attributes of self that such an expression was assigned to.
    """

    def __init__(self, tree: ast.AST) -> None:
        self.known: dict[str, set[type]] = {}
        self.found: set[tuple[type, str]] = set()
        for _ in range(2):  # an assignment may come before the one that it builds on
            self.visit(tree)

    def classes_of(self, node: ast.expr) -> set[type]:
        named = {cls for name, cls in SECTIONS if isinstance(node, ast.Attribute) and node.attr == name}
        return named | self.known.get(ast.unparse(node), set())

    def remember(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=False):
                self.remember(one, other)
        elif isinstance(value, ast.Attribute):
            self.known.setdefault(ast.unparse(target), set()).update(self.classes_of(value))

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self.remember(target, node.value)
        self.generic_visit(node)

    def annotated(self, name: str, annotation: ast.expr | None) -> None:
        if annotation is not None:
            words = {word.strip() for word in ast.unparse(annotation).replace("|", " ").split()}
            self.known.setdefault(name, set()).update(CLASSES[w] for w in words if w in CLASSES)

    def visit_arg(self, node: ast.arg) -> None:
        self.annotated(node.arg, node.annotation)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.annotated(ast.unparse(node.target), node.annotation)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self.found.update((cls, node.attr) for cls in self.classes_of(node.value))
        self.generic_visit(node)


def sources() -> list[Path]:
    programs = [ROOT / "train.py", ROOT / "inference.py", *(ROOT / "scripts").glob("*.py")]
    package = [p for p in (ROOT / "cocoer").rglob("*.py") if p != Path(str(config_module.__file__))]
    return [*package, *(p for p in programs if p.is_file())]


def test_every_key_is_read_by_somebody() -> None:
    found: set[tuple[type, str]] = set()
    for path in sources():
        found |= KeyReads(ast.parse(path.read_text(encoding="utf-8"))).found
    keys = {
        (cls, name)
        for _, cls in SECTIONS
        for name, hint in get_type_hints(cls).items()
        if not dataclasses.is_dataclass(hint)
    }
    assert len(keys) > 70
    assert sorted(f"{cls.__name__}.{name}" for cls, name in keys - found) == []


def test_a_key_that_nobody_reads_would_be_found() -> None:
    text = "def f(c: Config, t: BackboneConfig):\n spec, x = c.model.tokens, c.optim\n return t.name, spec.patch, x.lr, y.step"
    found = {(cls.__name__, key) for cls, key in KeyReads(ast.parse(text)).found if cls is not Config}
    assert {("BackboneConfig", "name"), ("TokensConfig", "patch"), ("OptimConfig", "lr")} <= found
    assert ("CoordinationConfig", "step") not in found
    assert ("TokensConfig", "size") not in found


# ---- reading --------------------------------------------------------------------------------------------------------


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", ["6e-5", "6.0e-5", "0.00006", ".00006", "6E-5", "+6e-5"])
def test_floats_are_those_of_yaml_1_2(tmp_path: Path, text: str) -> None:
    assert load_config(written(tmp_path, "c.yaml", f"optim: {{lr: {text}}}")).optim.lr == 6e-5


def test_a_whole_number_serves_as_a_float_and_not_the_other_way(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "c.yaml", "optim: {lr: 1}")).optim.lr == 1.0
    with pytest.raises(ConfigError, match=r"optim.epochs: wanted .*, got 1.5"):
        load_config(written(tmp_path, "c.yaml", "optim: {epochs: 1.5}"))


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, "c.yaml", "")) == Config()


def test_bases_are_laid_under_key_by_key(tmp_path: Path) -> None:
    written(tmp_path, "low.yaml", "run: {seed: 1}\nmodel: {backbone: {name: vgg16}, tokens: {patch: 3}}")
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub", "mid.yaml", "base: ../low.yaml\nmodel: {tokens: {size: 512}}")
    top = written(tmp_path / "sub", "top.yaml", "base: mid.yaml\nmodel: {tokens: {patch: 4}}")
    config = load_config(top)
    assert config.run.seed == 1
    assert config.model.backbone.name == "vgg16"
    assert (config.model.tokens.patch, config.model.tokens.size) == (4, 512)


def test_bases_that_go_in_a_circle(tmp_path: Path) -> None:
    a = written(tmp_path, "a.yaml", "base: b.yaml")
    written(tmp_path, "b.yaml", "base: a.yaml")
    with pytest.raises(ConfigError, match=r"leads back to this file: a.yaml -> b.yaml -> a.yaml"):
        load_config(a)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2", "wanted a mapping of sections, got list"),
        ("run: {seed: 1", "is not YAML"),
        ("base: [a, b]", "`base:` wants the name of one file"),
        ("base: nowhere.yaml", "nowhere.yaml: no such file"),
        ("model: 3", "model: wanted a section with the keys mode, backbone"),
        ("run: {seed: -1}", r"run.seed: wanted greater than or equal to 0, got -1"),
        ("run: {seed: true}", "run.seed: wanted .*integer"),
        ("optim: {lr: .inf}", "optim.lr"),
        ("optim: {lr: fast}", "optim.lr: wanted .*number, got 'fast'"),
        ("optim: {decay_factor: 0}", "optim.decay_factor: wanted greater than 0, got 0"),
        ("data: {augment: {flip: 1.5}}", "data.augment.flip: wanted less than or equal to 1, got 1.5"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path, "c.yaml", text))


def test_a_missing_file_names_where_configs_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; the ones that come with cocoer are in configs/"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"modle": {}}, "modle: unknown key, did you mean 'model'"),
        (
            {"model": {"backbone": {"nmae": "vgg16"}}},
            "model.backbone.nmae: unknown key, did you mean 'name'.*Keys here: name, timm, weights",
        ),
        (
            {"model": {"backbone": {"name": "resnet-50"}}},
            "model.backbone.name: wanted one of .*'resnet50'.*did you mean 'resnet50'",
        ),
        ({"optim": {"learning": 1}}, "optim.learning: unknown key"),
    ],
)
def test_mistyped_names_bring_the_nearest(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict(tree)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"run": {"seed": -1}, "optim": {"lr": 0, "epoch": 3}})
    assert all(place in str(caught.value) for place in ("run.seed", "optim.lr", "optim.epoch"))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"model": {"coordination": {"update": "release"}, "level_head": {"mapping": "vit"}}},
            "'release' is the published step on a linear mapping, got model.level_head.mapping 'vit'",
        ),
        ({"model": {"vocabulary": {"prompt": "This photo."}}}, "wanted a text with {emotion} in it"),
        ({"model": {"mode": "release"}, "data": {"image_size": 96}}, "release mode is defined for 224 pixels, got 96"),
    ],
)
def test_values_that_do_not_go_together(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict(tree)


# ---- --set ----------------------------------------------------------------------------------------------------------


def test_overrides_reach_any_depth_and_the_last_one_wins(tmp_path: Path) -> None:
    path = written(tmp_path, "c.yaml", "optim: {lr: 1e-3, epochs: 2}")
    config = load_config(path, ["optim.lr=2e-4", "model.backbone.weights=null", "run.seeds=[1, 2]", "optim.lr=3e-4"])
    assert (config.optim.lr, config.optim.epochs) == (3e-4, 2)
    assert config.model.backbone.weights is None
    assert config.run.seeds == (1, 2)
    assert change_config(config, ["optim.epochs=5", "run.dir=a=b"]).optim.epochs == 5
    assert change_config(config, []) is config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lr", "--set wants section.key=value, got 'optim.lr'"),
        ("=3", "--set wants section.key=value"),
        ("optim..lr=3", "--set wants section.key=value"),
        ("optim.lr=[1", "is not a YAML value"),
        ("optim.rl=1", "optim.rl: unknown key, did you mean 'lr'"),
        ("optim=1", "optim: wanted a section with the keys name, lr"),
    ],
)
def test_overrides_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        change_config(Config(), [text])


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().run.seed = 3  # type: ignore[misc]
