"""Heads: what is fitted on frozen features, at every strength of regularisation at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fovcache.errors import UsageError, nearest

if TYPE_CHECKING:
    import torch

RIDGE, LOGISTIC = "ridge", "logistic"
HEADS = (RIDGE, LOGISTIC)


class Fitted(Protocol):
    """A head after fitting, at each of S strengths."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its accuracies should know, such as that it has not converged."""

    def at(self, index: int) -> Fitted:
        """The same at one of its strengths alone (S = 1)."""

    def predict(self, x_MD: torch.Tensor) -> np.ndarray:
        """int64 [S, M]: the classes of M rows, one row for each strength."""


class Head(Protocol):
    """A trainable probe with a path of strengths."""

    @property
    def name(self) -> str:
        """One of HEADS."""

    @property
    def strengths(self) -> tuple[float, ...]:
        """Of the regularisation, rising: the last regularises most."""

    def fit(self, x_ND: torch.Tensor, y_N: np.ndarray, num_classes: int) -> Fitted:
        """Fit on standardised float64 rows and labels int64 below `num_classes`, at every strength."""


def make_head(name: str, strengths: Sequence[float] | None = None) -> Head:
    """The head of a name, with its own strengths where none are given.

    `ridge` runs where its rows are; `logistic` on the CPU. Strengths are sorted. Raises UsageError for a name
    that is not one of HEADS and for strengths that are not positive and finite.
    """
    from .logistic import LogisticHead
    from .ridge import RidgeHead

    kinds: dict[str, type[RidgeHead] | type[LogisticHead]] = {RIDGE: RidgeHead, LOGISTIC: LogisticHead}
    if name not in kinds:
        raise UsageError(f"there is no head named {name!r}{nearest(name, HEADS)}")
    return kinds[name]() if strengths is None else kinds[name](strengths=tuple(sorted(set(strengths))))


def check_strengths(strengths: Sequence[float]) -> None:
    """Raises UsageError unless there are some and all are positive, finite and rising."""
    if not strengths:
        raise UsageError("a head needs at least one strength, such as strengths = [0.01, 1, 100]")
    wrong = [each for each in strengths if not (math.isfinite(each) and each > 0)]
    if wrong:
        raise UsageError(f"a strength is {wrong[0]!r}; strengths are positive and finite, such as [0.01, 1, 100]")
    if list(strengths) != sorted(set(strengths)):
        raise UsageError(f"strengths must rise, and are {list(strengths)}")
