"""Memory of the device that torch computes on, and how much more of it a run could take.

`allocated` is what tensors hold, `reserved` what torch's allocator holds for them; `used` is everyone's, and so never
less. The headroom is what the run could still have had at its peak: free + reserved − peak allocated, less a margin
for fragmentation and for what kernels and libraries allocate past torch.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_MARGIN_BYTES = 512 << 20
_MARGIN_SHARE = 0.05


def margin_bytes(total_bytes: int) -> int:
    """What is never counted as headroom: 512 MiB or 5 %, whichever is more."""
    return max(_MARGIN_BYTES, int(_MARGIN_SHARE * total_bytes))


def begin(device: torch.device) -> None:
    """Peaks count from here."""
    import torch

    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats(device)


def device_memory(device: torch.device) -> dict[str, Any]:
    """Bytes, with peaks since `begin`; `{"absent": why}` where the device has no memory of its own, or none to read."""
    import torch

    if device.type == "cpu":
        return {"absent": "the run used the CPU, whose memory is the host's"}
    if device.type == "mps":
        return _mps(torch.mps)
    if device.type != "cuda" or not torch.cuda.is_available():
        return {"absent": f"torch has no {device.type} device here"}
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        return {"absent": f"CUDA does not tell: {error}"}
    reserved, peak = torch.cuda.memory_reserved(device), torch.cuda.max_memory_allocated(device)
    return {
        "total_bytes": total,
        "used_bytes": total - free,
        "free_bytes": free,
        "allocated_bytes": torch.cuda.memory_allocated(device),
        "reserved_bytes": reserved,
        "peak_allocated_bytes": peak,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(device),
        "margin_bytes": margin_bytes(total),
        "headroom_bytes": max(0, free + reserved - peak - margin_bytes(total)),
    }


def _mps(mps: ModuleType | Any) -> dict[str, Any]:
    """Apple's GPUs share the host's memory, and torch keeps no peak of theirs."""
    try:
        total, driver = int(mps.recommended_max_memory()), int(mps.driver_allocated_memory())
        allocated = int(mps.current_allocated_memory())
    except (AttributeError, RuntimeError) as error:
        return {"absent": f"torch.mps does not tell: {error}"}
    no_peak = {"absent": "torch.mps keeps no peaks"}
    return {
        "total_bytes": total,
        "allocated_bytes": allocated,
        "reserved_bytes": driver,
        "peak_allocated_bytes": no_peak,
        "peak_reserved_bytes": no_peak,
        "used_bytes": {"absent": "torch.mps tells of this process alone"},
        "margin_bytes": margin_bytes(total),
        "headroom_bytes": max(0, total - driver - margin_bytes(total)),
    }
