"""The paper's figures: every one that the supplement prints, and a config for every row that can be run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_models import ROOT

from cocoer.config import load_config
from cocoer.config_file import config_head
from cocoer.errors import ConfigError, PaperError
from cocoer.model.describe import describe
from cocoer.paper import paper_table, paper_tables, read_tables
from cocoer.studies.tables.variants import KINDS

PRINTED: dict[str, Any] = yaml.safe_load((ROOT / "tests/data/paper_figures.yaml").read_text(encoding="utf-8"))
"""The figures as they were read from the supplement, apart from the package's own file."""

STRATEGY_ROWS = {"first": "first of three rows", "second": "second of three rows", "third": "third of three rows"}


def printed() -> Iterator[tuple[str, str, float, float | None]]:
    """Table, row as the package calls it, value and deviation."""
    for number in "12":
        for row in PRINTED[f"table_{number}"]["rows"]:
            yield number, row["name"], row["value"], row["deviation"]
    for block in PRINTED["table_3"].values():
        for name, value in block.items():
            yield "3", name, value, None
    parts = PRINTED["table_4"]
    for row in parts["a_sizes"]:
        yield "4a", f"{row['d_h']}, {row['d']}", row["value"], None
    for alpha, value in parts["b_alpha"].items():
        yield "4b", str(alpha), value, None
    for row in parts["c_betas"]:
        single = next((name for word, name in STRATEGY_ROWS.items() if word in row["strategy"]), None)
        yield "4c", f"one level alone, {single}" if single else row["strategy"], row["value"], None
    for patch, value in parts["d_patch"].items():
        yield "4d", str(patch), value, None
    for name, value in parts["e_losses"].items():
        yield "4e", name, value, None
    for dataset, by_level in PRINTED["table_5"].items():
        for level, value in by_level.items():
            yield "5", f"{level}, {dataset}", value, None


def configs() -> dict[tuple[str, str], list[Path]]:
    """(table, row) -> the configs that say they stand for it."""
    out: dict[tuple[str, str], list[Path]] = {}
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        if path.parent.name in ("configs", *KINDS) and path.name != "vlm_prompts.yaml":
            row = config_head(path).paper
            if row is not None:
                out.setdefault((row.table, row.row), []).append(path)
    return out


def test_every_figure_of_the_supplement_is_in_the_package_and_no_other() -> None:
    ours = {(r.table, r.row): (r.value, r.deviation) for t in paper_tables().values() for r in t.rows}
    wanted = {(table, row): (value, deviation) for table, row, value, deviation in printed()}
    numbers = {key: value for key, value in ours.items() if value != (None, None)}
    assert numbers == wanted and len(wanted) == 8 + 9 + 10 + 5 + 5 + 8 + 3 + 3 + 6
    assert {table for (table, _), value in ours.items() if value == (None, None)} == {"Fig. 2", "Fig. 3"}
    assert all(paper_table(f"Fig. {n}").note for n in (2, 3))


def test_a_config_stands_for_every_row_that_can_be_run() -> None:
    found = configs()
    assert all(len(paths) == 1 for paths in found.values()), "one config a row"
    for table, row, _, _ in printed():
        if table == "5" or (table in "12" and row != "CocoER"):
            continue  # what the full model does by itself; other people's methods
        (path,) = found[table, row]
        load_config(path)
    figures = [(t.key, r.row) for t in (paper_table("Fig. 2"), paper_table("Fig. 3")) for r in t.rows]
    assert len(figures) == 12 and set(figures) <= set(found)


def test_the_configs_are_what_their_rows_say() -> None:
    found = {key: load_config(path) for key, (path,) in configs().items()}
    full = {name: load_config(ROOT / f"configs/{name}.yaml") for name in ("emotic", "caers")}
    for (table, row), config in found.items():
        model, loss = config.model, config.loss
        if table == "4a":
            assert row == f"{model.tokens.size}, {model.level_head.feature_size}"
        elif table == "4b":
            assert float(row) == loss.alpha
        elif table == "4d":
            assert int(row) == model.tokens.patch
        elif table.startswith("Fig."):
            assert config.data.dataset == {"EMOTIC": "emotic", "CAER-S": "caers"}[row.rpartition(", ")[2]]
    updates = {row.partition(",")[0]: c.model.coordination.update for (t, row), c in found.items() if t == "Fig. 2"}
    assert updates == {"type one": "one", "type two": "two", "baseline": "none"}
    mappings = {row.partition(",")[0]: c.model.level_head.mapping for (t, row), c in found.items() if t == "Fig. 3"}
    assert mappings == {"FC": "linear", "ResNet-50": "resnet50", "ViT-16": "vit"}
    betas = {
        row: (x.beta_context, x.beta_body, x.beta_head, x.beta_vocabulary, x.beta_fused)
        for (t, row), x in ((key, c.loss) for key, c in found.items() if key[0] == "4c")
    }
    assert betas["balanced"] == (0.2,) * 5 and betas["emphasizing HFE"] == (0.4, 0.4, 0.4, 0.15, 0.15)
    assert betas["emphasizing V-I and Workspace"] == (0.15, 0.15, 0.15, 0.4, 0.4)
    alone = [values for row, values in betas.items() if row.startswith("one level alone")]
    assert sorted(sum(v == 0 for v in values[:3]) for values in alone) == [2, 2, 2] and len(set(alone)) == 3
    assert found["1", "CocoER"] == full["emotic"] and found["2", "CocoER"] == full["caers"]


def test_the_papers_parameter_count() -> None:
    parameters = describe(load_config(ROOT / "configs/emotic.yaml")).parameters
    assert round(parameters / 1e6, 2) == PRINTED["settings"]["parameters_million"]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ('paper: {table: "6", row: x}', r"c.yaml: paper: unknown paper table '6'.*There are: 1; 2; 3; 4a"),
        ('paper: {table: "4d", row: "5"}', r"c.yaml: paper: unknown Table 4d: row '5'.*There are: 2; 3; 4"),
        ('paper: {table: "4d"}', r"c.yaml: `paper:` wants the keys table and row, got \{'table': '4d'\}"),
        ("paper: 4d", "c.yaml: `paper:` wants the keys table and row, got '4d'"),
        ("what: [x]", r"c.yaml: `what:` wants a few words, got \['x'\]"),
    ],
)
def test_a_config_with_another_table_or_row_is_refused(head: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(head + "\n")
    for read in (load_config, config_head):
        with pytest.raises(ConfigError, match=message):
            read(tmp_path / "c.yaml")


def test_the_head_of_a_base_is_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text('what: the base\npaper: {table: "1", row: CocoER}\nrun: {seed: 3}\n')
    (tmp_path / "c.yaml").write_text("base: base.yaml\n")
    head = config_head(tmp_path / "c.yaml")
    assert (head.base, head.what, head.paper) == ("base.yaml", "", None)
    assert load_config(tmp_path / "c.yaml").run.seed == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"title": "t"}, "paper table 'T': missing rows"),
        ({"title": "t", "rows": [], "figures": []}, "unknown paper table 'T': key 'figures'"),
        ({"title": "t", "rows": [{"row": "a", "valu": 3.0}]}, "'T', 'a': key 'valu', did you mean 'value'"),
        ({"title": "t", "rows": [{"row": "a", "value": 300.0}]}, "'T', 'a': wanted a percentage, got 300.0"),
        ({"title": "t", "rows": [{"row": "a"}, {"row": "a"}]}, "paper table 'T': two rows are called 'a'"),
        ([], r"paper table 'T': wanted the keys .*, got \[\]"),
    ],
)
def test_a_broken_file_of_figures_is_named(table: Any, message: str) -> None:
    with pytest.raises(PaperError, match=message):
        read_tables({"T": table})
