"""How many samples, seeds or test items it takes to tell a difference of one point from none."""

from __future__ import annotations

import math
from collections.abc import Callable

from .intervals import LEVEL, Interval

POINT = 0.01
"""A percentage point of accuracy."""
_MOST_SEEDS = 10_000


def samples_to_resolve(interval: Interval, num_seeds: int, num_rest: float, num_test: float) -> str:
    """For resplits of `num_rest` + `num_test` samples, a sentence; empty where nothing says how much seeds differ.

    A difference is resolved where half its interval is at most POINT: one of just a point is then found in half of all
    ablations, and in four of five with twice as many (1.96 + .84 squared, over 1.96 squared). A variance is taken to
    fall as 1 / samples.
    """
    half = interval.half_width()
    if not half:
        return ""
    if half <= POINT:
        return _resolved(half)
    assert interval.error is not None
    num_samples = num_rest + num_test
    sd = interval.error / math.sqrt(1 / num_seeds + num_test / num_rest)
    seeds = _seeds(lambda num: sd * math.sqrt(1 / num + num_test / num_rest))
    more = f"or {seeds:,} seeds" if seeds else "and no number of seeds on these would do"
    samples = _about(num_samples * (half / POINT) ** 2)
    return f"{_now(half)}: 1 point takes about {samples} samples, not {num_samples:,.0f}, in such splits; {more}"


def draws_to_resolve(interval: Interval, num_seeds: int, num_samples: float) -> str:
    """For independent draws of `num_samples` each, as above."""
    half = interval.half_width()
    if not half:
        return ""
    if half <= POINT:
        return _resolved(half)
    assert interval.error is not None
    sd = interval.error * math.sqrt(num_seeds)
    draws = _seeds(lambda num: sd / math.sqrt(num))
    takes = f"about {draws:,} draws" if draws else f"more than {_MOST_SEEDS:,} draws"
    return f"{_now(half)}: 1 point takes {takes} of {num_samples:,.0f} samples each, not {num_seeds}"


def items_to_resolve(interval: Interval, num_seeds: int, num_items: int) -> str:
    """For one test set, as above; more items do not make smaller what seeds add."""
    half = interval.half_width()
    if not half:
        return ""
    if half <= POINT:
        return _resolved(half)
    assert interval.error is not None
    quantile = half / interval.error
    room = (POINT / quantile) ** 2 - interval.seeds_error**2
    if room <= 0:
        return (
            f"{_now(half)}: 1 point takes more seeds than {num_seeds}, which alone leave "
            f"±{quantile * interval.seeds_error:.3f} however many test items there are"
        )
    items = num_items * (interval.error**2 - interval.seeds_error**2) / room
    return f"{_now(half)}: 1 point takes about {_about(items)} test items, not {num_items:,}"


def _resolved(half: float) -> str:
    return f"1 point is resolved: the interval is ±{half:.4f}"


def _now(half: float) -> str:
    return f"the interval is ±{half:.3f}"


def _seeds(error: Callable[[int], float]) -> int | None:
    """The fewest seeds whose interval is at most POINT to each side, or None."""
    from scipy.stats import t

    def is_enough(num: int) -> bool:
        return bool(t.ppf((1 + LEVEL) / 2, num - 1) * error(num) <= POINT)

    if not is_enough(_MOST_SEEDS):
        return None
    low, high = 1, _MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _about(number: float) -> str:
    """To three digits, rounded up."""
    step = 10 ** max(0, math.floor(math.log10(number)) - 2)
    return f"{math.ceil(number / step) * step:,}"
