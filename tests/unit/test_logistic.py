"""The logistic head is scikit-learn's LogisticRegression at every strength."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from fovcache.probes.logistic import LogisticHead
from fovcache.probes.one_thread import one_thread


def test_digits_give_the_accuracy_of_scikit_learns_example() -> None:
    """Its "Digits Classification Exercise": the first 90 % to fit on, the last 10 % to score."""
    x, y = load_digits(return_X_y=True)
    x = x / x.max()
    num = int(0.9 * len(x))
    fitted = LogisticHead(strengths=(1.0,)).fit(torch.from_numpy(x[:num]), y[:num], 10)
    assert (fitted.predict(torch.from_numpy(x[num:]))[0] == y[num:]).mean() == pytest.approx(0.933333, abs=1e-6)
    assert fitted.notes == ()


def test_the_path_predicts_what_a_cold_start_predicts() -> None:
    x, y = load_digits(return_X_y=True)
    x, y = (x - x.mean(0)) / (x.std(0) + 1), y % 5
    strengths = (0.1, 10.0, 1000.0)
    fitted = LogisticHead(strengths=strengths).fit_rows(torch.from_numpy(x[:600]), y[:600], 5)
    predictions = fitted.predict(torch.from_numpy(x[600:]))
    for number, strength in enumerate(strengths):
        theirs = LogisticRegression(C=1 / strength, max_iter=1000).fit(x[:600], y[:600]).predict(x[600:])
        assert (predictions[number] == theirs).mean() >= 0.99  # both stop at a tolerance
        assert (fitted.at(number).predict(torch.from_numpy(x[600:]))[0] == predictions[number]).all()


def test_two_classes_are_two() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    fitted = LogisticHead(strengths=(1.0, 10.0)).fit(torch.from_numpy(x), y, 2)
    theirs = LogisticRegression(C=1.0, max_iter=1000).fit(x, y).predict(x)
    assert (fitted.predict(torch.from_numpy(x))[0] == theirs).all()


def test_what_has_not_converged_is_noted_and_kept() -> None:
    x, y = load_digits(return_X_y=True)
    fitted = LogisticHead(strengths=(1e-4, 1e6), max_iterations=20).fit(torch.from_numpy(x / 16), y, 10)
    assert fitted.notes == ("not converged after 20 iterations at strength 0.0001",)
    assert np.isfinite(fitted.coefficients_SKD).all()


def test_fits_in_several_threads_are_told_apart_and_leave_the_process_as_it_was() -> None:
    x, y = load_digits(return_X_y=True)
    rows, before, filters = torch.from_numpy(x / 16), threadpool_info(), list(warnings.filters)
    heads = [LogisticHead(strengths=(0.1, 10.0), max_iterations=(5, 1000)[number % 2]) for number in range(8)]
    with one_thread(), ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda head: head.fit_rows(rows, y, 10), heads))
    assert [bool(each.notes) for each in found] == [True, False] * 4
    assert len({each.coefficients_SKD.tobytes() for each in found[1::2]}) == 1
    assert [pool["num_threads"] for pool in threadpool_info()] == [pool["num_threads"] for pool in before]
    assert warnings.filters == filters
