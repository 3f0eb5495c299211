"""Where a loader keeps its rows: on the device, in host memory, or in the shards."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
import torch

from ..control_groups import remaining_memory_bytes
from ..errors import UsageError

RESIDENCIES = ("auto", "device", "host", "stream")
_DEVICE_SHARE = 0.8
_HOST_SHARE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """Where rows are kept, and why."""

    kind: str
    """`device`: gathered by index on the device; `host`: in RAM, through pinned buffers; `stream`: from the shards."""
    reason: str
    """In words, with the memory that was measured."""


def choose_residency(wanted: str, size_bytes: int, device: torch.device) -> Residency:
    """The residency asked for, or for `auto` the nearest to the device that fits into what is free now."""
    if wanted not in RESIDENCIES:
        raise UsageError(f"residency {wanted!r} is not one of {', '.join(RESIDENCIES)}")
    if wanted != "auto":
        return Residency(kind=wanted, reason="as asked for")
    size = f"{size_bytes / 2**20:.1f} MiB of features"
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if size_bytes <= _DEVICE_SHARE * free:
            return Residency(kind="device", reason=f"{size} fit in {free / 2**20:.0f} MiB free on {device}")
    free_host = free_host_bytes()
    fits = size_bytes <= _HOST_SHARE * free_host
    where = f"{size} {'fit' if fits else 'do not fit'} in {free_host / 2**20:.0f} MiB of free host memory"
    if not fits:
        return Residency(kind="stream", reason=where)
    return Residency(kind="host" if device.type == "cuda" else "device", reason=where)


def free_host_bytes() -> int:
    """Free host memory, within the control groups' limits where there are some."""
    free = int(psutil.virtual_memory().available)
    remaining = remaining_memory_bytes()
    return free if remaining is None else min(free, remaining)
