"""Numbers in reports: digits, units, and free-form mappings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovcache.reports import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04116, "0.0412"),
        (99.96, "100"),
        (6394.3, "6,390"),
        (14_814.8, "14,800"),
        (0, "0"),
        (-2.5, "-2.50"),
        (1e-9, "1e-09"),
        (math.inf, "∞"),
        (math.nan, "not a number"),
    ],
)
def test_digits(value: float, text: str) -> None:
    assert numbers.digits(value) == text


@given(st.floats(-1e300, 1e300))
def test_digits_tell_the_value_within_half_of_the_last(value: float) -> None:
    assert float(numbers.digits(value).replace(",", "")) == pytest.approx(value, rel=0.0051, abs=0)


@pytest.mark.parametrize(
    ("longest_s", "unit"), [(12.0, "s"), (2.0, "s"), (1.9, "ms"), (0.001, "ms"), (9e-4, "µs"), (0.0, "s")]
)
def test_the_unit_of_times_side_by_side(longest_s: float, unit: str) -> None:
    assert numbers.time_unit([longest_s, longest_s / 7, math.nan]).name == unit


def test_numbers_with_their_units() -> None:
    said = {
        "peak_allocated_bytes": 3 * 2**30 // 2,
        "read_bytes_per_s": 2_097_152.0,
        "power_w": {"mean": 287.4, "min": 121.0, "max": 341.9},
        "kernel_active_share": 0.743,
        "memory_gib": 31.2,
        "wall_s": 0.0412,
        "tf32": True,
        "compile": None,
        "source": ["a.tar", "b.tar"],
        "cpu": {"cores_used": 3.4457, "children": {"absent": "no permission"}},
        "series": [{"at_s": 0.1}],
    }
    space = numbers.SPACE
    assert [(label, text) for label, text, _ in numbers.entries(said)] == [
        ("peak allocated", f"1.5{space}GiB"),
        ("read bytes", f"2.0{space}MiB/s"),
        ("power", f"287{space}W on average, 121{space}W to 342{space}W"),
        ("share of time in which any kernel ran", f"74.3{space}%"),
        ("memory", f"31.2{space}GiB"),
        ("wall", f"41.2{space}ms"),
        ("tf32", "yes"),
        ("compile", numbers.ABSENT),
        ("source", "a.tar, b.tar"),
        ("cpu: cores used", "3.45"),
        ("cpu: children", "not measured: no permission"),
    ]


def test_differences_have_the_decimals_that_their_interval_needs() -> None:
    said = {(-1.2614, 0.004): "−1.2614", (0.04160, 0.36): "+0.04", (0.0, 0.36): "+0.00", (-1302.0, 150.0): "−1,302"}
    assert {key: numbers.resolved(key[1], sign=True)(key[0]) for key in said} == said
    assert [numbers.resolved(width)(0.99899) for width in (0.0019, 0.3, 0.0)] == ["0.9990", "1.00", "0.999"]
    assert numbers.resolved(math.nan)(-1e300) == "−1e+300"
    assert [numbers.ratio(value) for value in (0.9984, 1.153, 130.4)] == ["0.998", "1.153", "130"]
    assert numbers.spanned((-1.0, 2.0), numbers.resolved(1)) == f"−1.0{numbers.SPACE}to{numbers.SPACE}2.0"
    assert numbers.spanned(None, numbers.ratio) == numbers.ABSENT
    assert [numbers.counted(num, "run") for num in (1, 1024)] == ["1 run", "1,024 runs"]


def test_long_times_are_minutes_or_hours() -> None:
    said = {0.5: "500 ms", 599.0: "599 s", 600.0: "10.0 min", 7199.0: "120 min", 18_300.0: "5.08 h"}
    assert {value: numbers.long_duration(value).replace(numbers.SPACE, " ") for value in said} == said


def test_a_deep_mapping_ends() -> None:
    deep: dict[str, object] = {}
    long: list[object] = []
    for _ in range(2000):
        deep, long = {"in": deep, "x": [long]}, [long, 1]
    texts = [text for _, text, _ in numbers.entries({"deep": deep, "long": [*range(500), long]})]
    assert sum(map(len, texts)) < 300
    assert texts[-1].endswith("18, 19, 481 more")


def test_fractions_beside_each_other_leave_the_sign_to_the_heading() -> None:
    assert numbers.points(0.3642) == "36.4"
    assert numbers.points(-0.0105, sign=True) == "−1.1"
    assert numbers.interval((0.39, 0.495)) == "39.0\u00a0–\u00a049.5"
    assert numbers.interval((-0.012, 0.034), sign=True) == "−1.2\u00a0to\u00a0+3.4"
    assert numbers.half_interval((0.39, 0.495)) == "±\u00a05.2"
    assert (numbers.interval(None), numbers.half_interval(None)) == ("–", "")
