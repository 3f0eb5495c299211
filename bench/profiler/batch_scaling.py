"""What a step takes at another batch size: its time, and the memory at its peak."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import torch

from fovcache.pipeline.stage import Failed

from .what_if import BatchScaling
from .workload import Workload

_NUM_RUNS = 3
_POLL_S = 0.002


def batch_scaling(workload: Workload, device: torch.device) -> BatchScaling | None:
    """Run warm steps at the batch size and at half of it, in turn; None for batches of one, or where too few samples
    come."""
    size = workload.batch_size
    items = _prepared(workload, size)
    if size < 2 or len(items) < size:
        return None
    half = size // 2
    runs: dict[int, list[tuple[int, float]]] = {half: [], size: []}
    for _ in range(_NUM_RUNS):
        for number, done in runs.items():
            done.append(_run(workload, items[:number], device))
    return BatchScaling(
        batch_sizes=(size, half),
        step_s=(_median_s(runs[size]), _median_s(runs[half])),
        peak_bytes=(_peak(runs[size]), _peak(runs[half])),
        memory_bytes=_memory_bytes(device),
    )


def _median_s(runs: Sequence[tuple[int, float]]) -> float:
    return statistics.median(seconds for _, seconds in runs)


def _peak(runs: Sequence[tuple[int, float]]) -> int:
    return max(peak_bytes for peak_bytes, _ in runs)


def _prepared(workload: Workload, num: int) -> list[Any]:
    """Samples that have passed the inputs; fewer where many fail."""
    items: list[Any] = []
    for tried, item in enumerate(workload.source()):
        for stage in workload.inputs:
            item = stage.apply(item)
        if not isinstance(item, Failed):
            items.append(item)
        if len(items) == num or tried > 4 * num:
            break
    return items


def _run(workload: Workload, items: Sequence[Any], device: torch.device) -> tuple[int, float]:
    """Peak bytes and seconds of one step."""
    batch: Any = list(items)

    def step() -> None:
        nonlocal batch
        for stage in workload.steps:
            batch = stage.run(batch)
        workload.device.synchronize()

    start = time.perf_counter()
    peak_bytes = _peak_bytes(step, device)
    return peak_bytes, time.perf_counter() - start


def _peak_bytes(run: Callable[[], None], device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device)
    process, peaks, is_over = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(_POLL_S):
            peaks.append(process.memory_info().rss)

    thread = threading.Thread(target=watch, name="fovcache-memory", daemon=True)
    thread.start()
    try:
        run()
    finally:
        is_over.set()
        thread.join()
    return int(max(*peaks, process.memory_info().rss))


def _memory_bytes(device: torch.device) -> int:
    """What the device's peaks may come to: what is free, and what this process holds already."""
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        return free_bytes + torch.cuda.memory_reserved(device)
    return int(psutil.virtual_memory().available + psutil.Process().memory_info().rss)
