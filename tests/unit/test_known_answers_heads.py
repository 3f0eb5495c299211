"""Accuracies that scikit-learn's own documentation prints, by our heads and without a network."""

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits

from fovcache.probes.heads.head import Fitted, make_head
from fovcache.probes.heads.ridge import LEAVE_ONE_OUT


def digits_exercise() -> tuple[torch.Tensor, np.ndarray, torch.Tensor, np.ndarray]:
    """Its "Digits Classification Exercise": pixels over the largest, the first 90 % to fit on, the rest to score."""
    x, y = load_digits(return_X_y=True)
    rows = torch.from_numpy(x / x.max())
    num = int(0.9 * len(y))
    return rows[:num], y[:num], rows[num:], y[num:]


def accuracy(fitted: Fitted, x: torch.Tensor, y: np.ndarray) -> float:
    """Of the head's only candidate."""
    (found,) = fitted.predict(x)
    return float((found == y).mean())


def test_knn_on_digits() -> None:
    x, y, x_test, y_test = digits_exercise()
    fitted = make_head("knn", {"neighbours": [5]}).fit_rows(x, y, 10)
    assert f"{accuracy(fitted, x_test, y_test):.6f}" == "0.961111"


def test_logistic_on_digits() -> None:
    x, y, x_test, y_test = digits_exercise()
    fitted = make_head("logistic", {"strengths": [1.0]}).fit_rows(x, y, 10)
    assert f"{accuracy(fitted, x_test, y_test):.6f}" == "0.933333"


def test_ridge_on_breast_cancer_with_a_strength_chosen_by_leaving_one_out() -> None:
    """RidgeClassifierCV's docstring, which prints 0.9630...: scored on the rows that it was fitted on."""
    x, y = load_breast_cancer(return_X_y=True)
    rows = torch.from_numpy(x)
    head = make_head("ridge", {"strengths": [1e-3, 1e-2, 1e-1, 1.0], "select": LEAVE_ONE_OUT})
    fitted = head.fit_rows(rows, y, 2)
    assert str(accuracy(fitted.at(fitted.chosen), rows, y)).startswith("0.9630")
