"""An ablation that is ready to be run: its input opened, its samples divided, its cells listed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fovcache.cache import open_cache
from fovcache.keys.digest import document_digest

from ..config import AblationConfig
from ..features import AblationInput, open_input
from ..grid import Cell, grid
from ..protocol import Protocol, make_protocol

_TRIAL_COST = 50_000
"""What a trial takes beside its numbers, in numbers × samples."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """The same configuration and cache give the same, in every process."""

    config: AblationConfig
    """What was asked for."""
    given: AblationInput
    """The layers, opened."""
    protocol: Protocol
    """How trials are run."""
    cells: tuple[Cell, ...]
    """All of them, in the order in which results list them."""
    keys: tuple[str, ...]
    """Of the trial of each cell; cells of the same layers under two names share one."""
    widths: tuple[int, ...]
    """Numbers a sample, of each cell."""

    @property
    def digest(self) -> str:
        """Of all trials: two processes that mean the same agree in it."""
        return document_digest({"kind": "task", "trials": list(self.keys)})

    def cost(self, index: int) -> int:
        """What a cell takes, in numbers × samples: for guesses at the time that is left."""
        return _TRIAL_COST + self.widths[index] * len(self.given.samples)


def open_task(config: AblationConfig) -> Task:
    """Open what a configuration names. Raises UsageError and its kin for what cannot be done as asked, DamageError."""
    given = open_input(config, open_cache(config.cache_path, create=False))
    protocol = make_protocol(config, given.samples)
    cells = tuple(grid(config, given.sets))
    width_of: Mapping[tuple[object, ...], int] = {
        (cell.representation, cell.layers): given.num_features(cell.representation, cell.layers)
        for cell in dict.fromkeys(cells)
    }
    return Task(
        config=config,
        given=given,
        protocol=protocol,
        cells=cells,
        keys=tuple(_key(given, protocol, cell) for cell in cells),
        widths=tuple(width_of[cell.representation, cell.layers] for cell in cells),
    )


def _key(given: AblationInput, protocol: Protocol, cell: Cell) -> str:
    digests = [given.digests[cell.representation, layer] for layer in cell.layers]
    return protocol.key(given.ref.dataset, digests, cell.control, cell.seed)
