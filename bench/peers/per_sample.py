"""The representations of one matrix in numpy and in torch, as a careful person writes them for a loop over samples.

Everything stays in float32, singular values are computed once for the ensemble, and powers are products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from fovcache.derived.distribution import EPSILON
from fovcache.derived.distribution import PROBABILITIES as SEVEN
from fovcache.derived.rank_based import PROBABILITIES as NINE

Function = Callable[[Any], Any]
Quantile = Callable[[np.ndarray, Sequence[float]], Any]


def sorted_quantile(x: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
    """np.quantile, by a whole sort: numpy's is vectorised, and on many CPUs faster than its selection."""
    values = np.sort(x, axis=None)
    places = np.asarray(probabilities) * (values.size - 1)
    below = places.astype(np.intp)
    low, high = values[below], values[np.minimum(below + 1, values.size - 1)]
    found: np.ndarray = low + (high - low) * (places - below)
    return found


def numpy_functions(quantile: Quantile = np.quantile) -> Mapping[str, Function]:
    """By representation: `[T, C]` float32 to `[F]`."""

    def simple_stats(x: np.ndarray) -> list[Any]:
        return [np.linalg.norm(x), x.mean(), x.std(ddof=1), x.max(), x.min()]

    def shape(x: np.ndarray) -> tuple[Any, Any, Any, Any]:
        mean, std = x.mean(), x.std()
        z = (x - mean) / std
        square = z * z
        return mean, std, (square * z).mean(), (square * square).mean()

    def stats(x: np.ndarray) -> list[Any]:
        mean, std, third, fourth = shape(x)
        (median,) = quantile(x, (0.5,)) if quantile is not np.quantile else (np.median(x),)
        return [mean, std, median, x.min(), x.max(), third, fourth]

    def rank_based(x: np.ndarray) -> list[Any]:
        q = quantile(x, NINE)
        return [*q, q[5] - q[3], q[8] - q[0]]

    def distribution(x: np.ndarray) -> list[Any]:
        q = quantile(x, SEVEN)
        mean, std, skew, fourth = shape(x)
        return [*q, q[4] - q[2], np.abs(x - mean).mean(), std / (abs(mean) + EPSILON), skew, fourth - 3]

    def spectral_of(singular: np.ndarray) -> list[Any]:
        top = np.zeros(10, np.float32)
        top[: len(singular)] = singular[:10]
        total = top.sum()
        shares = top / total
        some = shares[shares > 0]
        gaps = (top[:-1] - top[1:]) / np.where(top[:-1] > 0, top[:-1], 1)
        return [*top, *shares, *gaps, -(some * np.log(some)).sum(), top[0] / top[9] if top[9] else 0, total]

    def norms_of(x: np.ndarray, singular: np.ndarray) -> list[Any]:
        frobenius, nuclear, magnitude = np.linalg.norm(x), singular.sum(), np.abs(x)
        sums = magnitude.sum(axis=0).max(), magnitude.sum(axis=1).max()
        return [frobenius, nuclear, singular[0], *sums, nuclear / frobenius, singular[0] / frobenius]

    def singular_values(x: np.ndarray) -> np.ndarray:
        return np.linalg.svd(x, compute_uv=False)

    def frequency(x: np.ndarray) -> list[Any]:
        magnitude = np.abs(np.fft.fft2(x)).ravel()
        top = np.sort(magnitude)[:-11:-1]
        share = (top @ top) / (magnitude @ magnitude)
        return [*top, magnitude.mean(), magnitude.std(), top[0], share]

    def info_theoretic(x: np.ndarray) -> list[Any]:
        counts, _ = np.histogram(x, bins=50)
        shares = counts[counts > 0] / x.size
        entropy = -(shares * np.log(shares)).sum()
        return [entropy, entropy / math.log(50)]

    def ensemble(x: np.ndarray) -> list[Any]:
        singular = singular_values(x)
        return [
            *spectral_of(singular),
            *norms_of(x, singular),
            *distribution(x),
            *frequency(x),
            *info_theoretic(x),
        ]

    return {
        "simple_stats": simple_stats,
        "stats": stats,
        "rank_based": rank_based,
        "distribution": distribution,
        "spectral": lambda x: spectral_of(singular_values(x)),
        "matrix_norms": lambda x: norms_of(x, singular_values(x)),
        "frequency": frequency,
        "info_theoretic": info_theoretic,
        "ensemble": ensemble,
        "flat_vec": np.ravel,
    }


def torch_functions(device: torch.device) -> Mapping[str, Function]:
    """By representation: `[T, C]` float32 to `[F]`, on `device`."""
    nine, seven = torch.tensor(NINE, device=device), torch.tensor(SEVEN, device=device)
    nothing = torch.zeros((), device=device)

    def simple_stats(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.linalg.vector_norm(x), x.mean(), x.std(), x.max(), x.min()])

    def shape(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean = x.mean()
        centred = x - mean
        std = centred.square().mean().sqrt()
        z = centred / std
        square = z * z
        return mean, std, (square * z).mean(), (square * square).mean()

    def stats(x: torch.Tensor) -> torch.Tensor:
        mean, std, third, fourth = shape(x)
        return torch.stack([mean, std, x.quantile(0.5), x.min(), x.max(), third, fourth])

    def rank_based(x: torch.Tensor) -> torch.Tensor:
        q = x.quantile(nine)
        return torch.cat([q, (q[5] - q[3])[None], (q[8] - q[0])[None]])

    def distribution(x: torch.Tensor) -> torch.Tensor:
        q = x.quantile(seven)
        mean, std, skew, fourth = shape(x)
        rest = [q[4] - q[2], (x - mean).abs().mean(), std / (mean.abs() + EPSILON), skew, fourth - 3]
        return torch.cat([q, torch.stack(rest)])

    def spectral_of(singular: torch.Tensor) -> torch.Tensor:
        top = torch.nn.functional.pad(singular[:10], (0, max(0, 10 - len(singular))))
        total = top.sum()
        shares = top / total
        gaps = torch.where(top[:-1] > 0, (top[:-1] - top[1:]) / top[:-1], nothing)
        ratio = torch.where(top[9] > 0, top[0] / top[9], nothing)
        return torch.cat([top, shares, gaps, torch.stack([torch.special.entr(shares).sum(), ratio, total])])

    def norms_of(x: torch.Tensor, singular: torch.Tensor) -> torch.Tensor:
        frobenius, nuclear, magnitude = torch.linalg.vector_norm(x), singular.sum(), x.abs()
        sums = magnitude.sum(dim=0).max(), magnitude.sum(dim=1).max()
        return torch.stack([frobenius, nuclear, singular[0], *sums, nuclear / frobenius, singular[0] / frobenius])

    def frequency(x: torch.Tensor) -> torch.Tensor:
        magnitude = torch.fft.fft2(x).abs().flatten()
        top = magnitude.topk(10).values
        share = (top @ top) / (magnitude @ magnitude)
        return torch.cat([top, torch.stack([magnitude.mean(), magnitude.std(correction=0), top[0], share])])

    def info_theoretic(x: torch.Tensor) -> torch.Tensor:
        entropy = torch.special.entr(torch.histc(x, bins=50) / x.numel()).sum()
        return torch.stack([entropy, entropy / math.log(50)])

    def ensemble(x: torch.Tensor) -> torch.Tensor:
        singular = torch.linalg.svdvals(x)
        return torch.cat(
            [spectral_of(singular), norms_of(x, singular), distribution(x), frequency(x), info_theoretic(x)]
        )

    return {
        "simple_stats": simple_stats,
        "stats": stats,
        "rank_based": rank_based,
        "distribution": distribution,
        "spectral": lambda x: spectral_of(torch.linalg.svdvals(x)),
        "matrix_norms": lambda x: norms_of(x, torch.linalg.svdvals(x)),
        "frequency": frequency,
        "info_theoretic": info_theoretic,
        "ensemble": ensemble,
        "flat_vec": torch.flatten,
    }
