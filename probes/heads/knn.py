"""k nearest neighbours: the class of most of the k rows of train that are nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from fovcache.errors import UsageError, nearest
from fovcache.keys.digest import Document

from ..one_thread import one_thread
from .head import KNN
from .problem import Problem

NEIGHBOURS = (1, 3, 5, 10, 20)
"""k."""
EUCLIDEAN, COSINE = "euclidean", "cosine"
METRICS = (EUCLIDEAN, COSINE)
_BLOCK_BYTES = {"cpu": 16 << 20, "cuda": 1 << 30, "mps": 256 << 20}
"""What the distances take that are in memory at a time; on a CPU more would leave its caches."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedKnn:
    """The rows of train."""

    neighbours: tuple[int, ...]
    """S, rising."""
    metric: str
    """One of METRICS."""
    x_ND: torch.Tensor
    """Rows that are searched; for `cosine` of length 1."""
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
        with one_thread():
            x = _normalised(x_MD.to(self.x_ND), self.metric)
            squares_N = self.x_ND.square().sum(1)
            num_rows = max(1, _BLOCK_BYTES[x.device.type] // (len(squares_N) * x.element_size()))
            blocks = [self._nearest(rows, squares_N) for rows in x.split(num_rows)]
        nearest_Mk = self.y_N[torch.cat(blocks).cpu().numpy()]
        votes = np.zeros((len(self.neighbours), len(x), self.num_classes), np.int64)
        for number, num in enumerate(self.neighbours):
            np.add.at(votes[number], (np.arange(len(x))[:, None], nearest_Mk[:, :num]), 1)
        return votes

    def _nearest(self, x_MD: torch.Tensor, squares_N: torch.Tensor) -> torch.Tensor:
        """int64 [M, k]: nearest first; of equally near ones the first of train."""
        most = self.neighbours[-1]
        # What all distances of a row have in common is left out: its own square.
        distances_MN = torch.addmm(squares_N, x_MD, self.x_ND.T, alpha=-2.0)
        found = distances_MN.topk(min(most + 1, len(squares_N)), dim=1, largest=False, sorted=True)
        indices_Mk = found.indices[:, :most]
        is_tied_M = (found.values.diff(dim=1) == 0).any(1)
        if is_tied_M.any():
            indices_Mk[is_tied_M] = distances_MN[is_tied_M].sort(dim=1, stable=True).indices[:, :most]
        return indices_Mk


@dataclass(frozen=True, slots=True, kw_only=True)
class KnnHead:
    """Votes of equal weight of the k nearest rows, all of them looked at, as scikit-learn's KNeighborsClassifier.

    It runs where its rows are, those on MPS excepted, which has no float64; on a CPU on one thread.
    """

    neighbours: tuple[int, ...] = NEIGHBOURS
    """k, rising."""
    metric: str = EUCLIDEAN
    """`euclidean`, or `cosine`: by angle."""

    def __post_init__(self) -> None:
        given = self.neighbours
        whole = isinstance(given, tuple) and all(
            isinstance(each, int) and not isinstance(each, bool) and each > 0 for each in given
        )
        if not given or not whole or len(set(given)) != len(given):
            shown = list(given) if isinstance(given, tuple) else given
            raise UsageError(f"neighbours = {shown!r}, expected different whole numbers above 0, such as [1, 5, 20]")
        if self.metric not in METRICS:
            raise UsageError(f"metric = {self.metric!r}{nearest(str(self.metric), METRICS)}")
        object.__setattr__(self, "neighbours", tuple(sorted(given)))

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

    def document(self) -> Document:
        """Its k, and what is near."""
        return {"name": self.name, "neighbours": list(self.neighbours), "metric": self.metric}

    def fit(self, problems: Sequence[Problem]) -> list[FittedKnn]:
        """Keep the rows. Raises UsageError for fewer of them than neighbours."""
        return [self.fit_rows(each.x_train_ND, each.y_train_N, each.num_classes) for each in problems]

    def fit_rows(self, x_ND: torch.Tensor, y_N: np.ndarray, num_classes: int) -> FittedKnn:
        """As `fit`, of rows of any mean and deviation."""
        if len(y_N) < self.neighbours[-1]:
            fitting = [each for each in self.neighbours if each <= len(y_N)] or [1]
            raise UsageError(
                f"neighbours = {list(self.neighbours)}, and train has {len(y_N)} samples: "
                f"ask for fewer, such as neighbours = {fitting}"
            )
        device = torch.device("cpu") if x_ND.device.type == "mps" else x_ND.device
        return FittedKnn(
            neighbours=self.neighbours,
            metric=self.metric,
            x_ND=_normalised(x_ND.to(device, torch.float64), self.metric),
            y_N=y_N,
            num_classes=num_classes,
        )


def _normalised(x_MD: torch.Tensor, metric: str) -> torch.Tensor:
    """Rows of length 1 for `cosine`; one of zeros stays, and is equally far from all."""
    if metric == EUCLIDEAN:
        return x_MD
    lengths = x_MD.norm(dim=1, keepdim=True)
    return x_MD / torch.where(lengths > 0, lengths, 1.0)
