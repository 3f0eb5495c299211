"""Logistic regression: scikit-learn's, from the strongest regularisation to the weakest, each begun at the last."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fovcache.keys.digest import Document

from .head import LOGISTIC, checked_strengths
from .problem import Problem
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
    num_classes: int
    """Of all samples."""
    notes: tuple[str, ...] = ()
    """The strengths for which the optimiser had not converged."""

    @property
    def chosen(self) -> None:
        """None: validation chooses."""

    @property
    def samples_seen(self) -> int:
        """0: it takes whole passes until it has converged."""
        return 0

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
        scores_SMK = self._scores(x_MD)
        is_binary = scores_SMK.shape[2] == 1
        chosen = (scores_SMK[:, :, 0] > 0).astype(np.int64) if is_binary else scores_SMK.argmax(2)
        return np.asarray(self.present_C[chosen])

    def probabilities(self, x_MD: torch.Tensor) -> np.ndarray:
        """float32 [S, M, K]: 0 for a class that it was not fitted on."""
        from scipy.special import softmax

        scores_SMK = self._scores(x_MD)
        if scores_SMK.shape[2] == 1:
            scores_SMK = np.concatenate([np.zeros_like(scores_SMK), scores_SMK], axis=2)
        found = np.zeros((*scores_SMK.shape[:2], self.num_classes), np.float32)
        found[:, :, self.present_C] = softmax(scores_SMK, axis=2)
        return found

    def _scores(self, x_MD: torch.Tensor) -> np.ndarray:
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            x = x_MD.cpu().numpy().astype(np.float64, copy=False)
            scores: np.ndarray = x @ self.coefficients_SKD.transpose(0, 2, 1) + self.intercepts_SK[:, None]
        return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticHead:
    """scikit-learn's LogisticRegression (L-BFGS, multinomial), on the CPU and one thread."""

    strengths: tuple[float, ...] = STRENGTHS
    """1 / C, rising."""
    max_iterations: int = MAX_ITERATIONS
    """For each strength."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "strengths", checked_strengths(self.strengths))

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

    @property
    def runs_on_gpu(self) -> bool:
        """False."""
        return False

    def document(self) -> Document:
        """Its strengths, and when it gives up."""
        return {"name": self.name, "strengths": list(self.strengths), "max_iterations": self.max_iterations}

    def fit(self, problems: Sequence[Problem]) -> list[FittedLogistic]:
        """One after the other."""
        return [self.fit_rows(each.x_train_ND, each.y_train_N, each.num_classes) for each in problems]

    def fit_rows(self, x_ND: torch.Tensor, y_N: np.ndarray, num_classes: int) -> FittedLogistic:
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
            num_classes=num_classes,
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
