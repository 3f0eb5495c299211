"""The ridge head is scikit-learn's RidgeClassifier at every strength, and its RidgeClassifierCV, from one
eigendecomposition."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV

from fovcache.errors import UsageError
from fovcache.probes.evaluate import run_trial
from fovcache.probes.heads.head import make_head
from fovcache.probes.heads.ridge import LEAVE_ONE_OUT, RidgeHead
from fovcache.probes.splits import Partition

STRENGTHS = (0.01, 1.0, 100.0, 10000.0)
SHAPES = [(200, 30), (60, 300), (60, 60), (60, 58)]


def made(num: int, dims: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with a mean far from 0, labels, and rows to predict."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((num + 50, dims)) * chance.uniform(0.1, 3, dims) + 5
    y = ((x - 5) @ chance.standard_normal((dims, classes))).argmax(1)
    return x[:num], y[:num], x[num:]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(("num", "dims"), SHAPES)
def test_coefficients_and_predictions_are_scikit_learns(num: int, dims: int, classes: int) -> None:
    x, y, new = made(num, dims, classes)
    fitted = RidgeHead(strengths=STRENGTHS).fit_rows(torch.from_numpy(x), y, classes)
    predictions = fitted.predict(torch.from_numpy(new))
    assert predictions.dtype == np.int64
    assert (fitted.chosen, fitted.notes, fitted.samples_seen) == (None, (), 0)
    assert fitted.probabilities(torch.from_numpy(new)) is None
    for number, strength in enumerate(STRENGTHS):
        theirs = RidgeClassifier(alpha=strength, solver="svd").fit(x, y)
        assert predictions[number].tolist() == theirs.predict(new).tolist()
        ours = fitted.at(number).coefficients_SKD[0].numpy()
        ours = ours[1:] if classes == 2 else ours
        assert np.linalg.norm(ours - theirs.coef_) <= 1e-10 * np.linalg.norm(theirs.coef_)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("num", "dims"), SHAPES)
def test_leaving_one_out_chooses_as_scikit_learn_does(num: int, dims: int, classes: int) -> None:
    x, y, _ = made(num, dims, classes)
    theirs = RidgeClassifierCV(alphas=STRENGTHS, store_cv_results=True).fit(x, y)
    fitted = RidgeHead(strengths=STRENGTHS, select=LEAVE_ONE_OUT).fit_rows(torch.from_numpy(x), y, classes)
    assert fitted.left_out_errors == pytest.approx(theirs.cv_results_.mean(axis=(0, 1)), rel=1e-9)
    assert STRENGTHS[fitted.chosen] == theirs.alpha_
    assert fitted.at(fitted.chosen).chosen == 0


@pytest.mark.parametrize(("num", "dims"), [(40, 12), (30, 90)])
def test_the_error_of_rows_left_out_is_that_of_fitting_without_them(num: int, dims: int) -> None:
    x, y, _ = made(num, dims, 3)
    head = RidgeHead(strengths=(0.01, 10.0))
    found = []
    for row in range(num):
        rest = np.arange(num) != row
        fitted = head.fit_rows(torch.from_numpy(x[rest]), y[rest], 3)
        offset = torch.from_numpy(x[row]) - fitted.axes.center_D
        scores = (fitted.coefficients_SKD @ offset + fitted.intercept_K).numpy()
        found.append(((scores - (2.0 * np.eye(3)[y[row]] - 1)) ** 2).mean(1))
    together = replace(head, select=LEAVE_ONE_OUT).fit_rows(torch.from_numpy(x), y, 3)
    assert together.left_out_errors == pytest.approx(np.mean(found, axis=0), rel=1e-9)


def test_where_train_chooses_validation_does_not() -> None:
    x, y, _ = made(240, 60, 3)
    sides = Partition(train=np.arange(80), validation=np.arange(80, 160), test=np.arange(160, 240))
    head = make_head("ridge", {"strengths": [1e-3, 1e1, 1e5], "select": "leave-one-out"})
    chosen = run_trial(x, y, sides, head, 3).setting
    other = y.copy()
    for seed in range(5):
        other[sides.validation] = np.random.default_rng(seed).integers(0, 3, 80)
        assert run_trial(x, other, sides, head, 3).setting == chosen
    assert chosen == {"strength": 10.0}
    assert head.document() != make_head("ridge", {"strengths": [1e-3, 1e1, 1e5]}).document()


def test_one_strength_of_the_path_is_the_path_there() -> None:
    x, y, new = made(60, 300, 3)
    fitted = RidgeHead(strengths=STRENGTHS).fit_rows(torch.from_numpy(x), y, 3)
    together = fitted.predict(torch.from_numpy(new))
    for number in range(len(STRENGTHS)):
        assert (fitted.at(number).predict(torch.from_numpy(new))[0] == together[number]).all()


@pytest.mark.parametrize("num", [5, 20, 2000])
def test_scores_are_the_same_by_whichever_way_is_less_work(num: int) -> None:
    for x, y, _ in (made(90, 40, 3), made(40, 90, 3)):
        fitted = RidgeHead(strengths=(0.1, 10.0)).fit_rows(torch.from_numpy(x), y, 3)
        new = torch.from_numpy(np.random.default_rng(1).standard_normal((num, x.shape[1])))
        planes = (new - fitted.axes.center_D) @ fitted.coefficients_SKD.mT + fitted.intercept_K
        assert (fitted.predict(new) == planes.argmax(2).numpy()).all()


def test_columns_that_say_nothing_new_change_nothing() -> None:
    """Duplicates and constants leave axes along which nothing varies but rounding."""
    x, y, _ = made(60, 20, 3)
    for more in (x, np.ones((60, 3)), np.tile(x, 4)):
        fitted = RidgeHead(strengths=(1e-6, 1.0), select=LEAVE_ONE_OUT).fit_rows(
            torch.from_numpy(np.hstack([x, more])), y, 3
        )
        assert len(fitted.axes.values_R) == 20
        assert np.isfinite(fitted.left_out_errors).all()


def test_digits_are_read_as_scikit_learn_reads_them() -> None:
    x, y = load_digits(return_X_y=True)
    half = len(x) // 2
    fitted = RidgeHead(strengths=(1.0,)).fit_rows(torch.from_numpy(x[:half]), y[:half], 10)
    theirs = RidgeClassifier().fit(x[:half], y[:half]).predict(x[half:])
    assert fitted.predict(torch.from_numpy(x[half:]))[0].tolist() == theirs.tolist()


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    x, y, _ = made(400, 120, 4)
    before = torch.get_num_threads()
    found = []
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            found.append(RidgeHead().fit_rows(torch.from_numpy(x), y, 4))
            assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    assert found[0].target_RK.numpy().tobytes() == found[1].target_RK.numpy().tobytes()


@pytest.mark.parametrize(
    ("strengths", "message"),
    [((), "at least one"), ((0.0, 1.0), "holds 0.0"), ((float("nan"),), "nan"), ((-1,), "-1"), ((1, 10, 1), "twice")],
)
@pytest.mark.parametrize("head", ["ridge", "logistic"])
def test_strengths_that_cannot_be_are_refused(head: str, strengths: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_head(head, {"strengths": strengths})


def test_settings_are_sorted_or_refused() -> None:
    assert make_head("ridge", {"strengths": [10, 1]}).candidates == ({"strength": 1}, {"strength": 10})
    with pytest.raises(UsageError, match="select = 'leave-one'; nearest: leave-one-out"):
        make_head("ridge", {"select": "leave-one"})
    with pytest.raises(UsageError, match="no head named 'rigde'; nearest: ridge"):
        make_head("rigde")
