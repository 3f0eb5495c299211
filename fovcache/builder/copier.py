"""Copying batches to the device."""

from __future__ import annotations

import torch

_NUM_BUFFERS = 2


class Copier:
    """Copies batches to a device; to CUDA out of reused pinned buffers, without waiting for it.

    `.to()` of memory that is not pinned waits until the device has done all that it was given before.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: list[tuple[torch.Tensor, torch.cuda.Event]] = []
        self._turn = 0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """The batch on the device; `batch` may be changed as soon as this returns."""
        if self._device.type != "cuda":
            return batch.to(self._device)
        if len(self._buffers) < _NUM_BUFFERS:
            self._buffers.append((torch.empty(0, dtype=torch.uint8), torch.cuda.Event()))
        self._turn = (self._turn + 1) % len(self._buffers)
        buffer, copied = self._buffers[self._turn]
        copied.synchronize()  # the copy out of this very buffer, of two batches ago
        if buffer.numel() < batch.nbytes:
            buffer = torch.empty(batch.nbytes, dtype=torch.uint8, pin_memory=True)
            self._buffers[self._turn] = (buffer, copied)
        pinned = buffer[: batch.nbytes].view(batch.dtype).view(batch.shape)
        pinned.copy_(batch)
        result = pinned.to(self._device, non_blocking=True)
        copied.record(torch.cuda.current_stream(self._device))
        return result
