"""Heads: what is fitted on frozen features, with every candidate of its settings at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fovcache.errors import UsageError, nearest
from fovcache.keys.digest import Document

from .problem import Problem

if TYPE_CHECKING:
    import torch

RIDGE, LOGISTIC, LINEAR, MLP, KNN = "ridge", "logistic", "linear", "mlp", "knn"
HEADS = (RIDGE, LOGISTIC, LINEAR, MLP, KNN)


class Fitted(Protocol):
    """A head after fitting, with each of its S candidates."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its accuracies should know, such as that it has not converged."""

    @property
    def chosen(self) -> int | None:
        """The candidate that the head chose by itself, on train alone; None where validation is to choose."""

    @property
    def samples_seen(self) -> int:
        """Samples of train that all its candidates together were stepped on, each time counted; 0 for a closed form."""

    def at(self, index: int) -> Fitted:
        """The same with one of its candidates alone (S = 1)."""

    def predict(self, x_MD: torch.Tensor) -> np.ndarray:
        """int64 [S, M]: the classes of M rows, one row for each candidate."""

    def probabilities(self, x_MD: torch.Tensor) -> np.ndarray | None:
        """float32 [S, M, K], rows that sum to 1, of all `num_classes` classes; None for a head that gives none."""


class Head(Protocol):
    """A probe and the settings that are tried of it."""

    @property
    def name(self) -> str:
        """One of HEADS."""

    @property
    def candidates(self) -> tuple[Mapping[str, float], ...]:
        """The settings that are tried; of equally good ones the last is taken, which is the simplest."""

    @property
    def is_trained(self) -> bool:
        """Whether it is trained by steps: seeds decide its initialisation and the order of its samples, and many
        problems are fitted faster together than in threads of their own."""

    def document(self) -> Document:
        """Everything that decides its numbers, for the keys of trials and for readers."""

    def fit(self, problems: Sequence[Problem]) -> Sequence[Fitted]:
        """Each problem with every candidate; what one comes to does not depend on the others beyond rounding."""


def make_head(kind: str, settings: Mapping[str, Any] | None = None) -> Head:
    """The head of a kind; what `settings` leaves out is the head's own.

    Raises UsageError for a kind that is not one of HEADS, a setting that it does not have, or a value out of range.
    """
    known = head_settings(kind)
    make = _class_of(kind)
    for key in settings or {}:
        if key not in known:
            raise UsageError(f"a {kind} head has no setting {key!r}{nearest(key, known)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in (settings or {}).items()}
    head: Head = make(**values)
    return head


def head_settings(kind: str) -> tuple[str, ...]:
    """The names of a kind's settings, sorted. Raises UsageError for a kind that is not one of HEADS."""
    if kind not in HEADS:
        raise UsageError(f"there is no head named {kind!r}{nearest(kind, HEADS)}")
    return tuple(sorted(_class_of(kind).__dataclass_fields__))


def _class_of(kind: str) -> Any:
    from . import knn, logistic, ridge, trained

    return {
        RIDGE: ridge.RidgeHead,
        LOGISTIC: logistic.LogisticHead,
        LINEAR: trained.LinearHead,
        MLP: trained.MlpHead,
        KNN: knn.KnnHead,
    }[kind]


def checked_strengths(strengths: Sequence[float]) -> tuple[float, ...]:
    """As floats, rising. Raises UsageError unless there are some, all are positive and finite, and none comes twice."""
    if not isinstance(strengths, tuple) or not strengths:
        raise UsageError("a head needs at least one strength, such as strengths = [0.01, 1, 100]")
    for each in strengths:
        if isinstance(each, bool) or not isinstance(each, int | float) or not (math.isfinite(each) and each > 0):
            raise UsageError(f"strengths holds {each!r}, expected numbers above 0, such as [0.01, 1, 100]")
    if len(set(strengths)) != len(strengths):
        raise UsageError(f"strengths = {list(strengths)} holds one of them twice")
    return tuple(sorted(float(each) for each in strengths))
