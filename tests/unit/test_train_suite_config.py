"""What a configuration of training with arms says, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fovcache.errors import UsageError
from fovcache.probes.train.config import VerdictChoice
from fovcache.probes.train.result import BASE, CONTROL, MAIN
from fovcache.probes.train.suite.suite_config import Only, SuiteConfig, read_suite_config

CONFIG = """
cache = "cache"
dataset = "cue"
[model]
kind = "projection"
layers = 2
[inputs.features]
layer = "blocks.3"
"""
ARMS = "[arms.coarse.model]\nlayers = 1\n"


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], SuiteConfig]:
    def read(text: str) -> SuiteConfig:
        (tmp_path / "conf.toml").write_text(CONFIG + text)
        return read_suite_config(tmp_path / "conf.toml")

    return read


def test_without_arms_there_are_seeds_and_no_verdict(read: Callable[[str], SuiteConfig]) -> None:
    config = read("")
    assert (config.name, config.seeds, config.verdict, config.control) == ("conf", (0, 1, 2), None, None)
    assert [cell.place for cell in config.cells] == ["base/seed-0", "base/seed-1", "base/seed-2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[arms.a.model]\nlayers = 1", "model.layers = 1 (base: 2)"),
        ("[arms.a]\ntrain.samples = 7", "train.samples = 7 (base: 500000)"),
        ("[arms.a]\ndataset = 'b'", 'dataset = "b" (base: "cue")'),
        ("[arms.a]\ninputs.features.layer = 'x'", 'inputs.features.layer = "x" (base: "blocks.3")'),
        ("[arms.a]\ninputs.features.pool = 'cls'", 'inputs.features.pool = "cls" (base: nothing)'),
        ("[arms.a]\nsplit.train = 'x'", 'split.train = "x" (base: nothing)'),
        ("[arms.b]\nmodel.layers = 1\n[arms.a]\nbaseline = 'b'\ntrain.samples = 7", "train.samples = 7 (b: 500000)"),
        (
            "[arms.b]\nmodel.layers = 1\n[arms.a]\nbaseline = 'b'\nmodel.layers = 1\ntrain.samples = 7",
            "train.samples = 7 (b: 500000)",
        ),
    ],
)
def test_an_arm_changes_one_setting(read: Callable[[str], SuiteConfig], text: str, words: str) -> None:
    assert read(text).arms["a"].change.words() == words


def test_a_table_of_another_kind_is_one_setting(read: Callable[[str], SuiteConfig]) -> None:
    change = read("[arms.a.data]\nkind = 'online'\nsources = ['x']\nencode_batch_size = 3").arms["a"].change
    assert (change.setting, change.before["kind"], change.value["sources"]) == ("data", "cached", ("x",))
    change = (
        read("[arms.a.model]\nkind = 'foveated'\nsize = 'tiny'\nheads = ['labels']\nalphabet = '01'").arms["a"].change
    )
    assert (change.setting, change.before["kind"], change.value["size"]) == ("model", "projection", "tiny")


def test_inputs_that_one_model_alone_reads_follow_from_it(read: Callable[[str], SuiteConfig]) -> None:
    arm = "[arms.a.model]\ntarget = 'features'\n[arms.a.inputs.target]\nlayer = 'latent'\n"
    config = read(arm + "[arms.b]\nbaseline = 'a'\nmodel.target = 'labels'\n")
    assert config.arms["a"].change.setting == config.arms["b"].change.setting == "model.target"
    assert set(config.arms["a"].config.inputs) == {"features", "target"}
    assert set(config.arms["b"].config.inputs) == {"features"}


def test_an_arm_lies_over_its_baseline(read: Callable[[str], SuiteConfig]) -> None:
    config = read(ARMS + "[arms.matched]\nbaseline = 'coarse'\ntrain.samples = 1000\n")
    matched = config.arms["matched"]
    assert (matched.config.model["layers"], matched.config.train.samples) == (1, 1000)
    assert matched.change.baseline == "coarse"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[arms.a]\n", r"\[arms.a\]: it does not differ from base"),
        ("[arms.a]\nmodel.layers = 2\n", r"\[arms.a\]: it does not differ from base"),
        ("[arms.a]\nmodel.layers = 1\ntrain.samples = 7", r"in 2 settings \(model.layers, train.samples\)"),
        ("[arms.a]\nseeds = 2", r"\[arms.a\]: there is no key 'seeds'"),
        ("[arms.a]\nmodel.layer = 2", "there is no key|no setting 'layer'"),
        ("[arms.a]\nbaseline = 'b'\nmodel.layers = 1", r"\[arms.a\]: baseline = 'b' is no arm; .*base"),
        ("[arms.a]\nbaseline = 'a'\nmodel.layers = 1", "a → a: an arm cannot be its own baseline"),
        ("[arms.a]\nbaseline = 'b'\n[arms.b]\nbaseline = 'a'", "a → b → a: an arm cannot be its own"),
        ("[arms.base]\nmodel.layers = 1", "cannot be called 'base'"),
        ("[arms.a-Control]\nmodel.layers = 1", "cannot be called 'a-Control'"),
        ("[arms.'../x']\nmodel.layers = 1", "a name is made of up to 80"),
        ("[arms.a]\nmodel.layers = 1\n[arms.A]\nmodel.layers = 3", "one name where case does not count"),
        ("[arms.a]\ninputs.latents.layer = 'x'", "reads no such input"),
        ("[arms]\na = 3", r"a = 3, expected a table"),
        ("[control]\n", r"\[control\]: it does not differ from the main task"),
        ("[control]\ndataset = 'x'\ntrain.samples = 3", "in 2 settings"),
        ("[control]\ndataset = 'x'\nseed = 3", "there is no key 'seed'"),
        ("[control]\ndataset = 'x'\narms = ['b']\n" + ARMS, r"\[control\]: arms holds 'b'; .*coarse"),
        ("[verdict]\ncoarse = 'b'\n" + ARMS, r"\[verdict\]: coarse = 'b' is no arm; .*coarse"),
        ("[verdict]\ntolerance = 3\n", "tolerance = 3, expected a fraction"),
        ("[verdict]\nfine = 3\n", "there is no key 'fine'"),
        ("[data]\nwindow_gb = 3", r"\[data\]: window_gb is not read with kind = 'cached'"),
        ("[data]\nkind = 'online'\nsources = ['x']\nwindow_gb = 3", "window_gb is not read with kind = 'online'"),
        (
            "[data]\nkind = 'stream'\nsources = ['x']\n[split]\ntrain = 'a'",
            r"\[split\]: train is not read with a stream",
        ),
        ("[data]\nkind = 'streams'", "nearest: stream"),
    ],
)
def test_what_is_not_one_setting_or_not_known_is_refused(
    read: Callable[[str], SuiteConfig], text: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        read(text)
    assert "conf.toml: " in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("seeds", ["[]", "0", "[1, 1]", "[-1]", "[true]", "'3'"])
def test_seeds_are_whole_and_differ(read: Callable[[str], SuiteConfig], tmp_path: Path, seeds: str) -> None:
    (tmp_path / "conf.toml").write_text(f"seeds = {seeds}\n{CONFIG}")
    with pytest.raises(UsageError, match="seeds"):
        read_suite_config(tmp_path / "conf.toml")


def test_the_control_has_base_and_coarse(read: Callable[[str], SuiteConfig]) -> None:
    config = read(ARMS + "[arms.wide.model]\nhidden = 9\n[control]\ndataset = 'global'\n")
    assert config.control is not None
    assert config.control.change.words() == 'dataset = "global" (the main task: "cue")'
    assert [cell.place for cell in config.cells if (cell.task, cell.seed) == (CONTROL, 0)] == [
        "base-control/seed-0",
        "coarse-control/seed-0",
    ]
    coarse = config.control.configs["coarse"]
    assert (coarse.dataset, coarse.model["layers"]) == ("global", 1)
    assert config.verdict == VerdictChoice()
    more = read(ARMS + "[arms.wide.model]\nhidden = 9\n[control]\ndataset = 'global'\narms = ['wide']\n")
    assert more.control is not None
    assert list(more.control.configs) == [BASE, "wide"]


def test_the_verdict_takes_names_of_arms(read: Callable[[str], SuiteConfig]) -> None:
    found = read("[arms.flat.model]\nlayers = 1\n[verdict]\ncoarse = 'flat'\nmetric = 'accuracy'\ntolerance = 0.05\n")
    assert found.verdict == VerdictChoice(coarse="flat", metric="accuracy", tolerance=0.05)


def test_only_some_runs_are_wanted(read: Callable[[str], SuiteConfig]) -> None:
    config = read(ARMS + "[control]\ndataset = 'global'\n")
    assert len(Only().of(config)) == 3 * 4
    found = Only(arms=("coarse",), seeds=(2,), tasks=(CONTROL,)).of(config)
    assert [cell.place for cell in found] == ["coarse-control/seed-2"]
    for only, said in (
        (Only(arms=("corse",)), "no arm corse; nearest: coarse"),
        (Only(seeds=(7,)), "no seed 7"),
        (Only(tasks=("x",)), "no task x"),
    ):
        with pytest.raises(UsageError, match=said):
            only.of(config)


def test_another_device_is_of_every_arm(read: Callable[[str], SuiteConfig]) -> None:
    config = read(ARMS + "[control]\ndataset = 'global'\n").on_device("cuda:1")
    assert {cell.config.device for cell in config.cells} == {"cuda:1"}
    assert {cell.task for cell in config.cells} == {MAIN, CONTROL}
    with pytest.raises(UsageError, match="arm a differs by its device"):
        read("[arms.a]\ndevice = 'cpu'\n").on_device("cuda")
