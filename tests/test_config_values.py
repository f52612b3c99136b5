"""Values of configs: no key twice, numbers as people write them, and `--set` keeps a text a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoer.config import Config, change_config, load_config
from cocoer.errors import ConfigError
from cocoer.yaml_file import parse_value, parse_yaml

DEFAULT = Config()


TEXTS = (
    "2024-01-05", "001", "a #1", "no", "on", "1e5", "0x10", "1:30", "a: b", "- a", "*x", "&x", "!x", " a", "100%", "%x", "@x",
    "`x`", "a\nb", "null ",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_is_set_stays_that_text(text: str) -> None:
    assert change_config(DEFAULT, [f"run.dir={text}"]).run.dir == text


def test_quotes_go_and_null_is_nothing_where_a_key_may_be_nothing() -> None:
    assert change_config(DEFAULT, ['run.dir="a # b"']).run.dir == "a # b"
    assert change_config(DEFAULT, ["run.dir='null'"]).run.dir == "null"
    assert change_config(DEFAULT, ["run.dir=null"]).run.dir == "null"  # a run has a folder: it is called so
    cached = change_config(DEFAULT, ["data.cache=2024-01-05"])
    assert cached.data.cache == "2024-01-05" and change_config(cached, ["data.cache=null"]).data.cache is None
    assert change_config(cached, ["data.cache='null'"]).data.cache == "null"


@pytest.mark.parametrize(
    ("text", "value"),
    [("010", 10), ("+7", 7), ("1_000", 1000), ("0x10", 16), ("0o17", 15), ("8", 8)],
)
def test_whole_numbers_are_as_people_write_them(text: str, value: int) -> None:
    assert change_config(DEFAULT, [f"run.seed={text}"]).run.seed == value and parse_value(text) == value


@pytest.mark.parametrize("text", ["1:30", "2024-01-05", "08:15", "yes", "no", "on", "off", "y", "="])
def test_what_yaml_1_1_takes_for_a_number_a_date_or_a_truth_is_a_text(text: str) -> None:
    assert parse_value(text) == text


def test_numbers_choices_lists_and_sections_are_as_before() -> None:
    words = ["optim.lr=6e-5", "run.seeds=[1, 2]", "model.coordination.update=none", "data.augment.flip=0.5"]
    changed = change_config(DEFAULT, [*words, "inference.thresholds.fused=.25"])
    assert changed.optim.lr == 6e-5 and changed.run.seeds == (1, 2) and changed.model.coordination.update == "none"
    assert changed.inference.thresholds.fused == 0.25 and changed.data.augment.flip == 0.5
    bad_ones = {
        "optim.lr=fast": "optim.lr",
        "run.seed=1:30": "run.seed",
        "run.sed=1": "did you mean 'seed'",
        "run=3": "run",
    }
    for bad, said in bad_ones.items():
        with pytest.raises(ConfigError, match=said):
            change_config(DEFAULT, [bad])


@pytest.mark.parametrize(
    "text",
    [
        "optim:\n  lr: 1.0e-4\nrun:\n  seed: 1\noptim:\n  batch_size: 8\n",
        "run:\n  seed: 1\n  dir: a\n  seed: 2\n",
        'run:\n  seed: 1\n  "seed": 2\n',
        "{run: {seed: 1}, run: {seed: 2}}\n",
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"the key '(optim|seed|run)' occurs twice, in lines \d and \d"):
        load_config(tmp_path / "c.yaml")


def test_a_file_keeps_dates_as_text_too(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("run:\n  dir: 2024-01-05\n  seed: 010\n")
    config = load_config(tmp_path / "c.yaml")
    assert config.run.dir == "2024-01-05" and config.run.seed == 10


def test_every_shipped_yaml_has_each_key_once() -> None:
    shipped = sorted((Path(__file__).resolve().parents[1] / "configs").rglob("*.yaml"))
    assert shipped
    for path in shipped:
        parse_yaml(path)
