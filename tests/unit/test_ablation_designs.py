"""Ablations whose seeds have samples of their own, one split, or a few samples to learn from: what is run and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from signal_cache import build_signal_cache, write_images

from fovcache.probes.config import AblationConfig, ControlChoice, RepresentationChoice, SplitChoice
from fovcache.probes.result import SHUFFLED_LABELS, Ablation
from fovcache.probes.run import run_ablation
from fovcache.probes.running.result_folder import read_predictions
from fovcache.probes.tables.page import page


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cache of 120 samples."""
    folder = tmp_path_factory.mktemp("made")
    assert build_signal_cache(folder, write_images(folder / "images", 120)).failed == 0
    return folder


def run(folder: Path, out: Path, **fields: Any) -> Ablation:
    config = AblationConfig(
        name="made", cache="cache", folder=folder, single_layers=False,
        representations=(RepresentationChoice(name="simple_stats"),),
        experiments={"shown": ("signal",), "hidden": ("noise.*",)},
        **{"seeds": (0, 1, 2, 3), "controls": ControlChoice(shuffled_labels=False, random_layers=False), **fields},
    )  # fmt: skip
    return run_ablation(config, out)


def positions_of(out: Path, ablation: Ablation) -> list[tuple[int, ...]]:
    """Positions of each seed's test samples, of one experiment."""
    trials = [trial for trial in ablation.trials if trial.experiment == "shown"]
    return [tuple(read_predictions(out, trial.key)["position"].tolist()) for trial in trials]


def test_independent_draws(made: Path, tmp_path: Path) -> None:
    ablation = run(made, tmp_path, split=SplitChoice(kind="independent"))
    assert {trial.num_train + trial.num_validation + trial.num_test for trial in ablation.trials} == {30}
    every = [position for positions in positions_of(tmp_path, ablation) for position in positions]
    assert len(every) == len(set(every))
    assert ablation.interval == "Student's t over 4 independent draws (1908)"
    (difference,) = ablation.differences
    assert "Student's paired t" in difference.test
    assert "of 30 samples each, not 4" in difference.to_resolve
    assert "1/4 of all" in page(ablation)


def test_one_split_for_all_seeds_is_one_test_set(made: Path, tmp_path: Path) -> None:
    ablation = run(made, tmp_path, seeds_vary=("order",), controls=ControlChoice(random_layers=False))
    assert len(set(positions_of(tmp_path, ablation))) == 1
    assert "30 test items" in ablation.interval
    assert "the one head that was fitted has" in ablation.estimand
    assert any(said.startswith("all seeds have the split of the first, so that") for said in ablation.warnings)
    (difference,) = ablation.differences
    assert "McNemar" in difference.test
    shuffled = {trial.test_accuracy for trial in ablation.trials if trial.control == SHUFFLED_LABELS}
    assert len(shuffled) > 1  # labels are shuffled anew for every seed all the same


def test_few_shots(made: Path, tmp_path: Path) -> None:
    ablation = run(made, tmp_path, split=SplitChoice(shots=5))
    assert {(trial.num_train, trial.num_validation, trial.num_test) for trial in ablation.trials} == {(15, 18, 30)}
    assert "30/90" in ablation.interval  # what the shots leave out is not in test either
    assert "which 5 of each class train keeps" in page(ablation)


def test_the_page_tells_what_differs_for_sure_and_what_would_be_needed(made: Path, tmp_path: Path) -> None:
    ablation = run(made, tmp_path, seeds=tuple(range(5)), controls=ControlChoice())
    (table,) = [text for text in page(ablation).split("## ") if text.startswith("Differences")]
    assert "| p | p, Holm | d | seeds |" in table
    for each in ablation.differences:
        assert each.p is not None
        assert each.p_holm is not None
        assert each.p <= each.p_holm <= 1
        assert f"{each.effect_size:+.2f}" in table
    found = sum(each.p_holm < 0.05 for each in ablation.differences)
    text = page(ablation).replace("\\", "")
    for said in (
        f"differences: {found} of 3 are found at p < 0.05 after Holm's correction for being 3",
        "with 5 pairs no exact paired test can give a p below 0.0625",
        "to resolve a difference, such as ",
        "shuffled labels: 0 of 2 cells score above chance, which would be a leak",
    ):
        assert said in text
