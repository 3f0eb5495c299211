"""Division where there may be nothing to divide by."""

from __future__ import annotations

import torch


def quotient(numerator: torch.Tensor, divisor: torch.Tensor) -> torch.Tensor:
    """`numerator / divisor`, and 0 where the divisor is 0."""
    is_zero = divisor == 0
    return (numerator / divisor.masked_fill(is_zero, 1)).masked_fill(is_zero, 0)
