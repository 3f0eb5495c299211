"""Gathering rows on background threads, and copying them to the device while the last ones are used."""

from __future__ import annotations

import functools
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import torch

_THREADS = 2
"""Threads that gather; two keep up with what one consumer and one copy engine take."""
_DEPTH = _THREADS + 1
"""Gathers in flight: those being gathered, and one that is copied."""

Shapes: TypeAlias = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
Gather: TypeAlias = Callable[[str, np.ndarray, torch.Tensor | None], torch.Tensor]
Columns: TypeAlias = dict[str, torch.Tensor]


def prefetch_to(
    device: torch.device, shapes: Shapes, most_rows: int, indexes: Iterable[np.ndarray], gather: Gather
) -> Iterator[Columns]:
    """For each index array (of at most `most_rows`), `{name: [len(index), …]}` on `device`, gathered ahead.

    `gather(name, index, out)` gives one column on the CPU, in `out` if there is one. It runs on background threads,
    for several index arrays at a time; an error of it is raised here, at the rows that it belongs to.
    """
    stage: _PinnedStage | _PlainStage = (
        _PinnedStage(device, shapes, most_rows) if device.type == "cuda" else _PlainStage(device, shapes)
    )
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="fovcache-prefetch")
    ahead: deque[Future[Any]] = deque()
    try:
        for index in indexes:
            ahead.append(pool.submit(stage.gather, index, gather))
            if len(ahead) == _DEPTH:
                yield stage.hand_over(ahead.popleft().result())
        while ahead:
            yield stage.hand_over(ahead.popleft().result())
    finally:
        pool.shutdown(cancel_futures=True)


class _PlainStage:
    """For the CPU (and MPS, which has no pinned memory): a fresh tensor each time, so users may keep it."""

    def __init__(self, device: torch.device, shapes: Shapes) -> None:
        self._device = device
        self._shapes = shapes

    def gather(self, index: np.ndarray, gather: Gather) -> Columns:
        return {name: gather(name, index, None) for name in self._shapes}

    def hand_over(self, gathered: Columns) -> Columns:
        return {name: value.to(self._device) for name, value in gathered.items()}


@functools.cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all epochs: torch keeps freed memory for the stream that it was allocated under, and for no other."""
    return torch.cuda.Stream(device)


class _PinnedStage:
    """For CUDA: reused pinned buffers and a copy stream.

    Rows copied on the copy stream are only given to the consumer's stream after the copy's event, and are
    marked as used by that stream, so that their memory is not reused under it.
    """

    def __init__(self, device: torch.device, shapes: Shapes, most_rows: int) -> None:
        self._device = device
        self._stream = _copy_stream(device)
        self._free: queue.SimpleQueue[tuple[Columns, torch.cuda.Event]] = queue.SimpleQueue()
        for _ in range(_DEPTH):
            buffers = {
                name: torch.empty((most_rows, *shape), dtype=dtype, pin_memory=True)
                for name, (shape, dtype) in shapes.items()
            }
            self._free.put((buffers, torch.cuda.Event()))

    def gather(self, index: np.ndarray, gather: Gather) -> tuple[Columns, torch.cuda.Event]:
        buffers, last_copy = self._free.get()
        last_copy.synchronize()  # out of these very buffers
        parts = {name: gather(name, index, buffer[: len(index)]) for name, buffer in buffers.items()}
        copied = torch.cuda.Event()
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            columns = {name: part.to(self._device, non_blocking=True) for name, part in parts.items()}
            copied.record(self._stream)
        self._free.put((buffers, copied))
        return columns, copied

    def hand_over(self, gathered: tuple[Columns, torch.cuda.Event]) -> Columns:
        columns, copied = gathered
        consumer = torch.cuda.current_stream(self._device)
        consumer.wait_event(copied)
        for value in columns.values():
            value.record_stream(consumer)
        return columns
