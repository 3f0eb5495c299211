"""Ridge classification: every strength from one eigendecomposition, in float64, and so is leaving each row out.

Axes: N rows fitted on, M rows of any kind, D columns, K classes, R principal axes, S strengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fovcache.errors import UsageError, nearest
from fovcache.keys.digest import Document

from ..one_thread import one_thread
from .head import RIDGE, checked_strengths
from .principal_axes import PrincipalAxes, principal_axes
from .problem import Problem

STRENGTHS = tuple(float(f"{10 ** (each / 2):.3g}") for each in range(-4, 13))
"""0.01 to 1,000,000, two a decade: added to the eigenvalues of standardised columns, which sum to N × D."""
VALIDATION, LEAVE_ONE_OUT = "validation", "leave-one-out"
SELECTS = (VALIDATION, LEAVE_ONE_OUT)
_BLOCK = 512
"""Rows that are left out together, each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedRidge:
    """Coefficients for every strength, as what they have in common."""

    strengths: tuple[float, ...]
    """S, rising."""
    axes: PrincipalAxes
    """R of them."""
    target_RK: torch.Tensor
    """The targets seen from the axes."""
    intercept_K: torch.Tensor
    """Means of the targets."""
    left_out_errors: tuple[float, ...] | None = None
    """S: mean squared error at a row and class when the row is left out of train; None where it was not asked for."""

    @property
    def notes(self) -> tuple[str, ...]:
        """None: a closed form converges."""
        return ()

    @property
    def chosen(self) -> int | None:
        """The strength with the smallest error of rows left out (of equals the strongest); None: validation chooses."""
        if self.left_out_errors is None:
            return None
        return len(self.strengths) - 1 - int(np.argmin(self.left_out_errors[::-1]))

    @property
    def samples_seen(self) -> int:
        """0: a closed form takes no steps."""
        return 0

    @property
    def coefficients_SKD(self) -> torch.Tensor:
        """float64: one hyperplane a class, applied to rows less `axes.center_D`, plus `intercept_K`."""
        with one_thread():
            return self.axes.hyperplanes(self._weights_SKR)

    def at(self, index: int) -> FittedRidge:
        """The same at one of its strengths alone."""
        errors = self.left_out_errors
        return replace(
            self,
            strengths=(self.strengths[index],),
            left_out_errors=None if errors is None else (errors[index],),
        )

    def predict(self, x_MD: torch.Tensor) -> np.ndarray:
        """int64 [S, M]: the class with the largest score; of equals the first."""
        with one_thread():
            scores_SMK = self.axes.scores(x_MD, self._weights_SKR) + self.intercept_K
            found: np.ndarray = scores_SMK.argmax(2).cpu().numpy()
        return found

    def probabilities(self, x_MD: torch.Tensor) -> None:
        """None: least squares give scores."""

    @property
    def _weights_SKR(self) -> torch.Tensor:
        values_R = self.axes.values_R
        return torch.stack([(self.target_RK / (values_R + strength)[:, None]).T for strength in self.strengths])


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeHead:
    """Least squares on targets of +1 for a row's class and −1 for the others, as scikit-learn's RidgeClassifier.

    The intercept is not regularised. It runs where its rows are, those on MPS excepted, which has no float64; on a
    CPU on one thread, so that the bits do not depend on how many there are.
    """

    strengths: tuple[float, ...] = STRENGTHS
    """scikit-learn's alpha, rising."""
    select: str = VALIDATION
    """What chooses the strength: accuracy on `validation`; or the squared error of targets when each row of train is
    left out in turn (`leave-one-out`), as scikit-learn's RidgeClassifierCV has it, and validation is not looked at."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "strengths", checked_strengths(self.strengths))
        if self.select not in SELECTS:
            raise UsageError(f"select = {self.select!r}{nearest(str(self.select), SELECTS)}")

    @property
    def name(self) -> str:
        """Of HEADS."""
        return RIDGE

    @property
    def candidates(self) -> tuple[Mapping[str, float], ...]:
        """One for each strength."""
        return tuple({"strength": strength} for strength in self.strengths)

    @property
    def is_trained(self) -> bool:
        """False."""
        return False

    def document(self) -> Document:
        """Its strengths, and what chooses."""
        return {"name": self.name, "strengths": list(self.strengths), "select": self.select}

    def fit(self, problems: Sequence[Problem]) -> list[FittedRidge]:
        """One after the other."""
        return [self.fit_rows(each.x_train_ND, each.y_train_N, each.num_classes) for each in problems]

    def fit_rows(self, x_ND: torch.Tensor, y_N: np.ndarray, num_classes: int) -> FittedRidge:
        """Fit every strength; the eigendecomposition is of D × D or N × N, whichever is smaller."""
        device = torch.device("cpu") if x_ND.device.type == "mps" else x_ND.device
        with one_thread():
            x = x_ND.to(device, torch.float64)
            center = x.mean(0)
            centred = x - center
            targets_NK = torch.full((len(x), num_classes), -1.0, dtype=torch.float64, device=device)
            targets_NK[torch.arange(len(x), device=device), torch.from_numpy(y_N).to(device)] = 1.0
            intercept = targets_NK.mean(0)
            targets_NK -= intercept
            axes = principal_axes(centred, center)
            target_RK = axes.towards(centred, targets_NK)
            errors = None
            if self.select == LEAVE_ONE_OUT:
                rows_NR = axes.of_train(centred)
                errors = _left_out_errors(rows_NR, axes.values_R, target_RK, targets_NK, self.strengths)
            return FittedRidge(
                strengths=self.strengths,
                axes=axes,
                target_RK=target_RK,
                intercept_K=intercept,
                left_out_errors=errors,
            )


def _left_out_errors(
    rows_NR: torch.Tensor,
    values_R: torch.Tensor,
    target_RK: torch.Tensor,
    targets_NK: torch.Tensor,
    strengths: Sequence[float],
) -> tuple[float, ...]:
    """Mean squared error at rows left out one by one, without fitting again: Allen's PRESS (Technometrics 16, 1974).

    The residual of a row that was left out is its residual divided by 1 − h, h being its own weight in its fitted
    value: 1 / N for the intercept, and its squared coordinates, of unit vectors, each times value / (value + strength).
    Both are written here as what the strength takes away, so that they do not cancel where the fit is nearly perfect.
    """
    num_rows, lengths_R = len(rows_NR), values_R.sqrt()
    seen_RK = target_RK / lengths_R[:, None]
    reach_all = len(values_R) >= num_rows - 1  # axes and intercept together: nothing of a target is beyond them
    strengths_S1 = torch.tensor(strengths, dtype=values_R.dtype, device=values_R.device)[:, None]
    taken_SR = strengths_S1 / (values_R + strengths_S1)
    sums_S = torch.zeros_like(taken_SR[:, 0])
    for rows_BR, targets_BK in zip(rows_NR.split(_BLOCK), targets_NK.split(_BLOCK), strict=True):
        units_BR = rows_BR / lengths_R
        squares_BR = units_BR.square()
        left_SBK = units_BR @ (taken_SR[:, :, None] * seen_RK)
        share_SB = taken_SR @ squares_BR.T
        if not reach_all:
            left_SBK += targets_BK - units_BR @ seen_RK
            share_SB += 1 - 1 / num_rows - squares_BR.sum(1)
        sums_S += (left_SBK / share_SB[:, :, None]).square().sum((1, 2))
    return tuple((sums_S / targets_NK.numel()).tolist())
