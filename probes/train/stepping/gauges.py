"""What the loop reads of the machine while it trains: memory, and whether the GPU ran anything.

The share of time that any kernel ran is NVML's `utilization.gpu`, averaged by the driver over its last 1/6 to 1 s. One
thread on one multiprocessor makes it 1, so it is not how full the GPU was.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

READ_EVERY_S = 1.0


class Gauges:
    """Read at most each second."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._read_at = -READ_EVERY_S
        self._shares: list[float] = []
        self._has_nvml = device.type == "cuda"
        self.kernel_active_share: float | None = None
        """As last read; None on the CPU and where NVML does not tell."""
        self.peak_memory_bytes = 0
        """So far: what tensors held of the device; on the CPU the process, since it began, so that the copies of
        the model and its optimiser that a plan's warm-up makes are in it."""
        self.forget_peak()

    def forget_peak(self) -> None:
        """Begin again with the peak of memory, where the device lets it."""
        self.peak_memory_bytes = 0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def mean_kernel_active_share(self) -> float | None:
        """Of all readings."""
        return sum(self._shares) / len(self._shares) if self._shares else None

    def read(self, *, at_once: bool = False) -> None:
        """Read again, if the last time is a second ago."""
        now = time.monotonic()
        if now - self._read_at < READ_EVERY_S and not at_once:
            return
        self._read_at = now
        self.peak_memory_bytes = max(self.peak_memory_bytes, _memory_bytes(self.device))
        if self._has_nvml:
            self._read_kernels()

    def _read_kernels(self) -> None:
        import pynvml

        try:
            self.kernel_active_share = torch.cuda.utilization(self.device) / 100
        except (pynvml.NVMLError, ImportError, RuntimeError) as error:
            logger.warning("NVML does not tell which share of time kernels ran: %s", error)
            self.kernel_active_share, self._has_nvml = None, False
        else:
            self._shares.append(self.kernel_active_share)


def _memory_bytes(device: torch.device) -> int:
    """The peak where one is kept, else what is used now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    import psutil

    used = psutil.Process().memory_info()
    return int(getattr(used, "peak_wset", 0)) or _high_water_bytes() or int(used.rss)


def _high_water_bytes() -> int:
    """Linux's own account; 0 elsewhere. That of getrusage begins with the memory of the process that started this."""
    try:
        with Path("/proc/self/status").open(encoding="ascii") as file:
            line = next((line for line in file if line.startswith("VmHWM:")), "")
    except OSError:
        return 0
    return int(line.split()[1]) * 1024 if line else 0
