"""One thread that watches the host and the GPU while something runs.

Its own CPU time is counted, and kept below a twentieth of a core by sampling less often where a sample is dear. What
its numbers are and are not: `host_counters`, `nvml`, `device_memory` and `readings` say so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fovcache.errors import EnvironmentFailure, UsageError

from . import device_memory
from .host_counters import HostCounters
from .nvml import NvmlGpu, gpu_of
from .readings import Readings, Sample, gpu_readings, host_readings, memory_readings

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

INTERVAL_S = 0.25
_MAX_SHARE = 0.05
_JOIN_S = 10.0


class Monitor:
    """Watches from entering to leaving.

        with Monitor(device) as monitor:
            ...
        monitor.readings().gpu["kernel_active_share"]

    Leaving waits for the thread, which ends within one sample. No counter that is missing raises.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        *,
        interval_s: float = INTERVAL_S,
        ignored_pids: Collection[int] = (),
    ) -> None:
        """`ignored_pids` are child processes that are no part of the work, such as a profiler."""
        import torch

        if not interval_s > 0:
            raise UsageError(f"the monitor's interval is {interval_s} s; expected more than 0")
        self._device = torch.device(device)
        self._interval_s = interval_s
        self._host = HostCounters(ignored_pids)
        self._gpu: NvmlGpu | None = None
        self._no_gpu = ""
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fovcache-monitor", daemon=True)
        self._cpu_s = 0.0
        self._num_in_thread = 0
        self._device_memory: dict[str, Any] = {}

    def __enter__(self) -> Monitor:
        device_memory.begin(self._device)
        try:
            self._gpu = gpu_of(self._device).__enter__()
        except EnvironmentFailure as error:
            self._no_gpu = str(error)
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():  # a driver call that does not return; what it hangs in must not be shut down
            logger.warning("the monitor's last sample has not come back after %g s: it is left behind", _JOIN_S)
        else:
            self._sample()
            if self._gpu is not None:
                self._gpu.__exit__(kind, error, traceback)
        self._device_memory = device_memory.device_memory(self._device)

    def readings(self, start: float | None = None, end: float | None = None) -> Readings:
        """What was seen, of all the time or between two readings of `time.perf_counter`; after leaving.

        `at_s` of the series is since `start`. Where fewer than two samples fell between the two, the readings are of
        all the time; the device's memory and the overhead are so in any case.
        """
        if not self._device_memory:
            raise UsageError("the monitor still runs; expected its readings to be asked for afterwards")
        chosen = [s for s in self._samples if (start is None or s.at_s >= start) and (end is None or s.at_s <= end)]
        samples = chosen if len(chosen) > 1 else self._samples
        origin_s = samples[0].at_s if start is None else start
        no_host, gpu = self._host.absent, self._gpu
        lasted_s = self._samples[-1].at_s - self._samples[0].at_s
        return Readings(
            host=host_readings(samples, no_host, origin_s),
            gpu={"absent": self._no_gpu} if gpu is None else gpu_readings(samples, gpu.facts, gpu.absent, origin_s),
            memory=memory_readings(samples, no_host, self._device_memory, str(self._device)),
            overhead={
                "cpu_s": self._cpu_s,
                "share_of_a_core": self._cpu_s / lasted_s,
                "num_samples": self._num_in_thread,
                "s_per_sample": self._cpu_s / max(1, self._num_in_thread),
            },
        )

    def _watch(self) -> None:
        pause_s = self._interval_s
        while not self._stop.wait(pause_s):
            before_s, before = time.thread_time(), time.perf_counter()
            self._sample()
            cpu_s = time.thread_time() - before_s
            self._cpu_s += cpu_s
            self._num_in_thread += 1
            pause_s = max(self._interval_s - (time.perf_counter() - before), cpu_s / _MAX_SHARE)

    def _sample(self) -> None:
        host = self._host.read()
        gpu = {} if self._gpu is None else self._gpu.read()
        self._samples.append(Sample(at_s=time.perf_counter(), host=host, gpu=gpu))
