"""What a campaign's comparisons came to: false alarms and detections, with exact intervals."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The comparisons that are done, as the lanes wrote them; a last line that a kill cut short is left out."""
    for path in sorted(folder.glob("lane-*.jsonl")):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def tally(folder: Path) -> Iterator[str]:
    """Sentences."""
    lines = list(read_lines(folder))
    equal, slowed = ([line for line in lines if bool(line["slowed"]) is kind] for kind in (False, True))
    for name, key in (("check", "alarms"), ("compare alone", "first_alarms")):
        yield _said(f"{name}: false alarms, in comparisons of equal sides", [bool(line[key]) for line in equal])
        yield _said(f"{name}: slowdowns caught", [line["slowed"] in line[key] for line in slowed])
        others = [bool(set(line[key]) - {line["slowed"]}) for line in slowed]
        yield _said(f"{name}: false alarms on the other benchmarks of those", others)
    if slowed:
        ratios = [line["first"][line["slowed"]]["ratio"] for line in slowed]
        yield f"ratio measured of the slowdown: median {statistics.median(ratios):.3f}, {_range(ratios)}"
    if equal:
        largest = [max(row["ratio"] for row in line["first"].values()) for line in equal]
        median = statistics.median(largest)
        yield f"largest ratio in a comparison of equal sides: median {median:.3f}, {_range(largest)}"
        confirmed = [bool(line["confirmation"]) for line in equal]
        yield _said("equal sides measured again to confirm", confirmed)
    if unsure := [line["id"] for line in lines if line["unsure"]]:
        yield f"benchmarks broke in {', '.join(unsure)}"
    if lines:
        yield f"{sum(line['wall_s'] for line in lines) / 60:.1f} lane minutes"


def _said(what: str, came_true: Sequence[bool]) -> str:
    from scipy.stats import binomtest

    if not came_true:
        return f"{what}: none made"
    interval = binomtest(sum(came_true), len(came_true)).proportion_ci(0.95)
    share = f"{sum(came_true)} of {len(came_true)}"
    return f"{what}: {share} ({interval.low:.1%} to {interval.high:.1%} by Clopper and Pearson, 95 %)"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}"
