"""A batch of matrices and what several representations need of it, each computed once.

Axes: B samples, T tokens, C channels, M = T·C values, K singular values.
"""

from __future__ import annotations

import math

import torch

from ..errors import UsageError
from .lazy_attribute import lazy
from .moments import Moments
from .quantiles import sorted_values
from .singular_values import exact_singular_values

_ORDINARY = 2.0**30
"""Between its inverse and itself largest magnitudes need no scaling: neither squares nor their sums leave float32."""


class MatrixBatch:
    """`[B, T, C]` in float32 or float64, and lazily what is computed of it, on its device and in its dtype.

    Matrices of extraordinary magnitude are divided by a power of two, which changes no bits and keeps squares in range:
    what has a unit is `restored` at the end. Raises UsageError for NaN and infinity.
    """

    def __init__(self, x_BTC: torch.Tensor) -> None:
        flat_BM = x_BTC.flatten(1)
        low_B, high_B = flat_BM.amin(dim=1), flat_BM.amax(dim=1)
        magnitude_B = torch.maximum(-low_B, high_B)
        smallest, largest = torch.stack(torch.aminmax(magnitude_B)).tolist()
        if not math.isfinite(largest):
            raise UsageError("a matrix holds NaN or infinity, and has no representation: `fovcache verify` the cache")
        self._scale_B: torch.Tensor | None = None
        if not 1 / _ORDINARY < smallest <= largest < _ORDINARY:
            self._scale_B = _scale(magnitude_B)
            x_BTC = x_BTC / self._scale_B[:, None, None]
            low_B, high_B = low_B / self._scale_B, high_B / self._scale_B
        self.x_BTC = x_BTC
        """The matrices, scaled."""
        self.flat_BM = x_BTC.flatten(1)
        """Their values, scaled."""
        self.low_B, self.high_B = low_B, high_B
        """The smallest and the largest value, scaled."""

    @property
    def num_values(self) -> int:
        """M."""
        return self.flat_BM.shape[1]

    def restored(self, numbers_BF: torch.Tensor) -> torch.Tensor:
        """Numbers in the matrices' own unit. What the dtype cannot hold becomes its largest number."""
        if self._scale_B is None:
            return numbers_BF
        largest = torch.finfo(numbers_BF.dtype).max
        return (numbers_BF * self._scale_B[:, None]).clamp(-largest, largest)

    @lazy
    def moments(self) -> Moments:
        """Of the values, scaled."""
        return Moments(self.flat_BM, is_constant_B=self.low_B == self.high_B)

    @lazy
    def sorted_BM(self) -> torch.Tensor:
        """The values in ascending order, scaled."""
        return sorted_values(self.flat_BM)

    @lazy
    def singular_values_BK(self) -> torch.Tensor:
        """All of them, descending, scaled."""
        return exact_singular_values(self.x_BTC)


def _scale(magnitude_B: torch.Tensor) -> torch.Tensor:
    """`[B]`: a power of two that brings a magnitude to between 1 and 2; 1 for what is ordinary."""
    least = math.frexp(torch.finfo(magnitude_B.dtype).tiny)[1]
    exponent_B = torch.frexp(magnitude_B).exponent.clamp(min=least) - 1
    is_ordinary_B = (magnitude_B > 1 / _ORDINARY) & (magnitude_B < _ORDINARY) | (magnitude_B == 0)
    return torch.ldexp(torch.ones_like(magnitude_B), exponent_B.masked_fill(is_ordinary_B, 0))
