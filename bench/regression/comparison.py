"""Two sides of runs compared, benchmark by benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fovcache.console import STATUS_OK, STATUS_SOME_FAILED
from fovcache.errors import UsageError

from .judge import ALPHA, MIN_PROCESSES, SLOWER, Difference, difference
from .runs import SuiteRuns

SLOWER_BY_FAR, TOO_FEW = "slower", "too few"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One benchmark that both sides measured. A process counts by its fastest round."""

    name: str
    """The test's id."""
    num_base: int
    """Processes."""
    num_head: int
    """Processes."""
    base_s: float
    """Median over the processes."""
    head_s: float
    """Median over the processes."""
    ratio: float | None
    """HEAD / BASE by Hodges and Lehmann; None with too few processes."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Upper end."""
    p: float | None
    """Two-sided, of Mann and Whitney's U."""
    delta: float | None
    """Cliff's."""
    verdict: str
    """`slower` or `faster` beyond both bars; `a little slower`, `a little faster` with a p below ALPHA only; `alike`;
    `too few` where some processes failed."""
    is_suspect: bool
    """Whether a check measures it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All benchmarks of two sides."""

    base: str
    """BASE's commit."""
    head: str
    """HEAD's commit."""
    rows: tuple[Row, ...]
    """The slowest first."""
    only_base: tuple[str, ...]
    """Benchmarks that HEAD does not have."""
    only_head: tuple[str, ...]
    """Benchmarks that BASE does not have."""
    notes: tuple[str, ...]
    """What a reader should know."""

    @property
    def slower(self) -> tuple[str, ...]:
        """The benchmarks that alarm."""
        return tuple(row.name for row in self.rows if row.verdict == SLOWER_BY_FAR)

    @property
    def exit_status(self) -> int:
        """1 with a slowdown that is significant and large."""
        return STATUS_SOME_FAILED if self.slower else STATUS_OK

    def document(self) -> dict[str, Any]:
        """As `--json` writes it."""
        bars = {"alpha": ALPHA, "slower": SLOWER, "min_processes": MIN_PROCESSES}
        return asdict(self) | {"slower": list(self.slower), "bars": bars}


def compare(base: SuiteRuns, head: SuiteRuns) -> Comparison:
    """Compare two sides. Raises UsageError for other machines, too few processes, and nothing in common."""
    _check_same_machine(base.machine, head.machine)
    for side, runs in (("BASE", base), ("HEAD", head)):
        if len(runs.processes) < MIN_PROCESSES:
            raise UsageError(
                f"{side} has {len(runs.processes)} processes; expected at least {MIN_PROCESSES} a side, as fewer "
                f"cannot show p < {ALPHA}: `make bench PROCESSES={MIN_PROCESSES} OUT=FILE`"
            )
    in_base, in_head = base.names, head.names
    common = [name for name in in_head if name in set(in_base)]
    if not common:
        raise UsageError(
            f"the two have no benchmark in common: BASE has {len(in_base)}, HEAD has {len(in_head)} others"
        )
    rows = [_row(name, base.values_s(name), head.values_s(name)) for name in common]
    return Comparison(
        base=base.commit,
        head=head.commit,
        rows=tuple(sorted(rows, key=lambda row: row.ratio or 0.0, reverse=True)),
        only_base=tuple(name for name in in_base if name not in set(in_head)),
        only_head=tuple(name for name in in_head if name not in set(in_base)),
        notes=tuple(_notes(base, head)),
    )


def _check_same_machine(base: Mapping[str, str], head: Mapping[str, str]) -> None:
    fields = dict.fromkeys([*base, *head])
    differing = [
        f"{field} {base.get(field, 'unsaid')!r} and {head.get(field, 'unsaid')!r}"
        for field in fields
        if base.get(field) != head.get(field)
    ]
    if differing:
        raise UsageError(
            f"BASE and HEAD were measured on different machines: {'; '.join(differing)}; expected the same; measure "
            "both here, or let `fovbench check REF` do so"
        )


def _row(name: str, base_s: np.ndarray, head_s: np.ndarray) -> Row:
    figures: dict[str, float | None] = dict.fromkeys(("ratio", "low", "high", "p", "delta"))
    verdict, is_suspect = TOO_FEW, False
    if min(len(base_s), len(head_s)) >= MIN_PROCESSES:
        found = difference(base_s, head_s)
        figures = {each: float(getattr(found, each)) for each in figures}
        verdict, is_suspect = _verdict(found), bool(found.is_suspect)
    return Row(
        name=name,
        num_base=len(base_s),
        num_head=len(head_s),
        base_s=float(np.median(base_s)),
        head_s=float(np.median(head_s)),
        verdict=verdict,
        is_suspect=is_suspect,
        **figures,
    )


def _verdict(found: Difference) -> str:
    if found.is_slower:
        return SLOWER_BY_FAR
    if not found.p < ALPHA:
        return "alike"
    if found.ratio > 1:
        return "a little slower"
    return "faster" if found.ratio < 1 / SLOWER else "a little faster"


def _notes(base: SuiteRuns, head: SuiteRuns) -> Iterator[str]:
    if base.started != head.started:
        yield (
            "the sides were measured one after the other: what the machine did differently meanwhile is in the ratios "
            "too; `fovbench check REF` measures in turns"
        )
    if base.suite_digest != head.suite_digest or base.suite != head.suite:
        yield "the benchmarks' own files differ: a ratio may be the benchmark's rather than the code's"
    loads = [statistics.median(process.load_average for process in runs.processes) for runs in (base, head)]
    if max(loads) > head.num_cores:
        yield f"the machine was busy: a load of {loads[0]:.1f} and {loads[1]:.1f} on {head.num_cores} cores"
    for side, runs in (("BASE", base), ("HEAD", head)):
        for name, (count, reason) in runs.failures.items():
            yield f"{name} failed in {count} of {len(runs.processes)} processes of {side}: {reason}"
