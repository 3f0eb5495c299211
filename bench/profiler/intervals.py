"""Arithmetic of time intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]
"""Start and end, seconds."""


def total_s(intervals: Iterable[Interval], within: Interval) -> float:
    """How much of `within` the intervals fill; what two of them share counts twice."""
    return sum(max(0.0, min(end, within[1]) - max(start, within[0])) for start, end in intervals)


def shared_s(some: Iterable[Interval], others: Iterable[Interval], within: Interval) -> float:
    """How much of `within` is in both; each must be in order, without overlaps of its own."""
    shared = 0.0
    rest = iter(others)
    other = next(rest, None)
    for start, end in some:
        while other is not None and other[0] < end:
            shared += total_s([(max(start, other[0]), min(end, other[1]))], within)
            if other[1] > end:
                break
            other = next(rest, None)
    return shared
