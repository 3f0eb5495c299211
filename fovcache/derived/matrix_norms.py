"""`matrix_norms`: 7 numbers.

Frobenius · nuclear (the sum of all singular values) · spectral (the largest) · largest sum of |x| of a column ·
of a row · nuclear / Frobenius · spectral / Frobenius; the ratios of a matrix of zeros are 0.
"""

from __future__ import annotations

import torch

from .matrix_batch import MatrixBatch
from .matrix_function import MatrixFunction
from .quotient import quotient


def numbers(batch: MatrixBatch) -> torch.Tensor:
    """`[B, 7]`."""
    singular_BK = batch.singular_values_BK
    frobenius_B = torch.linalg.vector_norm(singular_BK, dim=1)
    nuclear_B, spectral_B = singular_BK.sum(dim=1), singular_BK[:, 0]
    magnitude_BTC = batch.x_BTC.abs()
    column_B, row_B = (magnitude_BTC.sum(dim=dim).amax(dim=1) for dim in (1, 2))
    norms_B5 = torch.stack([frobenius_B, nuclear_B, spectral_B, column_B, row_B], dim=1)
    return torch.cat([batch.restored(norms_B5), quotient(norms_B5[:, 1:3], frobenius_B[:, None])], dim=1)


def make() -> MatrixFunction:
    """The entry point."""
    return MatrixFunction(name="matrix_norms", width=7, numbers=numbers)
