"""Heads on cached features: a path of strengths, splits, and a whole trial."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from fovcache.bench.peers import heads, logistic_path, ridge_path
from fovcache.probes.evaluate import run_trial
from fovcache.probes.heads.head import make_head
from fovcache.probes.heads.ridge import RidgeHead
from fovcache.probes.splits import SplitRule, partition

NUM_ROWS, NUM_DIMS, NUM_CLASSES = 5000, 384, 10
THREADS = sorted({1, os.cpu_count() or 1})
STRENGTHS = tuple(float(each) for each in np.logspace(-2, 6, 45))


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys, rows and labels."""
    chance = np.random.default_rng(0)
    y = chance.integers(0, NUM_CLASSES, NUM_ROWS)
    x = chance.standard_normal((NUM_ROWS, NUM_DIMS)) + 0.1 * chance.standard_normal((NUM_CLASSES, NUM_DIMS))[y]
    return chance.integers(0, 256, (NUM_ROWS, 32), dtype=np.uint8), x, y


def test_ridge_path_is_ten_times_scikit_learns() -> None:
    """Fails only where it is missed for certain: where the whole interval lies below."""
    comparison = ridge_path.measure(rows=NUM_ROWS, dims=NUM_DIMS, rounds=7, threads=[1])
    (bar,) = comparison.bars
    assert bar.high >= ridge_path.AT_LEAST


def test_logistic_path_is_twice_scikit_learns() -> None:
    """As above; of its solvers the one that is fastest on these rows."""
    comparison = logistic_path.measure(rows=NUM_ROWS, dims=NUM_DIMS, rounds=3, threads=[1], solvers=["lbfgs"])
    (bar,) = comparison.bars
    assert bar.high >= logistic_path.AT_LEAST


def test_logistic_path_of_more_columns_than_rows_is_twenty_times_scikit_learns() -> None:
    """As above, of a shape that does not take scikit-learn half an hour."""
    comparison = logistic_path.measure(
        rows=300, dims=20_000, rounds=2, threads=[1], solvers=["lbfgs"], strengths=STRENGTHS[::3]
    )
    (bar,) = comparison.bars
    assert bar.high >= logistic_path.AT_LEAST_WIDE


def test_ridge_path(benchmark: BenchmarkFixture, made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, x, y = made
    fitted = benchmark(RidgeHead(strengths=STRENGTHS).fit_rows, torch.from_numpy(x), y, NUM_CLASSES)
    assert (fitted.at(30).predict(torch.from_numpy(x))[0] == y).mean() > 0.5


def test_logistic_path(benchmark: BenchmarkFixture, made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, x, y = made
    fitted = benchmark(make_head("logistic").fit_rows, torch.from_numpy(x), y, NUM_CLASSES)
    assert fitted.notes == ()


def test_nearest_neighbours(benchmark: BenchmarkFixture, made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    _, x, y = made
    fitted = make_head("knn").fit_rows(torch.from_numpy(x), y, NUM_CLASSES)
    assert (benchmark(fitted.predict, torch.from_numpy(x[:1000]))[0] == y[:1000]).all()


def test_trial(benchmark: BenchmarkFixture, made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    keys, x, y = made
    parts = partition(keys, y, None, None, SplitRule(kind="resplit"), 0)
    outcome = benchmark(run_trial, x.astype(np.float32), y, parts, make_head("ridge"), NUM_CLASSES)
    assert outcome.test_accuracy > 0.5


def test_split_by_group(benchmark: BenchmarkFixture, made: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    keys, _, y = made
    groups = [f"group {number // 5}" for number in range(NUM_ROWS)]
    parts = benchmark(partition, keys, y, groups, None, SplitRule(kind="resplit", group=True), 0)
    assert len(parts.test) == pytest.approx(NUM_ROWS / 4, abs=10)


def test_linear_heads_are_fifty_times_a_data_loader_and_five_times_indexing() -> None:
    """Fails as the ridge path does. The peers have one thread, since more make them slower, and ours has all cores.
    Fifty times has not been reached yet: 26 (18 – 28) on two."""
    comparison = heads.linear(
        rows=5000, dims=384, problems=5, candidates=9, epochs=5, rounds=7, threads=THREADS[-1:], peer_threads=[1]
    )
    to_loader, to_indexing = comparison.bars
    assert to_loader.high >= heads.LINEAR_TO_LOADER
    assert to_indexing.high >= heads.LINEAR_TO_INDEXING


def test_mlps_are_three_times_indexing() -> None:
    comparison = heads.mlp(rows=700, dims=640, problems=8, epochs=5, rounds=7, threads=THREADS)
    to_indexing, _ = comparison.bars
    assert to_indexing.high >= heads.MLP_TO_INDEXING


def test_linear_heads(benchmark: BenchmarkFixture) -> None:
    problems = [heads.make_problem(2000, 128, seed) for seed in range(4)]
    head = make_head("linear", {"epochs": 5})
    fitted = benchmark(head.fit, problems)
    assert (fitted[0].predict(problems[0].x_validation_MD) == problems[0].y_validation_M).mean() > 0.2


def test_mlps(benchmark: BenchmarkFixture) -> None:
    problems = [heads.make_problem(700, 640, seed) for seed in range(2)]
    head = make_head("mlp", {"epochs": 2})
    fitted = benchmark(head.fit, problems)
    assert [each.samples_seen for each in fitted] == [2 * 700, 2 * 700]
