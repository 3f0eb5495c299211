"""The numbers of layers, read once for all cells of a representation as long as there is room to keep them."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from ..config import RepresentationChoice
from ..features import AblationInput


class Numbers:
    """Those of the representation that was last asked for are kept, up to `most_bytes`."""

    def __init__(self, given: AblationInput, device: torch.device, most_bytes: int) -> None:
        self._given = given
        self._device = str(device)
        self._most_bytes = most_bytes
        self._choice: RepresentationChoice | None = None
        self._kept: dict[str, torch.Tensor] = {}

    def of(self, choice: RepresentationChoice, layers: Sequence[str]) -> Generator[str, None, torch.Tensor]:
        """Yields each layer that has to be read or computed first; returns float32 [n, F] of all of them, on the CPU.

        Raises UsageError when a sample has none.
        """
        if choice != self._choice:
            self._kept.clear()
            self._choice = choice
        x = torch.empty((len(self._given.samples), self._given.num_features(choice, layers)), dtype=torch.float32)
        begin = 0
        for layer in layers:
            rows = self._kept.get(layer)
            if rows is None:
                yield layer
                rows = self._rows(choice, layer)
            x[:, begin : begin + rows.shape[1]] = rows
            begin += rows.shape[1]
        return x

    def _rows(self, choice: RepresentationChoice, layer: str) -> torch.Tensor:
        rows = self._given.derive(choice, layer, self._device).tensors()[0].flatten(1)
        if sum(each.nbytes for each in (*self._kept.values(), rows)) <= self._most_bytes:
            self._kept[layer] = rows
        return rows
