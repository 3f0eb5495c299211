"""Arms of an ablation: what they may change, and how they are compared with their base."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from signal_cache import build_signal_cache, write_images

from fovcache.builder.progress import Progress
from fovcache.errors import UsageError
from fovcache.probes.arms import changed_settings
from fovcache.probes.config import read_config, with_device
from fovcache.probes.result import NO_CONTROL, read_ablation
from fovcache.probes.run import run_ablation
from fovcache.probes.statistics.significance import holm
from fovcache.probes.suite import ARMS_FILE, Suite, run_suite
from fovcache.probes.tables.page import PAGE_FILE

BASE = """
cache = "cache"
seeds = 3
representations = ["simple_stats"]
[encoders.net]
encoder = "enc.py:make"
weights = "w"
[experiments]
all = ["net:**"]
[split]
kind = "resplit"
test = 0.3
[head]
kind = "ridge"
strengths = [1, 10]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "conf.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("[arms.a.head]\nstrengths = [2]", {"head.strengths": ([1.0, 10.0], [2.0])}),
        ("[arms.a]\nhead.strengths = [2]", {"head.strengths": ([1.0, 10.0], [2.0])}),
        ("[arms.a]\nseeds = [0, 2]", {"seeds": ([0, 1, 2], [0, 2])}),
        ("[arms.a.encoders.net]\nweights = 'x'", {"encoders.net.weights": ("w", "x")}),
        (
            "[arms.a.encoders.net]\nencoder = 'vit-tiny'\nweights = 'x'",
            {"encoders.net": ({"encoder": "enc.py:make", "weights": "w"}, {"encoder": "vit-tiny", "weights": "x"})},
        ),
        ("[arms.a]\nrepresentations = ['stats']", {"representations": (["simple_stats"], ["stats"])}),
        ("[arms.a]\nexperiments.all = ['net:noise.*']", {"experiments.all": (["net:**"], ["net:noise.*"])}),
        ("[arms.a]\nexperiments.more = ['net:noise.*']", {"experiments.more": (None, ["net:noise.*"])}),
        ("[arms.a]\ncontrols.shuffled_labels = false", {"controls.shuffled_labels": (True, False)}),
    ],
)
def test_one_setting_is_changed_and_named(write: Callable[[str], Path], text: str, changed: object) -> None:
    config = read_config(write(BASE + text))
    assert changed_settings(replace(config, arms={}), config.arms["a"]) == changed
    assert config.arms["a"].name == "a"


def test_a_head_with_settings_of_its_own_is_one_setting(write: Callable[[str], Path]) -> None:
    config = read_config(write(BASE + "[arms.a.head]\nkind = 'mlp'\nhidden = [64]\nepochs = 7"))
    ((name, (base, arm)),) = changed_settings(replace(config, arms={}), config.arms["a"]).items()
    assert (name, base["kind"], base["strengths"]) == ("head", "ridge", [1.0, 10.0])
    assert (arm["kind"], arm["hidden"], arm["epochs"]) == ("mlp", [64], 7)
    assert "strengths" not in arm
    config = read_config(write(BASE + "[arms.a.split]\nkind = 'given'\nvalidation = 0.1"))
    assert config.arms["a"].split.test is None  # a share that only resplits read


REFUSED = {
    "[arms.a]": "[arms.a]: it does not differ from the base: change one setting",
    "[arms.a.head]\nkind = 'ridge'\nstrengths = [10, 1]": "[arms.a]: it does not differ from the base",
    "[arms.a]\nseeds = 3\nsingle_layers = true": "[arms.a]: it does not differ from the base",
    "[arms.a]\nseeds = 4\nsingle_layers = false": "it differs from the base in 2 settings (single_layers, seeds), so",
    "[arms.a]\nseeds = 4\nhead.kind = 'logistic'": "it differs from the base in 2 settings (seeds, head), so",
    "[arms.a.encoders.net]\npool = 'cls'\nweights = 'x'": "in 2 settings (encoders.net.weights, encoders.net.pool)",
    "[arms.a]\nseds = 4": "[arms.a]: there is no key 'seds'; nearest: seeds",
    "[arms.a.head]\nalpha = 4": "[arms.a]: [head]: a ridge head has no setting 'alpha'",
    "[arms.a.split]\ntest = 2": "[arms.a]: [split]: test = 2, expected a fraction",
    "[arms.a.arms.b]\nseeds = 4": "[arms.a]: there is no key 'arms'",
    "[arms]\na = 3": "[arms]: a = 3, expected a table",
    "arms = 3": "arms = 3, expected a table",
    "[arms.a]\nseeds = 4\n[arms.A]\nseeds = 5": "'a' and 'A' are one name where case does not count",
    **{
        f"[arms.{json.dumps(name)}]\nseeds = 4": "a name is made of up to 80 letters, digits, '_' and '-'"
        for name in ("..", "../up", "/etc", "a/b", "", ".", "a b", "a\n", "é", "a" * 81)
    },
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_one_setting_away_is_one_line(write: Callable[[str], Path], text: str) -> None:
    top, table = (text, "") if text.startswith("arms =") else ("", text)
    with pytest.raises(UsageError) as error:
        read_config(write(f"{top}{BASE}{table}"))
    assert REFUSED[text] in str(error.value)
    assert "\n" not in str(error.value)
    assert "conf.toml: " in str(error.value)


def test_a_device_is_of_all_arms(write: Callable[[str], Path]) -> None:
    config = with_device(read_config(write(BASE + "[arms.a]\nseeds = 4")), "cpu")
    assert (config.device, config.arms["a"].device) == ("cpu", "cpu")
    with pytest.raises(UsageError, match="does not differ"):
        with_device(read_config(write(BASE + "[arms.a]\ndevice = 'cpu'")), "cpu")


ARMS = """
cache = "cache"
seeds = 4
representations = ["simple_stats", "spectral"]
single_layers = false
[experiments]
all = ["**"]
noise = ["noise.*"]
[controls]
random_layers = false
[arms.weak.head]
strengths = [1e6]
[arms.fewer]
seeds = [1, 3]
[arms.other]
split.test = 0.2
[arms.stats]
representations = ["stats"]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path, list[Progress]]:
    """A suite, where it is, and what it told on its way."""
    folder = tmp_path_factory.mktemp("made")
    build_signal_cache(folder, write_images(folder / "images", 120))
    (folder / "suite.toml").write_text(ARMS)
    told: list[Progress] = []
    return run_suite(read_config(folder / "suite.toml"), folder / "out", told.append), folder / "out", told


def test_differences_are_the_arms_less_the_bases_seed_by_seed(made: tuple[Suite, Path, list[Progress]]) -> None:
    suite, _, _ = made
    weak, fewer, _, _ = suite.comparisons
    assert (weak.arm, weak.setting, weak.arm_value, weak.unpaired) == ("weak", "head.strengths", [1e6], ())
    assert [(each.representation, each.experiment) for each in weak.differences] == [
        (representation, experiment)
        for representation in ("simple_stats", "spectral")
        for experiment in ("all", "noise")
    ]

    def accuracies(name: str, representation: str, experiment: str) -> dict[int, float]:
        wanted = (representation, experiment, NO_CONTROL)
        trials = suite.arms[name].trials if name else suite.base.trials
        found = (trial for trial in trials if (trial.representation, trial.experiment, trial.control) == wanted)
        return {trial.seed: trial.test_accuracy for trial in found}

    for each in weak.differences:
        cell = (each.representation, each.experiment)
        one, other = accuracies("weak", *cell), accuracies("", *cell)
        assert each.num_seeds == 4
        assert each.mean == pytest.approx(np.mean([one[seed] - other[seed] for seed in range(4)]))
    signal = weak.differences[0]
    assert signal.ci95 is not None
    assert signal.ci95[0] < signal.mean < min(0, signal.ci95[1])  # what is regularised so hard knows less
    assert [(each.num_seeds, each.mean) for each in fewer.differences] == [(2, 0.0)] * 4  # the same trials


def test_their_p_are_corrected_over_all_arms(made: tuple[Suite, Path, list[Progress]]) -> None:
    every = [each for comparison in made[0].comparisons for each in comparison.differences if each.p is not None]
    assert len(every) > 4
    assert [each.p_holm for each in every] == holm([each.p or 0.0 for each in every])


def test_what_cannot_be_paired_is_said(made: tuple[Suite, Path, list[Progress]]) -> None:
    _, _, other, stats = made[0].comparisons
    assert other.differences == ()
    assert other.unpaired == ("4 of its estimates leave out 4 of 4 seeds, whose test samples differ",)
    assert stats.differences == ()
    assert stats.unpaired == (
        "2 of its estimates leave out all seeds, since the base has no trial of the same name and seed",
    )


def test_each_arm_is_an_ablation_of_its_own_and_the_page_has_them_all(
    made: tuple[Suite, Path, list[Progress]], tmp_path: Path
) -> None:
    suite, out, _ = made
    assert read_ablation(out / "ablation.json") == suite.base
    assert {path.name for path in (out / "arms").iterdir()} == set(suite.arms) == {"weak", "fewer", "other", "stats"}
    for name, arm in suite.arms.items():
        assert read_ablation(out / "arms" / name / "ablation.json") == arm
    assert json.loads((out / ARMS_FILE).read_text()) == json.loads(json.dumps(suite.arms_document()))
    assert suite.document()["arms"]["format"] == "fovbench arms 1"
    page = (out / PAGE_FILE).read_text()
    assert f"| weak | all | simple\\_stats | {suite.comparisons[0].differences[0].mean:+.3f} |" in page
    assert "arm other: 4 of its estimates leave out" in page
    config = read_config(out.parent / "suite.toml")
    alone = run_ablation(replace(config.arms["weak"], name="weak"), tmp_path / "weak")
    assert [trial.key for trial in alone.trials] == [trial.key for trial in suite.arms["weak"].trials]
    with pytest.raises(UsageError, match=r"has arms \(weak, fewer, other, stats\): `run_suite` runs them"):
        run_ablation(config, tmp_path / "none")


def test_progress_is_of_the_whole_suite_and_names_what_is_at_work(made: tuple[Suite, Path, list[Progress]]) -> None:
    suite, _, told = made
    num = len(suite.base.trials) + sum(len(arm.trials) for arm in suite.arms.values())
    assert {each.total for each in told} == {num}
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert told[-1].done == num
    notes = [each.note for each in told if each.note]
    assert "suite: simple_stats of all, seed 0" in notes
    assert "weak: spectral of all, seed 0" in notes


def test_a_mistake_in_an_arm_is_found_before_anything_runs(
    made: tuple[Suite, Path, list[Progress]], tmp_path: Path
) -> None:
    path = made[1].parent / "wrong.toml"
    path.write_text(ARMS + '[arms.late.experiments]\nnoise = ["nise.*"]\n')
    with pytest.raises(UsageError, match=r"no layer matches 'nise\.\*'; nearest: noise"):
        run_suite(read_config(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_arms_that_are_no_more_asked_for_are_no_more_told(made: tuple[Suite, Path, list[Progress]]) -> None:
    _, out, _ = made
    config = read_config(out.parent / "suite.toml")
    run_suite(replace(config, arms={}), out)
    assert not (out / ARMS_FILE).exists()
    assert "Arms less the base" not in (out / PAGE_FILE).read_text()
