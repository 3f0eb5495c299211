"""Mean, spread and shape of the values of each matrix.

Axes: B samples, M values.
"""

from __future__ import annotations

import torch

from .lazy_attribute import lazy


class Moments:
    """Of `[B, M]` values, computed about the mean; the spread of equal values is exactly 0, and so is their shape.

    Of the rounding error of the mean everything else is freed, so that it does not matter how far from zero values lie.
    """

    def __init__(self, values_BM: torch.Tensor, *, is_constant_B: torch.Tensor) -> None:
        rough_B1 = values_BM.mean(dim=1, keepdim=True)
        self._centred_BM = values_BM - rough_B1
        self._error_B = self._centred_BM.mean(dim=1)
        self._is_constant_B = is_constant_B
        self.mean_B = rough_B1.squeeze(1) + self._error_B
        """Σx / M."""

    @lazy
    def variance_B(self) -> torch.Tensor:
        """Σ(x − mean)² / M."""
        about_rough_B = _mean_square(self._centred_BM)
        return (about_rough_B - self._error_B.square()).clamp_(min=0).masked_fill_(self._is_constant_B, 0)

    @lazy
    def std_B(self) -> torch.Tensor:
        """With ddof 0, as numpy's."""
        return self.variance_B.sqrt()

    @lazy
    def mean_absolute_deviation_B(self) -> torch.Tensor:
        """Σ|x − mean| / M."""
        return self._standardised_BM.abs().mean(dim=1) * self.std_B

    @lazy
    def shape_B2(self) -> torch.Tensor:
        """`[B, 2]`: E[z³] and E[z⁴] of z = (x − mean) / std, scipy's skew and its kurtosis plus 3; 0 without spread."""
        square_BM = self._standardised_BM.square()
        third_B = (self._standardised_BM * square_BM).mean(dim=1)
        return torch.stack([third_B, _mean_square(square_BM)], dim=1)

    @lazy
    def _standardised_BM(self) -> torch.Tensor:
        std_B1 = self.std_B[:, None]
        inverse_B1 = torch.where(std_B1 > 0, 1 / std_B1, 0)
        return torch.addcmul(-self._error_B[:, None] * inverse_B1, self._centred_BM, inverse_B1)


def _mean_square(values_BM: torch.Tensor) -> torch.Tensor:
    """`[B]`, in one pass over them."""
    norm_B: torch.Tensor = torch.linalg.vector_norm(values_BM, dim=1)
    return norm_B.square() / values_BM.shape[1]
