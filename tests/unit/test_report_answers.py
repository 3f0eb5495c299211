"""Answers in the report of a folder: metrics, classes, differences, arms and confusions are the results' own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_ablations import full_ablation, made_ablation, made_arms
from parsed_page import Page

from fovcache.probes.result import NO_CONTROL, RANDOM_LAYERS
from fovcache.reports import Results, ablation_view, write_results
from fovcache.reports.cells import chosen, named_experiments


@pytest.fixture(scope="module", autouse=True)
def one_figure(coarse_figures: None) -> Iterator[None]:
    """None is looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation_view, "FIGURES", ablation_view.FIGURES[1:2])
        yield


@pytest.fixture(scope="module")
def page(one_figure: None, tmp_path_factory: pytest.TempPathFactory) -> Page:
    results = Results(name="x", profiles={}, ablations={"ablation.json": full_ablation()})
    return Page(write_results(results, tmp_path_factory.mktemp("results")).html.read_text())


def values(row: list[dict[str, Any]]) -> list[float]:
    return [value for cell in row for value in cell["values"]]


def test_differences_have_their_table_with_p_corrected_for_all_of_them(page: Page) -> None:
    ablation = full_ablation()
    _, *rows = page.tables["ablation-1-differences"]
    found = {tuple(cell["text"] for cell in row[:3]): row for row in rows}
    assert len(found) == len(ablation.differences) == 30
    for each in ablation.differences:
        other = "as many random layers" if each.other_control == RANDOM_LAYERS else each.other
        row = found[each.representation, each.experiment, other]
        assert values(row) == [each.num_seeds, each.mean, each.p, each.p_holm, each.effect_size]
        assert each.ci95 is not None
        low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in each.ci95)
        assert row[5]["text"] == f"{low}\u00a0to\u00a0{high}"
        assert row[4]["text"].replace("−", "-") == f"{100 * each.mean:+.1f}"
        assert each.p_holm is not None
        assert row[7]["text"] == ("<\u00a00.001" if each.p_holm < 0.001 else f"{each.p_holm:.3f}")
    for said in (
        ablation.differences[0].test,
        "No exact test of so few pairs can give a p below 0.062",
        "To resolve one",
    ):
        assert said in page.shown


def test_what_predictions_say_beside_accuracy(page: Page) -> None:
    ablation = full_ablation()
    _, *rows = page.tables["ablation-1-metrics"]
    metrics = {(each.representation, each.experiment): each for each in ablation.metrics if each.control == NO_CONTROL}
    assert len(rows) == 18
    for row in rows:
        each = metrics[row[0]["text"], row[1]["text"]]
        assert values(row) == [
            each.macro_f1, each.balanced_accuracy, each.calibration_error, each.brier, each.log_loss, 15_600
        ]  # fmt: skip
        lowest = min(mean for mean in each.class_accuracies if mean is not None)
        worst = ablation.classes[each.class_accuracies.index(lowest)]
        assert row[4]["text"].startswith(f"{worst}, {100 * lowest:.1f}\u00a0%")


def test_classes_are_of_the_cell_that_validation_chooses_and_test_does_not(page: Page) -> None:
    ablation = full_ablation()
    validation: dict[tuple[str, str], list[float]] = {}
    for trial in ablation.trials:
        if trial.control == NO_CONTROL and trial.experiment in named_experiments(ablation):
            cell = trial.representation, trial.experiment
            validation.setdefault(cell, []).append(trial.validation_accuracy)
    best = max(validation, key=lambda cell: sum(validation[cell]))
    each = next(each for each in ablation.metrics if (each.representation, each.experiment) == best)
    _, *rows = page.tables["ablation-1-classes"]
    assert [row[0]["text"] for row in rows] == list(ablation.classes)
    for row, mean, answers in zip(rows, each.class_accuracies, each.confusion, strict=True):
        assert values(row) == [mean, sum(answers) / 5]
        others = [num for column, num in enumerate(answers) if str(column) != row[0]["text"]]
        assert row[4]["text"].endswith(f", {100 * max(others) / sum(answers):.1f}\u00a0%")
    assert f"{best[0]} of {best[1]}, the cell with the highest validation accuracy" in page.shown

    # A cell that is better on test alone is not chosen.
    flattered = next(name for name in validation if name != best)
    lucky = tuple(
        replace(one, mean=0.999) if (one.representation, one.experiment) == flattered else one
        for one in ablation.estimates
    )
    found = chosen(replace(ablation, estimates=lucky))
    assert found is not None
    assert (found.representation, found.experiment) == best


def test_arms_stand_beside_their_base_and_a_linear_one_beside_every_accuracy(tmp_path: Path) -> None:
    ablation = made_ablation(["stats"], {"all": 2, "late": 1}, num_layers=2, num_seeds=3)
    ablation = replace(ablation, protocol={**ablation.protocol, "head": "mlp"})
    arms = made_arms(ablation)
    results = Results(name="x", profiles={}, ablations={"ablation.json": ablation}, arms={"ablation.json": arms})
    files = write_results(results, tmp_path)
    page = Page(files.html.read_text())
    _, *rows = page.tables["ablation-1-arms"]
    told = [(arm.arm, each) for arm in arms for each in arm.differences]
    assert [row[0]["text"] for row in rows] == [name for name, _ in told]
    assert [values(row)[1] for row in rows] == [each.mean for _, each in told]
    assert "Arm ridge: head is ridge instead of mlp." in page.shown
    assert "Arm small: 1 of its estimates leave out all seeds." in page.shown
    head, *rows = page.tables["ablation-1-estimates"]
    assert head[-1]["text"] == "linear"
    of_ridge = {each.experiment: each.mean for each in arms[1].differences}
    for row, experiment in zip(rows, ("all", "late"), strict=True):
        estimate = ablation.estimate("stats", experiment)
        assert estimate is not None
        assert row[-1]["values"] == [estimate.mean + of_ridge[experiment]]
    assert "A linear head, arm ridge, reaches" in page.shown
    assert files.markdown is not None
    assert "- Arm ridge: head is" in files.markdown.read_text()
    assert tmp_path / "figures" / "arms.png" in files.pngs


def test_the_confusion_of_a_cell_that_is_asked_for_has_a_name_that_any_disk_takes(tmp_path: Path) -> None:
    ablation = made_ablation(["stats"], {"all": 2, "a/b": 1, "a:b": 1}, num_layers=2, num_seeds=2, controls=["none"])
    results = Results(name="x", profiles={}, ablations={"a": ablation}, cells=("stats:a/b", "stats:a:b"))
    files = write_results(results, tmp_path)
    names = [path.name for path in files.pngs]
    assert names[1:] == ["confusion_of_stats_a_b.png", "confusion_of_stats_a_b_.png"]
    captions = Page(files.html.read_text()).shown
    assert "Confusion of stats of a/b" in captions
    assert "Confusion of stats of a:b" in captions
