"""The logistic head is the minimum that scikit-learn's LogisticRegression seeks, at every strength, and certified."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from fovcache.errors import UsageError
from fovcache.probes.heads.head import make_head
from fovcache.probes.heads.logistic import FittedLogistic, LogisticHead
from fovcache.probes.one_thread import one_thread

STRENGTHS = (0.01, 1.0, 100.0)


def made(num: int, dims: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of unlike size and with a mean, one of them all but twice there; classes that overlap."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((num, dims))
    y = (
        x @ chance.standard_normal((dims, classes)) + 2 * np.sqrt(dims) * chance.standard_normal((num, classes))
    ).argmax(1)
    x = x * np.geomspace(0.1, 3, dims) + 2
    x[:, 0] = x[:, -1] + 1e-4 * x[:, 0]
    return x, y


def objective(x: np.ndarray, y: np.ndarray, strength: float, planes: np.ndarray, intercepts: np.ndarray) -> float:
    """scikit-learn's; two classes have one plane."""
    if len(planes) == 1:
        scores = np.stack([np.zeros(len(x)), x @ planes[0] + intercepts[0]], 1)
    else:
        scores = x @ planes.T + intercepts
    loss = (logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]).sum()
    return float(loss + strength / 2 * (planes**2).sum())


def as_theirs(fitted: FittedLogistic, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and intercepts of one strength as scikit-learn has them."""
    planes, intercepts = fitted.coefficients_SCD[number].numpy(), fitted.intercepts_SC[number].numpy()
    intercepts = intercepts - planes @ fitted.axes.center_D.numpy()
    return (planes, intercepts) if len(planes) > 2 else (planes[1:] - planes[:1], intercepts[1:] - intercepts[:1])


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("num", "dims"), [(300, 20), (60, 200), (60, 59)])
def test_objective_coefficients_and_probabilities_are_those_of_scikit_learns_minimum(
    num: int, dims: int, classes: int
) -> None:
    x, y = made(num, dims, classes)
    rows = torch.from_numpy(x)
    fitted = LogisticHead(strengths=STRENGTHS, tolerance=1e-11).fit_rows(rows, y, classes)
    assert fitted.notes == ()
    assert max(fitted.gaps) <= 1e-11
    probabilities = fitted.probabilities(rows)
    assert probabilities.dtype == np.float32
    for number, strength in enumerate(STRENGTHS):
        theirs = LogisticRegression(C=1 / strength, solver="newton-cg", tol=1e-10, max_iter=1000).fit(x, y)
        best = objective(x, y, strength, theirs.coef_, theirs.intercept_)
        planes, intercepts = as_theirs(fitted, number)
        assert objective(x, y, strength, planes, intercepts) == pytest.approx(best, rel=1e-9)
        assert np.linalg.norm(planes - theirs.coef_) <= 1e-4 * np.linalg.norm(theirs.coef_)
        assert probabilities[number] == pytest.approx(theirs.predict_proba(x), abs=1e-4)
        assert (fitted.predict(rows)[number] == theirs.predict(x)).mean() >= 0.98  # some lie on the border


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_the_gap_is_at_least_the_true_one(tolerance: float) -> None:
    x, y = made(200, 30, 3)
    strengths = tuple(np.logspace(-4, 4, 9).tolist())
    best = LogisticHead(strengths=strengths, tolerance=1e-12).fit_rows(torch.from_numpy(x), y, 3)
    fitted = LogisticHead(strengths=strengths, tolerance=tolerance).fit_rows(torch.from_numpy(x), y, 3)
    for number, strength in enumerate(strengths):
        found, least = (objective(x, y, strength, *as_theirs(each, number)) for each in (fitted, best))
        assert -1e-11 <= found / least - 1 <= fitted.gaps[number] <= tolerance


def test_classes_that_can_be_parted_converge_at_weak_strengths_too() -> None:
    x, y = load_digits(return_X_y=True)
    x = (x - x.mean(0)) / (x.std(0) + 1)
    strengths = tuple(np.logspace(-5, 2, 8).tolist())
    fitted = LogisticHead(strengths=strengths).fit_rows(torch.from_numpy(x), y, 10)
    assert fitted.notes == ()
    assert (fitted.predict(torch.from_numpy(x))[0] == y).all()
    assert fitted.probabilities(torch.from_numpy(x))[0][np.arange(len(y)), y].min() > 0.9


def test_a_path_comes_to_what_each_strength_comes_to_alone() -> None:
    x, y = made(200, 30, 3)
    rows = torch.from_numpy(x)
    fitted = LogisticHead(strengths=STRENGTHS, tolerance=1e-10).fit_rows(rows, y, 3)
    for number, strength in enumerate(STRENGTHS):
        alone = LogisticHead(strengths=(strength,), tolerance=1e-10).fit_rows(rows, y, 3)
        assert fitted.at(number).probabilities(rows) == pytest.approx(alone.probabilities(rows), abs=1e-3)
        assert (fitted.at(number).predict(rows)[0] == fitted.predict(rows)[number]).all()


@pytest.mark.parametrize("present", [[0, 2, 3], [1, 4]])
def test_a_class_that_train_lacks_is_never_said(present: list[int]) -> None:
    x, y = made(300, 20, len(present))
    y = np.array(present)[y]
    fitted = LogisticHead(strengths=(1.0,), tolerance=1e-9).fit_rows(torch.from_numpy(x), y, 5)
    theirs = LogisticRegression(tol=1e-9, max_iter=2000).fit(x, y)
    probabilities = fitted.probabilities(torch.from_numpy(x))
    assert probabilities.shape == (1, 300, 5)
    found = probabilities[0, :, present].T
    assert found == pytest.approx(theirs.predict_proba(x), abs=1e-4)
    assert probabilities.sum(2) == pytest.approx(1, abs=1e-6)
    assert set(fitted.predict(torch.from_numpy(x))[0]) <= set(present)


def test_what_has_not_converged_is_noted_and_kept() -> None:
    x, y = load_digits(return_X_y=True)
    rows = torch.from_numpy(x / 16)
    fitted = LogisticHead(strengths=(1e-4, 1e6), max_iterations=20).fit_rows(rows, y, 10)
    (note,) = fitted.notes
    assert note.startswith("not converged after 20 iterations at strength 0.0001: within ")
    assert fitted.gaps[0] > 1e-7 >= fitted.gaps[1]
    assert (fitted.predict(rows)[0] == y).mean() > 0.9


def test_fits_in_several_threads_come_to_the_same_and_leave_the_process_as_it_was() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    rows, before = torch.from_numpy((x - x.mean(0)) / x.std(0)), threadpool_info()
    head = LogisticHead(strengths=(0.1, 10.0))
    with one_thread(), ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: head.fit_rows(rows, y, 2), range(6)))
    assert len({each.weights_SCR.numpy().tobytes() for each in found}) == 1
    assert [pool["num_threads"] for pool in threadpool_info()] == [pool["num_threads"] for pool in before]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0}, "tolerance = 0, expected a number from 1e-14 to below 1"),
        ({"tolerance": "small"}, "tolerance = 'small'"),
        ({"max_iterations": 0.5}, "max_iterations = 0.5, expected a whole number above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_head("logistic", settings)
