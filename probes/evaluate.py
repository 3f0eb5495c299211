"""One trial: standardise on train, fit, choose the strength on validation, look at test once."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from .head import Fitted, Head
from .one_thread import one_thread
from .scaling import fit_scaling
from .splits import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one trial came to."""

    strength: float
    """The one with the best validation accuracy; of equals the strongest."""
    train_accuracy: float
    """Fraction."""
    validation_accuracy: float
    """Fraction, of the chosen strength: optimistic."""
    test_accuracy: float
    """Fraction."""
    chance: float
    """Test accuracy of always answering train's most frequent class (of equals the first)."""
    predictions: np.ndarray
    """int64 [test], in the order of `Partition.test`."""
    correct: np.ndarray
    """bool [test]: what `intervals.items_interval` takes."""
    num_features: int
    """Columns of x."""
    num_effective: int
    """Of these, neither constant on train nor equal to another but for scale, sign and offset."""
    notes: tuple[str, ...]
    """What a reader should know, such as that a fit has not converged."""
    seconds: float
    """Of standardising, fitting and scoring."""


class SealedLabels:
    """Labels that can be read once, and only after the choice that they must not influence."""

    def __init__(self, labels: np.ndarray) -> None:
        self._labels: np.ndarray | None = labels
        self._chosen = False

    def choose(self) -> None:
        """Says that nothing is left to choose."""
        self._chosen = True

    def read(self) -> np.ndarray:
        """The labels. Raises AssertionError before the choice, and the second time."""
        assert self._chosen, "test labels were asked for before the strength was chosen"
        assert self._labels is not None, "test labels were read twice"
        labels, self._labels = self._labels, None
        return labels


def run_trial(
    x_ND: np.ndarray | torch.Tensor, labels: np.ndarray, partition: Partition, head: Head, num_classes: int
) -> Outcome:
    """Fit and score `head` on rows of x (any floating dtype, any device) with labels int64 in [0, num_classes).

    The same input gives the same bits on the same machine and library versions: on a CPU everything runs on one
    thread, however many there are. Other machines and devices may round differently, which can move a prediction that
    lies on the border. Raises UsageError for features of train that are not finite, and when none varies on train.
    """
    assert labels.min() >= 0, "labels are numbered from 0"
    assert labels.max() < num_classes, "labels are below num_classes"
    started = time.perf_counter()
    x = torch.as_tensor(x_ND).detach()
    if x.device.type == "mps":  # it has no float64
        x = x.cpu()
    sealed = SealedLabels(labels[partition.test])
    y_train, y_validation = labels[partition.train], labels[partition.validation]
    with one_thread():
        x_train = _rows(x, partition.train)
        scaling = fit_scaling(x_train)
        x_train = scaling.apply(x_train)
        fitted = head.fit(x_train, y_train, num_classes)
        found = fitted.predict(scaling.apply(_rows(x, partition.validation)))
        index, validation_accuracy = _choice(found, y_validation)
        chosen: Fitted = fitted.at(index)
        sealed.choose()
        predictions = chosen.predict(scaling.apply(_rows(x, partition.test)))[0]
        train_accuracy = float((chosen.predict(x_train)[0] == y_train).mean())
    y_test = sealed.read()
    correct = predictions == y_test
    return Outcome(
        strength=head.strengths[index],
        train_accuracy=train_accuracy,
        validation_accuracy=validation_accuracy,
        test_accuracy=float(correct.mean()),
        chance=float((y_test == np.bincount(y_train).argmax()).mean()),
        predictions=predictions,
        correct=correct,
        num_features=scaling.num_features,
        num_effective=scaling.num_effective,
        notes=fitted.notes,
        seconds=time.perf_counter() - started,
    )


def shuffled_labels(labels: np.ndarray, partition: Partition, seed: int) -> np.ndarray:
    """Labels int64 [n] with those of train permuted, and those of validation; test keeps its own.

    Each side keeps its class counts. A head fitted on these can know nothing of test: what it scores there beyond
    chance is a leak.
    """
    chance = np.random.Generator(np.random.Philox(seed))
    shuffled = labels.copy()
    for side in (partition.train, partition.validation):
        shuffled[side] = chance.permutation(labels[side])
    return shuffled


def _rows(x_ND: torch.Tensor, positions: np.ndarray) -> torch.Tensor:
    return x_ND[torch.from_numpy(positions).to(x_ND.device)].to(torch.float64)


def _choice(found_SM: np.ndarray, y_M: np.ndarray) -> tuple[int, float]:
    """The best strength's index and accuracy; of equals the last, which regularises most."""
    num_right = (found_SM == y_M).sum(1)
    index = len(num_right) - 1 - int(num_right[::-1].argmax())
    return index, float(num_right[index] / len(y_M))
