"""The marks of a GPU, on the host's clock."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from injected_costs import Cost, numbers, stage

from fovcache.bench.profiler.device import TorchDevice
from fovcache.bench.profiler.profile import measure, measure_overlapped
from fovcache.bench.profiler.workload import Workload

pytestmark = pytest.mark.needs_cuda

CUDA = torch.device("cuda")


def cycles_per_s(device: TorchDevice) -> float:
    """Of the clock that `torch.cuda._sleep` counts."""
    cycles = 200_000_000
    torch.cuda._sleep(cycles)
    marks = [device.mark()]
    torch.cuda._sleep(cycles)
    marks.append(device.mark())
    before_s, after_s = device.times_s(marks)
    return cycles / (after_s - before_s)


def test_marks_lie_between_the_hosts_own_times() -> None:
    device = TorchDevice(CUDA)
    rate = cycles_per_s(device)
    device = TorchDevice(CUDA)
    marks, times_s = [], []
    for _ in range(50):
        device.synchronize()
        times_s.append(time.perf_counter())
        torch.cuda._sleep(round(rate * 0.004))
        marks.append(device.mark())
        device.synchronize()
        times_s.append(time.perf_counter())
    for before_s, after_s, mark_s in zip(times_s[::2], times_s[1::2], device.times_s(marks), strict=True):
        assert before_s + 0.0035 < mark_s < after_s + 0.0002


def test_the_host_goes_on_and_the_device_is_timed() -> None:
    device = TorchDevice(CUDA)
    rate = cycles_per_s(device)

    def given(cost_s: float) -> Any:
        def run(batch: Any) -> Any:
            torch.cuda._sleep(round(rate * cost_s))
            return batch

        return run

    steps = (stage("forward", given(0.02), "gpu"), stage("backward", given(0.03), "gpu"))
    workload = Workload(source=numbers, inputs=(stage("load", Cost(0.048), "disk"),), steps=steps, device=device)
    found = measure(workload, num_samples=20)
    assert found.fault is None
    assert found.overlapped is not None
    assert [row.mean_s for row in found.stages] == pytest.approx([0.048, 0.02, 0.03], rel=0.05)
    assert found.overlapped.device_s == pytest.approx({"forward": 0.02, "backward": 0.03}, rel=0.05)
    assert found.overlapped.stall < 0.02
    assert found.overlapped.host_wait > 0.75
    assert found.overlapped.busy["gpu"] > 0.98
    slow = Workload(source=numbers, inputs=(stage("load", Cost(0.1), "disk"),), steps=steps, device=device)
    assert measure_overlapped(slow, num_samples=20).stall == pytest.approx(0.5, abs=0.02)
