"""Ridge classification: every strength from one eigendecomposition, in float64.

Axes: N rows fitted on, M rows of any kind, D columns, K classes, R eigenvalues (the smaller of N and D), S strengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fovcache.keys.digest import Document

from .head import RIDGE, checked_strengths
from .one_thread import one_thread
from .problem import Problem

STRENGTHS = tuple(float(f"{10 ** (each / 2):.3g}") for each in range(-4, 13))
"""0.01 to 1,000,000, two a decade: added to the eigenvalues of standardised columns, which sum to N × D."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedRidge:
    """Coefficients for every strength, as what they have in common."""

    strengths: tuple[float, ...]
    """S, rising."""
    center_D: torch.Tensor
    """Means of the columns that it was fitted on."""
    rows_DN: torch.Tensor | None
    """The centred rows where there are fewer of them than columns, else None."""
    vectors: torch.Tensor
    """Eigenvectors of the columns' products, [D, R]; or of the rows', [N, R]."""
    values_R: torch.Tensor
    """Their eigenvalues."""
    target_RK: torch.Tensor
    """The targets seen from the eigenvectors."""
    intercept_K: torch.Tensor
    """Means of the targets."""

    @property
    def notes(self) -> tuple[str, ...]:
        """None: a closed form converges."""
        return ()

    @property
    def chosen(self) -> None:
        """None: validation chooses."""

    @property
    def samples_seen(self) -> int:
        """0: a closed form takes no steps."""
        return 0

    @property
    def coefficients_SKD(self) -> torch.Tensor:
        """float64: one hyperplane a class, applied to rows less `center_D`, plus `intercept_K`."""
        with one_thread():
            weights_SDK = torch.stack([self.vectors @ self._target(strength) for strength in self.strengths])
            return (weights_SDK if self.rows_DN is None else self.rows_DN @ weights_SDK).mT

    def at(self, index: int) -> FittedRidge:
        """The same at one of its strengths alone."""
        return replace(self, strengths=(self.strengths[index],))

    def predict(self, x_MD: torch.Tensor) -> np.ndarray:
        """int64 [S, M]: the class with the largest score; of equals the first."""
        with one_thread():
            x_MR = x_MD.to(self.center_D) - self.center_D
            if self.rows_DN is not None:
                x_MR = x_MR @ self.rows_DN
            x_MR = x_MR @ self.vectors
            scores = (x_MR @ self._target(strength) + self.intercept_K for strength in self.strengths)
            return np.stack([each.argmax(1).cpu().numpy() for each in scores])

    def probabilities(self, x_MD: torch.Tensor) -> None:
        """None: least squares give scores."""

    def _target(self, strength: float) -> torch.Tensor:
        return self.target_RK / (self.values_R + strength)[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeHead:
    """Least squares on targets of +1 for a row's class and −1 for the others, as scikit-learn's RidgeClassifier.

    The intercept is not regularised. It runs where its rows are, those on MPS excepted, which has no float64; on a
    CPU on one thread, so that the bits do not depend on how many there are.
    """

    strengths: tuple[float, ...] = STRENGTHS
    """scikit-learn's alpha, rising."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "strengths", checked_strengths(self.strengths))

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

    @property
    def runs_on_gpu(self) -> bool:
        """True."""
        return True

    def document(self) -> Document:
        """Its strengths."""
        return {"name": self.name, "strengths": list(self.strengths)}

    def fit(self, problems: Sequence[Problem]) -> list[FittedRidge]:
        """One after the other."""
        return [self.fit_rows(each.x_train_ND, each.y_train_N, each.num_classes) for each in problems]

    def fit_rows(self, x_ND: torch.Tensor, y_N: np.ndarray, num_classes: int) -> FittedRidge:
        """Fit every strength; the eigendecomposition is of D × D or N × N, whichever is smaller."""
        device = torch.device("cpu") if x_ND.device.type == "mps" else x_ND.device
        with one_thread():
            x = x_ND.to(device, torch.float64)
            center = x.mean(0)
            x = x - center
            targets_NK = torch.full((len(x), num_classes), -1.0, dtype=torch.float64, device=device)
            targets_NK[torch.arange(len(x), device=device), torch.from_numpy(y_N).to(device)] = 1.0
            intercept = targets_NK.mean(0)
            targets_NK -= intercept
            is_wide = x.shape[1] > len(x)
            values, vectors = torch.linalg.eigh(x @ x.T if is_wide else x.T @ x)
            target = vectors.T @ (targets_NK if is_wide else x.T @ targets_NK)
        return FittedRidge(
            strengths=self.strengths,
            center_D=center,
            rows_DN=x.T if is_wide else None,
            vectors=vectors,
            values_R=values.clamp_min(0.0),  # rounding can leave them a little below
            target_RK=target,
            intercept_K=intercept,
        )
