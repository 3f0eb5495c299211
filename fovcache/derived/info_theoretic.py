"""`info_theoretic`: 2 numbers.

Entropy in nats of the histogram of 50 equal bins from the smallest to the largest value · the same / ln 50. Both are 0
for equal values. A value on an edge belongs to the bin above it, the largest to the last: np.histogram's bins, but for
values that only rounding keeps off an edge.
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
    """int64 `[B, 50]`."""
    range_B1 = (batch.high_B - batch.low_B)[:, None]
    place_BM = (batch.flat_BM - batch.low_B[:, None]).mul_(NUM_BINS).div_(range_B1.masked_fill(range_B1 == 0, 1))
    bin_BM = place_BM.clamp_(max=NUM_BINS - 1).to(torch.int32)
    num_samples = len(bin_BM)
    bin_BM += NUM_BINS * torch.arange(num_samples, dtype=torch.int32, device=bin_BM.device)[:, None]
    return torch.bincount(bin_BM.flatten(), minlength=NUM_BINS * num_samples).view(num_samples, NUM_BINS)


def make() -> MatrixFunction:
    """The entry point."""
    return MatrixFunction(name="info_theoretic", width=2, numbers=numbers)
