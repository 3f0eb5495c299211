"""The ridge head is scikit-learn's RidgeClassifier at every strength, from one eigendecomposition."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV

from fovcache.errors import UsageError
from fovcache.probes.head import make_head
from fovcache.probes.ridge import RidgeHead

STRENGTHS = (0.01, 1.0, 100.0, 10000.0)


def made(num: int, dims: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with a mean far from 0, labels, and rows to predict."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((num + 50, dims)) * chance.uniform(0.1, 3, dims) + 5
    y = ((x - 5) @ chance.standard_normal((dims, classes))).argmax(1)
    return x[:num], y[:num], x[num:]


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(("num", "dims"), [(200, 30), (60, 300), (60, 60)])
def test_coefficients_and_predictions_are_scikit_learns(num: int, dims: int, classes: int) -> None:
    x, y, new = made(num, dims, classes)
    fitted = RidgeHead(strengths=STRENGTHS).fit_rows(torch.from_numpy(x), y, classes)
    predictions = fitted.predict(torch.from_numpy(new))
    assert predictions.dtype == np.int64
    for number, strength in enumerate(STRENGTHS):
        theirs = RidgeClassifier(alpha=strength, solver="svd").fit(x, y)
        assert predictions[number].tolist() == theirs.predict(new).tolist()
        ours = fitted.at(number).coefficients_SKD[0].numpy()
        ours = ours[1:] if classes == 2 else ours
        assert np.linalg.norm(ours - theirs.coef_) <= 1e-10 * np.linalg.norm(theirs.coef_)


def test_one_strength_of_the_path_is_the_path_there() -> None:
    x, y, new = (torch.as_tensor(each) for each in made(60, 300, 3))
    fitted = RidgeHead(strengths=STRENGTHS).fit_rows(x, y.numpy(), 3)
    for number in range(len(STRENGTHS)):
        assert (fitted.at(number).predict(new) == fitted.predict(new)[number]).all()


def test_digits_are_read_as_scikit_learn_reads_them() -> None:
    x, y = load_digits(return_X_y=True)
    half = len(x) // 2
    fitted = RidgeHead(strengths=(1.0,)).fit(torch.from_numpy(x[:half]), y[:half], 10)
    theirs = RidgeClassifier().fit(x[:half], y[:half]).predict(x[half:])
    assert fitted.predict(torch.from_numpy(x[half:]))[0].tolist() == theirs.tolist()


def test_breast_cancer_gives_the_accuracy_that_scikit_learns_manual_prints() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    strengths = (1e-3, 1e-2, 1e-1, 1.0)
    chosen = RidgeClassifierCV(alphas=strengths).fit(x, y).alpha_
    fitted = RidgeHead(strengths=strengths).fit_rows(torch.from_numpy(x), y, 2)
    accuracy = (fitted.at(strengths.index(chosen)).predict(torch.from_numpy(x))[0] == y).mean()
    assert accuracy == pytest.approx(0.9630, abs=1e-4)


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
    [((), "at least one"), ((0.0, 1.0), "a strength is 0.0"), ((float("nan"),), "nan"), ((-1,), "-1")],
)
@pytest.mark.parametrize("head", ["ridge", "logistic"])
def test_strengths_that_cannot_be_are_refused(head: str, strengths: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_head(head, strengths)


def test_strengths_are_sorted_and_heads_have_names() -> None:
    assert make_head("ridge", [10, 1, 10]).strengths == (1, 10)
    assert make_head("logistic").name == "logistic"
    with pytest.raises(UsageError, match="no head named 'rigde'; nearest: ridge"):
        make_head("rigde")
