"""The ten representations again, of one matrix, by numpy and scipy: what ours must equal."""

import warnings
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import scipy.stats

Reference = Callable[[np.ndarray], np.ndarray]


def simple_stats(x: np.ndarray) -> np.ndarray:
    std = x.std(ddof=1) if x.size > 1 else 0.0
    return np.array([np.linalg.norm(x), x.mean(), std, x.max(), x.min()])


def stats(x: np.ndarray) -> np.ndarray:
    skew, kurtosis = shape(x)
    fourth = kurtosis + 3 if x.std() > 0 and np.ptp(x) > 0 else 0.0
    return np.array([x.mean(), x.std() if np.ptp(x) else 0.0, np.median(x), x.min(), x.max(), skew, fourth])


def rank_based(x: np.ndarray) -> np.ndarray:
    q = np.quantile(x, [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])
    return np.array([*q, q[5] - q[3], q[8] - q[0]])


def distribution(x: np.ndarray) -> np.ndarray:
    q = np.quantile(x, [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
    deviation, std = (np.abs(x - x.mean()).mean(), x.std()) if np.ptp(x) else (0.0, 0.0)
    return np.array([*q, q[4] - q[2], deviation, std / (abs(x.mean()) + 1e-8), *shape(x)])


def shape(x: np.ndarray) -> tuple[float, float]:
    """Skew and kurtosis, 0 where scipy says nan: of equal values."""
    if np.ptp(x) == 0:
        return 0.0, 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "precision loss" of nearly equal values
        skew, kurtosis = scipy.stats.skew(x, axis=None), scipy.stats.kurtosis(x, axis=None)
    return float(np.nan_to_num(skew)), float(np.nan_to_num(kurtosis))


def spectral(x: np.ndarray, eps: float = np.finfo(np.float64).eps) -> np.ndarray:
    values = np.linalg.svd(x, compute_uv=False)
    values = np.where(values > values[0] * max(x.shape) * eps, values, 0)[:10]
    return spectral_of(np.pad(values, (0, 10 - len(values))))


def spectral_of(top: np.ndarray) -> np.ndarray:
    """The 32 numbers of ten singular values."""
    shares = top / top.sum() if top.sum() else np.zeros(10)
    gaps = [(above - below) / above if above else 0.0 for above, below in pairwise(top)]
    entropy = scipy.stats.entropy(shares) if top.sum() else 0.0
    return np.array([*top, *shares, *gaps, entropy, top[0] / top[9] if top[9] else 0.0, top.sum()])


def matrix_norms(x: np.ndarray) -> np.ndarray:
    frobenius, nuclear, spectral = (np.linalg.norm(x, kind) for kind in ("fro", "nuc", 2))
    ratios = [nuclear / frobenius, spectral / frobenius] if frobenius else [0.0, 0.0]
    return np.array([frobenius, nuclear, spectral, np.linalg.norm(x, 1), np.linalg.norm(x, np.inf), *ratios])


def frequency(x: np.ndarray) -> np.ndarray:
    magnitudes = np.abs(np.fft.fft2(x)).ravel()
    top = np.sort(magnitudes)[::-1][:10]
    energy = np.square(magnitudes).sum()
    share = np.square(top).sum() / energy if energy else 0.0
    return np.array([*np.pad(top, (0, 10 - len(top))), magnitudes.mean(), magnitudes.std(), magnitudes.max(), share])


def info_theoretic(x: np.ndarray) -> np.ndarray:
    counts, _ = np.histogram(x, bins=50)
    entropy = scipy.stats.entropy(counts / x.size)
    return np.array([entropy, entropy / np.log(50)])


def ensemble(x: np.ndarray, eps: float = np.finfo(np.float64).eps) -> np.ndarray:
    return np.concatenate([spectral(x, eps), matrix_norms(x), distribution(x), frequency(x), info_theoretic(x)])


def flat_vec(x: np.ndarray) -> np.ndarray:
    return x.ravel()
