"""What NVIDIA's driver counts of one GPU, through NVML.

`kernel_active_share` is NVML's `utilization.gpu`: the share of time in which any kernel ran at all, averaged by the
driver over its own last 1/6 to 1 s. One thread on one multiprocessor makes it 1, so it is not how full the GPU was.
Memory, power, clocks and temperature are the whole GPU's, of every process on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fovcache.errors import EnvironmentFailure

if TYPE_CHECKING:
    import torch

KERNEL_ACTIVE = "share of time in which any kernel ran; not how full the GPU was"
_THROTTLES = {
    0x04: "power cap (software)",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


class NvmlGpu:
    """The GPU behind one of torch's CUDA devices. NVML is initialised on entering and shut down on leaving.

    Raises EnvironmentFailure on entering where there is no NVML, or the GPU cannot be found in it. After that a
    counter that does not answer is named in `absent`, and never raises.
    """

    def __init__(self, index: int, *, uuid: str | None = None, visible: str | None = None) -> None:
        """`index` is torch's; `uuid` as torch tells it; `visible` is CUDA_VISIBLE_DEVICES, by default as it is set."""
        self._index, self._uuid = index, uuid
        self._visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
        self._counters: dict[str, Callable[[], float]] = {}
        self.absent: dict[str, str] = {}
        """By counter, why there is none."""
        self.facts: dict[str, Any] = {}
        """What does not change: name, matched_by, memory_total_bytes, power_limit_w."""

    def __enter__(self) -> NvmlGpu:
        import pynvml

        _initialise()
        try:
            self._find()
        except BaseException:
            pynvml.nvmlShutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import pynvml

        self._counters.clear()
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as failure:
            self.absent["shutdown"] = f"NVML: {failure}"

    def read(self) -> dict[str, float]:
        """Every counter that answers, now. `throttles` is a bit mask, for `throttled`; `energy_j` counts up."""
        import pynvml

        found: dict[str, float] = {}
        for name, counter in list(self._counters.items()):
            try:
                found[name] = counter()
            except pynvml.NVMLError as error:
                self.absent[name] = f"NVML: {error}"
                del self._counters[name]
        return found

    def _find(self) -> None:
        import pynvml

        handle, matched_by = _handle(self._index, self._uuid, self._visible)
        board, is_slice = handle, False
        try:
            if pynvml.nvmlDeviceIsMigDeviceHandle(handle):
                board, is_slice = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle), True
        except pynvml.NVMLError:
            is_slice = False  # a driver from before MIG
        self.facts["matched_by"] = matched_by
        if is_slice:
            self.facts["slice"] = "a MIG instance: power, clocks and temperature are of the whole GPU it is a part of"
        self._fact("name", lambda: pynvml.nvmlDeviceGetName(handle))
        self._fact("memory_total_bytes", lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))
        self._fact("power_limit_w", lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(board) / 1000)
        self._counters = {
            "kernel_active_share": lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            "memory_used_bytes": lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
            "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(board) / 1000,
            "energy_j": lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(board) / 1000,
            "sm_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(board, pynvml.NVML_CLOCK_SM),
            "memory_clock_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(board, pynvml.NVML_CLOCK_MEM),
            "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(board, pynvml.NVML_TEMPERATURE_GPU),
            "throttles": lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(board),
        }

    def _fact(self, name: str, read: Callable[[], Any]) -> None:
        import pynvml

        try:
            self.facts[name] = read()
        except pynvml.NVMLError as error:
            self.absent[name] = f"NVML: {error}"


def gpu_of(device: torch.device) -> NvmlGpu:
    """The GPU behind a device of torch, to be entered. Raises EnvironmentFailure where NVML cannot tell of it."""
    import torch

    if device.type == "mps":
        raise EnvironmentFailure("macOS tells libraries nothing of a GPU's use, power and clocks; NVML is NVIDIA's")
    if device.type != "cuda":
        raise EnvironmentFailure(f"the run used no GPU: its device is {device}")
    if not torch.cuda.is_available():
        raise EnvironmentFailure("torch has no CUDA device here")
    index = torch.cuda.current_device() if device.index is None else device.index
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    return NvmlGpu(index, uuid=None if uuid is None else str(uuid))


def throttled(masks: list[int]) -> dict[str, float]:
    """By reason that kept the clocks down, the share of the samples that it did; empty where nothing ever did."""
    shares = {name: sum(bool(mask & bit) for mask in masks) / len(masks) for bit, name in _THROTTLES.items()}
    return {name: share for name, share in shares.items() if share}


def driver_version() -> str | None:
    """NVIDIA's driver's version; None where NVML does not tell."""
    import pynvml

    try:
        _initialise()
    except EnvironmentFailure:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _initialise() -> None:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            raise EnvironmentFailure("no NVML library, which comes with NVIDIA's driver, on this machine") from error
        raise EnvironmentFailure(f"NVML cannot be initialised: {error}") from error


def _handle(index: int, uuid: str | None, visible: str | None) -> tuple[Any, str]:
    """NVML's handle of torch's device `index`, and how it was found.

    NVML counts the GPUs in the order of the PCI bus and knows nothing of CUDA_VISIBLE_DEVICES; CUDA counts the visible
    ones, by default fastest first. Only a UUID means the same to both.
    """
    import pynvml

    entries = _visible_entries(visible)
    entry = entries[index] if entries is not None and index < len(entries) else None
    # A MIG instance first: as the UUID of one, CUDA may tell that of the GPU it is a part of.
    if entry is not None and entry.startswith("MIG-"):
        return _by_uuid(entry), "CUDA_VISIBLE_DEVICES"
    if uuid:
        for prefix in ("GPU-", "MIG-"):
            try:
                return pynvml.nvmlDeviceGetHandleByUUID(prefix + uuid), "uuid"
            except pynvml.NVMLError:
                continue
    if entries is not None and entry is None:
        raise EnvironmentFailure(f"CUDA_VISIBLE_DEVICES is {visible!r}, which has no device {index}")
    if entry is not None and not entry.isdigit():
        return _by_uuid(entry), "CUDA_VISIBLE_DEVICES"
    number = index if entry is None else int(entry)
    how = "index" if entry is None else "CUDA_VISIBLE_DEVICES"
    try:
        if pynvml.nvmlDeviceGetCount() > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            how += ", which may be another GPU's: set CUDA_DEVICE_ORDER=PCI_BUS_ID"
        return pynvml.nvmlDeviceGetHandleByIndex(number), how
    except pynvml.NVMLError as error:
        raise EnvironmentFailure(f"NVML has no GPU {number}: {error}") from error


def _visible_entries(visible: str | None) -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES lists, up to the first entry that CUDA would stop at; None where it is not set."""
    if visible is None:
        return None
    entries: list[str] = []
    for entry in (part.strip() for part in visible.split(",")):
        if not entry.isdigit() and not entry.startswith(("GPU-", "MIG-")):
            break
        entries.append(entry)
    return entries


def _by_uuid(wanted: str) -> Any:
    """The handle of a UUID, which CUDA lets people abbreviate as long as it is unique."""
    import pynvml

    try:
        if wanted.startswith("GPU-"):
            for number in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(number)
                if pynvml.nvmlDeviceGetUUID(handle).startswith(wanted):
                    return handle
        return pynvml.nvmlDeviceGetHandleByUUID(wanted)
    except pynvml.NVMLError as error:
        raise EnvironmentFailure(f"NVML has no device {wanted!r}, as CUDA_VISIBLE_DEVICES names it: {error}") from error
