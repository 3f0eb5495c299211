"""Bringing all rows into the memory of a device."""

from __future__ import annotations

import torch

from .rows import Rows, empty_host

_STAGING_BYTES = 32 << 20


def load_rows(rows: Rows, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """All rows as one tensor of `shape` on `device`."""
    if device.type != "cuda":
        host = empty_host(shape, rows.dtype)
        rows.read_all(host)
        return host.to(device)
    return _load_through_pinned(rows, shape, device)


def _load_through_pinned(rows: Rows, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Read into two reused pinned buffers, one being copied to the device while the other is filled."""
    resident = torch.empty(shape, dtype=rows.dtype, device=device)
    rows_per_buffer = max(1, min(len(rows), _STAGING_BYTES // max(1, rows.row_bytes)))
    buffers = [torch.empty((rows_per_buffer, *shape[1:]), dtype=rows.dtype, pin_memory=True) for _ in range(2)]
    copied = [torch.cuda.Event() for _ in buffers]
    with torch.cuda.device(device):
        for turn, start in enumerate(range(0, len(rows), rows_per_buffer)):
            buffer, event = buffers[turn % 2], copied[turn % 2]
            event.synchronize()  # the copy out of this buffer, two turns ago
            part = buffer[: min(rows_per_buffer, len(rows) - start)]
            rows.read_all(part, start)
            resident[start : start + len(part)].copy_(part, non_blocking=True)
            event.record()
        torch.cuda.current_stream().synchronize()  # the buffers go away with this call
    return resident
