"""Where vectors point: how evenly over the sphere once they are centred, and how much one way as they are.

Axes: N vectors, B of them in a block, D dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .vectors import Vectors

TEMPERATURE = 2.0
"""Wang & Isola's t."""
_BLOCK_ROWS = 1024
_AT_THE_MEAN = 1e-9
"""A vector that is closer to the mean than this share of the furthest has no direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directions:
    """Of all pairs of different vectors."""

    mean_cosine: float | None
    """Of the vectors as they are; None where one is zero."""
    isotropy: float | None
    """1 / (D × variance of the cosine) of the centred vectors; None where fewer than 3 are not the mean."""
    uniformity: float | None
    """log of the mean of exp(-2·‖u - v‖²) of the centred vectors at unit length; None as above."""


def directions(x: Vectors) -> Directions:
    """All pairs are looked at, none sampled: cosines in float32, sums in float64."""
    isotropy, uniformity = _of_centred(x)
    return Directions(mean_cosine=_mean_cosine(x), isotropy=isotropy, uniformity=uniformity)


def _mean_cosine(x: Vectors) -> float | None:
    """From the sum of the unit vectors: its square holds every pair twice, and N ones."""
    sum_D = torch.zeros_like(x.mean_D)
    for block_BD in x.raw_blocks():
        norm_B = torch.linalg.vector_norm(block_BD, dim=1)
        if not norm_B.all():
            return None
        sum_D += (block_BD / norm_B[:, None]).sum(0)
    return (float(sum_D @ sum_D) - len(x)) / (len(x) * (len(x) - 1))


def _of_centred(x: Vectors) -> tuple[float | None, float | None]:
    """Isotropy and uniformity."""
    unit_ND = _unit(x)
    num = len(unit_ND)
    if num < 3:
        return None, None
    sums_3 = torch.zeros(3, dtype=torch.float64, device=x.device)
    for begin in range(0, num, _BLOCK_ROWS):
        rows_BD = unit_ND[begin : begin + _BLOCK_ROWS]
        for other in range(begin, num, _BLOCK_ROWS):
            cosine_BB = rows_BD @ unit_ND[other : other + _BLOCK_ROWS].T
            if other == begin:
                cosine = cosine_BB[torch.ones_like(cosine_BB, dtype=torch.bool).triu(1)]
            else:
                cosine = cosine_BB.flatten()
            near = torch.exp(2 * TEMPERATURE * (cosine - 1))  # ‖u - v‖² = 2 - 2·cos
            sums_3 += torch.stack([each.sum(dtype=torch.float64) for each in (cosine, cosine.square(), near)])
    mean, square, near_mean = (sums_3 / (num * (num - 1) / 2)).tolist()
    variance = square - mean**2
    return (1 / (x.num_dimensions * variance) if variance > 0 else None), math.log(near_mean)


def _unit(x: Vectors) -> torch.Tensor:
    """float32 [n, D]: the centred ones at unit length, without those at the mean."""
    norm_N = torch.cat([torch.linalg.vector_norm(block_BD, dim=1) for block_BD in x.blocks()])
    unit_ND = torch.empty(x.x_ND.shape, dtype=torch.float32, device=x.device)
    begin = 0
    for block_BD in x.blocks():
        end = begin + len(block_BD)
        unit_ND[begin:end] = block_BD / norm_N[begin:end, None].clamp_min(torch.finfo(torch.float64).tiny)
        begin = end
    return unit_ND[norm_N > _AT_THE_MEAN * norm_N.amax()]
