"""How often `fovbench check` alarms without a cause, and how often it sees a slowdown, on made times.

`python -m fovcache.bench.regression.simulate` runs the check's own judgement on suites whose noise is made: benchmarks
unequally noisy, heavy tails, second modes, slow clocks and drift that all benchmarks of a process share.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .in_turns import turns
from .judge import CONFIRMING_PROCESSES, MIN_PROCESSES, difference
from .noise import NOISES, Noise, made_times

SUITES, BENCHMARKS, SLOWDOWN = 10_000, 50, 1.15
_AT_ONCE = 250
"""Suites; bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of trials that came out one way."""

    count: int
    """Trials that did."""
    trials: int
    """All of them."""

    @property
    def value(self) -> float:
        """count / trials."""
        return self.count / self.trials

    @property
    def error(self) -> float:
        """Monte Carlo standard error; of one more count at the edges, where the usual one would be 0."""
        share = min(max(self.value, 1 / self.trials), 1 - 1 / self.trials)
        return math.sqrt(share * (1 - share) / self.trials)

    def __str__(self) -> str:
        return f"{self.value:.2%} ± {self.error:.2%}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What became of simulated suites of one kind of noise."""

    false_alarms: Share
    """Suites of equal sides in which `check` alarms on any benchmark."""
    false_alarms_compare: Share
    """The same for `compare` of sides measured in turns: without a confirmation."""
    false_alarms_apart: Share
    """The same for `compare` of sides measured one after the other."""
    confirmations: Share
    """Suites of equal sides in which `check` measures something again."""
    detections: Share
    """Slowed benchmarks that `check` alarms on."""
    detections_compare: Share
    """The same for `compare` of sides measured in turns."""


def simulate(noise: Noise, *, suites: int, benchmarks: int, slowdown: float, seed: int) -> Simulated:
    """Simulate `suites` suites of equal sides, and as many slowed benchmarks as make `suites` in all."""
    chance = np.random.default_rng(seed)
    alarmed = compared = apart = confirmed = 0
    for count in _parts(suites):
        first, suspects, slower = _checked(noise, chance, count, benchmarks, 0.0)
        compared += int(first.any(-1).sum())
        confirmed += int(suspects.any(-1).sum())
        alarmed += int(slower.any(-1).sum())
        times = made_times(noise, chance, suites=count, benchmarks=benchmarks, processes=2 * MIN_PROCESSES)
        one_by_one = difference(np.exp(times[..., :MIN_PROCESSES]), np.exp(times[..., MIN_PROCESSES:]))
        apart += int(one_by_one.is_slower.any(-1).sum())
    num_slowed = math.ceil(suites / benchmarks)
    first, _, slower = _checked(noise, chance, num_slowed, benchmarks, math.log(slowdown))
    return Simulated(
        false_alarms=Share(count=alarmed, trials=suites),
        false_alarms_compare=Share(count=compared, trials=suites),
        false_alarms_apart=Share(count=apart, trials=suites),
        confirmations=Share(count=confirmed, trials=suites),
        detections=Share(count=int(slower.sum()), trials=num_slowed * benchmarks),
        detections_compare=Share(count=int(first.sum()), trials=num_slowed * benchmarks),
    )


def _checked(
    noise: Noise, chance: np.random.Generator, suites: int, benchmarks: int, log_slowdown: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Booleans [suites, benchmarks]: slower by the first processes alone, suspected by them, and then confirmed."""
    first = difference(*_sides(noise, chance, suites, benchmarks, MIN_PROCESSES, log_slowdown))
    suspects = first.is_suspect
    base, head = _sides(noise, chance, suites, benchmarks, CONFIRMING_PROCESSES, log_slowdown)
    slower = np.zeros_like(suspects)
    if suspects.any():
        slower[suspects] = difference(base[suspects], head[suspects]).is_slower
    return first.is_slower, suspects, slower


def _sides(
    noise: Noise, chance: np.random.Generator, suites: int, benchmarks: int, processes: int, log_slowdown: float
) -> tuple[np.ndarray, np.ndarray]:
    """Times of BASE and HEAD, [suites, benchmarks, processes] each, measured in turns."""
    logs = made_times(noise, chance, suites=suites, benchmarks=benchmarks, processes=2 * processes)
    is_head = np.array(list(turns(processes)), bool)
    return np.exp(logs[..., ~is_head]), np.exp(logs[..., is_head] + log_slowdown)


def _parts(total: int) -> Iterator[int]:
    for start in range(0, total, _AT_ONCE):
        yield min(_AT_ONCE, total - start)


def main() -> None:
    """Simulate as the command line says, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=int, default=SUITES, metavar="N")
    parser.add_argument("--benchmarks", type=int, default=BENCHMARKS, metavar="N", help="in a suite")
    parser.add_argument("--slowdown", type=float, default=SLOWDOWN, metavar="RATIO")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.stdout.write(
        f"{options.suites} suites of {options.benchmarks} benchmarks; {MIN_PROCESSES} processes a side, "
        f"{CONFIRMING_PROCESSES} to confirm; ± is the Monte Carlo standard error\n\n"
        "| noise | false alarms a suite: check | compare | compare, one after the other | suites confirmed "
        f"| {options.slowdown - 1:.0%} seen: check | compare |\n|---|---:|---:|---:|---:|---:|---:|\n"
    )
    for name, noise in NOISES.items():
        found = simulate(
            noise, suites=options.suites, benchmarks=options.benchmarks, slowdown=options.slowdown, seed=options.seed
        )
        shares = (
            found.false_alarms,
            found.false_alarms_compare,
            found.false_alarms_apart,
            found.confirmations,
            found.detections,
            found.detections_compare,
        )
        sys.stdout.write(f"| {name} | {' | '.join(map(str, shares))} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
