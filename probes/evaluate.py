"""One trial: standardise on train, fit, choose the setting on validation, look at test once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from .heads.head import Fitted, Head
from .heads.problem import Problem
from .one_thread import one_thread
from .scaling import Scaling, fit_scaling
from .splits import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one trial came to."""

    setting: Mapping[str, float]
    """The candidate with the best validation accuracy (of equals the last), or that the head chose by itself."""
    train_accuracy: float
    """Fraction."""
    validation_accuracy: float
    """Fraction, of the chosen candidate: optimistic."""
    test_accuracy: float
    """Fraction."""
    chance: float
    """Test accuracy of always answering train's most frequent class (of equals the first)."""
    predictions: np.ndarray
    """int64 [test], in the order of `Partition.test`."""
    probabilities: np.ndarray | None
    """float32 [test, classes]; None for a head that gives none."""
    correct: np.ndarray
    """bool [test]: what `intervals.items_interval` takes."""
    num_features: int
    """Columns of x."""
    num_effective: int
    """Of these, neither constant on train nor equal to another but for scale, sign and offset."""
    samples_seen: int
    """As `Fitted.samples_seen`."""
    notes: tuple[str, ...]
    """What a reader should know, such as that a fit has not converged."""
    seconds: float
    """Of standardising, fitting (a share of it, where several were fitted together) and scoring."""


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
        assert self._chosen, "test labels were asked for before the choice"
        assert self._labels is not None, "test labels were read twice"
        labels, self._labels = self._labels, None
        return labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A trial that is ready to be fitted."""

    problem: Problem
    """Train and validation, standardised on train, float64."""
    scaling: Scaling
    """By what."""
    x_test_MD: torch.Tensor
    """As it came: not standardised yet."""
    sealed: SealedLabels
    """Those of test."""
    seconds: float
    """That this took."""


def prepare(
    x_ND: torch.Tensor,
    labels: np.ndarray,
    partition: Partition,
    num_classes: int,
    *,
    initialisation_seed: int = 0,
    order_seed: int = 0,
) -> Prepared:
    """Take train and validation of rows of x (any floating dtype, any device) with labels int64 in [0, num_classes).

    Raises UsageError for features of train that are not finite, and when none varies on train.
    """
    assert labels.min() >= 0, "labels are numbered from 0"
    assert labels.max() < num_classes, "labels are below num_classes"
    started = time.perf_counter()
    x = x_ND.detach()
    if x.device.type == "mps":  # it has no float64
        x = x.cpu()
    with one_thread():
        x_train = _rows(x, partition.train)
        scaling = fit_scaling(x_train)
        problem = Problem(
            x_train_ND=scaling.apply(x_train),
            y_train_N=labels[partition.train],
            x_validation_MD=scaling.apply(_rows(x, partition.validation)),
            y_validation_M=labels[partition.validation],
            num_classes=num_classes,
            initialisation_seed=initialisation_seed,
            order_seed=order_seed,
        )
    return Prepared(
        problem=problem,
        scaling=scaling,
        x_test_MD=_rows(x, partition.test),
        sealed=SealedLabels(labels[partition.test]),
        seconds=time.perf_counter() - started,
    )


def finish(prepared: Prepared, head: Head, fitted: Fitted, fit_seconds: float) -> Outcome:
    """Choose on validation, then answer and score test."""
    started = time.perf_counter()
    problem, scaling = prepared.problem, prepared.scaling
    with one_thread():
        index, validation_accuracy = _choice(fitted, problem)
        chosen = fitted.at(index)
        prepared.sealed.choose()
        x_test = scaling.apply(prepared.x_test_MD)
        predictions = chosen.predict(x_test)[0]
        probabilities = chosen.probabilities(x_test)
        train_accuracy = float((chosen.predict(problem.x_train_ND)[0] == problem.y_train_N).mean())
    y_test = prepared.sealed.read()
    correct = predictions == y_test
    return Outcome(
        setting=head.candidates[index],
        train_accuracy=train_accuracy,
        validation_accuracy=validation_accuracy,
        test_accuracy=float(correct.mean()),
        chance=float((y_test == np.bincount(problem.y_train_N).argmax()).mean()),
        predictions=predictions,
        probabilities=None if probabilities is None else probabilities[0],
        correct=correct,
        num_features=scaling.num_features,
        num_effective=scaling.num_effective,
        samples_seen=fitted.samples_seen,
        notes=fitted.notes,
        seconds=prepared.seconds + fit_seconds + time.perf_counter() - started,
    )


def run_trial(
    x_ND: np.ndarray | torch.Tensor,
    labels: np.ndarray,
    partition: Partition,
    head: Head,
    num_classes: int,
    *,
    initialisation_seed: int = 0,
    order_seed: int = 0,
) -> Outcome:
    """Fit and score `head` alone: `prepare`, `Head.fit` and `finish`.

    The same input gives the same bits on the same machine and library versions: on a CPU everything runs on one
    thread, however many there are. Other machines and devices may round differently, which can move a prediction that
    lies on the border. Raises UsageError for features of train that are not finite, and when none varies on train.
    """
    with one_thread():
        prepared = prepare(
            torch.as_tensor(x_ND),
            labels,
            partition,
            num_classes,
            initialisation_seed=initialisation_seed,
            order_seed=order_seed,
        )
        started = time.perf_counter()
        (fitted,) = head.fit([prepared.problem])
        return finish(prepared, head, fitted, time.perf_counter() - started)


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


def _choice(fitted: Fitted, problem: Problem) -> tuple[int, float]:
    """The candidate's index and its validation accuracy; of equals the last, which is the simplest."""
    found_SM = fitted.predict(problem.x_validation_MD)
    num_right = (found_SM == problem.y_validation_M).sum(1)
    index = len(num_right) - 1 - int(num_right[::-1].argmax()) if fitted.chosen is None else fitted.chosen
    return index, float(num_right[index] / len(problem.y_validation_M))
