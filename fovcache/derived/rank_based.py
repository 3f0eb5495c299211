"""`rank_based`: quantiles of a matrix's values, 11 numbers.

Quantiles .01 .05 .1 .25 .5 .75 .9 .95 .99, interpolated linearly as numpy's · q.75 − q.25 · q.99 − q.01.
"""

from __future__ import annotations

import torch

from .matrix_batch import MatrixBatch
from .matrix_function import MatrixFunction
from .quantiles import quantiles

PROBABILITIES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def numbers(batch: MatrixBatch) -> torch.Tensor:
    """`[B, 11]`."""
    found_B9 = quantiles(batch.sorted_BM, PROBABILITIES)
    quartiles_B, range_B = found_B9[:, 5] - found_B9[:, 3], found_B9[:, 8] - found_B9[:, 0]
    return batch.restored(torch.cat([found_B9, quartiles_B[:, None], range_B[:, None]], dim=1))


def make() -> MatrixFunction:
    """The entry point."""
    return MatrixFunction(name="rank_based", width=11, numbers=numbers)
