"""Standardising: each column to mean 0 and standard deviation 1 on train; what says nothing is dropped.

Axes: N rows of train, M rows of any side, D columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fovcache.errors import UsageError

CONSTANT_OF_ITSELF = 1e-6
"""A column is constant if its standard deviation is below this share of its largest magnitude: features are made in
float32, and a number that is the same for all samples differs by a few of its roundings (1.2e-7 each)."""
CONSTANT_OF_TYPICAL = 1e-7
"""… or below this share of the typical column's largest magnitude: a number that is zero for all samples, such as the
entropy of one singular value, is made of numbers of that size and differs by their roundings."""
SAME = 1e-5
"""Standardised columns that differ by less, or whose sum does, are the same number twice."""
_NUM_PROJECTIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """What `fit_scaling` learned from train."""

    mean: torch.Tensor
    """float64 [kept]."""
    scale: torch.Tensor
    """float64 [kept], standard deviations (ddof 0)."""
    kept: torch.Tensor
    """int64 [kept]: columns that vary on train."""
    num_features: int
    """Columns that there were."""
    num_duplicate: int
    """Kept columns that equal another but for scale, sign and offset, less one of each; they stay."""

    @property
    def num_effective(self) -> int:
        """Columns that vary and are no duplicates."""
        return len(self.kept) - self.num_duplicate

    def apply(self, x_MD: torch.Tensor) -> torch.Tensor:
        """float64 [M, kept]."""
        x = x_MD if len(self.kept) == self.num_features else x_MD[:, self.kept]
        return (x.to(torch.float64) - self.mean) / self.scale


def fit_scaling(x_ND: torch.Tensor) -> Scaling:
    """From train's rows, of any floating dtype. Raises UsageError where none varies or some are not finite."""
    x = x_ND.to(torch.float64)
    mean, scale, largest = x.mean(0), x.std(0, correction=0), x.abs().amax(0)
    finite = torch.isfinite(scale)
    if not finite.all():
        column = int((~finite).nonzero()[0])
        raise UsageError(
            f"{int((~finite).sum())} of {len(finite)} features are not finite (or overflow) for some sample of train, "
            f"the first is number {column}; leave their layer or representation out"
        )
    varies = (scale > CONSTANT_OF_ITSELF * largest) & (scale > CONSTANT_OF_TYPICAL * largest.median())
    if not varies.any():
        raise UsageError(f"all {len(varies)} features are the same for every sample of train: there is nothing to fit")
    kept = varies.nonzero().flatten()
    scaling = Scaling(mean=mean[kept], scale=scale[kept], kept=kept, num_features=len(varies), num_duplicate=0)
    num_duplicate = len(kept) - _num_distinct(scaling.apply(x))
    return Scaling(
        mean=scaling.mean, scale=scaling.scale, kept=kept, num_features=len(varies), num_duplicate=num_duplicate
    )


def _num_distinct(z_ND: torch.Tensor) -> int:
    """Standardised columns that are not the same but for sign, by where a few random directions see them.

    Columns are sorted by one direction after another, and parted where neighbours differ.
    """
    directions = np.random.Generator(np.random.Philox(0)).standard_normal((_NUM_PROJECTIONS, len(z_ND)))
    directions /= np.sqrt(len(z_ND))  # equal columns are then apart by about their root mean square difference
    seen = (torch.from_numpy(directions).to(z_ND.device) @ z_ND).cpu().numpy()
    seen *= np.where(seen[0] < 0, -1.0, 1.0)
    part = np.zeros(seen.shape[1], np.int64)
    for values in (*seen, *seen):  # twice: what a later direction parts, an earlier one may then part further
        order = np.lexsort((values, part))
        starts = (np.diff(part[order], prepend=-1) != 0) | (np.diff(values[order], prepend=np.inf) > SAME)
        part[order] = np.cumsum(starts) - 1
    return int(part.max()) + 1
