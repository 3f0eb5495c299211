"""`stats`: location, spread and shape of a matrix's values, 7 numbers.

Mean · standard deviation (ddof 0) · median (the mean of the middle two, as numpy's) · min · max · E[z³] · E[z⁴], where
z = (x − mean) / standard deviation: scipy's skew, and its kurtosis with fisher=False. Both are 0 for equal values.
"""

from __future__ import annotations

import torch

from .matrix_batch import MatrixBatch
from .matrix_function import MatrixFunction
from .quantiles import quantiles


def numbers(batch: MatrixBatch) -> torch.Tensor:
    """`[B, 7]`."""
    moments = batch.moments
    (median_B,) = quantiles(batch.sorted_BM, (0.5,)).unbind(dim=1)
    in_unit_B5 = torch.stack([moments.mean_B, moments.std_B, median_B, batch.low_B, batch.high_B], dim=1)
    return torch.cat([batch.restored(in_unit_B5), moments.shape_B2], dim=1)


def make() -> MatrixFunction:
    """The entry point."""
    return MatrixFunction(name="stats", width=7, numbers=numbers)
