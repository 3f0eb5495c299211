"""Logistic regression at many strengths: each solved until it is certified, in one pass from strong to weak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fovcache.errors import UsageError
from fovcache.keys.digest import Document

from ..one_thread import one_thread
from .head import LOGISTIC, checked_strengths
from .principal_axes import PrincipalAxes, principal_axes
from .problem import Problem
from .softmax_path import SoftmaxPath

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""1 / scikit-learn's C."""
TOLERANCE = 1e-7
"""scikit-learn's own default comes to within 1e-5 to 1e-4 of the minimum."""
LEAST_TOLERANCE = 1e-14
"""What float64 can tell."""
MAX_ITERATIONS = 5000
"""Each about as long as one of L-BFGS."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedLogistic:
    """Weights for every strength, along the principal axes of train. C classes occur there."""

    strengths: tuple[float, ...]
    """S, rising."""
    axes: PrincipalAxes
    """R of them."""
    weights_SCR: torch.Tensor
    """float64; over classes they sum to zero."""
    intercepts_SC: torch.Tensor
    """float64, of rows less `axes.center_D`; over classes they sum to zero."""
    present_C: np.ndarray
    """int64: the classes that it was fitted on."""
    num_classes: int
    """Of all samples."""
    gaps: tuple[float, ...]
    """S: by which share of itself the objective can at most lie above its minimum."""
    notes: tuple[str, ...] = ()
    """The strengths for which the optimiser had not converged."""

    @property
    def chosen(self) -> None:
        """None: validation chooses."""

    @property
    def samples_seen(self) -> int:
        """0: it takes whole passes until it has converged."""
        return 0

    @property
    def coefficients_SCD(self) -> torch.Tensor:
        """float64: a hyperplane a class, over classes they sum to zero; scikit-learn's for two is the difference."""
        with one_thread():
            return self.axes.hyperplanes(self.weights_SCR)

    def at(self, index: int) -> FittedLogistic:
        """The same at one of its strengths alone."""
        return replace(
            self,
            strengths=(self.strengths[index],),
            weights_SCR=self.weights_SCR[[index]],
            intercepts_SC=self.intercepts_SC[[index]],
            gaps=(self.gaps[index],),
        )

    def predict(self, x_MD: torch.Tensor) -> np.ndarray:
        """int64 [S, M]: the most likely class; of equals the first."""
        return np.asarray(self.present_C[self._scores(x_MD).argmax(2).cpu().numpy()])

    def probabilities(self, x_MD: torch.Tensor) -> np.ndarray:
        """float32 [S, M, K]: 0 for a class that it was not fitted on."""
        found_SMC = self._scores(x_MD).softmax(2).cpu().numpy()
        found = np.zeros((*found_SMC.shape[:2], self.num_classes), np.float32)
        found[:, :, self.present_C] = found_SMC
        return found

    def _scores(self, x_MD: torch.Tensor) -> torch.Tensor:
        with one_thread():
            return self.axes.scores(x_MD, self.weights_SCR) + self.intercepts_SC[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticHead:
    """The minimum that scikit-learn's LogisticRegression seeks: Σ −log p(y) + strength / 2 · Σ coefficients².

    Multinomial for three classes or more, in which the coefficients of a class are penalised one by one; for two, one
    set of coefficients, the difference of what the classes have. The intercept is not regularised. With fewer rows
    than columns it is solved in the space of the rows, which is exact. It runs where its rows are, those on MPS
    excepted, which has no float64; on a CPU on one thread.
    """

    strengths: tuple[float, ...] = STRENGTHS
    """1 / scikit-learn's C, rising."""
    tolerance: float = TOLERANCE
    """It stops when the objective is shown to lie less than this share of itself above the minimum; from
    LEAST_TOLERANCE to below 1."""
    max_iterations: int = MAX_ITERATIONS
    """Passes over train for steps, at each strength."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "strengths", checked_strengths(self.strengths))
        is_number = isinstance(self.tolerance, int | float) and not isinstance(self.tolerance, bool)
        if not is_number or not LEAST_TOLERANCE <= self.tolerance < 1:
            raise UsageError(f"tolerance = {self.tolerance!r}, expected a number from {LEAST_TOLERANCE:g} to below 1")
        is_whole = isinstance(self.max_iterations, int) and not isinstance(self.max_iterations, bool)
        if not is_whole or self.max_iterations < 1:
            raise UsageError(f"max_iterations = {self.max_iterations!r}, expected a whole number above 0")

    @property
    def name(self) -> str:
        """Of HEADS."""
        return LOGISTIC

    @property
    def candidates(self) -> tuple[Mapping[str, float], ...]:
        """One for each strength."""
        return tuple({"strength": strength} for strength in self.strengths)

    @property
    def is_trained(self) -> bool:
        """False."""
        return False

    def document(self) -> Document:
        """Its strengths, and when it stops."""
        return {
            "name": self.name,
            "version": 2,
            "strengths": list(self.strengths),
            "tolerance": self.tolerance,
            "max_iterations": self.max_iterations,
        }

    def fit(self, problems: Sequence[Problem]) -> list[FittedLogistic]:
        """One after the other."""
        return [self.fit_rows(each.x_train_ND, each.y_train_N, each.num_classes) for each in problems]

    def fit_rows(self, x_ND: torch.Tensor, y_N: np.ndarray, num_classes: int) -> FittedLogistic:
        """Fit every strength; one that does not converge is noted, and keeps what it had come to."""
        device = torch.device("cpu") if x_ND.device.type == "mps" else x_ND.device
        present, numbers = np.unique(y_N, return_inverse=True)
        # Two classes share the difference evenly: the squares of the halves are half of its square.
        factor = 2.0 if len(present) == 2 else 1.0
        with one_thread():
            x = x_ND.to(device, torch.float64)
            center = x.mean(0)
            centred = x - center
            axes = principal_axes(centred, center)
            path = SoftmaxPath(axes.of_train(centred), axes.values_R, torch.from_numpy(numbers).to(device))
            falling = [factor * strength for strength in reversed(self.strengths)]
            solutions = list(path.solve(falling, self.tolerance, self.max_iterations))[::-1]
        gaps = tuple(each.gap for each in solutions)
        return FittedLogistic(
            strengths=self.strengths,
            axes=axes,
            weights_SCR=torch.stack([each.weights_CR for each in solutions]),
            intercepts_SC=torch.stack([each.intercepts_C for each in solutions]),
            present_C=present.astype(np.int64),
            num_classes=num_classes,
            gaps=gaps,
            notes=self._notes(gaps, max(each.num_products for each in solutions)),
        )

    def _notes(self, gaps: Sequence[float], most_products: int) -> tuple[str, ...]:
        short = {strength: gap for strength, gap in zip(self.strengths, gaps, strict=True) if gap > self.tolerance}
        if not short:
            return ()
        shown = ", ".join(f"{each:g}" for each in short)
        many = f"after {self.max_iterations} iterations " if most_products >= self.max_iterations else ""
        return (f"not converged {many}at strength {shown}: within {max(short.values()):.1g} of the minimum",)
