"""`distribution`: quantiles, spread and shape of a matrix's values, 12 numbers.

Quantiles .05 .1 .25 .5 .75 .9 .95, interpolated linearly as numpy's · q.75 − q.25 · mean of |x − mean| ·
σ / (|mean| + 1e-8) · skew · kurtosis. σ has ddof 0; skew and kurtosis are scipy's by default: biased, a normal's
kurtosis 0. Both are 0 for equal values.
"""

from __future__ import annotations

import torch

from .matrix_batch import MatrixBatch
from .matrix_function import MatrixFunction
from .quantiles import quantiles

PROBABILITIES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
EPSILON = 1e-8


def numbers(batch: MatrixBatch) -> torch.Tensor:
    """`[B, 12]`."""
    moments = batch.moments
    found_B7 = quantiles(batch.sorted_BM, PROBABILITIES)
    quartiles_B = found_B7[:, 4] - found_B7[:, 2]
    spread_B2 = torch.stack([quartiles_B, moments.mean_absolute_deviation_B], dim=1)
    std_B, mean_B = batch.restored(torch.stack([moments.std_B, moments.mean_B.abs()], dim=1)).unbind(dim=1)
    variation_B = (std_B / (mean_B + EPSILON)).clamp(max=torch.finfo(std_B.dtype).max)
    skew_B, fourth_B = moments.shape_B2.unbind(dim=1)
    kurtosis_B = torch.where(moments.std_B > 0, fourth_B - 3, 0)
    shape_B3 = torch.stack([variation_B, skew_B, kurtosis_B], dim=1)
    return torch.cat([batch.restored(torch.cat([found_B7, spread_B2], dim=1)), shape_B3], dim=1)


def make() -> MatrixFunction:
    """The entry point."""
    return MatrixFunction(name="distribution", width=12, numbers=numbers)
