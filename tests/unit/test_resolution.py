"""How much it takes to resolve a point: enough of it does, a little less does not."""

import re

import numpy as np
import pytest

from fovcache.probes.statistics.intervals import Interval, corrected_resampled_interval, items_interval, t_interval
from fovcache.probes.statistics.resolution import draws_to_resolve, items_to_resolve, samples_to_resolve

OFF = np.array([0.02, 0.05, -0.01, 0.03, 0.04])


def number(said: str, noun: str) -> int:
    return int(re.search(rf"([\d,]+) {noun}", said).group(1).replace(",", ""))


def test_samples_are_those_at_which_the_interval_would_be_a_point_to_each_side() -> None:
    found = corrected_resampled_interval(OFF, 180, 60, difference=True)
    said = samples_to_resolve(found, 5, 180, 60)
    num = number(said, "samples")
    smaller = OFF.mean() + (OFF - OFF.mean()) * np.sqrt(240 / num)  # a variance that falls as 1 / samples
    half = corrected_resampled_interval(smaller, 180, 60, difference=True).half_width()
    assert half == pytest.approx(0.01, rel=0.005)
    assert "not 240, in such splits; and no number of seeds on these would do" in said


def test_seeds_are_told_where_they_would_do() -> None:
    off = OFF.mean() + (OFF - OFF.mean()) * 0.3
    said = samples_to_resolve(corrected_resampled_interval(off, 180, 60, difference=True), 5, 180, 60)
    num, sd = number(said, "seeds"), off.std(ddof=1)

    def half(seeds: int) -> float:
        values = np.resize([-1.0, 1.0], seeds)
        scaled = values / values.std(ddof=1) * sd
        return corrected_resampled_interval(scaled, 180, 60, difference=True).half_width()

    assert half(num + num % 2) <= 0.01 < half(num - 2 - num % 2)


def test_draws_are_as_many_as_student_needs() -> None:
    said = draws_to_resolve(t_interval(OFF, difference=True), 5, 240)
    num = number(said, "draws")
    from scipy.stats import t

    half = [t.ppf(0.975, each - 1) * OFF.std(ddof=1) / np.sqrt(each) for each in (num - 1, num)]
    assert half[1] <= 0.01 < half[0]
    assert said.endswith("of 240 samples each, not 5")


def test_items_of_one_head_are_as_many_as_halve_the_interval_often_enough() -> None:
    off = np.random.default_rng(0).choice([-1, 0, 1], (1, 500), p=[0.1, 0.8, 0.1])
    found = items_interval(off, difference=True)
    num = number(items_to_resolve(found, 1, 500), "test items")
    assert found.half_width() * np.sqrt(500 / num) == pytest.approx(0.01, rel=0.005)


def test_where_seeds_differ_too_much_no_number_of_items_will_do() -> None:
    found = Interval(mean=0.1, bounds=(0.0, 0.2), estimand="", method="", error=0.05, freedom=8, seeds_error=0.03)
    assert "takes more seeds than 5, which alone leave ±0.069" in items_to_resolve(found, 5, 400)


def test_what_is_resolved_says_so_and_what_nothing_is_known_of_says_nothing() -> None:
    small = [0.1, 0.1001, 0.0999]
    assert samples_to_resolve(corrected_resampled_interval(small, 90, 30), 3, 90, 30).startswith("1 point is resolved")
    assert draws_to_resolve(t_interval(small), 3, 120).startswith("1 point is resolved")
    assert samples_to_resolve(corrected_resampled_interval([0.1], 90, 30), 1, 90, 30) == ""
    assert items_to_resolve(items_interval(np.zeros((1, 9), int), difference=True), 1, 9) == ""
