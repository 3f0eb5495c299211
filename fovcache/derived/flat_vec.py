"""`flat_vec`: the raw entries, row by row, T·C numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..keys.digest import Document
from .matrix_function import check_matrices


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatVec:
    """A `Representation`."""

    name: str = "flat_vec"
    """The name users select it by."""
    version: int = 1
    """Raised when a change of the implementation changes its numbers."""
    parameters: Document = field(default_factory=dict)
    """None."""

    def num_features(self, num_tokens: int, num_channels: int) -> int:
        """T·C."""
        return num_tokens * num_channels

    def compute(self, x_BTC: torch.Tensor) -> torch.Tensor:
        """`[B, T·C]`. Raises UsageError for what are no float32 or float64 matrices."""
        check_matrices(x_BTC)
        return x_BTC.detach().flatten(1)


def make() -> FlatVec:
    """The entry point."""
    return FlatVec()
