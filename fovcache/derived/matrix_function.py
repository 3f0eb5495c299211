"""What the representations of this folder share: checks, exact arithmetic, and the batch they are computed of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..errors import UsageError
from ..keys.digest import Document
from .arithmetic import full_precision
from .matrix_batch import MatrixBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixFunction:
    """A `Representation` of F numbers, whatever the matrix's shape."""

    name: str
    """The name users select it by."""
    width: int
    """F."""
    numbers: Callable[[MatrixBatch], torch.Tensor]
    """`[B, F]` of a batch."""
    version: int = 1
    """Raised when a change of the implementation changes its numbers."""
    parameters: Document = field(default_factory=dict)
    """Everything that can be chosen and decides its numbers."""

    def num_features(self, num_tokens: int, num_channels: int) -> int:
        """F."""
        return self.width

    def compute(self, x_BTC: torch.Tensor) -> torch.Tensor:
        """`[B, F]`. Raises UsageError for what are no finite float32 or float64 matrices."""
        check_matrices(x_BTC)
        if len(x_BTC) == 0:
            return x_BTC.new_empty(0, self.width)
        with full_precision(x_BTC.device):
            return self.numbers(MatrixBatch(x_BTC.detach()))


def check_matrices(x_BTC: torch.Tensor) -> None:
    """Raises UsageError for what is not `[B, T, C]` of float32 or float64 with at least one value a sample."""
    if x_BTC.dtype not in (torch.float32, torch.float64):
        raise UsageError(f"representations are computed of float32 or float64, not {x_BTC.dtype}: widen it first")
    if x_BTC.dim() != 3 or 0 in x_BTC.shape[1:]:
        raise UsageError(f"expected matrices [samples, tokens, channels], got {tuple(x_BTC.shape)}")
