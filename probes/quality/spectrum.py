"""Ranks of vectors that are no whole numbers: entropies of singular values and of variances, and what noise would give.

Axes: N vectors, D dimensions, K = min(N, D).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from .vectors import Vectors

RANKME_EPSILON = 1e-7
_ANGLES = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spectrum:
    """Eigenvalues of X·Xᵀ of the vectors X, float64 [K], descending, none below zero."""

    raw_K: np.ndarray
    """Of the vectors as they are: squares of their singular values."""
    centred_K: np.ndarray
    """Of the centred vectors: variances along orthogonal directions, times N - 1."""


def spectrum(x: Vectors) -> Spectrum:
    """All eigenvalues, of the smaller of XᵀX and XXᵀ in float64.

    Each is right within a few roundings of the largest, 2.2e-16 of it, and what is below max(N, D) of these is taken
    for the zero that it may be. So of singular values those above 1e-6 of the largest are right to four digits and
    more, and what lies below moves a rank by less than 1e-3 of itself; an SVD in float32 is less accurate.
    """
    largest = max(len(x), x.num_dimensions)
    return Spectrum(**{name: _eigenvalues(gram, largest) for name, gram in _grams(x).items()})


def _grams(x: Vectors) -> dict[str, torch.Tensor]:
    """What X·Xᵀ is of the vectors as they are comes from the centred ones: nothing large is subtracted."""
    if x.num_dimensions <= len(x):
        centred_DD = _zeros(x, x.num_dimensions)
        for block_BD in x.blocks():
            centred_DD.addmm_(block_BD.T, block_BD)
        return {"centred_K": centred_DD, "raw_K": torch.addr(centred_DD, x.mean_D, x.mean_D, alpha=len(x))}
    centred_NN = _zeros(x, len(x))
    for block_NE in x.column_blocks():
        centred_NN.addmm_(block_NE, block_NE.T)
    along_N = torch.cat([block_BD @ x.mean_D for block_BD in x.blocks()])
    raw_NN = centred_NN + along_N[:, None] + along_N + x.mean_D @ x.mean_D
    return {"centred_K": centred_NN, "raw_K": raw_NN}


def _zeros(x: Vectors, size: int) -> torch.Tensor:
    return torch.zeros((size, size), dtype=torch.float64, device=x.device)


def _eigenvalues(gram_KK: torch.Tensor, size: int) -> np.ndarray:
    values: np.ndarray = torch.linalg.eigvalsh(gram_KK).flip(0).cpu().numpy()
    return np.where(values > size * np.finfo(np.float64).eps * values[0], values, 0.0)


def entropy_rank(values_K: np.ndarray, epsilon: float = 0.0) -> float:
    """exp(-Σ p·log p) of p = values / their sum + epsilon; values are not negative. 0 where all are zero.

    Of singular values without epsilon it is the effective rank of Roy & Vetterli (2007), and with 1e-7 RankMe (Garrido
    et al. 2023), whose p sum to a little more than 1.
    """
    total = values_K.sum()
    if total <= 0:
        return 0.0
    p_K = values_K / total + epsilon
    p_K = p_K[p_K > 0]
    return float(np.exp(-(p_K * np.log(p_K)).sum()))


def participation_ratio(values_K: np.ndarray) -> float:
    """(Σ values)² / Σ values². 0 where all are zero."""
    total = values_K.sum()
    return float(1.0 / np.square(values_K / total).sum()) if total > 0 else 0.0


def gaussian_variance_rank(num_vectors: int, num_dimensions: int) -> float:
    """What `entropy_rank` of the centred eigenvalues is of N vectors of D independent standard normal numbers.

    As the Marchenko–Pastur law has it, which is exact for many of both: within .2 % where both are above 70, and within
    3 % where they are not. Sampling alone makes it smaller than min(N - 1, D).
    """
    small, large = sorted((num_vectors - 1, num_dimensions))
    ratio = small / large
    theta = (np.arange(_ANGLES) + 0.5) * (math.pi / _ANGLES)
    value = 1 + ratio + 2 * math.sqrt(ratio) * np.cos(theta)
    weight = np.square(np.sin(theta)) / value
    weight /= weight.sum()
    mean = (weight * value).sum()
    return max(1.0, float(small * mean * np.exp(-(weight * value * np.log(value)).sum() / mean)))
