"""Whether an ablation's numbers fit in memory, asked before anything is computed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fovcache.builder.request import available_cores
from fovcache.console import human_bytes
from fovcache.errors import UsageError
from fovcache.loaders.residency import free_host_bytes

if TYPE_CHECKING:
    import torch

    from .task import Task

_SHARE = 0.8
"""Of the memory that is free, or of a GPU's, how much may be taken."""
_KEPT_SHARE = 0.1
"""For numbers of layers that are kept to be read once."""
_MAX_WORKERS = 4
_KEPT_BYTES = 4 + 2
"""A number of a sample as float32, and while it is read in the cache's dtype."""
_FITTED_BYTES = 3 * 8
"""The same while a head is fitted: float64, standardised, and what is between the two."""
_SQUARE_BYTES = 3 * 8
"""A product of two columns, or of two samples where there are fewer; its eigenvectors, and room to find them."""
_TRAINED_BYTES = 8 + 4
"""A number of a sample in a bank: standardised in float64, and as it is trained on."""
_PARAMETER_BYTES = 6 * 4
"""A trained head's parameter: itself, its gradient, two moments, the best so far, and room to step."""
_BANK_BYTES = {"cpu": 1 << 30, "cuda": 16 << 30, "mps": 1 << 30}
"""What the heads of a bank take, with their rows. The same on every machine that has as much, so that a run's banks do
not depend on what else is running; more saves little time, and what is lost when a run is killed is a bank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where heads run and how many at a time."""

    device: torch.device
    """Where representations are computed."""
    num_workers: int
    """Heads of a closed form that are fitted at a time, each on one thread."""
    kept_bytes: int
    """Numbers of layers that may be kept."""

    def place(self, needed_bytes: int) -> torch.device | str:
        """Where heads are to run that take so much: on a GPU that has room for it, else on the CPU."""
        import torch

        if self.device.type != "cuda":
            return "cpu"
        total = torch.cuda.get_device_properties(self.device).total_memory
        return self.device if needed_bytes < _SHARE * total else "cpu"


def check_memory(task: Task, device: torch.device) -> Room:
    """Choose how many heads are fitted at a time. Raises UsageError when one of some cell does not fit."""
    largest = max(range(len(task.cells)), key=task.widths.__getitem__)
    num_features, num_samples = task.widths[largest], len(task.given.samples)
    free = free_host_bytes()
    needed = needed_bytes(task, largest)
    if needed > _SHARE * free:
        cell = task.cells[largest]
        raise UsageError(
            f"{cell.representation.label} of {cell.experiment} has {num_features:,} numbers for each of "
            f"{num_samples:,} samples, and fitting a head to them takes about {human_bytes(needed)}, of which "
            f"{human_bytes(_SHARE * free)} are free: take fewer layers, features of pool mean, or another "
            "representation"
        )
    most = min(available_cores(), _MAX_WORKERS)
    fitting = [num for num in range(1, most + 1) if needed_bytes(task, largest, num) <= _SHARE * free]
    return Room(device=device, num_workers=fitting[-1], kept_bytes=int(_KEPT_SHARE * free))


def needed_bytes(task: Task, index: int, num_at_a_time: int = 1) -> int:
    """About what it takes to have a cell's numbers and to fit so many heads to them."""
    kept = _KEPT_BYTES * len(task.given.samples) * task.widths[index]
    return kept + num_at_a_time * fitted_bytes(task, index)


def fitted_bytes(task: Task, index: int) -> int:
    """About what fitting a cell's head takes, with all its candidates."""
    num_samples, num_features, head = len(task.given.samples), task.widths[index], task.protocol.head
    if head.is_trained:
        return _rows_bytes(task, index) + _weights_bytes(task, index)
    smaller = min(num_samples, num_features)
    return _FITTED_BYTES * num_samples * num_features + _SQUARE_BYTES * smaller**2


def together_bytes(task: Task, indexes: Sequence[int]) -> int:
    """About what training these cells' heads takes at least: all their rows, and the weights of a part at a time."""
    weights = max(_weights_bytes(task, index) for index in indexes)
    return sum(_rows_bytes(task, index) for index in indexes) + weights


def _rows_bytes(task: Task, index: int) -> int:
    return _TRAINED_BYTES * len(task.given.samples) * task.widths[index]


def _weights_bytes(task: Task, index: int) -> int:
    head = task.protocol.head
    hidden: tuple[int, ...] = getattr(head, "hidden", ())
    widths = (task.widths[index], *hidden, len(task.given.samples.classes))
    num_parameters = sum((before + 1) * after for before, after in itertools.pairwise(widths))
    return _PARAMETER_BYTES * num_parameters * len(head.candidates)


def bank_bytes(device: torch.device) -> int:
    """What a bank of heads that are trained together may take; less where little is free."""
    most, free = _BANK_BYTES[device.type], int(_SHARE / 2 * free_host_bytes())
    while most > free and most > 1 << 20:
        most //= 2
    return most
