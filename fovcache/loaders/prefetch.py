"""Gathering batches on a background thread, and copying them to the device while the last one is used."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch

_DEPTH = 3
"""Batches in flight: one in use, one copied, one being gathered."""

Shapes: TypeAlias = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
Fill: TypeAlias = Callable[[str, np.ndarray, torch.Tensor], None]
Columns: TypeAlias = dict[str, torch.Tensor]


def prefetch_to(
    device: torch.device, shapes: Shapes, batch_size: int, batches: Sequence[np.ndarray], fill: Fill
) -> Iterator[Columns]:
    """Batches on `device`: for each index array, `{name: [len(index), …]}` as `fill(name, index, out)` gathers it.

    An error on the background thread is raised here, at the batch that it belongs to.
    """
    make = _PinnedStage(device, shapes, batch_size) if device.type == "cuda" else _PlainStage(device, shapes)
    ready: queue.Queue[Columns | BaseException | None] = queue.Queue(_DEPTH - 1)
    stop = threading.Event()

    def put(item: Columns | BaseException | None) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            for positions in batches:
                if not put(make.gather(positions, fill)):
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=work, name="fovcache-prefetch", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield make.hand_over(item)
    finally:
        stop.set()
        thread.join()


class _PlainStage:
    """For the CPU (and MPS, which has no pinned memory): a fresh tensor for each batch, so users may keep them."""

    def __init__(self, device: torch.device, shapes: Shapes) -> None:
        self._device = device
        self._shapes = shapes

    def gather(self, positions: np.ndarray, fill: Fill) -> Columns:
        columns = {}
        for name, (shape, dtype) in self._shapes.items():
            columns[name] = torch.empty((len(positions), *shape), dtype=dtype)
            fill(name, positions, columns[name])
        return columns

    def hand_over(self, columns: Columns) -> Columns:
        return {name: value.to(self._device) for name, value in columns.items()}


class _PinnedStage:
    """For CUDA: reused pinned buffers and a copy stream.

    A batch made on the copy stream is only given to the consumer's stream after the copy's event, and is
    marked as used by that stream, so that its memory is not reused under it.
    """

    def __init__(self, device: torch.device, shapes: Shapes, batch_size: int) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._buffers = [
            {
                name: torch.empty((batch_size, *shape), dtype=dtype, pin_memory=True)
                for name, (shape, dtype) in shapes.items()
            }
            for _ in range(_DEPTH)
        ]
        self._copied = [torch.cuda.Event() for _ in range(_DEPTH)]
        self._turn = 0
        self._events: dict[int, torch.cuda.Event] = {}

    def gather(self, positions: np.ndarray, fill: Fill) -> Columns:
        slot = self._turn % _DEPTH
        self._turn += 1
        self._copied[slot].synchronize()  # the copy out of this buffer, _DEPTH batches ago
        columns = {}
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for name, buffer in self._buffers[slot].items():
                part = buffer[: len(positions)]
                fill(name, positions, part)
                columns[name] = part.to(self._device, non_blocking=True)
            self._copied[slot].record(self._stream)
            done = torch.cuda.Event()
            done.record(self._stream)
        self._events[id(columns)] = done
        return columns

    def hand_over(self, columns: Columns) -> Columns:
        consumer = torch.cuda.current_stream(self._device)
        consumer.wait_event(self._events.pop(id(columns)))
        for value in columns.values():
            value.record_stream(consumer)
        return columns
