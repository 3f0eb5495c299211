"""What a monitor's samples come to.

Means are over the samples and peaks are the largest sample; a peak between two samples is missed. What counts up (CPU
time, bytes, energy) misses nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from fovcache.builder.request import available_cores

from .device_memory import margin_bytes
from .host_counters import own_peak_bytes
from .nvml import KERNEL_ACTIVE, throttled

_MAX_SERIES = 400
_IN_SERIES = ("kernel_active_share", "memory_used_bytes", "power_w")
_GAUGES = (*_IN_SERIES, "sm_clock_mhz", "memory_clock_mhz", "temperature_c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at the counters."""

    at_s: float
    """On `time.perf_counter`."""
    host: dict[str, float]
    """As `HostCounters.read` gives them."""
    gpu: dict[str, float]
    """As `NvmlGpu.read` gives them; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What the monitor saw, as `Profile` holds it. What a machine does not count is `{"absent": why}`."""

    host: dict[str, Any]
    """`wall_s`, `num_samples`, `cpu`, `io`, `network`, `series`."""
    gpu: dict[str, Any]
    """What the GPU is, `{mean, min, max}` of each of NVML's counters, `throttled`, `energy_j`, `series`."""
    memory: dict[str, Any]
    """`host`, `device`, and of the two that a larger batch would fill, `headroom_bytes` and `headroom_of`."""
    overhead: dict[str, float]
    """`cpu_s` of the sampling thread, `share_of_a_core`, `num_samples`, `s_per_sample`."""


def host_readings(samples: Sequence[Sample], absent: Mapping[str, str], origin_s: float) -> dict[str, Any]:
    """`cpu.cores_used` is the mean over the time, `cores_used_max` the largest between two samples."""

    def group(name: str, *counters: str) -> dict[str, Any]:
        if not all(counter in sample.host for counter in counters for sample in (samples[0], samples[-1])):
            return {"absent": absent.get(name, "not counted")}
        return {counter: _rise(samples[0], samples[-1], counter) for counter in counters}

    cpu = group("cpu", "cpu_user_s", "cpu_system_s")
    if "absent" not in cpu:
        cpu |= {
            "cores_used": _cores_used(samples[0], samples[-1]),
            "cores_used_max": max(itertools.starmap(_cores_used, itertools.pairwise(samples))),
            "cores": available_cores(),
            "num_processes_max": int(max(sample.host["num_processes"] for sample in samples)),
        }
        if "children" in absent:
            cpu["without_children"] = absent["children"]
    network = group("network", "received_bytes", "sent_bytes", "loopback_bytes")
    if "absent" not in network:
        network["of"] = "the whole machine or container"
    return {
        "wall_s": samples[-1].at_s - samples[0].at_s,
        "num_samples": len(samples),
        "cpu": cpu,
        "io": group("io", "read_bytes", "written_bytes"),
        "network": network,
        "series": _series(samples, origin_s, lambda before, after: {"cores_used": _cores_used(before, after)}),
    }


def gpu_readings(
    samples: Sequence[Sample], facts: Mapping[str, Any], absent: Mapping[str, str], origin_s: float
) -> dict[str, Any]:
    """A counter that fell silent on the way has what it said until then, and a line in `stopped_answering`."""
    found: dict[str, Any] = {}
    stopped: dict[str, str] = {}
    for name in (*_GAUGES, "throttles", "energy_j"):
        values = [sample.gpu[name] for sample in samples if name in sample.gpu]
        if not values:
            found["throttled" if name == "throttles" else name] = {"absent": absent.get(name, "no sample of it")}
            continue
        if name in absent:
            stopped[name] = absent[name]
        if name == "throttles":
            found["throttled"] = throttled([int(value) for value in values])
        elif name == "energy_j":
            found["energy_j"] = values[-1] - values[0]
        else:
            found[name] = {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}
    missing = {name: {"absent": why} for name, why in absent.items() if name not in (*found, "throttles")}
    return {
        **facts,
        **missing,
        "kernel_active_means": KERNEL_ACTIVE,
        **found,
        **({"stopped_answering": stopped} if stopped else {}),
        "series": _series(samples, origin_s, lambda _, after: {name: after.gpu.get(name) for name in _IN_SERIES}),
    }


def memory_readings(
    samples: Sequence[Sample], absent: Mapping[str, str], device_memory: dict[str, Any], device: str
) -> dict[str, Any]:
    """`rss` is the sum over the process and its children, in which memory that they share counts several times."""
    total = int(psutil.virtual_memory().total)
    host: dict[str, Any] = {"total_bytes": total, "own_peak_bytes": own_peak_bytes()}
    if "memory" in absent:
        host["absent"] = absent["memory"]
    else:
        available = min(int(sample.host["available_bytes"]) for sample in samples)
        host |= {
            "available_bytes": available,
            "rss_bytes": int(samples[-1].host["rss_bytes"]),
            "rss_peak_bytes": int(max(sample.host["rss_bytes"] for sample in samples)),
            "margin_bytes": margin_bytes(total),
            "headroom_bytes": max(0, available - margin_bytes(total)),
        }
    is_host = device == "cpu"
    return {
        "host": host,
        "device": device_memory,
        "headroom_bytes": (host if is_host else device_memory).get("headroom_bytes"),
        "headroom_of": "host" if is_host else device,
    }


def _rise(before: Sample, after: Sample, name: str) -> float:
    """Never negative: a child that ends while the tree is read is missing until its parent has waited for it."""
    return max(0.0, after.host[name] - before.host[name])


def _cores_used(before: Sample, after: Sample) -> float:
    if not all("cpu_user_s" in sample.host for sample in (before, after)):
        return 0.0
    used_s = _rise(before, after, "cpu_user_s") + _rise(before, after, "cpu_system_s")
    return used_s / max(after.at_s - before.at_s, 1e-9)


def _series(
    samples: Sequence[Sample], origin_s: float, of: Callable[[Sample, Sample], dict[str, Any]]
) -> list[dict[str, Any]]:
    """At most 400 points, evenly chosen; what counts up is over the time since the point before."""
    step = -(-len(samples) // _MAX_SERIES)
    pairs = itertools.pairwise(samples[::step])
    return [{"at_s": after.at_s - origin_s, **of(before, after)} for before, after in pairs]
