"""A profile's overlapped run: how fast it is, and whether the device waited, against what really happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from injected_costs import Burn, Call, Cost, Flaky, mean_s, numbers, stage, up_to_3_times
from simulated_device import SimulatedDevice

from fovcache.bench.profiler.intervals import Interval
from fovcache.bench.profiler.profile import measure, measure_overlapped
from fovcache.bench.profiler.result import OverlappedRun
from fovcache.bench.profiler.workload import Workload

pytestmark = pytest.mark.alone

POINTS = 0.02
"""Two of them."""
NUM = 20


def run(workload: Workload, num_samples: int = NUM) -> OverlappedRun:
    found = measure_overlapped(workload, num_samples=num_samples)
    assert found.n == num_samples
    return found


def window(
    work: Sequence[Call], found: OverlappedRun, calls_per_batch: int, batch_size: int = 1
) -> tuple[float, float]:
    """From the end of the warm-up to the last batch's end, by what worked in the last batches."""
    num_calls = calls_per_batch * found.n // batch_size
    begin_s, end_s = work[-num_calls - 1].end_s, work[-1].end_s
    assert found.wall_s == pytest.approx(end_s - begin_s, rel=0.03)
    return begin_s, end_s


def busy_share(work: Sequence[Call], within: Interval, num_workers: int = 1) -> float:
    """The truth."""
    worked_s = sum(max(0, min(call.end_s, within[1]) - max(call.start_s, within[0])) for call in work)
    return worked_s / (within[1] - within[0]) / num_workers


@pytest.mark.slow
@pytest.mark.parametrize(("decode_s", "stall"), [(0.06, 0.33), (0.025, 0.0)])
@up_to_3_times
def test_on_the_host_the_stall_is_the_time_between_the_steps(decode_s: float, stall: float) -> None:
    fetch, decode, forward = Cost(0.04), Burn(decode_s), Cost(0.08)
    workload = Workload(
        source=numbers,
        inputs=(stage("fetch", fetch, "network", num_workers=2), stage("decode", decode)),
        steps=(stage("forward", forward),),
        batch_size=2,
    )
    found = run(workload)
    within = window(forward.calls, found, 1, 2)
    truth = 1 - busy_share(forward.calls, within)
    assert found.stall == pytest.approx(truth, abs=POINTS)
    assert found.stall > stall * 0.8
    assert found.host_wait == pytest.approx(found.stall, abs=0.005)
    assert found.ci95_s[0] < found.s_per_sample < found.ci95_s[1]
    assert found.s_per_sample == pytest.approx(found.wall_s / NUM)
    assert found.samples_per_hour == pytest.approx(3600 / found.s_per_sample)
    assert found.device_s["forward"] == pytest.approx(mean_s(forward.calls[-NUM // 2 :]) / 2, rel=0.05)
    assert found.stage_busy["fetch"] == pytest.approx(busy_share(fetch.calls, within, 2), abs=POINTS)
    assert found.stage_busy["decode"] == pytest.approx(busy_share(decode.calls, within), abs=POINTS)
    assert found.busy["network"] == found.stage_busy["fetch"]
    assert found.busy["step"] == pytest.approx(1 - truth, abs=POINTS)
    assert found.busy["cpu"] > 0
    assert found.num_workers == {"fetch": 2, "decode": 1}


def given(device: SimulatedDevice, cost_s: float, *, host: Cost | None = None, reads_loss: bool = False) -> Any:
    """A step that lasts this long on the device; the host goes on at once, unless it reads the loss."""

    def step(batch: Any) -> Any:
        if host is not None:
            host(batch)
        device.give(cost_s)
        if reads_loss:
            device.synchronize()
        return batch

    return step


@pytest.mark.slow
@pytest.mark.parametrize("load_s", [0.048, 0.06, 0.1])
@up_to_3_times
def test_beside_an_asynchronous_device_the_hosts_waits_are_not_the_stall(load_s: float) -> None:
    """A prefetching loader, and a host that runs ahead: it waits for nearly every batch, the device for few or none."""
    device, load = SimulatedDevice(), Cost(load_s)
    workload = Workload(
        source=numbers,
        inputs=(stage("load", load, "disk"),),
        steps=(stage("forward", given(device, 0.02), "gpu"), stage("backward", given(device, 0.03), "gpu")),
        device=device,
    )
    found = run(workload)
    busy = busy_share(device.work, window(device.work, found, 2))
    assert found.stall == pytest.approx(1 - busy, abs=POINTS)
    assert found.stall == pytest.approx(max(0, 1 - 0.05 / load_s), abs=0.04)
    assert found.host_wait > found.stall + 0.3  # what a host's clock would have called the wait for data
    assert found.busy["gpu"] == pytest.approx(busy, abs=POINTS)
    last = device.work[-2 * NUM :]
    assert found.device_s == pytest.approx({"forward": mean_s(last[::2]), "backward": mean_s(last[1::2])}, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("reads_loss", "stall"), [(True, 0.1), (False, 0.0)])
@up_to_3_times
def test_a_loader_that_takes_10_percent_of_an_asynchronous_step(reads_loss: bool, stall: float) -> None:
    """In the training thread, as a DataLoader without workers."""
    device, load = SimulatedDevice(), Cost(0.01)
    workload = Workload(
        source=numbers,
        inputs=(stage("load", load, "disk", num_workers=3),),
        steps=(
            stage("forward", given(device, 0.03), "gpu"),
            stage("backward", given(device, 0.06, reads_loss=reads_loss), "gpu"),
        ),
        device=device,
        is_prefetched=False,
    )
    found = run(workload)
    within = window(device.work, found, 2)
    assert found.stall == pytest.approx(stall, abs=POINTS)
    assert found.stall == pytest.approx(1 - busy_share(device.work, within), abs=POINTS)
    assert found.num_workers == {"load": 0}
    assert found.stage_busy["load"] == pytest.approx(busy_share(load.calls, within), abs=POINTS)


@pytest.mark.slow
@up_to_3_times
def test_a_device_that_waits_for_its_host_does_not_wait_for_input() -> None:
    device, host = SimulatedDevice(), Cost(0.04)
    workload = Workload(
        source=numbers,
        inputs=(stage("load", Cost(0.005), "disk"),),
        steps=(stage("forward", given(device, 0.02, host=host), "gpu"),),
        device=device,
    )
    found = run(workload)
    assert busy_share(device.work, window(device.work, found, 1)) == pytest.approx(0.5, abs=0.05)
    assert found.stall < POINTS


@up_to_3_times
def test_a_full_stock_does_not_pass_for_throughput() -> None:
    """The first step takes long, the queues fill meanwhile, and what is in them is used up before anything counts."""
    num_steps = 0

    def forward(batch: list[int]) -> None:
        nonlocal num_steps
        num_steps += 1
        Cost(0.6 if num_steps == 1 else 0.001)(batch)

    load = Cost(0.02)
    found = run(Workload(source=numbers, inputs=(stage("load", load, "disk"),), steps=(stage("forward", forward),)))
    assert found.s_per_sample == pytest.approx(mean_s(load.calls[-NUM:]), rel=0.05)
    assert found.stall > 0.9


def test_the_timeline_is_bounded_and_within_the_run() -> None:
    workload = Workload(
        source=numbers,
        inputs=(stage("fetch", Cost(0.0), num_workers=2), stage("decode", Cost(0.0))),
        steps=(stage("forward", Cost(0.0)), stage("backward", Cost(0.0))),
    )
    found = measure(workload, num_samples=900)
    assert found.overlapped is not None
    assert len(found.timeline) == 2000
    assert {span.stage for span in found.timeline} == {"fetch", "decode", "forward", "backward"}
    assert {span.lane for span in found.timeline} == {"fetch-0", "fetch-1", "decode-2", "device"}
    for span in found.timeline:
        assert 0 <= span.start_s <= span.end_s <= found.overlapped.wall_s + 1e-9
    ends = {}
    for span in found.timeline:
        assert span.start_s >= ends.get(span.lane, 0)
        ends[span.lane] = span.end_s - 1e-9


@up_to_3_times
def test_a_batch_that_fails_is_not_a_sample_that_came_through() -> None:
    forward = Cost(0.004)
    backward = Flaky(0.004, lambda batch: batch[0] // 5 % 3 == 2)
    workload = Workload(source=numbers, steps=(stage("forward", forward), stage("backward", backward)), batch_size=5)
    found = measure(workload, num_samples=30)
    assert found.fault is None
    assert found.overlapped is not None
    assert found.overlapped.n == 30
    assert found.overlapped.s_per_sample == pytest.approx(0.008 * 1.5 / 5, rel=0.3)
    row = found.stages[1]
    assert (row.n, row.failed) == (30, 15)
    assert found.failures[0]["uri"] == "a batch"
    assert found.failures[0]["n"] == len(backward.failed)
