"""What a figure was measured on and with. It names no host, no user and no path, so that it can be published."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from fovcache import __version__
from fovcache.builder.request import available_cores
from fovcache.control_groups import GROUPS, OWN_GROUPS, own_folders, text_of

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "transformers", "diffusers", "av", "numpy", "h5py", "safetensors", "blake3")
"""Whose versions are told, as far as they are installed."""
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def environment(device: torch.device | str | None = None) -> dict[str, Any]:
    """Hardware, versions, threads, and how busy the machine was, as plain JSON values.

    `cores` are those that this process may use, not those that the machine has; `cpu_limit_cores` and
    `memory_limit_gib` are there only where a container allows less than that. `device` is the run's; the GPU told
    about is that one, or the first.
    """
    import torch

    cores, memory = available_cores(), psutil.virtual_memory().total
    limit, memory_limit = cpu_limit_cores(), _memory_limit_bytes()
    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": cores,
        "memory_gib": round(memory / 2**30, 1),
    }
    if limit is not None and limit < cores:
        found["cpu_limit_cores"] = round(limit, 2)
    if memory_limit is not None and memory_limit < memory:
        found["memory_limit_gib"] = round(memory_limit / 2**30, 1)
    found |= {
        "system": f"{platform.system()} {platform.release()}",
        "huge_pages": _HUGE_PAGES.read_text().strip() if _HUGE_PAGES.exists() else "unknown",
        "python": platform.python_version(),
        "fovcache": __version__,
        **_versions(),
        "torch_threads": torch.get_num_threads(),
        "torch_interop_threads": torch.get_num_interop_threads(),
        "matmul_precision": _matmul_precision(),
    }
    if hasattr(os, "getloadavg"):
        found["load_average"] = [round(value, 2) for value in os.getloadavg()]
    if device is not None:
        found["device"] = str(device)
    return found | _gpu(torch.device(device) if device is not None else None)


def cpu_limit_cores(groups: Path = GROUPS, own: Path = OWN_GROUPS) -> float | None:
    """Cores' worth of time that this process's control groups allow it; None without a limit or control groups."""
    limits = []
    for folder in own_folders("cpu", groups, own):
        quota, _, period = text_of(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = text_of(folder / "cpu.cfs_quota_us"), text_of(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):  # not "max", nor -1
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _memory_limit_bytes(groups: Path = GROUPS, own: Path = OWN_GROUPS) -> int | None:
    names = ("memory.max", "memory.limit_in_bytes")
    texts = [text_of(folder / name) for folder in own_folders("memory", groups, own) for name in names]
    return min((int(text) for text in texts if text.isdigit()), default=None)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _matmul_precision() -> str:
    import torch

    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set through both of torch's two interfaces, which then have no common answer
        return "mixed"


def cpu_name() -> str:
    """The processor as its maker names it."""
    if match := re.search(r"^model name\s*:\s*(.+)$", text_of(Path("/proc/cpuinfo")), re.MULTILINE):
        return match[1].strip()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
        if answer.stdout.strip():
            return answer.stdout.strip()
    return platform.processor() or platform.machine()


def _gpu(device: torch.device | None) -> dict[str, Any]:
    """Name, memory, driver and CUDA version of an NVIDIA GPU that torch can use; nothing without one."""
    import torch

    if not torch.cuda.is_available():
        return {}
    from .nvml import driver_version

    index = device.index if device is not None and device.type == "cuda" and device.index is not None else 0
    properties = torch.cuda.get_device_properties(index)
    return {
        "gpu": properties.name,
        "num_gpus": torch.cuda.device_count(),
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "gpu_driver": driver_version() or "unknown",
        "cuda": torch.version.cuda or "unknown",
        "cudnn": str(torch.backends.cudnn.version()),
    }
