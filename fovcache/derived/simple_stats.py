"""`simple_stats`: the size and spread of a matrix, 5 numbers.

Frobenius norm · mean · standard deviation with ddof 1 (0 for a single value) · max · min.
"""

from __future__ import annotations

import torch

from .matrix_batch import MatrixBatch
from .matrix_function import MatrixFunction


def numbers(batch: MatrixBatch) -> torch.Tensor:
    """`[B, 5]`."""
    moments, num = batch.moments, batch.num_values
    frobenius_B = (num * (moments.variance_B + moments.mean_B.square())).sqrt()
    std_B = (moments.variance_B * (num / max(num - 1, 1))).sqrt()
    return batch.restored(torch.stack([frobenius_B, moments.mean_B, std_B, batch.high_B, batch.low_B], dim=1))


def make() -> MatrixFunction:
    """The entry point."""
    return MatrixFunction(name="simple_stats", width=5, numbers=numbers)
