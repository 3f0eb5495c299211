"""A ridge head at many strengths from one eigendecomposition, beside scikit-learn's RidgeClassifier one by one; and
the strength chosen by leaving one row out, beside its RidgeClassifierCV.

python -m fovcache.bench.peers.ridge_path [--rows 5000] [--dims 384] [--rounds 12] [--threads 1 4] [--out DIR]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fovcache.probes.heads.ridge import LEAVE_ONE_OUT, RidgeHead

from .comparison import Comparison, Method, compare, finish

NUM_STRENGTHS = 45
NUM_CLASSES = 10
OURS = "ours, one eigendecomposition"
LEAVING_OUT = "ours, leaving one out"
AT_LEAST = 10.0
RELATIVE = 1e-10
"""Largest relative difference of coefficients, in float64."""


def measure(*, rows: int, dims: int, rounds: int, threads: Sequence[int]) -> Comparison:
    """All coefficients of all strengths; scikit-learn counts at its best of these numbers of threads."""
    from sklearn.linear_model import RidgeClassifier
    from threadpoolctl import threadpool_limits

    x, y, strengths = _made(rows, dims)
    head, tensor = RidgeHead(strengths=strengths), torch.from_numpy(x)
    wanted = _solved(x, y, strengths)

    def ours() -> np.ndarray:
        found: np.ndarray = head.fit_rows(tensor, y, NUM_CLASSES).coefficients_SKD.numpy()
        return found

    def theirs(num_threads: int) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            with threadpool_limits(num_threads):
                return np.stack([RidgeClassifier(alpha=strength).fit(x, y).coef_ for strength in strengths])

        return run

    def check(found: Any) -> None:
        off = np.linalg.norm(found - wanted, axis=(1, 2)) / np.linalg.norm(wanted, axis=(1, 2))
        assert off.max() <= RELATIVE, off.max()

    ways = {f"scikit-learn, one by one, threads: {num}": theirs(num) for num in threads}
    methods = [
        Method(name=name, run=run, check=check, amount=NUM_STRENGTHS) for name, run in {OURS: ours, **ways}.items()
    ]
    title = f"{NUM_STRENGTHS} strengths of a ridge head on {rows} × {dims} float64, {NUM_CLASSES} classes"
    comparison = compare(title, methods, unit="strengths", rounds=rounds)
    comparison.judge(OURS, comparison.fastest(list(ways)), AT_LEAST)
    return comparison


def measure_left_out(*, rows: int, dims: int, rounds: int, threads: Sequence[int]) -> Comparison:
    """The strength with the smallest error of rows left out, and the coefficients there."""
    from sklearn.linear_model import RidgeClassifierCV
    from threadpoolctl import threadpool_limits

    x, y, strengths = _made(rows, dims)
    head, tensor = RidgeHead(strengths=strengths, select=LEAVE_ONE_OUT), torch.from_numpy(x)
    wanted = RidgeClassifierCV(alphas=strengths).fit(x, y)

    def ours() -> tuple[float, np.ndarray]:
        fitted = head.fit_rows(tensor, y, NUM_CLASSES)
        assert fitted.chosen is not None
        return strengths[fitted.chosen], fitted.at(fitted.chosen).coefficients_SKD[0].numpy()

    def theirs(num_threads: int) -> Callable[[], tuple[float, np.ndarray]]:
        def run() -> tuple[float, np.ndarray]:
            with threadpool_limits(num_threads):
                fitted = RidgeClassifierCV(alphas=strengths).fit(x, y)
            return fitted.alpha_, fitted.coef_

        return run

    def check(found: tuple[float, np.ndarray]) -> None:
        assert found[0] == wanted.alpha_, (found[0], wanted.alpha_)
        assert np.linalg.norm(found[1] - wanted.coef_) <= 1e-8 * np.linalg.norm(wanted.coef_)

    ways = {f"scikit-learn's RidgeClassifierCV, threads: {num}": theirs(num) for num in threads}
    methods = [
        Method(name=name, run=run, check=check, amount=NUM_STRENGTHS)
        for name, run in {LEAVING_OUT: ours, **ways}.items()
    ]
    title = (
        f"the best of {NUM_STRENGTHS} strengths by leaving one of {rows} × {dims} float64 out, {NUM_CLASSES} classes"
    )
    comparison = compare(title, methods, unit="strengths", rounds=rounds)
    comparison.judge(LEAVING_OUT, comparison.fastest(list(ways)))
    return comparison


def _made(rows: int, dims: int) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Rows, labels with noise, strengths."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((rows, dims))
    y = (x @ chance.standard_normal((dims, NUM_CLASSES)) + 10 * chance.standard_normal((rows, NUM_CLASSES))).argmax(1)
    return x, y, tuple(float(each) for each in np.logspace(-2, 6, NUM_STRENGTHS))


def _solved(x: np.ndarray, y: np.ndarray, strengths: tuple[float, ...]) -> np.ndarray:
    """Coefficients [strengths, classes, dims] by one linear system a strength."""
    centred = x - x.mean(0)
    targets = 2.0 * np.eye(NUM_CLASSES)[y] - 1.0
    products, right = centred.T @ centred, centred.T @ (targets - targets.mean(0))
    identity = np.eye(x.shape[1])
    return np.stack([np.linalg.solve(products + strength * identity, right).T for strength in strengths])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", help="folder for ridge_path.json and ridge_path.md")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    options = parser.parse_args()
    shape: dict[str, Any] = {name: getattr(options, name) for name in ("rows", "dims", "rounds", "threads")}
    finish("ridge_path", [measure(**shape), measure_left_out(**shape)], options.out)


if __name__ == "__main__":
    main()
