"""docs/training.md is true: every key and setting is there, and its numbers are the recipe's."""

from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import pytest

from fovcache.bench.made_cues.files import write_cues
from fovcache.models.foveated.settings import FoveatedSettings
from fovcache.models.projection import ProjectionSettings
from fovcache.probes.toml_table import parse_toml
from fovcache.probes.train.config import DATA_KEYS, INPUT_KEYS, KEYS, SPLIT_KEYS, VerdictChoice
from fovcache.probes.train.recipe import STANDARD, read_settings
from fovcache.probes.train.settings import TrainSettings
from fovcache.probes.train.suite.suite_config import read_suite_config
from fovcache.trainable import known_trainables


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "docs" / "training.md").read_text()


@pytest.fixture(scope="module")
def shown(page: str) -> str:
    """The configuration with every key."""
    return re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0]


def test_the_page_shows_a_configuration_with_every_key(shown: str, tmp_path: Path) -> None:
    tables = tomllib.loads(shown.replace("# train =", "train ="))  # which a stream does not read
    assert set(tables) == {*KEYS, "arms", "control", "verdict"}
    assert set().union(*tables["inputs"].values()) == set(INPUT_KEYS)
    assert set(tables["data"]) == set(DATA_KEYS["stream"])
    assert set(tables["split"]) == set(SPLIT_KEYS)
    assert set(tables["train"]) == {each.name for each in fields(TrainSettings)}
    assert {"arms", "dataset"} == set(tables["control"])
    assert tables["verdict"] == asdict(VerdictChoice())
    (tmp_path / "shown.toml").write_text(shown)
    suite = read_suite_config(tmp_path / "shown.toml")
    choice = VerdictChoice()
    assert set(suite.arms) == {choice.coarse, choice.coarse_matched, choice.random, choice.shuffled}


def test_the_numbers_of_the_recipe_are_the_standard_ones(shown: str) -> None:
    standard = asdict(read_settings(parse_toml("", "none.toml", None), Path()))
    found = tomllib.loads(shown)
    assert found["recipe"] == STANDARD
    found["train"]["betas"] = tuple(found["train"]["betas"])
    decided = [each.name for each in fields(TrainSettings) if each.default is MISSING]
    assert {key: found["train"][key] for key in decided} == {key: standard[key] for key in decided}


def test_every_setting_of_every_model_is_named(page: str) -> None:
    models = page.partition("## Models")[2].partition("## What is run")[0]
    assert all(f"**`{name}`**" in models for name in known_trainables())
    for settings in (FoveatedSettings, ProjectionSettings):
        assert [each.name for each in fields(settings) if f"`{each.name}`" not in models] == []


def test_the_example_is_what_the_generator_writes(page: str, tmp_path: Path) -> None:
    write_cues(tmp_path / "cues", num_train=1, num_validation=1)
    assert (tmp_path / "cues" / "cue.toml").read_text() in page
