"""A profile as people see it."""

from __future__ import annotations

import pytest
from example_profiles import full_profile
from made_profiles import overlapped_run, serial_run, times, what_if

from fovcache.bench.profiler.result import Measured, Profile
from fovcache.bench.profiler.tables import Table, machine_lines, millis, stage_table, tables, what_if_table
from fovcache.bench.profiler.tables import times as factor

STAGES = (
    times("fetch", 0.115, 0.5, name="download", n=42, failed=2, failed_s=0.05),
    times("encode", 0.1, 0.45, name="frozen encode", cpu_s=0.2),
)


def cells(table: Table, row: int) -> dict[str, str]:
    return dict(zip(table.columns, table.rows[row], strict=True))


def test_stages_unattributed_and_total_add_up() -> None:
    profile = Profile(environment={}, settings={}, warmup_dropped=8, stages=STAGES, serial=serial_run(0.23, 0.05))
    table = stage_table(profile)
    assert table.title == (
        "Stages one at a time, ms a sample (8 warm-up samples dropped; 95 % intervals: Student's t over units)"
    )
    assert cells(table, 0) == {
        "stage": "download",
        "resource": "network",
        ">n": "42",
        ">mean": "115",
        ">95 % interval": "109 to 121",
        ">median": "115",
        ">p10": "104",
        ">p90": "127",
        ">core ms": "0.000",
        ">share": "50.0%",
        ">failed": "2 (50.0 ms)",
    }
    assert cells(table, 1)[">core ms"] == "200"
    unattributed, total = cells(table, 2), cells(table, 3)
    assert (unattributed["stage"], unattributed[">mean"], unattributed[">share"]) == ("unattributed", "11.5", "5.0%")
    assert (total["stage"], total[">n"], total[">mean"], total[">share"]) == ("total", "40", "230", "100.0%")


def test_serial_stands_beside_overlapped() -> None:
    overlapped = overlapped_run(0.1, stall=0.042)
    profile = Profile(
        environment={}, settings={}, warmup_dropped=8, stages=STAGES, serial=serial_run(0.23), overlapped=overlapped
    )
    _, runs = tables(profile)
    assert runs.rows == (
        ("serial", "40", "230", "", "15,652", "", ""),
        ("overlapped", "40", "100", "95.0 to 105", "36,000", "4.2%", "cpu 50%, gpu 96%"),
    )


def test_predicted_stands_beside_measured() -> None:
    predicted = (
        what_if(
            "cached_all",
            0.02,
            0.1,
            change="features from the cache",
            limited_by="load",
            ceiling=6.25,
            bytes_on_disk=2**30,
            measured=Measured(s_per_sample=0.025, samples_per_hour=144_000, error=-0.2, n=40),
        ),
        what_if("fetch_workers", 0.05, 0.1),
    )
    table = what_if_table(predicted)
    assert table.rows == (
        ("features from the cache", "180,000", "144,000", "-20.0%", "5.00×", "6.25×", "load", "1.0 GiB"),
        ("fetch_workers", "72,000", "–", "–", "2.00×", "–", "", "–"),
    )
    told = what_if_table((*predicted, what_if("batch", 0.05, 0.1, not_measured="the disk is full")))
    assert [cells(told, row)["not measured"] for row in range(3)] == ["", "", "the disk is full"]


def test_what_was_not_measured_has_no_table() -> None:
    assert tables(Profile(environment={}, settings={}, warmup_dropped=0, stages=())) == ()
    (only,) = tables(Profile(environment={}, settings={}, warmup_dropped=0, stages=STAGES))
    assert [row[0] for row in only.rows] == ["download", "frozen encode"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.000"), (12.3e-6, "0.012"), (1.234e-3, "1.23"), (12.34e-3, "12.3"), (0.1234, "123"), (12.345, "12,345")],
)
def test_milliseconds_have_digits_that_count(seconds: float, text: str) -> None:
    assert millis(seconds) == text


def test_factors_have_digits_that_count() -> None:
    assert [factor(each) for each in (1.0, 1.254, 34.36, 3436.9)] == ["1.00×", "1.25×", "34.4×", "3,437×"]


def test_memory_and_the_gpu_are_told_for_what_they_are() -> None:
    assert machine_lines(full_profile()) == (
        "memory at its peak: the process 3.9 GiB of 62.5 GiB; the device 13.0 GiB of 24.0 GiB, by torch's allocator",
        "GPU: any kernel ran 74% of the overlapped run, by NVML, which does not tell how full the GPU was",
    )
    assert machine_lines(Profile(environment={}, settings={}, warmup_dropped=0, stages=())) == ()
    absent = Profile(environment={}, settings={}, warmup_dropped=0, stages=(), gpu={"absent": "no GPU"})
    assert machine_lines(absent) == ("GPU: no GPU",)
