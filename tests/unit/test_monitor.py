"""What a monitor sees of the host, held against what was done meanwhile."""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from fovcache.bench.profiler.device_memory import _mps, device_memory, margin_bytes
from fovcache.bench.profiler.monitor import Monitor
from fovcache.bench.profiler.readings import Sample, gpu_readings, host_readings
from fovcache.errors import UsageError

pytestmark = pytest.mark.alone

BURN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"


def _burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_cpu_time_of_the_process_and_of_children_that_ended() -> None:
    with Monitor(interval_s=0.05) as monitor:
        _burn(0.5)
        subprocess.run([sys.executable, "-S", "-c", BURN.format(seconds=0.5)], check=True)
    cpu = monitor.readings().host["cpu"]
    used_s = cpu["cpu_user_s"] + cpu["cpu_system_s"]
    # The monitor's own time and the start of the child come on top.
    assert 0.95 <= used_s <= 1.3
    assert cpu["num_processes_max"] == 2
    assert cpu["cores_used"] == pytest.approx(used_s / monitor.readings().host["wall_s"])
    assert cpu["cores_used_max"] >= cpu["cores_used"]


def test_a_child_that_is_no_part_of_the_work_is_left_out() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", BURN.format(seconds=60)])
    try:
        with Monitor(interval_s=0.05, ignored_pids=[child.pid]) as monitor:
            time.sleep(0.5)
    finally:
        child.kill()
        child.wait()
    assert monitor.readings().host["cpu"]["cores_used"] < 0.5


def test_memory_at_its_peak() -> None:
    size = 200 << 20
    before = psutil.Process().memory_info().rss
    with Monitor(interval_s=0.02) as monitor:
        block = np.ones(size, np.uint8)
        time.sleep(0.2)
        del block
        time.sleep(0.1)
    host = monitor.readings().memory["host"]
    assert host["rss_peak_bytes"] >= before + 0.9 * size
    assert host["rss_bytes"] < host["rss_peak_bytes"] - 0.5 * size
    assert host["headroom_bytes"] == max(0, host["available_bytes"] - margin_bytes(host["total_bytes"]))


@pytest.mark.skipif(not hasattr(psutil.Process, "io_counters"), reason="this system counts no I/O by process")
def test_bytes_written_to_a_disk(tmp_path: Path) -> None:
    own = psutil.Process()
    outer = own.io_counters().write_bytes
    with Monitor() as monitor:
        inner = own.io_counters().write_bytes
        (tmp_path / "file").write_bytes(b"x" * (1 << 20))
        inner = own.io_counters().write_bytes - inner  # nothing where temporary files lie in memory
    outer = own.io_counters().write_bytes - outer
    assert inner <= monitor.readings().host["io"]["written_bytes"] <= outer


def test_bytes_over_the_loopback() -> None:
    size = 4 << 20
    with Monitor() as monitor, socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=10)
        receiver = server.accept()[0]
        sender = threading.Thread(target=client.sendall, args=(b"x" * size,))
        sender.start()
        left = size
        while left:
            left -= len(receiver.recv(1 << 16))
        sender.join()
        client.close()
        receiver.close()
    network = monitor.readings().host["network"]
    assert "absent" in network or network["loopback_bytes"] >= size
    assert network.get("of", "the whole machine or container") == "the whole machine or container"


def test_its_own_time_is_told_and_bounded() -> None:
    """A sample takes a millisecond or so: asked for without a pause, they come as often as a twentieth of a core."""
    with Monitor(interval_s=1e-6) as monitor:
        time.sleep(1)
    overhead = monitor.readings().overhead
    assert overhead["num_samples"] >= 2
    assert overhead["cpu_s"] == pytest.approx(overhead["s_per_sample"] * overhead["num_samples"])
    assert 0 < overhead["share_of_a_core"] <= 0.08
    with pytest.raises(UsageError, match="the monitor's interval is 0 s; expected more than 0"):
        Monitor(interval_s=0)


def test_one_thread_that_ends() -> None:
    with Monitor() as monitor:
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("fovcache-monitor") == 1
        with pytest.raises(UsageError, match="still runs"):
            monitor.readings()
    assert "fovcache-monitor" not in [thread.name for thread in threading.enumerate()]


def test_it_ends_with_what_it_watched() -> None:
    with pytest.raises(KeyError), Monitor() as monitor:
        raise KeyError
    assert monitor.readings().host["num_samples"] == 2
    assert "fovcache-monitor" not in [thread.name for thread in threading.enumerate()]


def test_readings_of_a_part_of_the_time() -> None:
    with Monitor(interval_s=0.02) as monitor:
        _burn(0.3)
        time.sleep(0.1)  # the sample under way covers some of the work before
        start = time.perf_counter()
        time.sleep(0.5)
        end = time.perf_counter()
        _burn(0.3)
    idle, whole = monitor.readings(start, end).host, monitor.readings().host
    assert idle["cpu"]["cores_used"] < 0.4 < whole["cpu"]["cores_used_max"]
    assert idle["wall_s"] <= end - start < whole["wall_s"]
    assert 0 <= idle["series"][0]["at_s"] <= idle["series"][-1]["at_s"] <= end - start
    assert monitor.readings(end, start).host["cpu"] == whole["cpu"]  # no sample lies in there


def test_without_a_gpu_everything_says_so() -> None:
    with Monitor("cpu") as monitor:
        pass
    readings = monitor.readings()
    assert readings.gpu == {"absent": "the run used no GPU: its device is cpu"}
    assert readings.memory["device"] == {"absent": "the run used the CPU, whose memory is the host's"}
    assert readings.memory["headroom_of"] == "host"
    assert readings.memory["headroom_bytes"] == readings.memory["host"]["headroom_bytes"] > 0
    json.dumps([readings.host, readings.gpu, readings.memory])


def test_on_apples_gpus_what_is_missing_is_named() -> None:
    with Monitor("mps") as monitor:
        pass
    absent = monitor.readings().gpu["absent"]
    assert absent == "macOS tells libraries nothing of a GPU's use, power and clocks; NVML is NVIDIA's"
    gib = 1 << 30
    mps = SimpleNamespace(
        recommended_max_memory=lambda: 16 * gib,
        driver_allocated_memory=lambda: 4 * gib,
        current_allocated_memory=lambda: 3 * gib,
    )
    found = _mps(mps)
    assert (found["allocated_bytes"], found["reserved_bytes"]) == (3 * gib, 4 * gib)
    assert found["headroom_bytes"] == 12 * gib - margin_bytes(16 * gib)
    assert found["peak_allocated_bytes"] == {"absent": "torch.mps keeps no peaks"}
    assert _mps(SimpleNamespace())["absent"].startswith("torch.mps does not tell: ")


def test_a_device_that_torch_does_not_have_is_absent() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert device_memory(torch.device("cuda")) == {"absent": "torch has no cuda device here"}


def test_a_margin_of_five_percent_or_half_a_gibibyte() -> None:
    assert margin_bytes(4 << 30) == 512 << 20
    assert margin_bytes(80 << 30) == 4 << 30


def test_a_counter_that_the_machine_lacks_is_absent() -> None:
    samples = [Sample(at_s=at, host={"num_processes": 1}, gpu={"power_w": 100.0 + at}) for at in (1.0, 2.0, 3.0)]
    host = host_readings(samples, {"io": "this system does not count it by process"}, 1.0)
    assert host["io"] == {"absent": "this system does not count it by process"}
    assert host["cpu"] == {"absent": "not counted"}
    gpu = gpu_readings(samples, {"name": "A GPU"}, {"temperature_c": "NVML: Not Supported"}, 1.0)
    assert gpu["power_w"] == {"mean": 102, "min": 101, "max": 103}
    assert gpu["temperature_c"] == {"absent": "NVML: Not Supported"}
    assert gpu["name"] == "A GPU"
    assert [point["at_s"] for point in gpu["series"]] == [1, 2]


def test_a_child_that_vanishes_between_two_looks_makes_no_time_negative() -> None:
    times = (5.0, 4.0, 6.0)
    samples = [
        Sample(at_s=at, host={"num_processes": 1, "cpu_user_s": used, "cpu_system_s": 0.0}, gpu={})
        for at, used in enumerate(times)
    ]
    host = host_readings(samples, {}, 0.0)
    assert [point["cores_used"] for point in host["series"]] == [0, 2]
    assert host["cpu"]["cores_used"] == 0.5


def test_a_long_run_has_a_bounded_series() -> None:
    samples = [
        Sample(at_s=0.25 * number, host={"num_processes": 1, "cpu_user_s": 0.5 * number, "cpu_system_s": 0.0}, gpu={})
        for number in range(10_001)
    ]
    series = host_readings(samples, {}, 0.0)["series"]
    assert len(series) <= 400
    assert {point["cores_used"] for point in series} == {2}
