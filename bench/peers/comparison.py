"""Timing several ways to do the same work in one process, side by side, and comparing them honestly.

Each round runs every method once, in an order of its own, so that what else the machine does falls on all of them;
methods are compared by the ratio within a round. Medians come with an interval by order statistics, which
assumes nothing about how times are distributed.
"""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..profiler.environment import environment
from .interval import CONFIDENCE, median_interval
from .table import markdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to do the work."""

    name: str
    """For the table."""
    run: Callable[[], Any]
    """What is timed; gives its output back."""
    check: Callable[[Any], None]
    """Raises AssertionError when the output is not what every method must give; not timed."""
    amount: float
    """How much `run` does, in the comparison's unit."""
    before: Callable[[], None] = lambda: None
    """Called before each run, not timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one method came to."""

    name: str
    """The method's name."""
    amount: float
    """How much each run did."""
    seconds: tuple[float, ...]
    """One a round."""

    @property
    def rates(self) -> list[float]:
        """Amount per second, one a round."""
        return [self.amount / value for value in self.seconds]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """How many times faster one method is than another, beside what is asked for."""

    method: str
    """The method that is judged."""
    other: str
    """What it is compared with."""
    ratio: float
    """Median over the rounds of its rate divided by the other's."""
    low: float
    """The interval's lower end."""
    high: float
    """The interval's upper end."""
    at_least: float | None
    """What is asked for; None where the ratio is only reported."""

    @property
    def verdict(self) -> str:
        """`holds` or `missed`, by the median; with the interval on both sides also `unsure`."""
        if self.at_least is None:
            return ""
        word = "holds" if self.ratio >= self.at_least else "missed"
        return word if self.low >= self.at_least or self.high < self.at_least else f"{word} (unsure)"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods timed side by side."""

    title: str
    """What was done."""
    unit: str
    """Of the amounts; rates are in it per second."""
    timings: tuple[Timing, ...]
    """One a method, in the order they were given."""
    bars: list[Bar]
    """Added by `judge`."""

    def timing(self, name: str) -> Timing:
        """The timing of a method."""
        return next(timing for timing in self.timings if timing.name == name)

    def fastest(self, names: Sequence[str]) -> str:
        """The one of these methods with the highest median rate."""
        return max(names, key=lambda name: statistics.median(self.timing(name).rates))

    def judge(self, method: str, other: str, at_least: float | None = None) -> None:
        """Compare two methods round by round."""
        pairs = zip(self.timing(method).rates, self.timing(other).rates, strict=True)
        ratios = [own / others for own, others in pairs]
        low, high = median_interval(ratios)
        ratio = statistics.median(ratios)
        self.bars.append(Bar(method=method, other=other, ratio=ratio, low=low, high=high, at_least=at_least))

    def document(self) -> dict[str, Any]:
        """As JSON keeps it: raw times, so that whoever reads it can compute something else."""
        return asdict(self) | {"bars": [asdict(bar) | {"verdict": bar.verdict} for bar in self.bars]}


def compare(title: str, methods: Sequence[Method], *, unit: str, rounds: int, seed: int = 0) -> Comparison:
    """Run every method once to warm up and then once a round, checking each output."""
    chance = random.Random(seed)
    seconds: dict[str, list[float]] = {method.name: [] for method in methods}
    for number in range(rounds + 1):
        for method in chance.sample(list(methods), len(methods)):
            method.before()
            gc.collect()
            started = time.perf_counter()
            output = method.run()
            elapsed = time.perf_counter() - started
            method.check(output)
            del output
            if number:  # the first round warms up
                seconds[method.name].append(elapsed)
    timings = tuple(Timing(name=m.name, amount=m.amount, seconds=tuple(seconds[m.name])) for m in methods)
    return Comparison(title=title, unit=unit, timings=timings, bars=[])


def finish(name: str, comparisons: Sequence[Comparison], out: str | None) -> None:
    """Show the tables, and write them and the raw times as `out`/NAME.md and NAME.json."""
    document = {
        "benchmark": name,
        "environment": environment(),
        "confidence": CONFIDENCE,
        "comparisons": [comparison.document() for comparison in comparisons],
    }
    text = markdown(document)
    sys.stdout.write(text)
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        folder.joinpath(f"{name}.json").write_text(json.dumps(document, indent=1) + os.linesep)
        folder.joinpath(f"{name}.md").write_text(text)
