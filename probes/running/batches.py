"""Which cells are run together: side by side on a thread each, or as one bank of heads that are trained together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from .task import Task

BY_ITSELF = "trained by itself, since the process that trained it with others ended: equal within rounding"
Item = TypeVar("Item")
_SIDE_BY_SIDE_BYTES = 64 << 20
"""Numbers of several sets of layers that are held at a time. It decides no numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Cells by their places in the grid."""

    cells: tuple[int, ...]
    """What is run. Of trained heads that is always the whole bank: the last bits may depend on its composition."""
    wanted: tuple[int, ...]
    """Those of them whose trials are missing."""
    notes: tuple[str, ...] = ()
    """For the trials."""
    num_ends: int = 0
    """How often a process ended that ran it."""

    def without(self, told: Iterable[int]) -> Batch | None:
        """What is still wanted when some have been told of; None for nothing."""
        wanted = tuple(index for index in self.wanted if index not in set(told))
        return replace(self, wanted=wanted) if wanted else None

    def again(self, *, is_trained: bool) -> list[Batch]:
        """How it is run after its process has ended; empty when it ended two that ran one cell by itself.

        A bank gets a second chance as it is, since it may have been killed for another's sake, and then comes to the
        same bits; what is run after that is run by itself, and known as what ends its process.
        """
        if is_trained and not self.num_ends:
            return [replace(self, num_ends=1)]
        if len(self.cells) == 1 and self.num_ends:
            return []
        notes = (BY_ITSELF,) if is_trained and len(self.cells) > 1 else ()
        return [Batch(cells=(index,), wanted=(index,), notes=notes, num_ends=1) for index in self.wanted]


def groups(task: Task, cells: Iterable[int]) -> list[list[int]]:
    """Cells of one representation of the same layers, which have the same numbers; in the grid's order."""
    found: dict[object, list[int]] = {}
    for index in cells:
        cell = task.cells[index]
        found.setdefault((cell.representation.label, cell.layers), []).append(index)
    return list(found.values())


def side_by_side(task: Task, missing: Sequence[int]) -> list[Batch]:
    """Batches of heads of a closed form: of one representation, with as many sets of layers as are small together."""
    num_samples = len(task.given.samples)
    of_one = itertools.groupby(groups(task, missing), lambda group: task.cells[group[0]].representation.label)
    found = []
    for _, those in of_one:
        for several in _filled(those, lambda group: 4 * num_samples * task.widths[group[0]], _SIDE_BY_SIDE_BYTES):
            cells = tuple(index for group in several for index in group)
            found.append(Batch(cells=cells, wanted=cells))
    return found


def banks(
    task: Task, missing: Sequence[int], num_bytes: Callable[[int], int], most_bytes: int
) -> list[tuple[int, ...]]:
    """Cells whose heads are trained together, cut where a bank would take more than `most_bytes`.

    `num_bytes` says what each cell takes. Which cells are missing decides them, and the sizes, and nothing else.
    """
    ordered = [index for group in groups(task, missing) for index in group]
    return [tuple(bank) for bank in _filled(ordered, num_bytes, most_bytes)]


def _filled(items: Iterable[Item], num_bytes: Callable[[Item], int], most_bytes: int) -> Iterator[list[Item]]:
    """Items in their order, as many at a time as fit, at least one."""
    taken: list[Item] = []
    free = most_bytes
    for item in items:
        size = num_bytes(item)
        if taken and size > free:
            yield taken
            taken, free = [], most_bytes
        taken.append(item)
        free -= size
    if taken:
        yield taken
