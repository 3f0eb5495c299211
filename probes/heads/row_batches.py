"""Batches of several problems at once, each in an order of its own.

Axes: P problems with as many rows; H heads, some of each problem, one problem's after the other's; N rows of train, B
of a batch, M of validation; D columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Store:
    """Rows of all problems with as many columns, which stay where they are when problems leave."""

    train_XD: torch.Tensor
    """X = P · N, one problem's after the other's."""
    validation_PMD: torch.Tensor
    """float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Block:
    """Problems in a row whose rows are in one store and that have as many heads."""

    store: _Store
    """Theirs."""
    numbers: list[int]
    """Among those that go on."""
    starts_P1: torch.Tensor
    """Of each the first row in the store."""


class Batches:
    """Of problems that have as many rows of train, and of validation, on one device."""

    def __init__(self, problems: Sequence[Problem], dtype: torch.dtype) -> None:
        """Rows of train are kept in `dtype`."""
        self._device = problems[0].x_train_ND.device
        self._num_rows = len(problems[0].y_train_N)
        self._orders = [torch.Generator().manual_seed(problem.order_seed) for problem in problems]
        self._classes_PN = torch.stack([torch.from_numpy(problem.y_train_N) for problem in problems]).to(self._device)
        validation_PM = torch.stack([torch.from_numpy(problem.y_validation_M) for problem in problems])
        self._validation_classes_PM = validation_PM.to(self._device)
        by_width: dict[int, list[int]] = {}
        for number, problem in enumerate(problems):
            by_width.setdefault(problem.x_train_ND.shape[1], []).append(number)
        stores = {width: _store([problems[each] for each in own], dtype) for width, own in by_width.items()}
        self._places = [
            (stores[width], by_width[width].index(number))
            for number, width in enumerate(problem.x_train_ND.shape[1] for problem in problems)
        ]
        self._blocks: list[_Block] = []

    @property
    def num_problems(self) -> int:
        """P of those that go on."""
        return len(self._orders)

    @property
    def blocks(self) -> list[list[int]]:
        """Problems that go on, rising, divided where the number of columns or of heads changes."""
        return [block.numbers for block in self._blocks]

    def keep(self, owners: Sequence[int]) -> None:
        """Go on with these heads, rising: the number of each one's problem, among those there were.

        Blocks are divided where they must be, and never joined.
        """
        problems = sorted(set(owners))
        blocks = {problem: place for place, block in enumerate(self._blocks) for problem in block.numbers}
        alike = [(id(self._places[problem][0]), blocks.get(problem, 0), owners.count(problem)) for problem in problems]
        self._orders = [self._orders[problem] for problem in problems]
        self._places = [self._places[problem] for problem in problems]
        self._classes_PN = self._classes_PN[problems]
        self._validation_classes_PM = self._validation_classes_PM[problems]
        self.owner_H = torch.tensor([problems.index(owner) for owner in owners], device=self._device)
        self.validation_classes_HM = self._validation_classes_PM[self.owner_H]
        self._blocks = []
        for _, own in itertools.groupby(range(len(problems)), lambda number: alike[number]):
            self._blocks.append(self._block(list(own)))
        self.validation = [
            block.store.validation_PMD[[self._places[number][1] for number in block.numbers]] for block in self._blocks
        ]

    def epoch(self, size: int, *, whole: bool) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        """Each batch: rows [P, B, D] of each block, and classes [H, B]. `whole` is as `bounds` has it."""
        orders_PN = torch.stack([torch.randperm(self._num_rows, generator=order) for order in self._orders])
        orders_PN = orders_PN.to(self._device)
        classes_HN = self._classes_PN.gather(1, orders_PN)[self.owner_H]
        places = [orders_PN[block.numbers] + block.starts_P1 for block in self._blocks]
        for start, end in bounds(self._num_rows, size, whole=whole):
            rows = [
                block.store.train_XD.index_select(0, place_PN[:, start:end].flatten()).view(
                    len(place_PN), end - start, -1
                )
                for block, place_PN in zip(self._blocks, places, strict=True)
            ]
            yield rows, classes_HN[:, start:end]

    def _block(self, numbers: list[int]) -> _Block:
        starts = [[self._places[number][1] * self._num_rows] for number in numbers]
        return _Block(
            store=self._places[numbers[0]][0], numbers=numbers, starts_P1=torch.tensor(starts, device=self._device)
        )


def bounds(num: int, size: int, *, whole: bool) -> list[tuple[int, int]]:
    """Where batches of an epoch begin and end. A last one of a single sample is left out of those that are `whole`.

    Batch normalisation cannot take one sample, and torch raises. Orders differ from epoch to epoch, so that it is
    another sample each time.
    """
    found = [(start, min(start + size, num)) for start in range(0, num, size)]
    return found[:-1] if whole and num % size == 1 else found


def _store(problems: Sequence[Problem], dtype: torch.dtype) -> _Store:
    train = [problem.x_train_ND.to(torch.float32).to(dtype) for problem in problems]
    validation = [problem.x_validation_MD.to(torch.float32) for problem in problems]
    return _Store(
        train_XD=train[0] if len(train) == 1 else torch.cat(train),
        validation_PMD=validation[0][None] if len(validation) == 1 else torch.stack(validation),
    )
