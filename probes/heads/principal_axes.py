"""Rows seen from their principal axes: all that a head of a closed form or a convex one needs of them.

A head whose weights are penalised by their squares has weights that are sums of train's centred rows. So with fewer
rows than columns it is fitted in at most N dimensions instead of D, and nothing is lost; the products of columns are
never formed.

Axes: N rows fitted on, M rows of any kind, D columns, R principal axes (at most the smaller of N − 1 and D), K classes,
S candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

_BLOCK = 128
"""Rows of a symmetric product that are computed at a time, up to the diagonal."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrincipalAxes:
    """Orthonormal directions in the space of columns, along which train varies; float64."""

    center_D: torch.Tensor
    """Means of train's columns."""
    rows_ND: torch.Tensor | None
    """Train's centred rows where there are fewer of them than columns, else None."""
    vectors: torch.Tensor
    """Eigenvectors of the columns' products, [D, R]; or of the rows', [N, R]."""
    values_R: torch.Tensor
    """Their eigenvalues, rising: the sum of squares of train's coordinates along each axis."""

    def of_train(self, centred_ND: torch.Tensor) -> torch.Tensor:
        """[N, R]: coordinates of the centred rows that the axes are of."""
        return centred_ND @ self.vectors if self.rows_ND is None else self.vectors * self.values_R.sqrt()

    def towards(self, centred_ND: torch.Tensor, targets_NK: torch.Tensor) -> torch.Tensor:
        """[R, K]: the products of train's coordinates with targets."""
        if self.rows_ND is None:
            return self.vectors.T @ (centred_ND.T @ targets_NK)
        return self.values_R.sqrt()[:, None] * (self.vectors.T @ targets_NK)

    def hyperplanes(self, weights_SKR: torch.Tensor) -> torch.Tensor:
        """[S, K, D]: what is applied to rows less `center_D`."""
        if self.rows_ND is None:
            return weights_SKR @ self.vectors.T
        return (weights_SKR / self.values_R.sqrt()) @ self.vectors.T @ self.rows_ND

    def scores(self, x_MD: torch.Tensor, weights_SKR: torch.Tensor) -> torch.Tensor:
        """[S, M, K], without intercepts; by hyperplanes or by coordinates, whichever is less work."""
        x = x_MD.to(self.center_D) - self.center_D
        num_planes, num_axes = weights_SKR.shape[0] * weights_SKR.shape[1], len(self.values_R)
        if num_planes * (len(x) + num_axes) < len(x) * num_axes:
            return x @ self.hyperplanes(weights_SKR).mT
        if self.rows_ND is None:
            return x @ self.vectors @ weights_SKR.mT
        return x @ self.rows_ND.T @ (self.vectors / self.values_R.sqrt()) @ weights_SKR.mT


def principal_axes(centred_ND: torch.Tensor, center_D: torch.Tensor) -> PrincipalAxes:
    """Of float64 rows less their means, by the eigenvectors of D × D or N × N products, whichever is smaller.

    Axes along which train does not vary but for rounding are left out: no weight that is penalised leaves zero there.
    """
    is_wide = centred_ND.shape[1] > len(centred_ND)
    values, vectors = torch.linalg.eigh(_lower_products(centred_ND if is_wide else centred_ND.T))
    is_axis = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    if not is_axis.all():
        values, vectors = values[is_axis], vectors[:, is_axis]
    return PrincipalAxes(center_D=center_D, rows_ND=centred_ND if is_wide else None, vectors=vectors, values_R=values)


def _lower_products(rows_AB: torch.Tensor) -> torch.Tensor:
    """[A, A]: products of rows, right on and below the diagonal: up to half the work, as torch has no syrk."""
    products = rows_AB.new_zeros((len(rows_AB), len(rows_AB)))
    for begin in range(0, len(rows_AB), _BLOCK):
        end = min(begin + _BLOCK, len(rows_AB))
        torch.mm(rows_AB[begin:end], rows_AB[:end].T, out=products[begin:end, :end])
    return products
