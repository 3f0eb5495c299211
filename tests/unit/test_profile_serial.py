"""A profile's serial run, against costs that record what they really took."""

from __future__ import annotations

import time
from typing import Any

import pytest
from injected_costs import Burn, Call, Child, Cost, Flaky, mean_s, numbers, stage, up_to_3_times
from simulated_device import SimulatedDevice

from fovcache.bench.profiler.core_time import core_seconds
from fovcache.bench.profiler.profile import Measurement, measure
from fovcache.bench.profiler.workload import Workload
from fovcache.errors import UsageError

pytestmark = pytest.mark.alone

BATCH, WARMUP, NUM = 4, 1, 20


def measured(workload: Workload, **settings: Any) -> Measurement:
    found = measure(workload, num_samples=NUM, warmup_batches=WARMUP, **settings)
    assert found.fault is None
    return found


def of_serial(calls: list[Call], per_batch: int = 1) -> list[Call]:
    """Those that the serial run kept; `per_batch` is 1 for a step."""
    return calls[WARMUP * per_batch : (WARMUP + NUM // BATCH) * per_batch]


@pytest.mark.slow
@up_to_3_times
def test_every_stage_is_within_5_percent_of_the_truth() -> None:
    fetch, decode, extract = Cost(0.02), Burn(0.03), Child(0.04)
    device = SimulatedDevice()

    def given(cost_s: float) -> Any:
        def run(item: Any) -> Any:
            device.give(cost_s)
            return item

        return run

    workload = Workload(
        source=numbers,
        inputs=(stage("fetch", fetch, "network"), stage("decode", decode), stage("extract", extract)),
        steps=(stage("forward", given(0.04), "gpu"), stage("backward", given(0.08), "gpu")),
        batch_size=BATCH,
        device=device,
    )
    found = measured(workload)
    rows = {row.id: row for row in found.stages}
    assert list(rows) == ["fetch", "decode", "extract", "forward", "backward"]
    truth_s = {name: mean_s(of_serial(cost.calls, BATCH)) for name, cost in (("fetch", fetch), ("decode", decode))}
    truth_s["extract"] = mean_s(of_serial(extract.calls, BATCH))
    for place, name in enumerate(("forward", "backward")):
        truth_s[name] = mean_s(of_serial(device.work[place::2])) / BATCH
    for name, truth in truth_s.items():
        assert rows[name].mean_s == pytest.approx(truth, rel=0.05), name
        assert (rows[name].n, rows[name].failed, rows[name].failed_s) == (NUM, 0, 0)
        assert rows[name].num_units == (NUM // BATCH if "ward" in name else NUM)
        assert rows[name].total_s == pytest.approx(rows[name].mean_s * NUM)
    assert found.serial is not None
    assert found.serial.n == NUM
    assert found.serial.wall_s == pytest.approx(NUM * sum(truth_s.values()), rel=0.05)
    assert found.serial.s_per_sample == pytest.approx(found.serial.wall_s / NUM)
    assert found.serial.unattributed_share <= 0.05
    assert sum(row.share for row in found.stages) + found.serial.unattributed_share == pytest.approx(1)

    # The cores: waiting costs none, the child's are its parent's.
    assert rows["fetch"].cpu_s < 0.002
    for name, cost in (("decode", decode), ("extract", extract)):
        calls = of_serial(cost.calls, BATCH)
        assert rows[name].cpu_s == pytest.approx(sum(call.core_s for call in calls) / NUM, rel=0.1), name
    assert rows["backward"].cpu_s < 0.002

    # What the host sees of the device's work, where nothing is synchronised, is nearly nothing.
    launches_s = [span.end_s - span.start_s for span in found.timeline if span.lane == "training"]
    assert sum(launches_s) / len(launches_s) < 0.1 * 0.04
    assert found.overlapped is not None
    last = device.work[-2 * NUM // BATCH :]
    truth_s = {"forward": mean_s(last[::2]) / BATCH, "backward": mean_s(last[1::2]) / BATCH}
    assert found.overlapped.device_s == pytest.approx(truth_s, rel=0.05)
    assert found.units_s["decode"] == pytest.approx(
        [call.duration_s for call in of_serial(decode.calls, BATCH)], rel=0.1
    )
    assert found.overhead is not None
    assert 0 < found.overhead.serial_share < 0.02
    assert 0 < found.overhead.overlapped_share < 0.02


@up_to_3_times
def test_the_warm_up_is_dropped_and_counted() -> None:
    calls = 0

    def lazy(batch: list[int]) -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.4 if calls == 1 else 0.002)

    found = measured(Workload(source=numbers, steps=(stage("forward", lazy),), batch_size=BATCH))
    (row,) = found.stages
    assert row.n == NUM
    assert row.mean_s < 0.004
    assert found.overlapped is not None
    assert found.warmup_dropped == BATCH * calls - NUM - found.overlapped.n
    assert found.warmup_dropped >= (WARMUP + 2) * BATCH
    assert found.overlapped.n == NUM


@up_to_3_times
def test_a_batch_is_made_of_samples_that_came_through_and_failures_are_shown_with_their_time() -> None:
    fetch, sizes = Flaky(0.02, lambda number: number % 4 == 3), []

    def forward(batch: list[int]) -> None:
        sizes.append(len(batch))

    workload = Workload(
        source=numbers,
        inputs=(stage("fetch", fetch, "network"),),
        steps=(stage("forward", forward),),
        batch_size=BATCH,
        uri_of=lambda number: f"sample {number % 8}",
        num_distinct=8,
    )
    found = measured(workload)
    row, forward_row = found.stages
    assert set(sizes) == {BATCH}
    assert (row.n, forward_row.n) == (NUM, NUM)
    assert row.failed == (NUM + WARMUP * BATCH) // 3 - WARMUP * BATCH // 3 - 1  # the last is not asked for
    num_before = WARMUP * BATCH // 3
    assert row.failed_s == pytest.approx(mean_s(fetch.failed[num_before:][: row.failed]) * row.failed, rel=0.05)
    assert row.mean_s == pytest.approx(mean_s(of_serial(fetch.calls, BATCH)), rel=0.05)
    assert row.total_s == pytest.approx(row.n * row.mean_s + row.failed_s)
    assert found.serial is not None
    assert found.overlapped is not None
    assert found.serial.n == found.overlapped.n == NUM
    assert found.serial.s_per_sample > row.mean_s * 1.2  # it pays for the failures
    assert {(each["uri"], each["stage"], each["reason"]) for each in found.failures} == {
        (f"sample {number}", "fetch", "HTTP 404") for number in (3, 7)
    }
    assert sum(each["n"] for each in found.failures) <= len(fetch.failed)  # some may have been on their way at the end


def test_enough_is_measured_whatever_is_asked_for() -> None:
    for batch_size, num_samples, expected in ((8, 1, 24), (1, 3, 20), (30, 31, 90), (8, 26, 32)):
        found = measure(
            Workload(source=numbers, steps=(stage("forward", lambda batch: batch),), batch_size=batch_size),
            num_samples=num_samples,
        )
        assert found.serial is not None
        assert found.overlapped is not None
        assert found.serial.n == found.overlapped.n == expected


def test_a_workload_that_cannot_be_measured_is_refused() -> None:
    forward = stage("forward", len)
    with pytest.raises(UsageError, match="at least one step"):
        Workload(source=numbers, steps=())
    with pytest.raises(UsageError, match="an id of its own"):
        Workload(source=numbers, inputs=(forward,), steps=(forward,))
    with pytest.raises(UsageError, match="batch_size is 0"):
        Workload(source=numbers, steps=(forward,), batch_size=0)
    with pytest.raises(UsageError, match="'forward'"):
        Workload(source=numbers, steps=(stage("forward", len, in_caller=True),))
    workload = Workload(source=numbers, inputs=(stage("decode", len),), steps=(forward,))
    with pytest.raises(UsageError, match="no input stage 'decod'; nearest: decode"):
        workload.with_workers({"decod": 2})
    assert workload.with_workers({"decode": 3}).with_batch_size(64).num_workers == {"decode": 3}
    assert workload.with_batch_size(64).max_queued == 64
    with pytest.raises(UsageError, match="at least 1 of each"):
        measure(workload, warmup_batches=0)
    with pytest.raises(UsageError, match="more than 0 s"):
        measure(workload, timeout_s=0)


@up_to_3_times
def test_core_seconds_are_those_of_children_that_live_too() -> None:
    import subprocess
    import sys

    start_s = core_seconds()
    script = "import time, sys\nwhile time.process_time() < 0.3: pass\nprint(); sys.stdout.flush(); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    alive_s = core_seconds() - start_s
    child.communicate()
    ended_s = core_seconds() - start_s
    assert alive_s == pytest.approx(0.3, abs=0.06)
    assert alive_s - 0.03 < ended_s < alive_s + 0.1
