"""k nearest neighbours: the class of most of the k rows of train that are nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fovcache.errors import UsageError
from fovcache.keys.digest import Document

from .head import KNN
from .problem import Problem

NEIGHBOURS = (1, 3, 5, 10, 20)
"""k."""
_BLOCK = 2048
"""Rows whose distances are in memory at a time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedKnn:
    """The rows of train."""

    neighbours: tuple[int, ...]
    """S, rising."""
    x_ND: torch.Tensor
    """Rows that are searched."""
    y_N: np.ndarray
    """Their classes."""
    num_classes: int
    """K."""

    @property
    def notes(self) -> tuple[str, ...]:
        """None."""
        return ()

    @property
    def chosen(self) -> None:
        """None: validation chooses."""

    @property
    def samples_seen(self) -> int:
        """0: nothing is trained."""
        return 0

    def at(self, index: int) -> FittedKnn:
        """The same with one of its k alone."""
        return replace(self, neighbours=(self.neighbours[index],))

    def predict(self, x_MD: torch.Tensor) -> np.ndarray:
        """int64 [S, M]: the class with the most votes; of equals the first, as scikit-learn has it."""
        return np.asarray(self._votes(x_MD).argmax(2))

    def probabilities(self, x_MD: torch.Tensor) -> np.ndarray:
        """float32 [S, M, K]: each class's share of the votes."""
        return np.asarray(self._votes(x_MD) / np.array(self.neighbours)[:, None, None], np.float32)

    def _votes(self, x_MD: torch.Tensor) -> np.ndarray:
        """int64 [S, M, K]."""
        nearest_Mk = torch.cat([self._nearest(rows) for rows in x_MD.split(_BLOCK)])
        one_hot = np.eye(self.num_classes, dtype=np.int64)[self.y_N[nearest_Mk.cpu().numpy()]]
        return np.stack([one_hot[:, :num].sum(1) for num in self.neighbours])

    def _nearest(self, x_MD: torch.Tensor) -> torch.Tensor:
        """int64 [M, k]: by Euclidean distance, nearest first."""
        most = min(max(self.neighbours), len(self.x_ND))
        return torch.cdist(x_MD.to(self.x_ND), self.x_ND).topk(most, dim=1, largest=False, sorted=True).indices


@dataclass(frozen=True, slots=True, kw_only=True)
class KnnHead:
    """Votes of equal weight of the k nearest rows by Euclidean distance."""

    neighbours: tuple[int, ...] = NEIGHBOURS
    """k, rising."""

    def __post_init__(self) -> None:
        whole = all(isinstance(each, int) and not isinstance(each, bool) and each > 0 for each in self.neighbours)
        if not self.neighbours or not whole or len(set(self.neighbours)) != len(self.neighbours):
            raise UsageError(f"neighbours = {list(self.neighbours)}, expected different whole numbers above 0")
        object.__setattr__(self, "neighbours", tuple(sorted(self.neighbours)))

    @property
    def name(self) -> str:
        """Of HEADS."""
        return KNN

    @property
    def candidates(self) -> tuple[Mapping[str, float], ...]:
        """One for each k."""
        return tuple({"neighbours": float(each)} for each in self.neighbours)

    @property
    def is_trained(self) -> bool:
        """False."""
        return False

    @property
    def runs_on_gpu(self) -> bool:
        """True."""
        return True

    def document(self) -> Document:
        """Its k."""
        return {"name": self.name, "neighbours": list(self.neighbours), "metric": "euclidean", "votes": "equal"}

    def fit(self, problems: Sequence[Problem]) -> list[FittedKnn]:
        """Keep the rows. Raises UsageError for fewer of them than neighbours."""
        return [self._fit(each) for each in problems]

    def _fit(self, problem: Problem) -> FittedKnn:
        if len(problem.y_train_N) < self.neighbours[-1]:
            raise UsageError(
                f"neighbours = {self.neighbours[-1]}, and train has {len(problem.y_train_N)} samples: ask for fewer"
            )
        return FittedKnn(
            neighbours=self.neighbours,
            x_ND=problem.x_train_ND,
            y_N=problem.y_train_N,
            num_classes=problem.num_classes,
        )
