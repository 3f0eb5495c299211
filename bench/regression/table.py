"""Comparisons and checks for people, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fovcache.console import Output

from .judge import ALPHA, SLOWER

if TYPE_CHECKING:
    from .check import Check
    from .comparison import Comparison, Row

_COLUMNS = ("benchmark", ">BASE", ">HEAD", ">HEAD / BASE", "95 % interval", ">p", ">Cliff's δ", "verdict")
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def print_comparison(output: Output, comparison: Comparison) -> None:
    """The table, what only one side has, and the verdict."""
    _print_table(output, "fastest round of each process", comparison)
    _print_rest(output, comparison)
    _print_verdict(output, comparison.slower, len(comparison.rows))


def print_check(output: Output, check: Check) -> None:
    """The table of the first processes, that of the confirmation, and the verdict."""
    _print_table(output, "fastest round of each process", check.stages.first)
    for name, reason in check.new.items():
        output.line(f"new, does not run on BASE: {name}: {reason}")
    _print_rest(output, check.stages.first)
    if check.stages.confirmation is not None:
        _print_table(output, "again, in fresh processes, which decide", check.stages.confirmation)
        _print_rest(output, check.stages.confirmation)
    for name in check.stages.unsure:
        output.line(f"no verdict on {name}: it broke in too many processes")
    _print_verdict(output, check.stages.slower, len(check.stages.first.rows))


def _print_table(output: Output, title: str, comparison: Comparison) -> None:
    output.table(
        f"BASE {_short(comparison.base)}, HEAD {_short(comparison.head)}: {title}",
        _COLUMNS,
        [_cells(row) for row in comparison.rows],
    )


def _cells(row: Row) -> list[str]:
    known = [row.name, human_time(row.base_s), human_time(row.head_s)]
    if row.ratio is None:
        return [*known, "", "", "", "", f"{row.verdict}: {row.num_base} and {row.num_head} processes"]
    interval = f"{row.low:.3f} – {row.high:.3f}"
    return [*known, f"{row.ratio:.3f}", interval, f"{row.p:.2g}", f"{row.delta:+.2f}", row.verdict]


def _print_rest(output: Output, comparison: Comparison) -> None:
    for side, names in (("BASE", comparison.only_base), ("HEAD", comparison.only_head)):
        for name in names:
            output.line(f"only in {side}: {name}")
    for note in comparison.notes:
        output.line(f"note: {note}")


def _print_verdict(output: Output, slower: tuple[str, ...], num_rows: int) -> None:
    bars = f"p < {ALPHA} and more than {SLOWER - 1:.0%}"
    if slower:
        output.line(f"slower ({bars}): {', '.join(slower)}")
    else:
        output.line(f"none of {num_rows} benchmarks is slower ({bars})")


def human_time(seconds: float) -> str:
    """`3.21 ms`."""
    size, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    return f"{seconds / size:.3g} {unit}"


def _short(commit: str) -> str:
    digest, plus, changes = commit.partition(" ")
    return f"{digest[:12]}{plus}{changes}"
