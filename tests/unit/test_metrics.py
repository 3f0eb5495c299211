"""Metrics of an ablation's cells: scikit-learn's numbers, bins by hand, and intervals as the estimates have them."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from example_ablations import full_ablation

from fovcache.probes.result import NO_CONTROL, SHUFFLED_LABELS, Metrics, Trial
from fovcache.probes.running.result_folder import open_folder
from fovcache.probes.splits import GIVEN, INDEPENDENT, RESPLIT
from fovcache.probes.statistics.intervals import corrected_resampled_interval, items_interval, t_interval
from fovcache.probes.statistics.metrics import calibration, confusion_matrix, macro_f1, metrics, recalls
from fovcache.probes.statistics.summary import Scored
from fovcache.probes.tables.page import page

NUM = 120


def answers(seed: int, num_classes: int, num_answered: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of all classes but the last, predictions of the first few, and probabilities whose largest they are."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, num_classes - 1, NUM)
    scores = chance.dirichlet(np.ones(num_answered), NUM) + np.eye(num_classes)[labels][:, :num_answered]
    probabilities = np.zeros((NUM, num_classes), np.float32)
    probabilities[:, :num_answered] = scores / scores.sum(1, keepdims=True)
    return labels, probabilities.argmax(1), probabilities


@pytest.mark.parametrize(("num_classes", "num_answered"), [(2, 1), (3, 3), (5, 2), (10, 10), (10, 7)])
def test_they_are_scikit_learns_also_of_classes_that_are_never_tested_or_answered(
    num_classes: int, num_answered: int
) -> None:
    from sklearn.metrics import (
        balanced_accuracy_score,
        brier_score_loss,
        f1_score,
        log_loss,
    )
    from sklearn.metrics import (
        confusion_matrix as expected,
    )

    labels, predictions, probabilities = answers(num_classes, num_classes, num_answered)
    classes = np.arange(num_classes)
    found = confusion_matrix(labels, predictions, num_classes)
    assert (found == expected(labels, predictions, labels=classes)).all()
    assert macro_f1(found) == pytest.approx(f1_score(labels, predictions, average="macro", zero_division=0), abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are answered and not tested, and of zeros
        balanced = balanced_accuracy_score(labels, predictions)
        double = probabilities.astype(np.float64)
        brier = brier_score_loss(labels, double, labels=classes, scale_by_half=False)
        loss = log_loss(labels, np.maximum(double, 1e-7), labels=classes)
    assert np.nanmean(recalls(found)) == pytest.approx(balanced, abs=1e-12)
    of_probabilities = calibration(labels, predictions, probabilities)
    assert of_probabilities.brier == pytest.approx(brier, abs=1e-9)
    assert of_probabilities.log_loss == pytest.approx(loss, rel=1e-5)


def test_calibration_of_six_answers_by_hand() -> None:
    """Bins are 1/15 wide: .5 lies in the eighth (7/15 to 8/15), .7 in the eleventh, and 1 in the last, as .95 does."""
    confidences, is_right = (0.5, 0.5, 0.7, 0.95, 1.0, 1.0), (True, False, True, False, True, True)
    labels = np.zeros(6, np.int64)
    predictions = np.array([0 if right else 1 for right in is_right])
    probabilities = np.array([
        [each, 1 - each] if right else [1 - each, each] for each, right in zip(confidences, is_right, strict=True)
    ])  # fmt: skip
    found = calibration(labels, predictions, probabilities)
    # |1.0 − 1| + |.7 − 1| + |2.95 − 2|: sums of confidence and of right answers in each bin
    assert found.error == pytest.approx((0.0 + 0.3 + 0.95) / 6, abs=1e-12)
    assert found.num_B.tolist() == [0] * 7 + [2, 0, 0, 1, 0, 0, 0, 3]
    assert found.correct_B.tolist() == [0] * 7 + [1, 0, 0, 1, 0, 0, 0, 2]
    assert found.confidence_B[[7, 10, 14]] == pytest.approx([1.0, 0.7, 2.95])
    assert found.brier == pytest.approx((0.5 + 0.5 + 2 * 0.09 + 2 * 0.9025 + 0 + 0) / 6, abs=1e-12)
    expected = -(math.log(0.5) + math.log(0.5) + math.log(0.7) + math.log(0.05)) / 6
    assert found.log_loss == pytest.approx(expected, abs=1e-12)


def test_a_confidence_of_one_is_in_the_last_bin_and_of_nothing_in_the_first() -> None:
    sure = calibration(np.zeros(4, np.int64), np.zeros(4, np.int64), np.eye(3)[[0, 0, 0, 0]])
    assert (sure.error, sure.brier, sure.log_loss) == (0, 0, 0)
    assert sure.num_B.tolist() == [0] * 14 + [4]
    wrong = calibration(np.ones(2, np.int64), np.zeros(2, np.int64), np.eye(3)[[0, 0]])
    assert (wrong.error, wrong.brier) == (1, 2)
    assert wrong.log_loss == pytest.approx(-math.log(1e-7))
    none = calibration(np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([[0.0, 1.0]]))
    assert none.num_B.tolist() == [1] + [0] * 14


def made(
    folder: Path, sampling: str, num_seeds: int = 4, *, has_probabilities: bool = True
) -> tuple[tuple[Metrics, ...], list[Trial]]:
    """Metrics of a cell of three classes, the last never tested, and of its control; and the trials."""
    trials = []
    with open_folder(folder) as opened:
        for control in (NO_CONTROL, SHUFFLED_LABELS):
            for seed in range(num_seeds):
                labels, predictions, probabilities = answers(seed, 3, 3)
                labels = answers(0, 3, 3)[0] if sampling == GIVEN else labels
                key = f"{control}-{seed}"
                opened.keep_predictions(
                    key, np.arange(NUM), labels, predictions, probabilities if has_probabilities else None
                )
                trials.append(trial(key, control, seed, float((labels == predictions).mean())))
    return metrics(trials, 3, Scored(folder=folder, groups=None, sampling=sampling)), trials


def trial(key: str, control: str, seed: int, accuracy: float) -> Trial:
    return Trial(
        key=key, representation="stats", experiment="all", control=control, seed=seed, layers=("a",), head="ridge",
        setting={"strength": 1.0}, num_train=300, num_validation=60, num_test=NUM, num_features=4, num_effective=4,
        train_accuracy=1.0, validation_accuracy=0.5, test_accuracy=accuracy, chance=0.5, seconds=0.1,
    )  # fmt: skip


def test_a_cell_is_its_seeds_together(tmp_path: Path) -> None:
    (cell, control), trials = made(tmp_path, RESPLIT)
    every = [answers(seed, 3, 3) for seed in range(4)]
    confusion = np.array(cell.confusion)
    assert confusion.sum() == 4 * NUM
    assert np.trace(confusion) / confusion.sum() == pytest.approx(np.mean([each.test_accuracy for each in trials[:4]]))
    assert (control.control, control.confusion) == (SHUFFLED_LABELS, ())
    each_recall = np.array([recalls(confusion_matrix(labels, found, 3))[:2] for labels, found, _ in every])
    assert cell.class_accuracies[:2] == pytest.approx(each_recall.mean(0).tolist())
    assert cell.class_accuracies[2] is None
    assert cell.balanced_accuracy == pytest.approx(each_recall.mean())
    assert cell.calibration_error == pytest.approx(np.mean([calibration(*each).error for each in every]))
    assert len(cell.reliability) == 15
    assert sum(num for num, *_ in cell.reliability) == 4 * NUM
    assert sum(num * right for num, _, right in cell.reliability) == pytest.approx(np.trace(confusion))


def test_a_class_has_the_interval_of_its_own_accuracies_and_test_size(tmp_path: Path) -> None:
    every = [answers(seed, 3, 3) for seed in range(4)]
    recall = [float((found == 1)[labels == 1].mean()) for labels, found, _ in every]
    num_test = float(np.mean([(labels == 1).sum() for labels, *_ in every]))
    (resplit, _), _ = made(tmp_path / "resplit", RESPLIT)
    expected = corrected_resampled_interval(recall, num_test * 360 / NUM, num_test)
    assert resplit.class_intervals[1] == pytest.approx(expected.bounds)
    assert resplit.class_intervals[2] is None
    (independent, _), _ = made(tmp_path / "independent", INDEPENDENT)
    assert independent.class_intervals[1] == pytest.approx(t_interval(recall).bounds)
    (given, _), _ = made(tmp_path / "given", GIVEN)
    labels = every[0][0]
    correct = np.stack([(found == 1)[labels == 1] for _, found, _ in every])
    assert given.class_intervals[1] == pytest.approx(items_interval(correct).bounds)
    assert given.class_intervals[2] is None


def test_a_head_without_probabilities_has_no_calibration(tmp_path: Path) -> None:
    (cell, _), _ = made(tmp_path, RESPLIT, 1, has_probabilities=False)
    assert (cell.calibration_error, cell.brier, cell.log_loss, cell.reliability) == (None, None, None, ())
    assert cell.class_intervals == (None, None, None)  # of one seed


def test_the_page_tells_them_of_experiments_without_control() -> None:
    ablation = full_ablation()
    lines = page(ablation).splitlines()
    start = lines.index("## Beside accuracy, means over seeds")
    head, _, *rows = [line.strip("| ").split(" | ") for line in lines[start + 2 : start + 22]]
    assert head == [
        "experiment", "representation", "macro F1", "balanced accuracy", "worst class", "its accuracy",
        "calibration error", "samples seen",
    ]  # fmt: skip
    told = [each for each in ablation.metrics if each.control == NO_CONTROL and each.experiment in ablation.experiments]
    assert len(rows) == len(told) == 18
    for experiment, name, f1, balanced, worst, lowest, error, seen in rows:
        name = name.replace("\\_", "_")
        (each,) = [each for each in told if (each.experiment, each.representation) == (experiment, name)]
        assert each.calibration_error is not None
        expected = [each.macro_f1, each.balanced_accuracy, each.calibration_error]
        assert [f1, balanced, error] == [f"{value:.3f}" for value in expected]
        recall = each.class_accuracies[ablation.classes.index(worst)]
        assert recall == min(mean for mean in each.class_accuracies if mean is not None)
        assert lowest.startswith(f"{recall:.3f} (")
        assert seen == "15,600"
