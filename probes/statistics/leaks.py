"""Shuffled labels against chance: a head that was told nothing and yet knows something is a leak."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..result import SHUFFLED_LABELS, Trial
from .significance import holm
from .summary import of_cells

ALARM = 0.05
"""A corrected p below says that labels leak; in so large a share of ablations without a leak some does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffledCell:
    """Trials of one representation and experiment whose labels were shuffled."""

    representation: str
    """As in Trial."""
    experiment: str
    """As in Trial."""
    num_seeds: int
    """Trials, two at least."""
    excess: float
    """Mean of test accuracy less chance."""
    p: float
    """One-sided, of the hypothesis that they score at chance or below."""
    p_holm: float
    """Corrected for all such cells (Holm 1979)."""


def shuffled_cells(trials: Iterable[Trial], num_classes: int) -> tuple[ShuffledCell, ...]:
    """Each cell of shuffled labels with two seeds or more, tested by Student's t over seeds.

    Each seed shuffles anew. So, whatever the samples are and however splits overlap, its accuracy is an independent
    draw whose mean is chance at most, if nothing leaks: no correction for resplits is due.
    """
    cells = [cell for key, cell in of_cells(trials).items() if key[2] == SHUFFLED_LABELS and len(cell) > 1]
    found = [_excess(cell, num_classes) for cell in cells]
    corrected = holm([p for _, p in found])
    return tuple(
        ShuffledCell(
            representation=cell[0].representation,
            experiment=cell[0].experiment,
            num_seeds=len(cell),
            excess=excess,
            p=p,
            p_holm=p_holm,
        )
        for cell, (excess, p), p_holm in zip(cells, found, corrected, strict=True)
    )


def excess_p(off_S: np.ndarray, num_test: float) -> tuple[float, float]:
    """Mean of accuracies over chance, one a seed, and its one-sided p; accuracies are shares of `num_test` samples."""
    from scipy.stats import t

    rounding = 1 / np.sqrt(12) / num_test  # accuracies that seem equal differ by so much
    error = max(float(off_S.std(ddof=1)), rounding) / np.sqrt(len(off_S))
    mean = float(off_S.mean())
    return mean, float(t.sf(mean / error, len(off_S) - 1))


def _excess(cell: list[Trial], num_classes: int) -> tuple[float, float]:
    off_S = np.array([trial.test_accuracy - max(trial.chance, 1 / num_classes) for trial in cell])
    return excess_p(off_S, min(trial.num_test for trial in cell))
