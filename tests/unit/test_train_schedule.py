"""The learning rate is a function of the samples seen."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_training import SETTINGS

from fovcache.probes.train.settings import SCHEDULES
from fovcache.probes.train.stepping.schedule import learning_rate

STANDARD = dataclasses.replace(
    SETTINGS, samples=500_000, batch_size=32, warmup_samples=10_000, learning_rate=3e-5, schedule="cosine"
)


@pytest.mark.parametrize(
    ("schedule", "samples_seen", "expected"),
    [
        ("cosine", 0, 0.0),
        ("cosine", 5_000, 1.5e-5),
        ("cosine", 10_000, 3e-5),
        ("cosine", 132_500, 3e-5 * (1 + math.cos(math.pi / 4)) / 2),
        ("cosine", 255_000, 1.5e-5),
        ("cosine", 500_000, 0.0),
        ("linear", 5_000, 1.5e-5),
        ("linear", 255_000, 1.5e-5),
        ("linear", 377_500, 0.75e-5),
        ("linear", 500_000, 0.0),
        ("constant", 2_500, 0.75e-5),
        ("constant", 499_968, 3e-5),
    ],
)
def test_known_answers(schedule: str, samples_seen: int, expected: float) -> None:
    settings = dataclasses.replace(STANDARD, schedule=schedule)
    assert learning_rate(settings, samples_seen) == pytest.approx(expected, rel=1e-12, abs=1e-20)


def test_without_warmup_it_begins_at_the_top() -> None:
    assert learning_rate(dataclasses.replace(STANDARD, warmup_samples=0), 0) == 3e-5


def test_a_last_step_that_is_cut_short_by_nothing_ends_at_zero() -> None:
    settings = dataclasses.replace(STANDARD, samples=500_001)  # 15,626 steps
    assert 0 < learning_rate(settings, 500_000) < 1e-12
    assert learning_rate(settings, 15_626 * 32) == 0


@given(
    schedule=st.sampled_from(SCHEDULES),
    warmup=st.integers(0, 2_000),
    samples=st.integers(1, 2_000),
    seen=st.lists(st.integers(0, 3_000), min_size=2).map(sorted),
)
def test_it_rises_and_then_never_does(schedule: str, warmup: int, samples: int, seen: list[int]) -> None:
    settings = dataclasses.replace(STANDARD, schedule=schedule, warmup_samples=warmup, samples=samples)
    rates = [learning_rate(settings, each) for each in seen]
    assert all(0 <= rate <= settings.learning_rate for rate in rates)
    for earlier, later, begin, end in zip(rates, rates[1:], seen, seen[1:], strict=False):
        assert later >= earlier if end <= warmup else later <= earlier or begin < warmup
