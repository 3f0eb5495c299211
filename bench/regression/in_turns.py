"""Two sides measured in turns and judged in two stages.

Stage one runs all benchmarks in some processes a side. What looks slower there, by loose bars, is measured again in
more processes, and only these fresh ones decide: a suspicion that chance raised is not confirmed by the same numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fovcache.builder.progress import OnProgress, Progress

from .comparison import TOO_FEW, Comparison, compare
from .process import Runner, gathered, now
from .runs import ProcessRun, SuiteRuns


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two."""

    tree: Path
    """Where its package is."""
    commit: str
    """What it is."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of its processes alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What both stages came to."""

    first: Comparison
    """All benchmarks."""
    confirmation: Comparison | None
    """What looked slower, in fresh processes; None where nothing did."""
    runs: tuple[SuiteRuns, ...]
    """What was measured: BASE and HEAD, and again of the confirmation."""

    @property
    def slower(self) -> tuple[str, ...]:
        """The benchmarks that alarm."""
        return self.confirmation.slower if self.confirmation is not None else ()

    @property
    def unsure(self) -> tuple[str, ...]:
        """Benchmarks that broke in too many processes for a verdict."""
        rows = (*self.first.rows, *(self.confirmation.rows if self.confirmation is not None else ()))
        return tuple(row.name for row in rows if row.verdict == TOO_FEW)

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        return {
            "slower": list(self.slower),
            "unsure": list(self.unsure),
            "first": self.first.document(),
            "confirmation": self.confirmation.document() if self.confirmation is not None else None,
            "runs": [asdict(runs) for runs in self.runs],
        }


def compare_in_turns(
    runner: Runner,
    base: Side,
    head: Side,
    names: Sequence[str],
    *,
    processes: int,
    confirming: int,
    on_progress: OnProgress,
) -> Stages:
    """Compare the benchmarks `names`; so many processes a side, and again `confirming` for what looks slower."""
    first = _measure(runner, (base, head), names, processes, "measure", on_progress)
    comparison = compare(*first)
    suspects = [row.name for row in comparison.rows if row.is_suspect]
    if not suspects:
        return Stages(first=comparison, confirmation=None, runs=first)
    again = _measure(runner, (base, head), suspects, confirming, "confirm", on_progress)
    return Stages(first=comparison, confirmation=compare(*again), runs=(*first, *again))


def _measure(
    runner: Runner,
    sides: tuple[Side, Side],
    names: Sequence[str],
    processes: int,
    stage: str,
    on_progress: OnProgress,
) -> tuple[SuiteRuns, SuiteRuns]:
    started = now()
    found: tuple[list[ProcessRun], list[ProcessRun]] = ([], [])
    for done, number in enumerate(turns(processes)):
        on_progress(Progress(stage=stage, done=done, total=2 * processes))
        side = sides[number]
        found[number].append(runner.run(side.tree, wanted=names, environment=side.environment))
    base, head = (
        gathered(runner.suite, side.tree, side.commit, started, runs) for side, runs in zip(sides, found, strict=True)
    )
    return base, head


def turns(processes: int) -> Iterator[int]:
    """0 for BASE and 1 for HEAD, each `processes` times, 0 1 1 0 0 1 1 0 …: what drifts weighs on both alike."""
    return itertools.chain.from_iterable((0, 1) if number % 2 == 0 else (1, 0) for number in range(processes))
