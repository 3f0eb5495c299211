"""What the profiler sees of a real GPU: NVML's counters, torch's memory, kernels in a trace."""

import json
import time
from pathlib import Path

import pytest
import torch

from fovcache.bench.profiler.environment import environment
from fovcache.bench.profiler.monitor import Monitor
from fovcache.bench.profiler.nvml import gpu_of
from fovcache.bench.profiler.trace import ProfileTraceError, Trace, trace_run

MIB = 1 << 20


def _busy(seconds: float) -> None:
    x = torch.randn(4096, 4096, device="cuda")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(20):
            x = (x @ x).clamp(-1, 1)
        torch.cuda.synchronize()


def test_a_busy_gpu_reads_busy_and_an_idle_one_idle() -> None:
    """NVML averages over up to a second, so each state is held for longer."""
    with Monitor("cuda", interval_s=0.1) as monitor:
        _busy(3)
        middle = time.perf_counter()
        time.sleep(3)
    busy = monitor.readings(None, middle).gpu
    idle = monitor.readings(middle + 1.5, None).gpu
    if "absent" in busy:
        pytest.skip(f"no NVML: {busy['absent']}")
    assert busy["matched_by"] in ("uuid", "CUDA_VISIBLE_DEVICES")
    if "absent" not in busy["kernel_active_share"]:
        assert busy["kernel_active_share"]["max"] > 0.8
        assert idle["kernel_active_share"]["min"] < 0.3
    if "absent" not in busy["power_w"]:
        assert busy["power_w"]["mean"] > idle["power_w"]["min"]


def test_nvmls_gpu_is_torchs() -> None:
    with gpu_of(torch.device("cuda")) as gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        # NVML counts what the driver keeps for itself too.
        assert total <= gpu.facts["memory_total_bytes"] <= 1.1 * total + 1024 * MIB
        assert gpu.facts["name"].split()[-1] in torch.cuda.get_device_name(0)


@pytest.mark.usefixtures("memory_cap")
def test_memory_peaks_and_headroom() -> None:
    torch.cuda.empty_cache()
    base = torch.cuda.memory_allocated()
    with Monitor("cuda") as monitor:
        block = torch.empty(512 * MIB, dtype=torch.uint8, device="cuda")
        del block
    memory = monitor.readings().memory
    device = memory["device"]
    assert device["allocated_bytes"] == base
    assert device["peak_allocated_bytes"] == base + 512 * MIB
    assert device["reserved_bytes"] >= 512 * MIB
    assert device["used_bytes"] >= device["reserved_bytes"]
    assert memory["headroom_of"] == "cuda"
    expected = device["free_bytes"] + device["reserved_bytes"] - device["peak_allocated_bytes"] - device["margin_bytes"]
    assert memory["headroom_bytes"] == max(0, expected)
    with Monitor("cuda") as monitor:
        pass
    assert monitor.readings().memory["device"]["peak_allocated_bytes"] == base  # peaks count from the start


def test_a_trace_has_kernels_inside_our_ranges(tmp_path: Path) -> None:
    x = torch.randn(512, 512, device="cuda")

    def run(trace: Trace) -> None:
        for _ in range(trace.num_steps):
            with trace.range("encode"):
                (x @ x).sum()
            torch.cuda.synchronize()
            trace.step()

    result = trace_run(run, tmp_path, "cuda")
    assert result.ranges == {"encode": 3}
    assert result.num_kernels >= 6
    events = json.loads(result.file.read_text())["traceEvents"]
    assert {event["args"]["device"] for event in events if event.get("cat") == "kernel"} == {0}


def test_a_trace_without_kernels_is_an_error(tmp_path: Path) -> None:
    def run(trace: Trace) -> None:
        for _ in range(trace.num_steps):
            torch.ones(4).sum()
            trace.step()

    with pytest.raises(ProfileTraceError, match="no GPU kernel, though it was asked for on cuda: nothing ran on it"):
        trace_run(run, tmp_path, "cuda")
    assert len(list(tmp_path.iterdir())) == 1


def test_the_environment_names_the_gpu() -> None:
    found = environment("cuda")
    assert found["gpu"] == torch.cuda.get_device_name(0)
    assert found["cuda"] == torch.version.cuda
    assert found["gpu_memory_gib"] > 0
    assert found["gpu_driver"]
