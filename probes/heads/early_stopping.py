"""When a head that is trained stops, and when its steps become smaller: by its validation accuracy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

_THRESHOLD = 1e-4
"""An accuracy is better for the plateau if it is better by this share of itself, as torch has it."""

_SMALLEST = 1e-8
"""A rate is lowered by more than this or not at all, as torch has it."""


@dataclass(slots=True, kw_only=True)
class EarlyStopping:
    """Stops after `patience` epochs in a row without a better accuracy than the best so far."""

    patience: int
    """Epochs, at least 1."""
    best: float = -math.inf
    """Validation accuracy."""
    best_epoch: int = 0
    """That first had it; 0 before the first epoch."""
    epoch: int = 0
    """Epochs that it was told of."""

    def improves(self, accuracy: float) -> bool:
        """Take note of an epoch's accuracy: whether it is the best so far. An equal one is not."""
        self.epoch += 1
        if not accuracy > self.best:
            return False
        self.best, self.best_epoch = accuracy, self.epoch
        return True

    @property
    def is_over(self) -> bool:
        """Whether to stop."""
        return self.epoch - self.best_epoch >= self.patience


@dataclass(slots=True, kw_only=True)
class Plateau:
    """torch's ReduceLROnPlateau of mode "max" with its defaults: threshold 1e-4 of the best, no cooldown."""

    rate: float
    """Learning rate now."""
    factor: float
    """By which it is multiplied; 1 leaves it as it is."""
    patience: int
    """Epochs in a row without a better accuracy that it lets pass; the next one lowers the rate."""
    best: float = -math.inf
    """Validation accuracy."""
    num_bad: int = 0
    """Epochs in a row without a better one."""

    def step(self, accuracy: float) -> None:
        """Take note of an epoch's accuracy."""
        is_better = accuracy > self.best * (1 + _THRESHOLD)
        if is_better:
            self.best = accuracy
        self.num_bad = 0 if is_better else self.num_bad + 1
        if self.num_bad > self.patience:
            lower = self.rate * self.factor
            if self.rate - lower > _SMALLEST:
                self.rate = lower
            self.num_bad = 0
