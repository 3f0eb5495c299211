"""A logistic head at many strengths, beside scikit-learn's LogisticRegression one strength at a time.

python -m fovcache.bench.peers.logistic_path [--rounds 5] [--threads 1 4] [--warm] [--out DIR]
python -m fovcache.bench.peers.logistic_path --rows 1000 --dims 99648 --rounds 2 --strengths 9 --solvers lbfgs

Every way must come within 1e-6 of the least objective known, of itself, at every strength. scikit-learn is given, for
each solver and strength, the loosest power of ten as tolerance with which it does, and counts at its best solver and
number of threads.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fovcache.probes.heads.logistic import LogisticHead
from fovcache.probes.one_thread import one_thread

from .comparison import Comparison, Method, compare, finish

NUM_STRENGTHS = 45
STRENGTHS = tuple(float(each) for each in np.logspace(-2, 6, NUM_STRENGTHS))
NUM_CLASSES = 10
OURS = "ours, one path, 1 thread"
AT_LEAST = 2.0
AT_LEAST_WIDE = 20.0
RELATIVE_GAP = 1e-6
"""By which share of itself an objective may lie above the least known."""
SOLVERS = ("lbfgs", "newton-cg")
TOLERANCES = tuple(10.0**-each for each in range(3, 14))
"""scikit-learn's, of which the first is taken that reaches the gap; its default is 1e-4."""
_MAX_ITERATIONS = 100_000

Found = tuple[np.ndarray, np.ndarray]
"""Coefficients [S, K, D], intercepts [S, K]."""


def measure(
    *,
    rows: int,
    dims: int,
    rounds: int,
    threads: Sequence[int],
    solvers: Sequence[str] = SOLVERS,
    strengths: Sequence[float] = STRENGTHS,
    warm: bool = False,
) -> Comparison:
    """All coefficients of all strengths; `warm` also times scikit-learn's warm starts, from strong to weak."""
    from threadpoolctl import threadpool_limits

    x, y = make_rows(rows, dims)
    tensor = torch.from_numpy(x)
    head = LogisticHead(strengths=tuple(strengths))
    exact = LogisticHead(strengths=tuple(strengths), tolerance=1e-10).fit_rows(tensor, y, NUM_CLASSES)
    least_S = _objectives(x, y, strengths, _found(exact, x))

    def ours() -> Found:
        with one_thread():
            return _found(head.fit_rows(tensor, y, NUM_CLASSES), x)

    def theirs(solver: str, num_threads: int, tolerances: Sequence[float], is_warm: bool) -> Callable[[], Found]:
        def run() -> Found:
            with threadpool_limits(num_threads):
                model = _model(solver, is_warm)
                pairs = list(zip(strengths, tolerances, strict=True))[::-1]
                return _stacked([_fit(model, x, y, strength, tolerance) for strength, tolerance in pairs][::-1])

        return run

    def check(found: Found) -> None:
        off = _objectives(x, y, strengths, found) / least_S - 1
        assert off.max() <= RELATIVE_GAP, off.max()

    ways: dict[str, Callable[[], Found]] = {}
    for solver in solvers:
        for is_warm in (False, True) if warm else (False,):
            with threadpool_limits(min(threads)):
                tolerances = _tolerances(x, y, strengths, least_S, solver, is_warm)
            for num_threads in threads:
                name = f"scikit-learn, {solver}, {'warm' if is_warm else 'cold'}, threads: {num_threads}"
                ways[name] = theirs(solver, num_threads, tolerances, is_warm)
    methods = [
        Method(name=name, run=run, check=check, amount=len(strengths)) for name, run in {OURS: ours, **ways}.items()
    ]
    title = f"{len(strengths)} strengths of a logistic head on {rows} × {dims} float64, {NUM_CLASSES} classes"
    comparison = compare(title, methods, unit="strengths", rounds=rounds)
    cold = [name for name in ways if ", cold, " in name]
    comparison.judge(OURS, comparison.fastest(cold), AT_LEAST if dims <= rows else AT_LEAST_WIDE)
    if warm:
        comparison.judge(OURS, comparison.fastest([name for name in ways if name not in cold]))
    return comparison


def make_rows(rows: int, dims: int) -> Found:
    """Rows of standardised columns, and labels that depend on them with noise."""
    chance = np.random.default_rng(0)
    x = chance.standard_normal((rows, dims))
    scores = x @ chance.standard_normal((dims, NUM_CLASSES)) / np.sqrt(dims)
    y = (scores + 0.5 * chance.standard_normal((rows, NUM_CLASSES))).argmax(1)
    x -= x.mean(0)
    x /= x.std(0)
    return x, y


def _found(fitted: Any, x: np.ndarray) -> Found:
    planes = fitted.coefficients_SCD
    intercepts = fitted.intercepts_SC - planes @ fitted.axes.center_D
    return planes.numpy(), intercepts.numpy()


def _model(solver: str, is_warm: bool) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(solver=solver, max_iter=_MAX_ITERATIONS, warm_start=is_warm)


def _fit(model: Any, x: np.ndarray, y: np.ndarray, strength: float, tolerance: float) -> Found:
    """Coefficients [K, D] and intercepts [K]."""
    model.set_params(C=1 / strength, tol=tolerance).fit(x, y)
    return model.coef_.copy(), model.intercept_.copy()


def _stacked(found: Sequence[Found]) -> Found:
    coefficients, intercepts = zip(*found, strict=True)
    return np.stack(coefficients), np.stack(intercepts)


def _tolerances(
    x: np.ndarray, y: np.ndarray, strengths: Sequence[float], least_S: np.ndarray, solver: str, is_warm: bool
) -> list[float]:
    """For each strength the loosest with which a solver comes close enough, with some to spare for another rounding.

    From strong to weak, where it takes ever tighter ones.
    """
    model = _model(solver, is_warm)
    chosen: list[float] = []
    last: Found | None = None
    for strength, least in list(zip(strengths, least_S, strict=True))[::-1]:
        for tolerance in TOLERANCES:
            if chosen and tolerance > chosen[-1]:
                continue
            if last is not None:  # where a warm start begins
                model.coef_, model.intercept_ = last
            found = _fit(model, x, y, strength, tolerance)
            if _objectives(x, y, [strength], _stacked([found]))[0] / least - 1 <= RELATIVE_GAP / 2:
                break
        else:
            raise AssertionError(f"{solver} does not come within {RELATIVE_GAP:g} of the least objective")
        chosen.append(tolerance)
        last = found
    return chosen[::-1]


def _objectives(x: np.ndarray, y: np.ndarray, strengths: Sequence[float], found: Found) -> np.ndarray:
    """[S]: scikit-learn's, of the sum over rows."""
    from scipy.special import logsumexp

    objectives = []
    for strength, planes_KD, intercepts_K in zip(strengths, *found, strict=True):
        scores = x @ planes_KD.T + intercepts_K
        loss = (logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]).sum()
        objectives.append(loss + strength / 2 * (planes_KD**2).sum())
    return np.array(objectives)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--strengths", type=int, default=NUM_STRENGTHS, help="how many, from 0.01 to 1,000,000")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=SOLVERS)
    parser.add_argument("--warm", action="store_true", help="also scikit-learn's warm starts")
    parser.add_argument("--out", help="folder for logistic_path-ROWSxDIMS.json and .md")
    options = parser.parse_args()
    comparison = measure(
        rows=options.rows,
        dims=options.dims,
        rounds=options.rounds,
        threads=options.threads,
        solvers=options.solvers,
        strengths=[float(each) for each in np.logspace(-2, 6, options.strengths)],
        warm=options.warm,
    )
    finish(f"logistic_path-{options.rows}x{options.dims}", [comparison], options.out)


if __name__ == "__main__":
    main()
