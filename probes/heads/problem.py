"""What a head is fitted on: rows and labels of train and of validation, and nothing of test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fovcache.errors import UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """One trial's data. Axes: N rows of train, M of validation, D columns.

    Raises UsageError where train has one class, or fewer rows than there are classes: no head can tell them apart.
    """

    x_train_ND: torch.Tensor
    """Floating, finite, each column with mean 0 and standard deviation 1."""
    y_train_N: np.ndarray
    """int64, below `num_classes`."""
    x_validation_MD: torch.Tensor
    """By the same means and deviations; of the same dtype, on the same device."""
    y_validation_M: np.ndarray
    """int64, below `num_classes`."""
    num_classes: int
    """K, of all samples; train may lack one."""
    initialisation_seed: int = 0
    """Of a trained head's first weights and of its dropout."""
    order_seed: int = 0
    """Of the order in which a trained head sees its samples."""

    def __post_init__(self) -> None:
        assert len(self.x_train_ND) == len(self.y_train_N), "rows of train have a label each"
        assert len(self.x_validation_MD) == len(self.y_validation_M), "rows of validation have a label each"
        assert self.x_train_ND.shape[1] == self.x_validation_MD.shape[1], "train and validation have the same columns"
        num_rows, num_present = len(self.y_train_N), len(np.unique(self.y_train_N))
        if num_rows < self.num_classes:
            raise UsageError(
                f"train has {num_rows} samples, and there are {self.num_classes} classes: a head needs one of each at "
                "least; add samples, give train a larger share, or leave classes out"
            )
        if num_present < 2:
            raise UsageError(
                f"all {num_rows} samples of train are of one class: a head needs two or more to tell apart; add "
                "samples of other classes, or split by class"
            )
