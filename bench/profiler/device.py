"""Where the training steps run, and when it came to which point of its work."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from fovcache.errors import UsageError

if TYPE_CHECKING:
    import torch

_NUM_ANCHORS = 5


class DeviceTimer(Protocol):
    """A device that does what it is given in order, and marks in between that are read afterwards."""

    name: str
    """What people know it by."""
    type: str
    """`cpu`, `cuda`, `mps`."""
    is_async: bool
    """Does it work by itself while the thread that gave it its work goes on?"""

    def mark(self) -> Any:
        """A mark behind everything given so far, in this thread. Returns at once."""
        ...

    def wait(self, mark: Any) -> None:
        """Until the device has come to a mark; what was given after it is not waited for."""
        ...

    def synchronize(self) -> None:
        """Until everything given so far is done."""
        ...

    def times_s(self, marks: Sequence[Any]) -> list[float]:
        """When the device came to each of the marks, given in order: seconds, on `time.perf_counter`. Synchronises."""
        ...


class HostDevice:
    """The CPU: what it is given is done when the call returns."""

    name = "CPU"
    type = "cpu"
    is_async = False

    def mark(self) -> float:
        """The time."""
        return time.perf_counter()

    def wait(self, mark: float) -> None:
        """It is over."""

    def synchronize(self) -> None:
        """It is done."""

    def times_s(self, marks: Sequence[float]) -> list[float]:
        """The marks."""
        return list(marks)


class TorchDevice:
    """A GPU, by torch's events on the current stream.

    Its clock is placed on the host's at the start and once more when the times are read, so that what it did and
    what the host waited for can be compared however long the run.
    """

    is_async = True

    def __init__(self, device: torch.device) -> None:
        """`device` is of type `cuda` or `mps`."""
        import torch

        if device.type not in ("cuda", "mps"):
            raise UsageError(f"device {device}: expected one of type cuda or mps to time by events")
        self.type = device.type
        self.name = torch.cuda.get_device_name(device) if device.type == "cuda" else "Apple GPU"
        self._device = device
        self._start = self._anchor()

    def mark(self) -> Any:
        """An event."""
        import torch

        if self.type == "mps":
            on_mps = torch.mps.Event(enable_timing=True)
            on_mps.record()
            return on_mps
        # Blocking: who waits for it sleeps, and leaves its core to the threads that prepare samples.
        event = torch.cuda.Event(enable_timing=True, blocking=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def wait(self, mark: Any) -> None:
        """Until the event has happened."""
        mark.synchronize()

    def synchronize(self) -> None:
        """All streams of the device."""
        import torch

        if self.type == "mps":
            torch.mps.synchronize()
        else:
            torch.cuda.synchronize(self._device)

    def times_s(self, marks: Sequence[Any]) -> list[float]:
        """By differences of neighbours: a difference is a float32 of milliseconds, too coarse over a long run."""
        end, end_s = self._anchor()
        start, start_s = self._start
        pairs = itertools.pairwise((start, *marks, end))
        *since_s, total_s = itertools.accumulate(before.elapsed_time(mark) / 1e3 for before, mark in pairs)
        rate = (end_s - start_s) / total_s if total_s > 0 else 1.0
        return [start_s + each_s * rate for each_s in since_s]

    def _anchor(self) -> tuple[Any, float]:
        """An event on the idle device, and when it happened; the one of a few tries that is known best."""
        tries = []
        for _ in range(_NUM_ANCHORS):
            self.synchronize()
            before_s = time.perf_counter()
            event = self.mark()
            event.synchronize()
            after_s = time.perf_counter()
            tries.append((after_s - before_s, event, (before_s + after_s) / 2))
        _, event, middle_s = min(tries, key=lambda each: each[0])
        return event, middle_s


def device_timer(device: torch.device) -> DeviceTimer:
    """The timer of a torch device. Raises UsageError for one that is neither CPU, CUDA nor MPS."""
    return HostDevice() if device.type == "cpu" else TorchDevice(device)
