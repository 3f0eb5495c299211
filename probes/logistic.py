"""Logistic regression: scikit-learn's, from the strongest regularisation to the weakest, each begun at the last."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .head import LOGISTIC, check_strengths
from .shared_state import SharedState

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""1 / scikit-learn's C."""
MAX_ITERATIONS = 1000
"""Of L-BFGS, for each strength."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedLogistic:
    """Coefficients for every strength."""

    strengths: tuple[float, ...]
    """S, rising."""
    coefficients_SKD: np.ndarray
    """float64; with two classes K is 1, the second's."""
    intercepts_SK: np.ndarray
    """float64."""
    present_C: np.ndarray
    """int64: the classes that it was fitted on."""
    notes: tuple[str, ...] = ()
    """The strengths for which the optimiser had not converged."""

    def at(self, index: int) -> FittedLogistic:
        """The same at one of its strengths alone."""
        return replace(
            self,
            strengths=(self.strengths[index],),
            coefficients_SKD=self.coefficients_SKD[[index]],
            intercepts_SK=self.intercepts_SK[[index]],
        )

    def predict(self, x_MD: torch.Tensor) -> np.ndarray:
        """int64 [S, M]: the most likely class."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            x = x_MD.cpu().numpy().astype(np.float64, copy=False)
            scores_SMK = x @ self.coefficients_SKD.transpose(0, 2, 1) + self.intercepts_SK[:, None]
        is_binary = scores_SMK.shape[2] == 1
        chosen = (scores_SMK[:, :, 0] > 0).astype(np.int64) if is_binary else scores_SMK.argmax(2)
        return np.asarray(self.present_C[chosen])


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticHead:
    """scikit-learn's LogisticRegression (L-BFGS, multinomial), on the CPU and one thread."""

    strengths: tuple[float, ...] = STRENGTHS
    """1 / C, rising."""
    max_iterations: int = MAX_ITERATIONS
    """For each strength."""

    def __post_init__(self) -> None:
        check_strengths(self.strengths)

    @property
    def name(self) -> str:
        """Of HEADS."""
        return LOGISTIC

    def fit(self, x_ND: torch.Tensor, y_N: np.ndarray, num_classes: int) -> FittedLogistic:
        """Fit every strength; one that does not converge is noted, and keeps what it had come to."""
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        x = x_ND.cpu().numpy().astype(np.float64, copy=False)
        model = LogisticRegression(max_iter=self.max_iterations, warm_start=True)
        fitted, unfinished = [], []
        with threadpool_limits(1, user_api="blas"), _listening:
            for strength in reversed(self.strengths):
                _this_thread.has_warned = False
                model.set_params(C=1 / strength).fit(x, y_N)
                if _this_thread.has_warned:
                    unfinished.append(strength)
                fitted.append((model.coef_.copy(), model.intercept_.copy()))
        coefficients, intercepts = zip(*reversed(fitted), strict=True)
        shown = ", ".join(f"{each:g}" for each in reversed(unfinished))
        note = f"not converged after {self.max_iterations} iterations at strength {shown}"
        return FittedLogistic(
            strengths=self.strengths,
            coefficients_SKD=np.stack(coefficients),
            intercepts_SK=np.stack(intercepts),
            present_C=np.asarray(model.classes_, np.int64),
            notes=(note,) if unfinished else (),
        )


_this_thread = threading.local()


@contextmanager
def _listen() -> Iterator[None]:
    """Turns ConvergenceWarnings into a flag of the thread that they come from; warnings are the whole process's."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", ConvergenceWarning)
        show = warnings.showwarning

        def hear(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, ConvergenceWarning):
                _this_thread.has_warned = True
            else:
                show(message, category, *place, **more)

        warnings.showwarning = hear
        yield


_listening = SharedState(_listen)
