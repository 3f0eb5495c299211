"""What NVML tells of a GPU, asked through nvidia-ml-py of a small library that answers like NVIDIA's."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("fake_nvml.c")
ONE, TWO, THREE = (f"GPU-{start}-2222-3333-4444-555555555555" for start in ("11111111", "11aaaaaa", "99999999"))
SLICE = "MIG-77777777-2222-3333-4444-555555555555"
COUNTERS = {
    "kernel_active_share": 0.37,
    "memory_used_bytes": 60000,
    "power_w": 123.4,
    "sm_clock_mhz": 1980,
    "memory_clock_mhz": 2619,
    "temperature_c": 41,
    "throttles": 5,
}

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libnvidia-ml.so.1."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler for Linux, to make a libnvidia-ml.so.1 with")
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


@pytest.fixture
def ask(library: Path) -> Ask:
    """`ask(code, **environment)` runs code that sets `answer`, beside the library; the answer and the balance."""

    def run(code: str, *, folder: Path = library, **environment: str) -> Any:
        script = f"""
import ctypes, json, os
from fovcache.bench.profiler.nvml import NvmlGpu, driver_version
from fovcache.errors import EnvironmentFailure
{textwrap.dedent(code)}
try:
    balance = ctypes.CDLL("libnvidia-ml.so.1").fake_balance()
except OSError:
    balance = 0
print(json.dumps([answer, balance]))
"""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "FAKE_NVML"))}
        kept |= {"LD_LIBRARY_PATH": str(folder), **environment}
        done = subprocess.run([sys.executable, "-c", script], env=kept, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        answer, balance = json.loads(done.stdout)
        assert balance == 0  # initialised and shut down as often
        return answer

    return run


READ = """
with NvmlGpu({arguments}) as gpu:
    answer = [gpu.read(), gpu.read(), gpu.facts, gpu.absent]
"""


def test_every_counter_is_in_its_unit(ask: Ask) -> None:
    first, second, facts, absent = ask(READ.format(arguments="0"), CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert {name: first[name] for name in COUNTERS} == COUNTERS
    assert second["energy_j"] - first["energy_j"] == 2
    assert facts == {"name": "Fake One", "memory_total_bytes": 80000, "power_limit_w": 700, "matched_by": "index"}
    assert absent == {}


@pytest.mark.parametrize(
    ("arguments", "visible", "name", "how"),
    [
        ("1", None, "Fake Two", "index"),
        (f"0, uuid={THREE[4:]!r}", None, "Fake Three", "uuid"),
        (f"0, uuid={THREE[4:]!r}", "1", "Fake Three", "uuid"),
        ("0", "2", "Fake Three", "CUDA_VISIBLE_DEVICES"),
        ("1", "2, 0", "Fake One", "CUDA_VISIBLE_DEVICES"),
        ("1", f"{THREE},{TWO}", "Fake Two", "CUDA_VISIBLE_DEVICES"),
        ("0", "GPU-11aa", "Fake Two", "CUDA_VISIBLE_DEVICES"),
        ("0", SLICE, "Fake Three MIG 1g.10gb", "CUDA_VISIBLE_DEVICES"),
        (f"0, uuid={THREE[4:]!r}", SLICE, "Fake Three MIG 1g.10gb", "CUDA_VISIBLE_DEVICES"),
        (f"0, uuid={SLICE[4:]!r}", None, "Fake Three MIG 1g.10gb", "uuid"),
    ],
)
def test_the_gpu_is_the_one_torch_means(ask: Ask, arguments: str, visible: str | None, name: str, how: str) -> None:
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    facts = ask(READ.format(arguments=arguments), **environment)[2]
    assert (facts["name"], facts["matched_by"]) == (name, how)


def test_a_number_that_cuda_may_count_otherwise_is_said_to_be_one(ask: Ask) -> None:
    facts = ask(READ.format(arguments="1"))[2]
    assert facts["matched_by"] == "index, which may be another GPU's: set CUDA_DEVICE_ORDER=PCI_BUS_ID"


@pytest.mark.parametrize(
    ("arguments", "visible", "reason"),
    [
        ("1", "0", "CUDA_VISIBLE_DEVICES is '0', which has no device 1"),
        ("0", "-1", "CUDA_VISIBLE_DEVICES is '-1', which has no device 0"),
        ("1", "0,-1,1", "CUDA_VISIBLE_DEVICES is '0,-1,1', which has no device 1"),
        ("0", "GPU-5", "NVML has no device 'GPU-5', as CUDA_VISIBLE_DEVICES names it: Not Found"),
        ("0", "7", "NVML has no GPU 7: Invalid Argument"),
    ],
)
def test_a_gpu_that_is_not_there_is_named(ask: Ask, arguments: str, visible: str, reason: str) -> None:
    code = f"""
    try:
        NvmlGpu({arguments}).__enter__()
    except EnvironmentFailure as error:
        answer = str(error)
    """
    assert ask(code, CUDA_VISIBLE_DEVICES=visible) == reason


def test_a_slice_tells_what_it_has_and_names_the_rest(ask: Ask) -> None:
    """Power, clocks and temperature are the whole GPU's; kernel activity is counted of none."""
    first, _, facts, absent = ask(READ.format(arguments="0"), CUDA_VISIBLE_DEVICES=SLICE)
    assert facts["memory_total_bytes"] == 10000
    assert facts["slice"].startswith("a MIG instance: power, clocks and temperature are of the whole GPU")
    assert first["memory_used_bytes"] == 7500
    assert first["power_w"] == 123.4
    assert absent == {"kernel_active_share": "NVML: Not Supported"}


def test_what_is_not_supported_is_absent_and_the_rest_is_there(ask: Ask) -> None:
    refused = "Utilization,PowerUsage,Energy,ClockInfo,PowerLimit,Name"
    first, second, facts, absent = ask(READ.format(arguments="0"), FAKE_NVML_REFUSES=refused)
    names = ["energy_j", "kernel_active_share", "memory_clock_mhz", "name", "power_limit_w", "power_w", "sm_clock_mhz"]
    assert sorted(absent) == names
    assert set(absent.values()) == {"NVML: Not Supported"}
    assert first == second == {name: COUNTERS[name] for name in ("memory_used_bytes", "temperature_c", "throttles")}
    assert facts["memory_total_bytes"] == 80000


@pytest.mark.parametrize("refused", ["IsMig", "Count,HandleByUUID"])
def test_an_old_driver_is_enough(ask: Ask, refused: str) -> None:
    code = """
    try:
        with NvmlGpu(0) as gpu:
            answer = gpu.read()["power_w"]
    except EnvironmentFailure as error:
        answer = str(error)
    """
    assert ask(code, FAKE_NVML_REFUSES=refused) == (123.4 if refused == "IsMig" else "NVML has no GPU 0: Not Supported")


def test_a_gpu_that_is_lost_on_the_way_does_not_raise(ask: Ask) -> None:
    first, second, _, absent = ask(READ.format(arguments="0"), FAKE_NVML_CALLS="1")
    assert first["power_w"] == 123.4
    assert "power_w" not in second
    assert absent == {"power_w": "NVML: GPU is lost"}


def test_without_the_library_it_is_said_in_plain_words(ask: Ask, tmp_path: Path) -> None:
    code = """
    try:
        NvmlGpu(0).__enter__()
    except EnvironmentFailure as error:
        answer = [str(error), driver_version()]
    """
    reason = "no NVML library, which comes with NVIDIA's driver, on this machine"
    assert ask(code, folder=tmp_path) == [reason, None]


def test_without_a_driver_it_is_said_in_plain_words(ask: Ask) -> None:
    code = """
    try:
        NvmlGpu(0).__enter__()
    except EnvironmentFailure as error:
        answer = [str(error), driver_version()]
    """
    assert ask(code, FAKE_NVML_INIT="9") == ["NVML cannot be initialised: Driver Not Loaded", None]


def test_the_drivers_version(ask: Ask) -> None:
    assert ask("answer = driver_version()") == "999.10"


def test_a_monitor_sums_up_what_the_gpu_told(ask: Ask) -> None:
    """With torch's part, which needs a GPU, left out: the thread, its samples, and what becomes of them."""
    code = """
    import time
    from fovcache.bench.profiler import monitor
    monitor.gpu_of = lambda device: NvmlGpu(0)
    with monitor.Monitor("cuda", interval_s=0.02) as watch:
        time.sleep(0.4)
    answer = watch.readings().gpu
    """
    gpu = ask(code, CUDA_DEVICE_ORDER="PCI_BUS_ID", FAKE_NVML_CALLS="2", FAKE_NVML_REFUSES="Temperature,PowerLimit")
    assert gpu["kernel_active_share"] == {"mean": pytest.approx(0.37), "min": 0.37, "max": 0.37}
    assert gpu["kernel_active_means"] == "share of time in which any kernel ran; not how full the GPU was"
    assert gpu["throttled"] == {"power cap (software)": 1}
    assert gpu["power_w"]["max"] == 123.4
    assert gpu["stopped_answering"] == {"power_w": "NVML: GPU is lost"}
    assert gpu["temperature_c"] == gpu["power_limit_w"] == {"absent": "NVML: Not Supported"}
    assert gpu["energy_j"] == pytest.approx(2 * len(gpu["series"]))  # one rise a sample after the first
    assert gpu["series"][-1].keys() == {"at_s", "kernel_active_share", "memory_used_bytes", "power_w"}
