"""Whether an ablation's numbers fit in memory, asked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from fovcache.builder.request import available_cores
from fovcache.console import human_bytes
from fovcache.errors import UsageError

from .grid import Cell
from .head import Head

if TYPE_CHECKING:
    import torch

    from .features import AblationInput

_SHARE = 0.8
"""Of the memory that is free, or of a GPU's, how much may be taken."""
_MAX_WORKERS = 4
_KEPT_BYTES = 4 + 2
"""A number of a sample as float32, and while it is read in the cache's dtype."""
_FITTED_BYTES = 3 * 8
"""The same while a head is fitted: float64, standardised, and what is between the two."""
_SQUARE_BYTES = 3 * 8
"""A product of two columns, or of two samples where there are fewer; its eigenvectors, and room to find them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where heads run and how many at a time."""

    device: torch.device
    """Where representations are computed."""
    num_workers: int
    """Heads that are fitted at a time, each on one thread."""

    def place(self, head: Head, x_ND: torch.Tensor) -> torch.device | str:
        """Where numbers float32 [n, F] are to be for a head: on a GPU that has room for them, else on the CPU."""
        import torch

        if self.device.type != "cuda" or not head.runs_on_gpu:
            return "cpu"
        total = torch.cuda.get_device_properties(self.device).total_memory
        return self.device if _needed(len(x_ND), x_ND.shape[1], self.num_workers) < _SHARE * total else "cpu"


def check_memory(given: AblationInput, cells: Sequence[Cell], device: torch.device) -> Room:
    """Choose how many heads are fitted at a time. Raises UsageError when one of some cell does not fit."""
    sizes = {
        (cell.representation.label, cell.layers): given.num_features(cell.representation, cell.layers)
        for cell in dict.fromkeys(cells)
    }
    largest = max(cells, key=lambda cell: sizes[cell.representation.label, cell.layers])
    num_features = sizes[largest.representation.label, largest.layers]
    free = _SHARE * psutil.virtual_memory().available
    needed = _needed(len(given.samples), num_features, 1)
    if needed > free:
        raise UsageError(
            f"{largest.representation.label} of {largest.experiment} has {num_features:,} numbers for each of "
            f"{len(given.samples):,} samples, and fitting a head to them takes about {human_bytes(needed)}, of which "
            f"{human_bytes(free)} are free: take fewer layers, features of pool mean, or another representation"
        )
    most = min(available_cores(), _MAX_WORKERS)
    fitting = [num for num in range(1, most + 1) if _needed(len(given.samples), num_features, num) <= free]
    return Room(device=device, num_workers=fitting[-1])


def _needed(num_samples: int, num_features: int, num_workers: int) -> int:
    """Bytes, about."""
    smaller = min(num_samples, num_features)
    fitted = _FITTED_BYTES * num_samples * num_features + _SQUARE_BYTES * smaller**2
    return _KEPT_BYTES * num_samples * num_features + num_workers * fitted
