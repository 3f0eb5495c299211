"""Made process-level times of a suite, as noisy as machines are: for simulated checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """How far processes of the same code lie apart. Shares are of processes, sizes of the logarithm of the time."""

    typical: float
    """Standard deviation of a benchmark's own noise, in the median over the benchmarks."""
    spread: float
    """How unequal benchmarks are: standard deviation of the logarithm of that."""
    outlier_share: float
    """Of a benchmark's processes that something disturbs, each for itself."""
    outlier_size: float
    """Mean of an exponential distribution."""
    mode_share: float
    """Of benchmarks that have a second mode, as from memory's layout."""
    mode_size: float
    """The second mode is up to this much slower."""
    slow_share: float
    """Of processes that run on a slower clock, all benchmarks in them."""
    slow_size: float
    """How much slower."""
    drift: float
    """Standard deviation of what all benchmarks of a process share with the processes before and after it."""
    memory: float
    """Correlation of that with the next process."""


NOISES: Mapping[str, Noise] = {
    "quiet machine": Noise(
        typical=0.013,
        spread=0.5,
        outlier_share=0.02,
        outlier_size=0.05,
        mode_share=0.1,
        mode_size=0.05,
        slow_share=0.02,
        slow_size=0.03,
        drift=0.005,
        memory=0.9,
    ),
    "shared machine": Noise(
        typical=0.020,
        spread=0.5,
        outlier_share=0.05,
        outlier_size=0.15,
        mode_share=0.3,
        mode_size=0.10,
        slow_share=0.15,
        slow_size=0.06,
        drift=0.02,
        memory=0.9,
    ),
    "bad machine": Noise(
        typical=0.040,
        spread=0.5,
        outlier_share=0.10,
        outlier_size=0.25,
        mode_share=0.5,
        mode_size=0.15,
        slow_share=0.30,
        slow_size=0.10,
        drift=0.05,
        memory=0.95,
    ),
}
"""Half the width of the middle 68 % of a benchmark's processes is 1.2, 3.6 and 8 % here, in the median benchmark. The
fastest rounds of `tests/benchmarks/test_hot_paths.py` measured 1.1 % on 4 cores beside others' work, and 1.8 % while
four more processes kept all cores and the memory busy."""


def made_times(
    noise: Noise, chance: np.random.Generator, *, suites: int, benchmarks: int, processes: int
) -> np.ndarray:
    """Logarithms of times, float64 [suites, benchmarks, processes], the processes in the order of time."""
    each = (suites, benchmarks, 1)
    shape = (suites, benchmarks, processes)
    own = noise.typical * np.exp(noise.spread * chance.standard_normal(each))
    logs: np.ndarray = own * chance.standard_t(4, shape) / math.sqrt(2)  # of variance 1
    logs += chance.exponential(noise.outlier_size, shape) * (chance.random(shape) < noise.outlier_share)
    height = noise.mode_size * chance.random(each) * (chance.random(each) < noise.mode_share)
    logs += height * (chance.random(shape) < chance.random(each))
    shared = noise.slow_size * (chance.random((suites, 1, processes)) < noise.slow_share) + _drift(
        noise, chance, suites, processes
    )
    logs += shared * chance.uniform(0.5, 1.5, each)
    return logs


def _drift(noise: Noise, chance: np.random.Generator, suites: int, processes: int) -> np.ndarray:
    """A stationary autoregressive series, [suites, 1, processes]."""
    steps = chance.standard_normal((suites, 1, processes))
    series = np.empty_like(steps)
    series[..., 0] = steps[..., 0]
    fresh = math.sqrt(1 - noise.memory**2)
    for number in range(1, processes):
        series[..., number] = noise.memory * series[..., number - 1] + fresh * steps[..., number]
    return noise.drift * series
