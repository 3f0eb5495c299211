"""What must be equal where times are compared. It names no host, so that it can be published."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from blake3 import blake3

from fovcache.builder.request import available_cores

from ..profiler.environment import cpu_limit_cores, cpu_name

PACKAGES = ("torch", "numpy")
"""Whose versions decide times of code that did not change."""
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_MACHINE_ID = Path("/etc/machine-id")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def machine() -> dict[str, str]:
    """This machine, its interpreter, and what decides how many threads are used.

    `id` is a digest of the system's own machine id, which it does not give away; two rented machines of one kind
    differ in nothing else.
    """
    cores, limit = available_cores(), cpu_limit_cores()
    found = {
        "cpu": cpu_name(),
        "cores": str(cores) if limit is None or limit >= cores else f"{cores}, limited to {limit:.2f}",
        "memory": f"{round(psutil.virtual_memory().total / 2**30)} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "governor": _text(_GOVERNOR) or "unknown",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "id": _own_id(),
    }
    found |= {name: _version(name) for name in PACKAGES}
    return found | {name: os.environ.get(name, "unset") for name in _THREADS}


def _own_id() -> str:
    text = _text(_MACHINE_ID)
    return blake3(b"fovbench machine\n" + text.encode()).hexdigest()[:12] if text else "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
