"""`info_theoretic`: 2 numbers.

Entropy in nats of the histogram of 50 equal bins from the smallest to the largest value, with numpy's edges ·
the same / ln 50. Both are 0 for equal values.
"""

from __future__ import annotations

import math

import torch

from .matrix_batch import MatrixBatch
from .matrix_function import MatrixFunction

NUM_BINS = 50


def numbers(batch: MatrixBatch) -> torch.Tensor:
    """`[B, 2]`."""
    share_BN = _counts(batch).to(batch.flat_BM.dtype) / batch.num_values
    entropy_B = torch.special.entr(share_BN).sum(dim=1)
    return torch.stack([entropy_B, entropy_B / math.log(NUM_BINS)], dim=1)


def _counts(batch: MatrixBatch) -> torch.Tensor:
    """`[B, 50]`. A value on an edge belongs to the bin above it, and the largest to the last."""
    low_B1, high_B1 = batch.low_B[:, None], batch.high_B[:, None]
    steps_E = torch.arange(1, NUM_BINS, dtype=low_B1.dtype, device=low_B1.device)
    edges_BE = steps_E * ((high_B1 - low_B1) / NUM_BINS) + low_B1
    below_BE = torch.searchsorted(batch.sorted_BM, edges_BE)
    nothing_B1 = torch.zeros_like(below_BE[:, :1])
    return below_BE.diff(dim=1, prepend=nothing_B1, append=nothing_B1 + batch.num_values)


def make() -> MatrixFunction:
    """The entry point."""
    return MatrixFunction(name="info_theoretic", width=2, numbers=numbers)
